"""How a plugin is started: the forms of its command line, and the configuration on it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import List, Optional

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class StartError(Exception):
    """The command line or the configuration on it is wrong."""


def seconds(value: object) -> Optional[float]:
    """A duration text (``90s``, ``1h30m``, ``500ms``) or nanoseconds, in seconds; none for none."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1e-9
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise StartError(f"idleTimeout: {value!r} is no duration: write 90s, 15m, 1h30m or nanoseconds")


@dataclass
class Start:
    """The host's configuration for one start."""

    id: str = ""
    #: This start's id; it comes back with every answer.
    start: str = ""
    type: str = "unix"
    location: str = ""
    token: Optional[str] = None
    idle_timeout: Optional[float] = None

    @classmethod
    def read(cls, text: str) -> "Start":
        """Reads the JSON of the command line, and the token from its file.

        Raises :class:`StartError` with a sentence.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise StartError(f"the configuration is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise StartError("the configuration should be a JSON object")
        kind = data.get("type") or "unix"
        if kind not in ("unix", "tcp"):
            raise StartError(f"type: {kind!r} is neither unix nor tcp")
        start = cls(
            id=str(data.get("id") or ""),
            start=str(data.get("start") or ""),
            type=kind,
            location=str(data.get("location") or ""),
            idle_timeout=seconds(data.get("idleTimeout")),
        )
        if kind == "tcp":
            path = data.get("tokenFile")
            if not path:
                raise StartError("tokenFile: a plugin that listens on TCP needs a token")
            try:
                with open(str(path), encoding="ascii") as file:
                    start.token = file.readline().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise StartError(f"tokenFile: {error}") from None
            if not start.token:
                raise StartError(f"tokenFile: {path} is empty")
        return start

    def address(self) -> "tuple[str, int]":
        """Host and port of a TCP location; loopback only."""
        host, _, port = (self.location or "127.0.0.1:0").rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise StartError(f"location: {host} is not a loopback address")
        if not port.isdigit() or int(port) > 65535:
            raise StartError(f"location: {port!r} is no port")
        return host, int(port)


USAGE = """\
A NetPulse plugin. NetPulse starts it; by hand:

  {name} capabilities                 what it is, as JSON
  {name} server '<json>'              serve; also: server --config '<json>', --config '<json>'

  netpulse plugin doctor <file>       check it against the contract
"""


def command(args: List[str]) -> "tuple[str, Optional[Start]]":
    """What a command line asks for: ``capabilities``, ``server`` with its start, or ``help``.

    Raises :class:`StartError`.
    """
    if args == ["capabilities"]:
        return "capabilities", None
    if not args or args[0] in ("-h", "--help", "help"):
        return "help", None
    rest = args[1:] if args[0] == "server" else args
    if rest and rest[0] == "--config":
        rest = rest[1:]
    elif rest and rest[0].startswith("--config="):
        rest = [rest[0][len("--config=") :]]
    elif args[0] != "server":
        raise StartError(f"{args[0]!r} is not known: try `capabilities` or `server`")
    if len(rest) != 1:
        raise StartError("one JSON configuration is needed after `server`")
    return "server", Start.read(rest[0])
