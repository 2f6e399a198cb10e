"""Drivers: sessions to devices, commands and changes line by line.

A driver writes what one line does (:class:`Session`); this module asks for leave before each line,
tells about each answer, stops at the first refused line, discards or commits, and says in one word
what took effect.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Union

from ._calls import Call, current_call
from ._errors import BadRequest, NotFound, PluginError
from ._kinds import Capability, Json, Object, take, texts
from ._log import MASKER, secrets_in
from ._server import Answer

log = logging.getLogger("netpulse_plugin")

#: Error codes and the status that says the same; others are 500.
_STATUS = {
    "bad_request": 400, "unknown_platform": 400, "not_supported": 400,
    "authentication_failed": 403, "host_key_changed": 403, "host_key_unknown": 403, "enable_failed": 403,
    "connect_failed": 503, "handshake_failed": 503, "session_lost": 503, "read_timeout": 503,
    "prompt_not_found": 503,
}  # fmt: skip


#: Seconds that a forced disconnect waits for the session's own closing.
FORCED = 0.5
#: Seconds that a configuration line on its way has when its run is told to stop.
CANCEL_PATIENCE = 10.0


class DeviceError(PluginError):
    """Something went wrong with a device; ``code`` is one of NetPulse's error codes
    (``connect_failed``, ``authentication_failed``, ``read_timeout``, ``session_lost``, ...)."""

    def __init__(self, code: str, message: str, stdout: str = "") -> None:
        super().__init__(message, _STATUS.get(code, 500))
        self.code = code
        #: What the device had said until then.
        self.stdout = stdout


class Rejected(Exception):
    """The device refused a configuration line: ``stdout`` is its answer, the text what it said."""

    def __init__(self, said: str, stdout: str = "") -> None:
        super().__init__(said)
        self.stdout = stdout


@dataclass
class Result:
    """One command's or one line's result."""

    command: str
    stdout: Json = ""
    stderr: str = ""
    #: 0 when the device accepted it; the real exit status on Linux.
    exit_status: int = 0
    metadata: Object = field(default_factory=dict)
    parsed: Json = None
    download_url: Optional[str] = None

    def json(self) -> Object:
        return dict(vars(self))


@dataclass
class Work:
    """What a job wants, beside its lines."""

    enable_mode: bool = False
    save: bool = False
    dry_run: bool = False
    #: The job's own arguments for the driver.
    driver_args: Object = field(default_factory=dict)
    file_transfer: Optional[Object] = None
    job_id: Optional[str] = None


class Session:
    """A live session to one device. Never used by two calls at a time, but for :meth:`interrupt`
    and a ``close`` with ``force``."""

    #: Lines go into a candidate that takes effect with :meth:`commit`.
    candidate = False
    #: False once it can serve no other job.
    usable = True
    #: Stands in every result's `metadata`.
    metadata: Object = {}

    def begin(self, work: Work) -> None:
        """Before the first command (``enable``, if ``work.enable_mode``)."""

    def command(self, command: str, work: Work) -> Union[str, Result]:
        """Runs one command; its output. Raises :class:`DeviceError`."""
        raise NotImplementedError

    def end(self, work: Work) -> None:
        """After the last command: back to the mode that the session began in."""

    def enter_config(self, work: Work) -> None:
        """Before the first line."""

    def line(self, line: str, work: Work) -> Union[str, Result]:
        """Sends one configuration line; the answer. Raises :class:`Rejected` when the device
        refuses it, :class:`DeviceError` when it cannot be known."""
        raise NotImplementedError

    def compare(self, work: Work) -> str:
        """What the candidate would change (feature ``dry_run``)."""
        raise NotImplementedError

    def commit(self, work: Work) -> str:
        """Takes the candidate over; what the device said. Raises :class:`Rejected` when it refused
        (the candidate is discarded then), :class:`DeviceError` when it cannot be known."""
        raise NotImplementedError

    def discard(self, work: Work) -> None:
        """Throws the candidate away."""
        raise NotImplementedError

    def leave_config(self, work: Work) -> None:
        """After the last line, whatever came of it."""

    def save(self, work: Work) -> str:
        """Saves the running configuration (feature ``save``); what the device said."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """From another thread: end a command that hangs. It raises then."""

    def alive(self) -> bool:
        """Gives the device a sign of life and looks for one (feature ``keepalive``)."""
        return True

    def close(self, force: bool) -> None:
        """Leaves. With ``force``: closes the socket at once and says nothing more."""


class _Run:
    """The right to send, line by line."""

    def __init__(self, granted: int, call: Call, interrupt: Callable[[], None], patience: float) -> None:
        self._granted = granted
        self._refused: Optional[str] = None
        self._changed = threading.Condition()
        self._call = call
        self._interrupt = interrupt
        self._patience = patience
        self._timer: Optional[threading.Timer] = None
        #: Nothing more is wanted of this run.
        self.stop_now = False
        #: What was on its way was interrupted.
        self.interrupted = False
        call.on_cancel(lambda: self.stop("the host closed the connection"))

    def leave(self, index: int) -> Optional[str]:
        """Waits for leave to send line ``index``; none when it is there, else why not."""
        with self._changed:
            while self._refused is None and self._granted <= index:
                if not self._changed.wait(self._call.remaining(3600.0)):
                    self._refused = "no leave came in time"
            return self._refused

    def answer(self, index: Optional[int], leave: bool) -> None:
        """What the host says."""
        if index is None and not leave:
            self.stop("canceled")
            return
        with self._changed:
            if leave:
                self._granted = max(self._granted, (index or 0) + 1)
            else:
                self._refused = self._refused or "the host gave no leave for it"
            self._changed.notify_all()

    def stop(self, why: str) -> None:
        """No more lines; the one on its way is interrupted."""
        with self._changed:
            self._refused = self._refused or why
            if self.stop_now:
                return
            self.stop_now = True
            self._changed.notify_all()
        if self._patience == 0:
            self._end()
            return
        # What a line on its way does is better known than cut short; its time is bounded.
        self._timer = threading.Timer(self._patience, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self.interrupted = True
        self._interrupt()

    def over(self) -> None:
        """The run has ended: there is nothing left to interrupt."""
        if self._timer is not None:
            self._timer.cancel()


class _Open:
    """A session and who uses it."""

    def __init__(self, session: Session, host: str, secrets: List[str]) -> None:
        self.session = session
        self.host = host
        self.secrets = secrets
        self.lock = threading.Lock()
        self.run: Optional[_Run] = None


class Driver(Capability):
    """Reaches devices of some kind."""

    kind = "driver"
    #: ``config``, ``save``, ``keepalive``, ``dry_run``, ``file_transfer``: what sessions can do.
    features: Sequence[str] = ("config",)
    #: ``pinned`` keeps a session per device, ``fifo`` opens one per job.
    default_queue_strategy = "pinned"
    default_port = 22

    def connect(self, args: Object, keepalive: Optional[float]) -> Session:
        """Opens a session. Raises :class:`DeviceError` with the code of the step that failed."""
        raise NotImplementedError

    def validate(self, request: Object) -> None:
        """Raises :class:`BadRequest` for a request that can be seen to be wrong without a device."""

    def test(self, args: Object) -> Object:
        """Connects, looks and leaves; what it saw."""
        raise NotImplementedError

    # --- the wire -----------------------------------------------------------------------------

    def __init__(self) -> None:
        self._sessions: Dict[str, _Open] = {}
        self._runs: Dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._changed: Callable[[], None] = lambda: None

    def busy(self) -> bool:
        """Whether a session is open: that counts as work."""
        return bool(self._sessions)

    def _own_features(self) -> List[str]:
        own = ["stream"]
        own += [name for name in ("test", "validate") if self._overrides(name, Driver)]
        return own

    def describe(self) -> Object:
        own = {"default_queue_strategy": self.default_queue_strategy, "default_port": self.default_port}
        return {**super().describe(), **own}

    def endpoints(self) -> Dict[str, Callable[[Object], Answer]]:
        return {
            "/driver/connect": self._connect,
            "/driver/send": self._send,
            "/driver/config": self._config,
            "/driver/leave": self._leave,
            "/driver/disconnect": self._disconnect,
            "/driver/alive": self._alive,
            "/driver/test": self._test,
            "/driver/validate": self._validate,
        }

    def close(self) -> None:
        """Closes every session, all at once: each may take a moment."""
        with self._lock:
            left = list(self._sessions.values())
            self._sessions.clear()
        threads = [threading.Thread(target=self._shut, args=(open_, True), daemon=True) for open_ in left]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _shut(self, open_: _Open, force: bool) -> None:
        if open_.run is not None:
            open_.run.stop("the session was closed")
        try:
            open_.session.close(force)
        except Exception:
            log.warning("%s: the session did not close in order", open_.host, exc_info=True)
        finally:
            MASKER.release(open_.secrets)

    def _find(self, body: Object) -> _Open:
        with self._lock:
            found = self._sessions.get(take(body, "session", str))
        if found is None:
            raise PluginError("this session is not known (any more)", 410)
        return found

    def _connect(self, body: Object) -> Object:
        args = take(body, "connection_args", dict)
        keepalive = body.get("keepalive")
        if keepalive is not None and (isinstance(keepalive, bool) or not isinstance(keepalive, (int, float))):
            raise BadRequest("`keepalive` should be a number of seconds")
        call = current_call()
        session = self.connect(args, keepalive)
        secrets = list(secrets_in(args))
        MASKER.hold(secrets)
        opened = _Open(session, str(args.get("host") or ""), secrets)
        if call.canceled.is_set():
            # Nobody will ever use it.
            self._shut(opened, False)
            call.check()
        name = uuid.uuid4().hex
        with self._lock:
            self._sessions[name] = opened
        self._changed()
        return {"session": name, "reused": False}

    def _disconnect(self, body: Object) -> Object:
        with self._lock:
            opened = self._sessions.pop(take(body, "session", str), None)
        if opened is not None:
            force = bool(body.get("force"))
            closing = threading.Thread(target=self._shut, args=(opened, force), daemon=True)
            closing.start()
            # With force the host waits a second before it ends the whole plugin; no more lines are
            # sent from here on, however long the closing takes.
            closing.join(FORCED if force else None)
            self._changed()
        return {}

    def _alive(self, body: Object) -> Object:
        opened = self._find(body)
        if not opened.lock.acquire(blocking=False):
            return {"alive": True}  # It is at work.
        try:
            return {"alive": bool(opened.session.alive())}
        except DeviceError as error:
            log.info("%s: no sign of life: %s", opened.host, error)
            return {"alive": False}
        finally:
            opened.lock.release()

    def _test(self, body: Object) -> Object:
        try:
            info = self.test(take(body, "connection_args", dict))
        except DeviceError as error:
            return {"success": False, "error": MASKER.clean(str(error)), "error_type": error.code, "info": {}}
        return {"success": True, "error": None, "error_type": None, "info": info}

    def _validate(self, body: Object) -> Object:
        self.validate(take(body, "request", dict))
        return {}

    def _leave(self, body: Object) -> Object:
        index = body.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise BadRequest("`index` should be a number")
        leave = take(body, "leave", bool)
        with self._lock:
            run = self._runs.get(take(body, "run", str))
        if run is None:
            raise NotFound("this run is not known (any more)")
        run.answer(index, leave)
        return {}

    def _send(self, body: Object) -> Answer:
        return self._work(body, texts(body, "commands"), self._commands)

    def _config(self, body: Object) -> Answer:
        return self._work(body, texts(body, "lines"), self._change)

    def _work(
        self,
        body: Object,
        lines: List[str],
        how: "Callable[[_Open, _Run, List[str], Work], Iterator[Object]]",
    ) -> Answer:
        opened = self._find(body)
        options = take(body, "options", dict, {})
        work = Work(
            enable_mode=bool(options.get("enable_mode")),
            save=bool(options.get("save")),
            dry_run=bool(options.get("dry_run")),
            driver_args=take(body, "driver_args", dict, {}),
            file_transfer=body.get("file_transfer"),
            job_id=body.get("job_id"),
        )
        stream = body.get("stream") is True
        granted = take(body, "granted", int, 0) if stream else len(lines)
        name = str(body.get("run") or uuid.uuid4().hex)
        if not opened.lock.acquire(blocking=False):
            raise BadRequest("this session is at work for another call")
        patience = CANCEL_PATIENCE if how == self._change else 0.0
        run = _Run(granted, current_call(), opened.session.interrupt, patience)
        opened.run = run
        with self._lock:
            self._runs[name] = run

        def going() -> Iterator[Object]:
            try:
                yield from how(opened, run, lines, work)
            finally:
                run.over()
                with self._lock:
                    self._runs.pop(name, None)
                opened.run = None
                opened.lock.release()

        if stream:
            return going()
        results: List[Object] = []
        done: Object = {}
        for line in going():
            if "result" in line:
                results.append(line["result"])
            done = line.get("done", done)
        return {"results": results, **done}

    def _commands(self, opened: _Open, run: _Run, lines: List[str], work: Work) -> Iterator[Object]:
        session = opened.session
        error: Optional[PluginError] = None
        try:
            session.begin(work)
        except Exception as failure:
            error = _known(opened, failure)
        for index, line in enumerate(lines if error is None else []):
            yield {"sending": index}
            refused = run.leave(index)
            if refused is not None:
                error = DeviceError("canceled", f"{opened.host}: {refused}; stopped before command {index + 1}")
                break
            began = time.monotonic()
            try:
                result = _result(line, session.command(line, work))
                if run.interrupted:
                    error = DeviceError("canceled", f"{opened.host}: canceled in the middle of command {index + 1}")
                    result.exit_status, result.stderr = 1, "Interrupted"
            except Exception as failure:
                error = _known(opened, failure, run)
                result = Result(line, getattr(error, "stdout", ""), MASKER.clean(str(error)), 1)
            yield {"result": self._told(session, _timed(result, began))}
            if error is not None:
                break
        if session.usable:
            try:
                session.end(work)
            except Exception as failure:
                log.warning("%s: not back in the first mode: %s", opened.host, failure)
                session.usable = False
        yield {"done": {"error": _info(error), "usable": session.usable}}

    @staticmethod
    def _told(session: Session, result: Object) -> Object:
        result["metadata"] = {**session.metadata, **result["metadata"]}
        return result

    def _change(self, opened: _Open, run: _Run, lines: List[str], work: Work) -> Iterator[Object]:
        change = _Change(opened, run, lines, work)
        for line in change.going():
            if "result" in line:
                self._told(opened.session, line["result"])
            yield line
        done = change.done()
        for result in done["results"]:
            self._told(opened.session, result)
        yield {"done": done}


class _Change:
    """One change, from entering the configuration mode to leaving it."""

    def __init__(self, opened: _Open, run: _Run, lines: List[str], work: Work) -> None:
        self._opened = opened
        self._session = opened.session
        self._run = run
        self._lines = lines
        self._work = work
        self._error: Optional[PluginError] = None
        self._outcome = "not_applied"
        self._untouched = True
        self._results: List[Result] = []

    def going(self) -> Iterator[Object]:
        session, work = self._session, self._work
        try:
            session.enter_config(work)
        except Exception as failure:
            self._error = _known(self._opened, failure, default="config_mode_failed")
            self._results = [self._unsent(line, f"Not sent: {self._error}") for line in self._lines]
            return
        broken = False
        for index, line in enumerate(self._lines):
            yield {"sending": index}
            refused = self._run.leave(index)
            if refused is not None:
                place = "no line was sent" if index == 0 else f"stopped between line {index} and line {index + 1}"
                self._error = DeviceError("canceled", f"{self._opened.host}: {refused}; {place}")
                break
            self._untouched = False
            began = time.monotonic()
            result, broken = self._one(index, line)
            self._results.append(result)
            last = index + 1 == len(self._lines)
            # The last line waits: what commit and save say stands in its answer.
            if self._error is not None or not last:
                yield {"result": _timed(result, began)}
            if self._error is not None:
                break
        else:
            if self._lines:
                result = self._results[-1]
                _timed(result, began)
            self._finish()
            if self._lines:
                yield {"result": self._results[-1].json()}
            return
        self._stopped(broken)
        skipped = self._lines[len(self._results) :]
        because = self._results[-1] if self._results and self._results[-1].exit_status else None
        why = f"Skipped due to previous error in execution of '{because.command}'" if because else "Not sent: canceled"
        # Only announced lines are told; `done` has them all.
        self._results += [self._unsent(line, why) for line in skipped]

    @staticmethod
    def _unsent(line: str, why: str) -> Result:
        return Result(line, "", MASKER.clean(why), 1)

    def _one(self, index: int, line: str) -> "tuple[Result, bool]":
        place = f"line {index + 1} of {len(self._lines)}"
        host = self._opened.host
        try:
            result = _result(line, self._session.line(line, self._work))
        except Rejected as said:
            self._error = DeviceError("line_rejected", f"{host}: {place} was rejected: `{line}`: {said}")
            text = MASKER.clean(f"Device reported configuration error: {said}")
            return Result(line, said.stdout, text, 1), False
        except Exception as failure:
            error = _known(self._opened, failure, self._run)
            code = getattr(error, "code", "plugin_failed")
            self._error = DeviceError(code, f"{error}; {place} was in flight")
            return Result(line, getattr(error, "stdout", ""), MASKER.clean(str(error)), 1), True
        if result.exit_status != 0:
            self._error = DeviceError("line_rejected", f"{host}: {place} was rejected: `{line}`: {result.stderr}")
        return result, False

    def _stopped(self, broken: bool) -> None:
        """Not all lines went through."""
        accepted = sum(result.exit_status == 0 for result in self._results)
        if self._session.candidate:
            # Nothing takes effect before the commit, which was not sent.
            if self._session.usable:
                self._discard()
            else:
                self._add("nothing was committed, but the device may keep the candidate")
        elif broken:
            self._outcome = "unknown"
        else:
            self._outcome = "partial" if accepted else "not_applied"
        self._leave()

    def _add(self, more: str) -> None:
        code = getattr(self._error, "code", "plugin_failed")
        self._error = DeviceError(code, f"{self._error}; {more}")

    def _discard(self) -> None:
        self._outcome = "not_applied"
        try:
            self._session.discard(self._work)
        except Exception as failure:
            self._session.usable = False
            self._add(f"the candidate could not be discarded: {_known(self._opened, failure)}")
            return
        for result in self._results:
            if result.exit_status == 0:
                result.metadata["discarded"] = True
        if self._error is not None:
            self._add("the candidate was discarded, nothing took effect")

    def _finish(self) -> None:
        """Every line was accepted."""
        session, work = self._session, self._work
        if session.candidate and work.dry_run:
            try:
                self._append(session.compare(work))
            except Exception as failure:
                self._error = _known(self._opened, failure)
            self._discard()
        elif session.candidate:
            try:
                self._append(session.commit(work))
                self._outcome = "applied"
            except Rejected as said:
                self._error = DeviceError("commit_failed", f"{self._opened.host}: the commit was refused: {said}")
                self._append(said.stdout)
                self._discard()
            except Exception as failure:
                error = _known(self._opened, failure)
                self._outcome = "unknown"
                code = getattr(error, "code", "plugin_failed")
                self._error = DeviceError(code, f"{error}; the commit was in flight")
        else:
            self._outcome = "applied"
        self._leave()
        if work.save and self._error is None:
            try:
                self._append(session.save(work))
            except Exception as failure:
                error = _known(self._opened, failure)
                self._error = DeviceError("save_failed", f"{error}; the lines were applied, but not saved")

    def _append(self, said: str) -> None:
        if said.strip() and self._results:
            before = str(self._results[-1].stdout)
            self._results[-1].stdout = f"{before}\n{said.strip()}" if before else said.strip()

    def _leave(self) -> None:
        if not self._session.usable:
            return
        try:
            self._session.leave_config(self._work)
        except Exception as failure:
            self._session.usable = False
            self._error = self._error or _known(self._opened, failure)

    def done(self) -> Object:
        done = {"error": _info(self._error), "outcome": self._outcome, "usable": self._session.usable}
        # Whole, since a line's text may have grown after it was told.
        done["results"] = [result.json() for result in self._results]
        done["untouched"] = self._untouched and self._error is not None
        return done


def _result(line: str, given: Union[str, Result]) -> Result:
    return given if isinstance(given, Result) else Result(line, given)


def _timed(result: Result, began: float) -> Object:
    result.metadata.setdefault("duration_seconds", round(time.monotonic() - began, 3))
    return result.json()


def _known(opened: _Open, failure: Exception, run: Optional[_Run] = None, default: str = "plugin_failed") -> PluginError:
    """A failure as an error with a code; after it the session is of no use unless it says so."""
    if run is not None and run.interrupted:
        opened.session.usable = False
        return DeviceError("canceled", f"{opened.host}: canceled in the middle of a line")
    if isinstance(failure, DeviceError):
        if failure.code == "session_lost":
            opened.session.usable = False
        return failure
    if isinstance(failure, Rejected):
        return DeviceError(default, f"{opened.host}: {failure}", failure.stdout)
    opened.session.usable = False
    if isinstance(failure, PluginError):
        return DeviceError("bad_request" if failure.status == 400 else default, str(failure))
    log.error("%s: the driver failed", opened.host, exc_info=failure)
    return DeviceError(default, f"{opened.host}: {type(failure).__name__}: {failure}")


def _info(error: Optional[PluginError]) -> Optional[Object]:
    if error is None:
        return None
    return {"type": getattr(error, "code", "plugin_failed"), "message": MASKER.clean(str(error))}
