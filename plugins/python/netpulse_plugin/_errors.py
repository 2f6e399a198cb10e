"""What a plugin raises so that its caller learns what the failure means."""

from __future__ import annotations

from typing import Optional


class PluginError(Exception):
    """A call failed. The text goes to the caller: say what, where and what to do; no secret.

    ``status`` is the HTTP status of the answer. Any other exception is a defect of the plugin:
    the caller sees 500 with the exception's text, and the log has the traceback.
    """

    status = 500

    def __init__(self, message: str, status: Optional[int] = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class BadRequest(PluginError):
    """The caller asked for something wrong: 400."""

    status = 400


class Denied(PluginError):
    """The caller, or this plugin, is not allowed to: 403."""

    status = 403


class NotFound(PluginError):
    """What was asked for is not there: 404."""

    status = 404


class Unavailable(PluginError):
    """The plugin, or what it depends on, does not answer now; it may be tried again: 503."""

    status = 503
