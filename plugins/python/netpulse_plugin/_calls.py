"""What one call knows of itself: how long it may take, and whether anybody still waits for it."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Callable, List, Optional

from ._errors import PluginError


class Gone(PluginError):
    """Nobody waits for this call any more: the host closed its connection, or its time is up."""

    status = 503


class Call:
    """One request. Long work asks :meth:`check` now and then, or registers :meth:`on_cancel`."""

    def __init__(self, path: str, request_id: str, timeout: Optional[float], ndjson: bool) -> None:
        self.path = path
        #: The host's number for this request.
        self.request_id = request_id
        #: On the clock of ``time.monotonic``; none when the caller did not say.
        self.deadline = None if timeout is None else time.monotonic() + timeout
        #: The caller takes an answer line by line.
        self.ndjson = ndjson
        #: Set when nobody waits any more.
        self.canceled = threading.Event()
        self._callbacks: List[Callable[[], None]] = []
        self._lock = threading.Lock()

    def remaining(self, at_most: float = 86400.0) -> float:
        """Seconds left, never negative, at most ``at_most``."""
        if self.deadline is None:
            return at_most
        return min(at_most, max(0.0, self.deadline - time.monotonic()))

    def check(self) -> None:
        """Raises :class:`Gone` when nobody waits any more."""
        if self.canceled.is_set():
            raise Gone("the host closed the connection of this call")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise Gone("the time of this call is up")

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Runs ``callback``, on another thread, when nobody waits any more; at once if so already."""
        with self._lock:
            if not self.canceled.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Says that nobody waits any more."""
        with self._lock:
            if self.canceled.is_set():
                return
            self.canceled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


_CURRENT: "contextvars.ContextVar[Call]" = contextvars.ContextVar("netpulse_plugin_call")


def current_call() -> Call:
    """The call that this thread works for. Outside of one: a call without limits."""
    try:
        return _CURRENT.get()
    except LookupError:
        return Call("", "", None, False)


def _enter(call: Call) -> None:
    _CURRENT.set(call)
