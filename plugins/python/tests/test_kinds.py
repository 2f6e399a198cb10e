"""Each kind over the wire."""

import os
import unittest

from support import Running, eventually


class Kinds(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plugin = Running()
        cls.good = staticmethod(cls.plugin.good)
        cls.ask = staticmethod(cls.plugin.ask)

    @classmethod
    def tearDownClass(cls):
        cls.plugin.__exit__()

    def test_renderer_and_parser(self):
        body = {"name": "shout", "template": "hey", "context": {"a": 1}, "args": {"b": 2}, "extra": {"c": 3}}
        self.assertEqual(self.good("/template/render", **body)["text"], "hey {'a': 1} {'c': 3, 'b': 2} None")
        body = {"context": "one\ntwo", "origin": {"platform": "cisco_ios", "command": "show x"}, "template": None}
        self.assertEqual(
            self.good("/template/parse", **body), {"value": {"lines": ["one", "two"], "from": "cisco_ios"}}
        )

    def test_scheduler(self):
        nodes = [
            {"hostname": "full", "count": 5, "capacity": 5, "queue": "NodeQ_full"},
            {"hostname": "free", "count": 3, "capacity": 5, "queue": "NodeQ_free"},
        ]
        self.assertEqual(self.good("/scheduler/node_select", nodes=nodes, host="a"), {"node": "free"})
        many = self.good("/scheduler/batch_node_select", nodes=nodes, hosts=["a", "b", "c"])
        self.assertEqual(many, {"nodes": ["free", "free", None]})
        for path, what in (("node_select", {"host": "a"}), ("batch_node_select", {"hosts": ["a"]})):
            status, text, _ = self.ask(f"/scheduler/{path}", {"nodes": nodes[:1], **what})
            self.assertEqual((status, text), (503, "Insufficient capacity in node selection"))
        self.assertEqual(self.ask("/scheduler/node_select", {"nodes": [{}], "host": "a"})[0], 400)

    def test_webhook(self):
        body = {"request": {"url": "https://x"}, "job": {}, "result": {}, "payload": {}, "delivery": "d-1", "attempt": 1}
        status, text, _ = self.ask("/webhook/call", body)
        self.assertEqual((status, text), (503, "attempt 1 of d-1 did not arrive"))
        self.assertEqual(self.good("/webhook/call", **{**body, "attempt": 2}), {})
        self.assertEqual(self.good("/webhook/validate", request={"url": "https://x"}), {})
        self.assertEqual(self.ask("/webhook/validate", {"request": {}})[:2], (400, "`url` is missing"))

    def test_credential(self):
        get = "/credential/get"
        values = self.good(get, reference={"ref": "lab"}, connection_args={"host": "192.0.2.1"})["values"]
        self.assertEqual(values, {"username": "admin", "password": "hunter22hunter"})
        mapping = {"secret": "enable", "username": "username"}
        values = self.good(get, reference={"ref": "lab", "field_mapping": mapping})["values"]
        self.assertEqual(values, {"secret": "e1e2e3", "username": "admin"})
        mapping["password"] = "nowhere"
        status, text, _ = self.ask(get, {"reference": {"ref": "lab", "field_mapping": mapping}})
        self.assertEqual((status, text), (404, "lab: Missing required secret fields: nowhere"))
        self.assertEqual(self.ask(get, {"reference": {"ref": "x"}})[:2], (404, "there is no credential 'x'"))
        self.assertEqual(self.ask(get, {"reference": {}})[0], 400)
        self.assertEqual(self.good("/credential/validate"), {"success": True, "detail": {"server": "9.2"}})

    def test_provider_whole_and_item_by_item(self):
        whole = self.good("/provider/gather", name="whole")
        self.assertEqual(whole["details"], {"a": 1})
        listed = self.good("/provider/gather", name="numbers", settings={"count": 3})
        self.assertEqual((listed["details"], listed["result_name"]), ([0, 1, 2], "numbers"))
        connection, lines = self.plugin.lines("/provider/gather", name="numbers", settings={"count": 2})
        lines = list(lines)
        self.assertEqual(lines[:2], [{"item": 0}, {"item": 1}])
        self.assertEqual(lines[2]["done"]["relates_to"], "core")
        connection.close()
        self.assertEqual(self.ask("/provider/gather", {"name": "numbers", "settings": {}})[0], 500)
        connection, lines = self.plugin.lines("/provider/gather", name="numbers", settings={"count": 1, "lost": 1})
        self.assertEqual(
            list(lines), [{"item": 0}, {"error": {"status": 503, "message": "the other numbers are lost"}}]
        )
        connection.close()

    def test_pipeline_steps(self):
        results = [{"relates_to": "core", "result_name": name, "details": []} for name in "ba"]
        kept = self.good("/input/process", settings=None, results=results)["results"]
        self.assertEqual([result["result_name"] for result in kept], ["b", "a"])
        sorted_ = self.good("/assistant/process", settings={}, results=results)["results"]
        self.assertEqual([result["result_name"] for result in sorted_], ["a", "b"])
        self.assertEqual(self.good("/check/report", input=[1, -1])["details"], {"ok": False})
        self.assertEqual(self.ask("/check/report", {})[:2], (400, "there is no input to judge"))
        file = os.path.join(self.plugin.folder, "out")
        self.assertEqual(self.good("/output/process", settings={"file": file}, results=results), {})
        with open(file) as out:
            self.assertEqual(out.read(), "ba")
        self.assertEqual(self.ask("/output/process", {"results": [7]})[0], 400)


class Drivers(unittest.TestCase):
    def setUp(self):
        self.plugin = Running()
        self.addCleanup(self.plugin.__exit__)
        self.good = self.plugin.good

    def session(self, **args):
        return self.good("/driver/connect", name="toy", connection_args={"host": "sw1", **args}, keepalive=60)["session"]

    def change(self, session, *lines, **options):
        return self.good("/driver/config", session=session, lines=list(lines), options=options)

    def running(self, session):
        return self.good("/driver/send", session=session, commands=["running"])["results"][0]["stdout"]

    def test_commands_that_go_on_without_their_session(self):
        at = "/driver/detached/"
        session = self.session()
        launched = self.good(at + "launch", session=session, task_id="t1", command="tcpdump", driver_args={})["task"]
        self.assertEqual((launched["task_id"], launched["running"], launched["pid"]), ("t1", True, 4711))
        self.good("/driver/disconnect", session=session)
        session = self.session()
        told = self.good(at + "query", session=session, task_id="t1", offset=3)
        self.assertEqual((told["output"], told["next_offset"]), ("packets", 10))
        self.assertEqual([task["command"] for task in self.good(at + "list", session=session)["tasks"]], ["tcpdump"])
        self.assertEqual(self.plugin.ask(at + "query", {"session": session, "task_id": "t9"})[0], 404)
        self.assertEqual(self.plugin.ask(at + "launch", {"session": session, "task_id": "t9"})[0], 400)
        self.assertEqual(self.good(at + "kill", session=session, task_id="t1"), {"killed": True})
        self.assertEqual(self.good(at + "kill", session=session, task_id="t1"), {"killed": False})

    def test_commands_whole(self):
        session = self.session()
        answer = self.good("/driver/send", session=session, commands=["a", "b"], options={}, file_transfer=None)
        self.assertEqual([item["stdout"] for item in answer["results"]], ["a: done", "b: done"])
        self.assertEqual((answer["error"], answer["usable"]), (None, True))
        self.assertGreaterEqual(answer["results"][0]["metadata"]["duration_seconds"], 0)
        self.assertEqual(self.good("/driver/alive", session=session), {"alive": True})
        self.assertEqual(self.good("/driver/disconnect", session=session, force=False), {})
        self.assertEqual(self.good("/driver/disconnect", session=session), {})
        self.assertEqual(self.plugin.ask("/driver/send", {"session": session, "commands": ["a"]})[0], 410)

    def test_a_lost_session_is_of_no_use(self):
        answer = self.good("/driver/send", session=self.session(), commands=["a", "lost", "b"])
        self.assertEqual([item["exit_status"] for item in answer["results"]], [0, 1])
        self.assertEqual((answer["error"]["type"], answer["usable"]), ("session_lost", False))

    def test_test_and_validate(self):
        good = self.good("/driver/test", connection_args={"host": "sw1"})
        self.assertEqual((good["success"], good["info"]), (True, {"prompt": "sw1#"}))
        bad = self.good("/driver/test", connection_args={"password": "wrong"})
        self.assertEqual((bad["success"], bad["error_type"]), (False, "authentication_failed"))
        status, text, _ = self.plugin.ask("/driver/validate", {"request": {"connection_args": {}}})
        self.assertEqual((status, text), (400, "connection_args.host: Field required"))

    def test_promise_4_a_refused_line_stops_the_rest(self):
        session = self.session()
        answer = self.change(session, "a", "bad", "b")
        self.assertEqual(answer["outcome"], "partial")
        self.assertEqual(answer["error"]["type"], "line_rejected")
        self.assertIn("line 2 of 3 was rejected: `bad`: % Invalid input", answer["error"]["message"])
        self.assertEqual([item["exit_status"] for item in answer["results"]], [0, 1, 1])
        self.assertEqual(answer["results"][1]["stderr"], "Device reported configuration error: % Invalid input")
        self.assertEqual(
            answer["results"][2]["stderr"], "Skipped due to previous error in execution of 'bad'"
        )
        self.assertEqual(self.running(session), "a")
        self.assertEqual(self.change(session, "bad")["outcome"], "not_applied")

    def test_promise_4_a_candidate_is_discarded(self):
        session = self.session(candidate=True)
        answer = self.change(session, "a", "bad", "b")
        self.assertEqual(answer["outcome"], "not_applied")
        self.assertTrue(answer["results"][0]["metadata"]["discarded"])
        self.assertIn("discarded, nothing took effect", answer["error"]["message"])
        self.assertEqual(self.running(session), "")
        answer = self.change(session, "a", "poison")
        self.assertEqual((answer["outcome"], answer["error"]["type"]), ("not_applied", "commit_failed"))
        answer = self.change(session, "a", "b", save=True)
        self.assertEqual((answer["outcome"], answer["error"]), ("applied", None))
        self.assertEqual(answer["results"][1]["stdout"], "commit complete\n[OK]")
        self.assertEqual(self.running(session), "a\nb")

    def test_promise_5_outcomes_tell_the_truth(self):
        session = self.session()
        answer = self.change(session, "a", "silent", "b")
        self.assertEqual((answer["outcome"], answer["error"]["type"]), ("unknown", "read_timeout"))
        self.assertIn("line 2 of 3 was in flight", answer["error"]["message"])
        answer = self.change(session, "unsavable", save=True)
        self.assertEqual((answer["outcome"], answer["error"]["type"]), ("applied", "save_failed"))
        locked = self.session(locked=True)
        answer = self.change(locked, "a")
        self.assertEqual((answer["outcome"], answer["error"]["type"]), ("not_applied", "config_mode_failed"))
        self.assertTrue(answer["untouched"])

    def test_a_dry_run_shows_and_discards(self):
        session = self.session(candidate=True)
        answer = self.change(session, "a", "b", dry_run=True)
        self.assertEqual((answer["outcome"], answer["error"]), ("not_applied", None))
        self.assertEqual(answer["results"][1]["stdout"], "+a\n+b")
        self.assertEqual(self.running(session), "")

    def test_leave_is_waited_for_and_obeyed(self):
        session = self.session()
        body = {"session": session, "run": "r1", "lines": ["a", "b", "c"], "options": {}, "stream": True, "granted": 1}
        connection, lines = self.plugin.lines("/driver/config", **body)
        self.assertEqual(next(lines), {"sending": 0})
        self.assertEqual(next(lines)["result"]["command"], "a")
        self.assertEqual(next(lines), {"sending": 1})
        self.assertEqual(self.good("/driver/leave", run="r1", index=1, leave=True), {})
        self.assertEqual(next(lines)["result"]["exit_status"], 0)
        self.assertEqual(next(lines), {"sending": 2})
        self.good("/driver/leave", run="r1", index=2, leave=False)
        rest = list(lines)
        done = rest[-1]["done"]
        self.assertEqual((done["outcome"], done["error"]["type"]), ("partial", "canceled"))
        self.assertIn("stopped between line 2 and line 3", done["error"]["message"])
        self.assertEqual([item["exit_status"] for item in done["results"]], [0, 0, 1])
        self.assertEqual(len(rest), 1, "only announced lines are told")
        connection.close()
        self.assertEqual(self.running(session), "a\nb")
        self.assertEqual(self.plugin.ask("/driver/leave", {"run": "r1", "index": 0, "leave": True})[0], 404)

    def test_stop_now_interrupts_a_command_that_hangs(self):
        mark = os.path.join(self.plugin.folder, "mark")
        session = self.session(mark=mark)
        body = {"session": session, "run": "r2", "commands": ["hang", "b"], "stream": True, "granted": 2}
        connection, lines = self.plugin.lines("/driver/send", **body)
        self.assertEqual(next(lines), {"sending": 0})
        eventually(lambda: os.path.exists(mark))
        self.good("/driver/leave", run="r2", leave=False)
        rest = list(lines)
        self.assertEqual(len(rest), 2, rest)
        self.assertEqual((rest[1]["done"]["error"]["type"], rest[1]["done"]["usable"]), ("canceled", False))
        connection.close()

    def test_a_caller_that_hangs_up_sends_nothing_more(self):
        session = self.session()
        body = {"session": session, "run": "r3", "lines": ["a", "b"], "stream": True, "granted": 1}
        connection, lines = self.plugin.lines("/driver/config", **body)
        next(lines), next(lines), next(lines)
        connection.sock.close()
        lines.close()
        connection.close()
        # The session is free again once the run has ended.
        eventually(lambda: self.plugin.ask("/driver/send", {"session": session, "commands": ["x"]})[0] == 200)
        self.assertEqual(self.running(session), "a")

    def test_promise_12_a_session_keeps_its_secret_out_of_answers(self):
        session = self.session(password="bad")  # Too short to be masked.
        self.assertEqual(self.change(session, "bad")["outcome"], "not_applied")
        session = self.session(password="t0p-s3cret")
        answer = self.good("/driver/config", session=session, lines=["bad t0p-s3cret"])
        self.assertEqual(answer["outcome"], "applied")
        self.assertEqual(answer["results"][0]["command"], "bad t0p-s3cret", "the host masks what it shows")


if __name__ == "__main__":
    unittest.main()
