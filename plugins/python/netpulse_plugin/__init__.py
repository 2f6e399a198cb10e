"""What the author of a NetPulse plugin writes in Python. Standard library only, Python 3.9 or later.

A whole plugin::

    #!/usr/bin/env python3
    from netpulse_plugin import CredentialProvider, NotFound, Plugin, run

    class Static(CredentialProvider):
        name = "static"

        def fetch(self, reference, connection_args):
            if reference.ref != "lab":
                raise NotFound(f"there is no credential {reference.ref!r}")
            return {"username": "admin", "password": "admin"}

    run(Plugin(id="example.org/credential/static/v1", version="0.1.0", provides=[Static()]))

NetPulse starts it, speaks the plugin contract (docs/plugin-contract.md) with it over a Unix socket,
and stops it. This package does the contract: how a plugin is started and ended, whole answers,
statuses, line by line progress, secrets out of the logs. ``print`` and ``logging`` go to the
server's log.
"""

from ._calls import Call, Gone, current_call
from ._drivers import Driver
from ._errors import BadRequest, Denied, NotFound, PluginError, Unavailable
from ._kinds import (
    Assistant,
    Check,
    CredentialProvider,
    Delivery,
    Input,
    Node,
    Origin,
    Output,
    Parser,
    PipelineResult,
    Provider,
    Reference,
    Renderer,
    Scheduler,
    Webhook,
)
from ._plugin import CONTRACT, Plugin, run
from ._sessions import DeviceError, Rejected, Result, Session, Task, Work

__version__ = "0.1.0"

__all__ = [
    "CONTRACT", "Assistant", "BadRequest", "Call", "Check", "CredentialProvider", "Delivery", "Denied",
    "DeviceError", "Driver", "Gone", "Input", "Node", "NotFound", "Origin", "Output", "Parser",
    "PipelineResult", "Plugin", "PluginError", "Provider", "Reference", "Rejected", "Renderer", "Result",
    "Scheduler", "Session", "Task", "Unavailable", "Webhook", "Work", "current_call", "run",
]  # fmt: skip
