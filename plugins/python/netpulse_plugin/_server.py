"""The life of a plugin's process: it listens, answers calls, and ends when it should."""

from __future__ import annotations

import contextvars
import hmac
import json
import logging
import os
import selectors
import signal
import socket
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional, Union

from . import _calls
from ._calls import Call, Gone
from ._errors import BadRequest, PluginError
from ._http import BadHttp, Closed, Connection, Request, encode
from ._log import MASKER, secrets_in
from ._start import Start, StartError

log = logging.getLogger("netpulse_plugin")

#: What a handler gives: an object, or lines whose last is ``{"done": ...}``.
Answer = Union[Dict[str, Any], Iterator[Dict[str, Any]]]
Handler = Callable[[Dict[str, Any]], Answer]

#: Who started this process, as seen at its beginning.
_PARENT = os.getppid()

#: Seconds that running calls have when the plugin is told to end.
GRACE = 3.0
#: Seconds that closing sessions may take after that.
CLOSING = 1.5


class Route:
    """A handler and how it is called."""

    def __init__(self, handler: Handler, inline: bool = False, work: bool = True) -> None:
        self.handler = handler
        #: Never waits for a free slot: others wait for what it says.
        self.inline = inline
        #: Counts as work, which holds the idle exit off.
        self.work = work


