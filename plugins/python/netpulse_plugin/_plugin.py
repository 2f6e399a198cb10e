"""A program out of its capabilities."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from . import _log
from ._drivers import Driver
from ._errors import BadRequest, NotFound, PluginError
from ._kinds import Capability, Object, take
from ._server import Answer, Handler, Route, Server
from ._start import USAGE, StartError, command

#: The contract that this kit speaks.
CONTRACT = "netpulse.plugin/v1"

log = logging.getLogger("netpulse_plugin")


class Plugin:
    """A plugin: what it is, and what it provides.

    ``id`` has the form ``<who>/<kind>/<name>/v<n>``. ``configure``, if given, gets the settings that
    users wrote under ``plugin.config``, once, before any other call; it raises :class:`BadRequest`
    for settings that are wrong, which ends the start with that sentence.
    """

    def __init__(
        self,
        id: str,
        version: str,
        provides: Sequence[Capability],
        description: str = "",
        configure: Optional[Callable[[Object], None]] = None,
        max_calls: int = 256,
        max_answer: int = 64 * 1024 * 1024,
    ) -> None:
        self.id = id
        self.version = version
        self.description = description
        self.provides = list(provides)
        self._configure = configure
        self._max_calls = max_calls
        self._max_answer = max_answer
        self._configured = False
        seen = set()
        if not self.provides:
            raise ValueError("a plugin should provide something")
        for item in self.provides:
            if not re.match(r"^[a-z][a-z0-9_]*$", item.name):
                raise ValueError(f"{item.name!r} is no name: small letters, digits and _, a letter first")
            if (item.kind, item.name) in seen:
                raise ValueError(f"{item.kind} {item.name} is there twice")
            seen.add((item.kind, item.name))

    def capabilities(self) -> Object:
        """What ``<file> capabilities`` prints."""
        kinds: Dict[str, List[str]] = {}
        for item in self.provides:
            kinds.setdefault(item.name, []).append(item.kind)
        answer: Object = {"contract": CONTRACT, "id": self.id, "version": self.version}
        answer["description"] = self.description
        answer["start"] = "server"
        answer["features"] = ["configure"] if self._configure else []
        answer["type"] = kinds
        answer["capabilities"] = [item.describe() for item in self.provides]
        answer["supportedConfigTypes"] = []
        return answer

    def routes(self) -> Dict[str, Route]:
        """Every endpoint of every capability, by path."""
        by_path: Dict[str, List[Tuple[Capability, Handler]]] = {}
        for item in self.provides:
            for path, handler in item.endpoints().items():
                by_path.setdefault(path, []).append((item, handler))
        inline = ("/driver/leave", "/driver/disconnect")
        found = {
            path: Route(self._ready(self._named(path, owners)), inline=path in inline)
            for path, owners in by_path.items()
        }
        if self._configure:
            found["/configure"] = Route(self._settings)
        return found

    def _settings(self, body: Object) -> Object:
        assert self._configure is not None
        self._configure(take(body, "config", dict, {}))
        self._configured = True
        return {}

    def _ready(self, handler: Handler) -> Handler:
        if not self._configure:
            return handler

        def checked(body: Object) -> Answer:
            # A host that knows no settings starts with none.
            if not self._configured:
                self._settings({})
            return handler(body)

        return checked

    @staticmethod
    def _named(path: str, owners: List[Tuple[Capability, Handler]]) -> Handler:
        by_name = {item.name: handler for item, handler in owners}
        kind = owners[0][0].kind

        def handle(body: Object) -> Answer:
            name = body.get("name")
            if name is None and len(owners) == 1:
                return owners[0][1](body)
            if name is None:
                raise BadRequest(f"`name` is missing: there are {', '.join(sorted(by_name))}")
            if not isinstance(name, str):
                raise BadRequest("`name` should be a text")
            if name not in by_name:
                raise NotFound(f"no {kind} {name!r} here: there are {', '.join(sorted(by_name))}")
            return by_name[name](body)

        return handle

    def _busy(self) -> bool:
        return any(isinstance(item, Driver) and item.busy() for item in self.provides)

    def _close(self) -> None:
        for item in self.provides:
            try:
                item.close()
            except Exception:
                log.warning("%s did not close in order", item.name, exc_info=True)

    def main(self, args: List[str]) -> int:
        """Does what a command line asks for; the exit status."""
        try:
            what, start = command(args)
            if start is None:
                if what == "capabilities":
                    print(json.dumps(self.capabilities()))
                else:
                    print(USAGE.format(name=os.path.basename(sys.argv[0])), end="", file=sys.stderr)
                return 0 if what == "capabilities" or args else 2
            stdout = sys.stdout
            _log.setup(os.environ.get("NETPULSE_PLUGIN_LOG", "info"))
            identity = {"contract": CONTRACT, "id": self.id, "version": self.version}
            server = Server(
                start, identity, self.routes(), self._max_calls, self._max_answer, self._busy, self._close
            )
            for item in self.provides:
                if isinstance(item, Driver):
                    item._changed = server.work_changed

            def say(location: str) -> None:
                stdout.write(location + "\n")
                stdout.flush()

            return server.run(say)
        except StartError as error:
            print(f"cannot start: {error}", file=sys.stderr)
            return 2
        except PluginError as error:
            print(f"cannot start: {error}", file=sys.stderr)
            return 1


def run(plugin: Plugin) -> None:
    """The program: ``if __name__ == "__main__": run(plugin)``. Does not return."""
    status = plugin.main(sys.argv[1:])
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass
    # Threads that still hang on a device must not hold the process.
    os._exit(status)
