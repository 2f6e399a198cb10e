#!/usr/bin/env python3
"""A plugin of every kind, for the kit's own tests."""

import logging
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import netpulse_plugin as np  # noqa: E402

SETTINGS = {}


def configure(settings):
    if settings.get("refuse"):
        raise np.BadRequest("the setting `url` is missing")
    SETTINGS.update(settings)


class Shout(np.Renderer):
    name = "shout"
    examples = {"/template/render": {"template": "a", "context": {}}}

    def render(self, template, context, args):
        if template == "boom":
            raise ValueError("no such thing")
        if template == "odd":
            return 7
        if template == "log":
            logging.warning("the password is %s", context["password"], extra={"device": "sw1", "token": "t0ken"})
            print("printed", context["password"])
        if template == "sleep":
            call = np.current_call()
            call.canceled.wait(call.remaining(30))
            with open(context["mark"], "w") as file:
                file.write("canceled" if call.canceled.is_set() else "time")
            call.check()
        if template == "nap":
            time.sleep(context["seconds"])
        return f"{template} {context} {args} {SETTINGS.get('mood')}"


class Lines(np.Parser):
    name = "lines"

    def parse(self, template, text, args, origin):
        if template == "nan":
            return float("nan")
        if template == "big":
            return "x" * 3_000_000
        if template == "surrogate":
            return "bad \udcff byte"
        return {"lines": text.split("\n"), "from": origin and origin.platform}


class First(np.Scheduler):
    name = "first"

    def select(self, nodes, host):
        return next((node.hostname for node in nodes if node.free), None)


class Hook(np.Webhook):
    name = "hook"

    def validate(self, request):
        if "url" not in request:
            raise np.BadRequest("`url` is missing")

    def call(self, delivery):
        if delivery.attempt < 2:
            raise np.Unavailable(f"attempt {delivery.attempt} of {delivery.delivery} did not arrive")


class Static(np.CredentialProvider):
    name = "static"

    def fetch(self, reference, connection_args):
        if reference.ref != "lab":
            raise np.NotFound(f"there is no credential {reference.ref!r}")
        logging.info("gave away %s", "hunter22hunter")
        return {"username": "admin", "password": "hunter22hunter", "enable": "e1e2e3"}

    def check(self):
        return {"server": "9.2"}


class Numbers(np.Provider):
    name = "numbers"

    def gather(self, settings):
        for number in range(settings["count"]):
            yield number
        if settings.get("lost"):
            raise np.Unavailable("the other numbers are lost")
        return np.PipelineResult("core", "numbers", "some numbers")


class Whole(np.Provider):
    name = "whole"

    def gather(self, settings):
        return np.PipelineResult("core", "whole", "all", {"a": 1}, "a is 1")


class Pass(np.Input):
    name = "keep"

    def process(self, settings, results):
        return results


class Sort(np.Assistant):
    name = "sort"

    def process(self, settings, results):
        return sorted(results, key=lambda result: result.result_name)


class Positive(np.Check):
    name = "positive"

    def report(self, settings, input):
        if input is None:
            raise np.BadRequest("there is no input to judge")
        return np.PipelineResult("core", "positive", "all positive", {"ok": all(n > 0 for n in input)})


class Keep(np.Output):
    name = "keep"

    def send(self, settings, results):
        with open(settings["file"], "w") as file:
            file.writelines(result.result_name for result in results)


#: What was launched, whoever launched it.
TASKS = {}


class ToySession(np.Session):
    """A device in memory; its lines go into `running`."""

    def __init__(self, args):
        self.args = args
        self.candidate = bool(args.get("candidate"))
        self.running, self.pending, self.journal = [], [], []
        self.hung = threading.Event()

    def command(self, command, work):
        self.journal.append(command)
        if command == "hang":
            with open(self.args["mark"], "w") as file:
                file.write("hangs")
            self.hung.wait(30)
            raise np.DeviceError("read_timeout", "interrupted", "partial")
        if command == "lost":
            raise np.DeviceError("session_lost", "sw1: the session was lost")
        if command == "journal":
            return np.Result(command, list(self.journal))
        if command == "running":
            return "\n".join(self.running)
        return f"{command}: done"

    def launch(self, task_id, command, work):
        TASKS[task_id] = np.Task(task_id, command, pid=4711)
        return TASKS[task_id]

    def query(self, task_id, offset):
        if task_id not in TASKS:
            raise np.NotFound(f"there is no task {task_id!r}")
        log = "12 packets"
        return TASKS[task_id], log[offset:], len(log)

    def kill(self, task_id):
        return TASKS.pop(task_id, None) is not None

    def tasks(self):
        return list(TASKS.values())

    def enter_config(self, work):
        if self.args.get("locked"):
            raise np.Rejected("locked by somebody")

    def line(self, line, work):
        if line == "bad":
            raise np.Rejected("% Invalid input", "   ^\n% Invalid input")
        if line == "silent":
            raise np.DeviceError("read_timeout", "sw1: no prompt")
        (self.pending if self.candidate else self.running).append(line)
        return ""

    def compare(self, work):
        return "".join(f"+{line}\n" for line in self.pending)

    def commit(self, work):
        if "poison" in self.pending:
            raise np.Rejected("cannot commit", "error: cannot commit")
        self.running += self.pending
        self.pending = []
        return "commit complete"

    def discard(self, work):
        self.pending = []

    def save(self, work):
        if "unsavable" in self.running:
            raise np.DeviceError("read_timeout", "sw1: no answer to write")
        return "[OK]"

    def interrupt(self):
        self.hung.set()

    def close(self, force):
        if self.args.get("mark"):
            with open(self.args["mark"], "w") as file:
                file.write(f"closed force={force}")


class Toy(np.Driver):
    name = "toy"
    features = ("config", "save", "keepalive", "dry_run", "detached")
    examples = {"/driver/detached/launch": {"command": "tcpdump"}}

    def connect(self, args, keepalive):
        if args.get("password") == "wrong":
            raise np.DeviceError("authentication_failed", f"sw1 refused {args['password']}")
        return ToySession(args)

    def test(self, args):
        self.connect(args, None)
        return {"prompt": "sw1#"}

    def validate(self, request):
        if "host" not in request["connection_args"]:
            raise np.BadRequest("connection_args.host: Field required")


if __name__ == "__main__":
    np.run(
        np.Plugin(
            id="netpulse.test/driver/toy/v1",
            version="0.3.0",
            description="Everything at once",
            provides=[
                Shout(), Lines(), First(), Hook(), Static(), Numbers(), Whole(), Pass(), Sort(), Positive(), Keep(), Toy(),
            ],  # fmt: skip
            configure=configure,
            max_calls=3,
            max_answer=2_000_000,
        )
    )