class Server:
    """Serves ``routes`` until it is told to end, is idle for too long, or loses its host."""

    def __init__(
        self,
        start: Start,
        identity: Dict[str, str],
        routes: Dict[str, Route],
        max_calls: int,
        max_answer: int,
        busy: Callable[[], bool],
        close: Callable[[], None],
    ) -> None:
        self._start = start
        self._identity = identity
        self._routes = routes
        self._slots = threading.BoundedSemaphore(max_calls)
        self._max_connections = 2 * max_calls + 64
        self._max_calls = max_calls
        self._max_answer = max_answer
        self._has_sessions = busy
        self._close = close
        self._lock = threading.Lock()
        self._connections: Dict[int, Connection] = {}
        self._running: Dict[int, Call] = {}
        self._quiet = threading.Condition(self._lock)
        self._last_work = time.monotonic()
        self._stopping = False
        self._why = ""
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._socket_path: Optional[str] = None
        self._own_folder: Optional[str] = None

    # --- life ---------------------------------------------------------------------------------

    def run(self, say: Callable[[str], None]) -> int:
        """Listens, says where, and serves to the end; the exit status."""
        # A thread's stack counts against the host's bound of memory, used or not. Python 3.13 needs
        # more than 1 MiB to refuse what is nested too deep instead of crashing.
        threading.stack_size(2 * 1024 * 1024)
        host = self._watch_host()
        listener = self._listen()
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: self._signaled(number))
        say(self._location(listener))
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ, "accept")
        selector.register(self._wake_read, selectors.EVENT_READ, "wake")
        if host is not None:
            selector.register(host, selectors.EVENT_READ, "host")
        listener.setblocking(False)
        while not self._stopping:
            events = selector.select(self._idle_left())
            for key, _ in events:
                if key.data == "accept":
                    self._accept(listener)
                elif key.data == "wake":
                    self._wake_read.recv(4096)
                else:
                    self.stop("the host is gone")
            if not events and self._idle_left() == 0:
                self.stop("nothing to do")
        listener.close()
        return self._end()

    def stop(self, why: str) -> None:
        """Tells the plugin to end."""
        self._why = self._why or why
        self._stopping = True
        self._wake()

    def work_changed(self) -> None:
        """A session was opened or closed: the idle time begins anew."""
        self._last_work = time.monotonic()
        self._wake()

    def _signaled(self, number: int) -> None:
        # Called between two byte codes of the main thread, so it only sets flags; the wakeup
        # descriptor ends the wait.
        self._why = self._why or signal.Signals(number).name
        self._stopping = True

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"w")
        except OSError:
            pass  # Full: it is about to wake up anyway.

    def _idle_left(self) -> Optional[float]:
        if self._start.idle_timeout is None:
            return None
        with self._lock:
            working = bool(self._running)
        if working or self._has_sessions():
            return None
        return max(0.0, self._last_work + self._start.idle_timeout - time.monotonic())

    @staticmethod
    def _watch_host() -> Optional[int]:
        """Something that becomes readable when the process that started this one ends."""
        opener = getattr(os, "pidfd_open", None)
        if opener is None:
            return None
        try:
            watched: int = opener(_PARENT)
        except OSError:
            watched = -1
        if os.getppid() != _PARENT:
            # It ended before it could be watched; its number may be somebody else's by now.
            raise StartError("the process that started this plugin is gone")
        return watched if watched >= 0 else None

    def _listen(self) -> socket.socket:
        if self._start.type == "tcp":
            host, port = self._start.address()
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            where: Any = (host, port)
        else:
            path = self._start.location
            if not path:
                # An older host leaves the place to the plugin: a folder that nobody else enters.
                self._own_folder = tempfile.mkdtemp(prefix="netpulse-plugin-")
                path = os.path.join(self._own_folder, "plugin.sock")
            self._free(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            where = path
        mask = os.umask(0o177)
        try:
            listener.bind(where)
            listener.listen(256)
        except OSError as error:
            raise StartError(f"cannot listen on {self._start.location or where}: {error}") from None
        finally:
            os.umask(mask)
        if self._start.type == "unix":
            self._socket_path = where
        return listener

    @staticmethod
    def _free(path: str) -> None:
        """Removes a socket that nobody listens on any more."""
        if not os.path.exists(path):
            return
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        probe.settimeout(2)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise StartError(f"{path} is in the way: {error}") from None
        finally:
            probe.close()
        raise StartError(f"another process listens on {path}")

    def _location(self, listener: socket.socket) -> str:
        if self._start.type == "unix":
            return f"http+unix://{self._socket_path}"
        host, port = listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setblocking(True)
        connection = Connection(sock)
        with self._lock:
            room = len(self._connections) < self._max_connections
            if room:
                self._connections[id(connection)] = connection
        if not room:
            self._turn_away(connection, f"{self._max_connections} connections are open: no more are taken")
            return
        try:
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._connections.pop(id(connection), None)
            self._turn_away(connection, str(error))

    @staticmethod
    def _turn_away(connection: Connection, why: str) -> None:
        connection.sock.settimeout(1)
        try:
            connection.answer(503, why.encode(), {"Content-Type": "text/plain", "Connection": "close"})
        except Closed:
            pass
        connection.close()

    def _end(self) -> int:
        log.info("ending: %s", self._why)
        deadline = time.monotonic() + GRACE
        with self._quiet:
            while self._running and time.monotonic() < deadline:
                self._quiet.wait(deadline - time.monotonic())
            left = list(self._running.values())
        for call in left:
            call.cancel()
        closer = threading.Thread(target=self._close, daemon=True)
        closer.start()
        closer.join(CLOSING)
        if closer.is_alive():
            log.warning("sessions did not close in time")
        if self._socket_path:
            try:
                os.unlink(self._socket_path)
                if self._own_folder:
                    os.rmdir(self._own_folder)
            except OSError:
                pass
        return 0

    # --- one connection -----------------------------------------------------------------------

    def _serve(self, connection: Connection) -> None:
        try:
            while not self._stopping:
                request = connection.read_request()
                if request is None or not self._one(connection, request) or not request.keep_alive:
                    return
        except BadHttp as error:
            try:
                headers = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"}
                connection.answer(error.status, str(error).encode(), {**self._echo({}), **headers})
            except Closed:
                pass
        except Closed:
            pass
        finally:
            with self._lock:
                self._connections.pop(id(connection), None)
            connection.close()

    def _echo(self, headers: Dict[str, str]) -> Dict[str, str]:
        start = self._start.start or headers.get("x-netpulse-plugin-start", "")
        return {
            "X-NetPulse-Plugin-Start": start,
            "X-NetPulse-Plugin-Request": headers.get("x-netpulse-plugin-request", ""),
        }

    def _refusal(self, request: Request) -> Optional["tuple[int, str]"]:
        """Why a request is not even looked at."""
        token = self._start.token
        given = request.headers.get("x-netpulse-plugin-token", "")
        if token is not None and not hmac.compare_digest(token.encode(), given.encode("latin-1")):
            return 401, "the token of this start is missing or wrong"
        start = request.headers.get("x-netpulse-plugin-start")
        if start and self._start.start and start != self._start.start:
            return 409, f"this is start {self._start.start}, not {start}"
        if request.path == "/healthz":
            return None if request.method in ("GET", "HEAD") else (405, "GET and HEAD only")
        if request.path != "/shutdown" and request.path not in self._routes:
            return 404, f"there is no {request.path} here"
        return None if request.method == "POST" else (405, "POST only")

    def _one(self, connection: Connection, request: Request) -> bool:
        """Answers one request; false when the connection is of no more use."""
        echo = self._echo(request.headers)
        text = {**echo, "Content-Type": "text/plain; charset=utf-8"}
        json_type = {**echo, "Content-Type": "application/json"}
        head_only = request.method == "HEAD"
        refused = self._refusal(request)
        if refused is not None:
            connection.answer(refused[0], refused[1].encode(), text, head_only)
            return True
        if request.path == "/healthz":
            connection.answer(200, encode({"status": "ok", **self._identity}), json_type, head_only)
            return True
        if request.path == "/shutdown":
            connection.answer(200, b"{}", json_type)
            self.stop("the host said so")
            return False
        if self._stopping:
            connection.answer(503, b"the plugin is ending", text)
            return False
        return self._call(connection, request, json_type, text)

    def _call(
        self, connection: Connection, request: Request, json_type: Dict[str, str], text: Dict[str, str]
    ) -> bool:
        route = self._routes[request.path]
        try:
            body = _body(request.body)
            timeout = _timeout(request.headers.get("x-netpulse-plugin-timeout"))
        except BadRequest as error:
            connection.answer(400, str(error).encode(), text)
            return True
        number = request.headers.get("x-netpulse-plugin-request", "")
        ndjson = "application/x-ndjson" in request.headers.get("accept", "")
        call = Call(request.path, number, timeout, ndjson)
        if not route.inline and not self._slots.acquire(timeout=call.remaining(10.0)):
            message = f"{self._max_calls} calls are running, which is all that this plugin takes"
            connection.answer(503, message.encode(), text)
            return True
        answered = _Answering(self, connection, call, json_type, text)
        finished, told = socket.socketpair()

        def work() -> None:
            _calls._enter(call)
            try:
                with MASKER.holding(secrets_in(body)):
                    answered.of(route.handler, body)
            finally:
                if not route.inline:
                    self._slots.release()
                self._ended(call, route.work)
                told.close()

        with self._lock:
            self._running[id(call)] = call
        try:
            threading.Thread(target=contextvars.Context().run, args=(work,), daemon=True).start()
        except RuntimeError as error:
            # The system gives no more threads, or no more memory for one.
            if not route.inline:
                self._slots.release()
            self._ended(call, route.work)
            connection.answer(503, str(error).encode(), text)
            return True
        try:
            if not connection.wait(finished):
                call.cancel()
                return False
        finally:
            finished.close()
        return answered.usable

    def _ended(self, call: Call, work: bool) -> None:
        with self._quiet:
            self._running.pop(id(call), None)
            if work:
                self._last_work = time.monotonic()
            self._quiet.notify_all()
        self._wake()


class _Answering:
    """Turns what a handler gives, or raises, into an answer."""

    def __init__(
        self, server: Server, connection: Connection, call: Call, json_type: Dict[str, str], text: Dict[str, str]
    ) -> None:
        self._server = server
        self._connection = connection
        self._call = call
        self._json = json_type
        self._text = text
        self.usable = False

    def of(self, handler: Handler, body: Dict[str, Any]) -> None:
        """Runs the handler and writes its answer."""
        try:
            self.usable = self._whole(handler, body)
        except Closed:
            self._call.cancel()

    def _whole(self, handler: Handler, body: Dict[str, Any]) -> bool:
        try:
            given = handler(body)
            if isinstance(given, dict):
                # Made whole before its first byte leaves: it cannot be half an answer.
                data = self._encoded(given)
                self._connection.answer(200, data, self._json)
                return True
            lines = iter(given)
            first = next(lines, None)
        except Exception as error:  # Whatever a plugin raises is its caller's to know.
            return self._error(error)
        return self._lines(first, lines)

    def _lines(self, first: Optional[Dict[str, Any]], rest: Iterator[Dict[str, Any]]) -> bool:
        self._connection.begin_stream({k: v for k, v in self._json.items() if k != "Content-Type"})
        line = first
        done = False
        try:
            while line is not None:
                self._connection.stream_line(self._encoded(line))
                done = "done" in line
                line = next(rest, None)
        except Closed:
            # The handler sees at its next step that nobody listens; it still ends in order.
            self._call.cancel()
            for _ in rest:
                pass
            raise
        except Exception as error:
            log.exception("%s broke off in the middle of its answer", self._call.path)
            if first is None or "item" not in first:
                return False
            # Items have a last line for this; a driver's run has its own.
            status = error.status if isinstance(error, PluginError) else 500
            said = " ".join(MASKER.clean(str(error)).split()) or type(error).__name__
            self._connection.stream_line(encode({"error": {"status": status, "message": said[:16384]}}))
            done = True
        if done:
            self._connection.end_stream()
        return done

    def _encoded(self, value: Dict[str, Any]) -> bytes:
        try:
            data = encode(value)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{self._call.path}: the answer is no JSON: {error}") from error
        if len(data) > self._server._max_answer:
            limit = self._server._max_answer
            raise PluginError(f"{self._call.path}: the answer has {len(data)} bytes, at most {limit} may leave")
        return data

    def _error(self, error: Exception) -> bool:
        headers = dict(self._text)
        status = 500
        if isinstance(error, PluginError):
            status = error.status
            code = getattr(error, "code", None)
            if code:
                headers["X-NetPulse-Plugin-Error"] = str(code)
            if not isinstance(error, Gone):
                log.info("%s: %s", self._call.path, error)
        else:
            log.error("%s failed", self._call.path, exc_info=error)
        said = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        sentence = " ".join(MASKER.clean(said).split()) or type(error).__name__
        self._connection.answer(status, sentence.encode("utf-8", "replace")[:16384], headers)
        return True


def _body(data: bytes) -> Dict[str, Any]:
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body should be a JSON object")
    return body


def _timeout(text: Optional[str]) -> Optional[float]:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadRequest("X-NetPulse-Plugin-Timeout is no number of seconds") from None
    return value if value > 0 else 0.001
