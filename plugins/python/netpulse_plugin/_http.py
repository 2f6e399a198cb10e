"""As much of HTTP/1.1 as host and plugin speak: whole requests in, whole answers out."""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

#: A request may have so many bytes; beyond: 413.
MAX_REQUEST = 64 * 1024 * 1024
MAX_HEAD = 64 * 1024
#: Seconds from a request's first byte to the end of its head, and between two parts of its body.
HEAD_TIMEOUT = 15.0
BODY_TIMEOUT = 60.0

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 410: "Gone", 411: "Length Required",
    413: "Payload Too Large", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip


class Closed(Exception):
    """The other side is gone."""


class BadHttp(Exception):
    """What came is no request that we can answer and go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Request:
    """One request, read whole."""

    method: str
    path: str
    #: Names in lower case.
    headers: Dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


def encode(value: Any) -> bytes:
    """JSON bytes. Raises ``ValueError`` or ``TypeError`` for what is no JSON."""
    # Half of a surrogate pair (bytes that were no text) cannot be written in UTF-8.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


class Connection:
    """One connection of the host."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def read_request(self) -> Optional[Request]:
        """The next request; none when the other side closed between two. Waits without limit for
        the first byte. Raises :class:`BadHttp`, :class:`Closed`."""
        if not self._buffer:
            self.sock.settimeout(None)
            if not self._more():
                return None
        self.sock.settimeout(HEAD_TIMEOUT)
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise BadHttp(431, f"the request's head is longer than {MAX_HEAD} bytes")
            if not self._more():
                raise Closed()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadHttp(400, "this is no HTTP/1.1 request")
        headers: Dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadHttp(400, "a header of the request is malformed")
            headers[name.lower()] = value.strip()
        request = Request(parts[0], parts[1].partition("?")[0], headers)
        if "transfer-encoding" in headers:
            raise BadHttp(411, "send the request's length (Content-Length)")
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise BadHttp(400, "Content-Length is no number")
        if int(length) > MAX_REQUEST:
            raise BadHttp(413, f"the request has {length} bytes, at most {MAX_REQUEST} are taken")
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.sock.settimeout(BODY_TIMEOUT)
        while len(self._buffer) < int(length):
            if not self._more():
                raise Closed()
        request.body = bytes(self._buffer[: int(length)])
        del self._buffer[: int(length)]
        return request

    def _more(self) -> bool:
        try:
            got = self.sock.recv(256 * 1024)
        except (OSError, socket.timeout) as error:
            raise Closed(str(error)) from None
        self._buffer += got
        return bool(got)

    def wait(self, done: socket.socket) -> bool:
        """Waits until ``done`` becomes readable (true) or the other side hangs up (false)."""
        # Not `select`, which knows no file descriptors beyond 1023.
        poll = select.poll()
        poll.register(done, select.POLLIN)
        poll.register(self.sock, select.POLLIN)
        while True:
            if any(fd == done.fileno() for fd, _ in poll.poll()):
                return True
            try:
                if not self.sock.recv(1, socket.MSG_PEEK):
                    return False
            except OSError:
                return False
            # The next request came early: it waits its turn.
            poll.unregister(self.sock)

    def _send(self, data: bytes) -> None:
        self.sock.settimeout(BODY_TIMEOUT)
        try:
            self.sock.sendall(data)
        except (OSError, socket.timeout) as error:
            raise Closed(str(error)) from None

    @staticmethod
    def _head(status: int, headers: Dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}"]
        # A line break in a value would begin another header.
        lines += [f"{name}: {' '.join(value.split())}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def answer(self, status: int, body: bytes, headers: Dict[str, str], head_only: bool = False) -> None:
        """Writes one answer whole."""
        headers = {**headers, "Content-Length": str(len(body))}
        self._send(self._head(status, headers) + (b"" if head_only else body))

    def begin_stream(self, headers: Dict[str, str]) -> None:
        """Begins an answer whose lines are written one by one."""
        whole = {**headers, "Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
        self._send(self._head(200, whole))

    def stream_line(self, line: bytes) -> None:
        """Writes one line of the answer."""
        data = line + b"\n"
        self._send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """Ends the answer; without this it is half an answer, and taken for one."""
        self._send(b"0\r\n\r\n")

    def close(self) -> None:
        """Closes."""
        try:
            self.sock.close()
        except OSError:
            pass
