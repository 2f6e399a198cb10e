"""The life of a plugin: how it starts, answers and ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import unittest

from support import SAMPLE, START, Running, eventually


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


class Starting(unittest.TestCase):
    def test_capabilities_need_nothing(self):
        run = subprocess.run(
            [sys.executable, SAMPLE, "capabilities"], capture_output=True, text=True, env={}, cwd="/", timeout=10
        )
        said = json.loads(run.stdout)
        self.assertEqual(run.returncode, 0)
        self.assertEqual(said["contract"], "netpulse.plugin/v1")
        self.assertEqual(said["type"]["keep"], ["input", "output"])
        kinds = {entry["type"] for entry in said["capabilities"]}
        self.assertEqual(len(kinds), 11)
        toy = next(entry for entry in said["capabilities"] if entry["name"] == "toy")
        self.assertEqual(
            toy["features"], ["config", "save", "keepalive", "dry_run", "detached", "stream", "test", "validate"]
        )

    def test_all_three_forms_start_it_at_the_given_place(self):
        for form in ("server", "server-config", "config"):
            with self.subTest(form), Running(form=form) as plugin:
                self.assertEqual(plugin.location, f"http+unix://{plugin.socket}")
                status, body, headers = plugin.ask("/healthz", method="GET")
                self.assertEqual(
                    body,
                    {
                        "status": "ok",
                        "contract": "netpulse.plugin/v1",
                        "id": "netpulse.test/driver/toy/v1",
                        "version": "0.3.0",
                    },
                )
                self.assertEqual(stat.S_IMODE(os.stat(plugin.socket).st_mode), 0o600)

    def test_wrong_command_lines_are_refused_with_a_sentence(self):
        for arguments, word in (
            (["nonsense"], "not known"),
            (["server"], "one JSON configuration"),
            (["server", "{"], "no JSON"),
            (["server", "[]"], "JSON object"),
            (["server", '{"type": "pigeon"}'], "pigeon"),
            (["server", '{"type": "tcp", "location": "127.0.0.1:0"}'], "tokenFile"),
            (["server", '{"idleTimeout": "soon"}'], "no duration"),
            (["server", '{"location": "/nowhere/at/all.sock"}'], "cannot listen"),
        ):
            run = subprocess.run(
                [sys.executable, SAMPLE, *arguments], capture_output=True, text=True, timeout=10
            )
            self.assertEqual((run.returncode, run.stdout), (2, ""), arguments)
            self.assertIn(word, run.stderr)
            self.assertNotIn("Traceback", run.stderr)

    def test_tcp_is_loopback_only_and_wants_the_token(self):
        with Running(kind="tcp") as plugin:
            self.assertTrue(plugin.location.startswith("http://127.0.0.1:"), plugin.location)
            self.assertEqual(plugin.ask("/healthz", method="GET")[0], 200)
            for token in (None, "wrong", "a-token-of-this-star"):
                plugin.token = token
                for path, method in (("/healthz", "GET"), ("/shutdown", "POST"), ("/template/render", "POST")):
                    self.assertEqual(plugin.ask(path, method=method)[0], 401)
            self.assertIsNone(plugin.child.poll())

    def test_tcp_refuses_other_addresses(self):
        for place in ("0.0.0.0:0", "192.0.2.1:80", ":0x"):
            with Running(kind="tcp", location=place) as plugin:
                self.assertEqual((plugin.location, plugin.wait()), ("", 2))

    def test_a_socket_that_nobody_serves_is_replaced_and_one_in_use_is_not(self):
        with Running() as first:
            with Running(location=first.socket) as second:
                self.assertEqual((second.location, second.wait()), ("", 2))
                self.assertIn("another process listens", second.log())
            first.child.kill()
            first.wait()
            with Running(location=first.socket) as third:
                self.assertEqual(third.ask("/healthz", method="GET")[0], 200)


class Ending(unittest.TestCase):
    def assert_ends(self, plugin, within=6.0):
        began = time.monotonic()
        self.assertEqual(plugin.wait(within), 0)
        self.assertFalse(os.path.exists(plugin.socket))
        return time.monotonic() - began

    def test_shutdown_and_signals_end_it_and_remove_the_socket(self):
        with Running() as plugin:
            self.assertEqual(plugin.ask("/shutdown")[:2], (200, {}))
            self.assert_ends(plugin)
        for number in (signal.SIGTERM, signal.SIGINT):
            with Running() as plugin:
                plugin.child.send_signal(number)
                self.assert_ends(plugin)

    def test_running_calls_may_end_but_not_hold_it(self):
        with Running() as plugin:
            connection = plugin.connection()
            body = {"name": "shout", "template": "nap", "context": {"seconds": 0.5}}
            connection.request("POST", "/template/render", json.dumps(body), plugin.headers())
            status, _, _ = plugin.ask("/shutdown")
            self.assertEqual(status, 200)
            self.assertEqual(connection.getresponse().status, 200)
            self.assert_ends(plugin)
        with Running() as plugin:
            connection = plugin.connection()
            body["context"]["seconds"] = 60
            connection.request("POST", "/template/render", json.dumps(body), plugin.headers())
            eventually(lambda: plugin.ask("/healthz", method="GET")[0] == 200)
            plugin.child.terminate()
            self.assertLess(self.assert_ends(plugin), 5.0)

    def test_sessions_are_closed_at_the_end(self):
        with Running() as plugin:
            mark = os.path.join(plugin.folder, "mark")
            plugin.good("/driver/connect", connection_args={"host": "sw1", "mark": mark})
            plugin.child.terminate()
            self.assert_ends(plugin)
            with open(mark) as file:
                self.assertEqual(file.read(), "closed force=True")

    def test_idle_exit_counts_from_the_last_work(self):
        with Running(idleTimeout="1s") as plugin:
            for _ in range(3):
                time.sleep(0.4)
                plugin.good("/template/parse", context="a")
            body = {"name": "shout", "template": "nap", "context": {"seconds": 1.5}}
            plugin.good("/template/render", **body)
            self.assertLess(self.assert_ends(plugin), 3.0)

    def test_an_open_session_is_work_and_health_is_not(self):
        with Running(idleTimeout=500_000_000) as plugin:
            session = plugin.good("/driver/connect", connection_args={"host": "sw1"})["session"]
            time.sleep(1.0)
            self.assertIsNone(plugin.child.poll())
            plugin.good("/driver/disconnect", session=session)
            began = time.monotonic()
            while plugin.child.poll() is None and time.monotonic() - began < 5:
                try:
                    plugin.ask("/healthz", method="GET")
                except OSError:
                    break
                time.sleep(0.05)
            self.assert_ends(plugin)

    @unittest.skipUnless(hasattr(os, "pidfd_open"), "the system cannot tell")
    def test_it_dies_with_its_host(self):
        with Running() as helper:  # For its folder alone.
            place = os.path.join(helper.folder, "orphan.sock")
            code = (
                "import subprocess, sys, os\n"
                f"c = subprocess.Popen([{sys.executable!r}, {SAMPLE!r}, 'server', {json.dumps(json.dumps({'location': place}))}],"
                " stdout=subprocess.PIPE)\n"
                "c.stdout.readline(); print(c.pid, flush=True); os.kill(os.getpid(), 9)\n"
            )
            host = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
            self.assertEqual(host.returncode, -9, host.stderr)
            eventually(lambda: not os.path.exists(place))


class Calling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plugin = Running()

    @classmethod
    def tearDownClass(cls):
        cls.plugin.__exit__()

    def test_every_answer_carries_start_and_request(self):
        for path, method, body in (
            ("/healthz", "GET", None),
            ("/healthz", "POST", None),
            ("/nowhere", "POST", {}),
            ("/template/parse", "POST", {"context": "a"}),
            ("/template/parse", "POST", {"context": 7}),
            ("/template/render", "POST", {"template": "boom"}),
        ):
            _, _, headers = self.plugin.ask(path, body, method)
            self.assertEqual(headers["x-netpulse-plugin-start"], START, (path, method))
            self.assertEqual(headers["x-netpulse-plugin-request"], "41", (path, method))

    def test_methods_paths_and_other_starts(self):
        ask = self.plugin.ask
        self.assertEqual(ask("/healthz", method="HEAD")[:2], (200, None))
        self.assertEqual(ask("/healthz", {}, "POST")[0], 405)
        self.assertEqual(ask("/template/parse", method="GET")[0], 405)
        self.assertEqual(ask("/nowhere", {})[0], 404)
        headers = {"X-NetPulse-Plugin-Start": "another", "X-NetPulse-Plugin-Request": "1"}
        self.assertEqual(ask("/template/parse", {"context": "a"}, headers=headers)[0], 409)

    def test_bodies_that_are_wrong_get_a_sentence(self):
        for raw, word in ((b"{", "no JSON"), (b"[1]", "JSON object"), (b"\xff\xfe", "no JSON"), (b"[" * 100000, "no JSON")):
            status, text, _ = self.plugin.ask("/template/parse", raw=raw)
            self.assertEqual(status, 400)
            self.assertIn(word, text)
        status, text, _ = self.plugin.ask("/template/parse", {"name": "lines"})
        self.assertEqual((status, text), (400, "`context` is missing"))
        status, text, _ = self.plugin.ask("/template/parse", {"name": "nope", "context": ""})
        self.assertEqual((status, text), (404, "no templateParser 'nope' here: there are lines"))
        status, text, _ = self.plugin.ask("/provider/gather", {"settings": {}})
        self.assertEqual((status, text), (400, "`name` is missing: there are numbers, whole"))

    def test_a_defect_is_500_and_the_plugin_goes_on(self):
        status, text, headers = self.plugin.ask("/template/render", {"template": "boom"})
        self.assertEqual((status, text), (500, "ValueError: no such thing"))
        self.assertTrue(headers["content-type"].startswith("text/plain"))
        self.assertEqual(self.plugin.ask("/template/render", {"template": "odd"})[0], 500)
        for template, word in (("nan", "no JSON"), ("big", "at most 2000000")):
            status, text, _ = self.plugin.ask("/template/parse", {"template": template, "context": ""})
            self.assertEqual(status, 500)
            self.assertIn(word, text)
        answer = self.plugin.good("/template/parse", template="surrogate", context="")
        self.assertEqual(answer, {"value": "bad ? byte"})
        self.assertEqual(self.plugin.ask("/healthz", method="GET")[0], 200)

    def test_one_connection_serves_many_calls(self):
        connection = self.plugin.connection()
        for number in range(20):
            headers = {**self.plugin.headers(), "X-NetPulse-Plugin-Request": str(number)}
            connection.request("POST", "/template/parse", json.dumps({"context": str(number)}), headers)
            answer = connection.getresponse()
            self.assertEqual(json.load(answer)["value"]["lines"], [str(number)])
            self.assertEqual(answer.getheader("x-netpulse-plugin-request"), str(number))
        connection.close()

    def test_a_request_byte_by_byte_and_one_that_lies_about_its_length(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.plugin.socket)
        sock.settimeout(10)
        for byte in b'POST /template/parse HTTP/1.1\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n{"context":"a"}':
            sock.send(bytes([byte]))
        got = b""
        while b"lines" not in got:
            got += sock.recv(4096)
        self.assertTrue(got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), got)
        sock.close()
        for head, status in (
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
            (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nA: " + b"b" * 70000, b"431"),
        ):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.plugin.socket)
            sock.settimeout(10)
            sock.sendall(head)
            self.assertEqual(sock.recv(4096).split(b" ")[1], status, head[:60])
            sock.close()

    def test_a_caller_that_hangs_up_or_runs_out_of_time_cancels(self):
        mark = os.path.join(self.plugin.folder, "canceled")
        connection = self.plugin.connection()
        body = {"template": "sleep", "context": {"mark": mark}}
        connection.request("POST", "/template/render", json.dumps(body), self.plugin.headers())
        self.assertEqual(self.plugin.ask("/healthz", method="GET")[0], 200)
        connection.close()
        eventually(lambda: read(mark) == "canceled")
        body["context"]["mark"] = mark + "2"
        headers = self.plugin.headers(X_NetPulse_Plugin_Timeout="0.3")
        status, text, _ = self.plugin.ask("/template/render", body, headers=headers)
        self.assertEqual((status, text), (503, "the time of this call is up"))
        eventually(lambda: read(mark + "2") == "time")

    def test_more_calls_than_it_takes_wait_and_then_are_refused(self):
        waiting = []
        for _ in range(3):
            connection = self.plugin.connection()
            body = {"template": "nap", "context": {"seconds": 1.2}}
            connection.request("POST", "/template/render", json.dumps(body), self.plugin.headers())
            waiting.append(connection)
        time.sleep(0.3)
        headers = self.plugin.headers(X_NetPulse_Plugin_Timeout="0.2")
        status, text, _ = self.plugin.ask("/template/parse", {"context": "a"}, headers=headers)
        self.assertEqual(status, 503)
        self.assertIn("3 calls are running", text)
        self.assertEqual(self.plugin.good("/template/parse", context="late")["value"]["lines"], ["late"])
        self.assertEqual([c.getresponse().status for c in waiting], [200] * 3)
        for connection in waiting:
            connection.close()


class Configuring(unittest.TestCase):
    def test_settings_arrive_and_wrong_ones_are_refused(self):
        with Running() as plugin:
            self.assertEqual(plugin.ask("/configure", {"config": {"mood": "glad"}})[:2], (200, {}))
            self.assertIn("glad", plugin.good("/template/render", template="a")["text"])
            status, text, _ = plugin.ask("/configure", {"config": {"refuse": True}})
            self.assertEqual((status, text), (400, "the setting `url` is missing"))

    def test_without_settings_it_works(self):
        with Running() as plugin:
            self.assertIn("None", plugin.good("/template/render", template="a")["text"])


class Logging(unittest.TestCase):
    def test_promise_12_logs_are_json_and_hold_no_secret(self):
        with Running() as plugin:
            plugin.good("/template/render", template="log", context={"password": "s3cr3t-value"})
            status, text, headers = plugin.ask("/driver/connect", {"connection_args": {"password": "wrong"}})
            self.assertEqual(status, 403)
            self.assertEqual(headers["x-netpulse-plugin-error"], "authentication_failed")
            self.assertEqual(text, "sw1 refused ******")
            plugin.good("/credential/get", reference={"ref": "lab"})
            plugin.child.terminate()
            plugin.wait()
            log = plugin.log()
        lines = [json.loads(line) for line in log.splitlines()]
        self.assertNotIn("s3cr3t", log)
        self.assertNotIn("t0ken", log)
        warning = next(line for line in lines if line["level"] == "warn")
        self.assertEqual((warning["msg"], warning["device"]), ("the password is ******", "sw1"))
        self.assertTrue(warning["time"].endswith("Z"))
        self.assertIn("printed ******", [line["msg"] for line in lines])


if __name__ == "__main__":
    unittest.main()
