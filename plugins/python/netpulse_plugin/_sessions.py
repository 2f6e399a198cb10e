"""Sessions to devices: what a driver's author writes, and what is known of one at work."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, List, Optional, Tuple, Union

from ._calls import Call
from ._errors import PluginError
from ._kinds import Json, Object
from ._log import MASKER

log = logging.getLogger("netpulse_plugin")

#: Error codes and the status that says the same; others are 500.
_STATUS = {
    "bad_request": 400, "unknown_platform": 400, "not_supported": 400,
    "authentication_failed": 403, "host_key_changed": 403, "host_key_unknown": 403, "enable_failed": 403,
    "connect_failed": 503, "handshake_failed": 503, "session_lost": 503, "read_timeout": 503,
    "prompt_not_found": 503,
}  # fmt: skip


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


@dataclass
class Task:
    """A command that goes on without the session that launched it."""

    task_id: str
    command: str = ""
    running: bool = True
    #: The device's own number for it.
    pid: Optional[int] = None
    #: How it ended, when it has and that is known.
    exit_status: Optional[int] = None
    #: Where its output is on the device.
    log_file: Optional[str] = None
    #: When it was launched: ISO 8601.
    created_at: Optional[str] = None

    def json(self) -> Object:
        return dict(vars(self))


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

    def launch(self, task_id: str, command: str, work: Work) -> Task:
        """Launches a command that goes on without this session (feature ``detached``)."""
        raise NotImplementedError

    def query(self, task_id: str, offset: int) -> Tuple[Task, str, int]:
        """How it stands, its output from byte ``offset`` on, and the offset to go on from. Raises
        :class:`NotFound` when there is none."""
        raise NotImplementedError

    def kill(self, task_id: str) -> bool:
        """Ends it; false when it had ended."""
        raise NotImplementedError

    def tasks(self) -> List[Task]:
        """What was launched on the device and is not cleaned up."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """From another thread: end a command that hangs. It raises then."""

    def alive(self) -> bool:
        """Gives the device a sign of life and looks for one (feature ``keepalive``)."""
        return True

    def close(self, force: bool) -> None:
        """Leaves. With ``force``: closes the socket at once and says nothing more."""


class Run:
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


class Open:
    """A session and who uses it."""

    def __init__(self, session: Session, host: str, secrets: List[str]) -> None:
        self.session = session
        self.host = host
        self.secrets = secrets
        self.lock = threading.Lock()
        self.run: Optional[Run] = None


def as_result(line: str, given: Union[str, Result]) -> Result:
    return given if isinstance(given, Result) else Result(line, given)


def timed(result: Result, began: float) -> Object:
    result.metadata.setdefault("duration_seconds", round(time.monotonic() - began, 3))
    return result.json()


def known(opened: Open, failure: Exception, run: Optional[Run] = None, default: str = "plugin_failed") -> PluginError:
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
    if isinstance(failure, PluginError) and failure.status == 400:
        return DeviceError("bad_request", str(failure))
    opened.session.usable = False
    if isinstance(failure, PluginError):
        return DeviceError(default, str(failure))
    log.error("%s: the driver failed", opened.host, exc_info=failure)
    return DeviceError(default, f"{opened.host}: {type(failure).__name__}: {failure}")


def error_info(error: Optional[PluginError]) -> Optional[Object]:
    if error is None:
        return None
    return {"type": getattr(error, "code", "plugin_failed"), "message": MASKER.clean(str(error))}
