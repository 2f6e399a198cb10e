#!/usr/bin/env python3
"""A driver: devices with a REST API of their own. A command is a path to read (`/interfaces/1`), a
configuration line a change (`PUT /interfaces/1 {"enabled": false}`)."""

import base64
import http.client
import json
import re
import socket

from netpulse_plugin import BadRequest, DeviceError, Driver, Plugin, Rejected, Result, Session, current_call, run

LINE = re.compile(r"^(PUT|POST|PATCH|DELETE) (/\S*)(?: (.*))?$", re.S)


class RestSession(Session):
    def __init__(self, args):
        port = args.get("port") or 80
        self.http = http.client.HTTPConnection(args["host"], port, timeout=float(args.get("timeout") or 10))
        login = f"{args.get('username') or ''}:{args.get('password') or ''}"
        self.headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}

    def ask(self, method, path, body=None):
        """Status and body of an answer. Whatever goes wrong on the way has a code."""
        current_call().check()
        try:
            self.http.request(method, path, body, self.headers)
            answer = self.http.getresponse()
            text = answer.read().decode(errors="replace")
        except socket.timeout:
            self.usable = False
            raise DeviceError("read_timeout", f"{self.http.host}: no answer to {method} {path}")
        except (OSError, http.client.HTTPException) as error:
            self.http.close()
            raise DeviceError("session_lost", f"{self.http.host}: {error}")
        if answer.status in (401, 403):
            raise DeviceError("authentication_failed", f"{self.http.host} refused {method} {path}")
        return answer.status, text

    def command(self, command, work):
        status, text = self.ask("GET", command)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return Result(command, value, exit_status=0 if status < 400 else 1, stderr="" if status < 400 else str(status))

    def line(self, line, work):
        change = LINE.match(line)
        if not change:
            raise Rejected("a line should look like PUT /path {...}")
        status, text = self.ask(*change.groups())
        if status >= 400:
            raise Rejected(f"{status} {text[:200]}", text)
        return text

    def alive(self):
        return self.ask("GET", "/")[0] < 500

    def close(self, force):
        self.http.close()


class RestDevice(Driver):
    name = "rest_device"
    features = ("config", "keepalive")
    default_port = 80
    json_schema = {
        "connection_args": {
            "type": "object",
            "required": ["host"],
            "properties": {"host": {"type": "string"}, "timeout": {"type": "number", "exclusiveMinimum": 0}},
        }
    }
    examples = {"/driver/validate": {"request": {"connection_args": {"host": "192.0.2.1"}, "command": ["/"]}}}

    def validate(self, request):
        for path in request.get("command") or []:
            if not path.startswith("/"):
                raise BadRequest(f"command: {path!r} should be a path that begins with /")

    def connect(self, args, keepalive):
        session = RestSession(args)
        try:
            session.http.connect()
        except OSError as error:
            raise DeviceError("connect_failed", f"{session.http.host}: {error}")
        session.ask("GET", "/")
        return session

    def test(self, args):
        session = self.connect(args, None)
        session.close(False)
        return {"driver": self.name, "host": args["host"]}


run(
    Plugin(
        id="example.org/driver/rest_device/v1",
        version="0.1.0",
        description="Devices with a REST API of their own",
        provides=[RestDevice()],
    )
)
