"""Starts a plugin as NetPulse does, and calls it."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(HERE, "sample.py")
START = "0198c5d2-6f1e-7c40-9d5e-6b1f2a3c4d5e"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("plugin", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Running:
    """A started plugin."""

    def __init__(self, file=SAMPLE, form="server", kind="unix", **config):
        self.folder = tempfile.mkdtemp()
        self.socket = os.path.join(self.folder, "plugin.sock")
        given = {"id": "sample", "start": START, "type": kind, "location": self.socket, "config": {}}
        self.token = None
        if kind == "tcp":
            self.token = "a-token-of-this-start"
            with open(os.path.join(self.folder, "token"), "w") as token:
                token.write(self.token + "\n")
            given.update(location="127.0.0.1:0", tokenFile=os.path.join(self.folder, "token"))
        given.update(config)
        arguments = {"server": ["server"], "server-config": ["server", "--config"], "config": ["--config"]}[form]
        self.child = subprocess.Popen(
            [sys.executable, file, *arguments, json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.location = self.child.stdout.readline().strip()
        self.errors = []
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.child.stderr), daemon=True)
        self.reader.start()

    def connection(self, timeout=60):
        if self.location.startswith("http+unix://"):
            return UnixConnection(self.location[len("http+unix://") :], timeout)
        return http.client.HTTPConnection(self.location[len("http://") :], timeout=timeout)

    def headers(self, **more):
        headers = {"X-NetPulse-Plugin-Start": START, "X-NetPulse-Plugin-Request": "41"}
        if self.token:
            headers["X-NetPulse-Plugin-Token"] = self.token
        headers.update({name.replace("_", "-"): value for name, value in more.items() if value is not None})
        return headers

    def ask(self, path, body=None, method="POST", raw=None, headers=None):
        """Status, parsed body (or text), headers."""
        connection = self.connection()
        try:
            data = raw if raw is not None else (json.dumps(body or {}).encode() if method == "POST" else None)
            connection.request(method, path, data, self.headers() if headers is None else headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            if found.get("content-type", "").startswith("application/json"):
                return answer.status, json.loads(text) if text else None, found
            return answer.status, text, found
        finally:
            connection.close()

    def good(self, path, **body):
        status, answer, _ = self.ask(path, body)
        assert status == 200, (status, answer)
        return answer

    def lines(self, path, **body):
        """A connection whose answer comes line by line, and an iterator over the lines."""
        connection = self.connection()
        headers = self.headers(Accept="application/x-ndjson")
        connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        assert answer.status == 200, (answer.status, answer.read())
        return connection, (json.loads(line) for line in answer)

    def wait(self, seconds=8):
        return self.child.wait(seconds)

    def log(self):
        """The log, whole: after the end."""
        self.reader.join(5)
        return "".join(self.errors)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.reader.join(5)
        self.child.stdout.close()
        self.child.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def eventually(ready, seconds=10):
    """Waits for another process to do something that cannot be waited for otherwise."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
