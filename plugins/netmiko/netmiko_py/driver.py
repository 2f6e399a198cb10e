"""The driver: opens connections with the real Netmiko."""

from __future__ import annotations

import logging
import threading
from typing import Any, Dict, Optional

from netpulse_plugin import BadRequest, DeviceError, Driver, Unavailable

from . import arguments
from .arguments import Plan, Settings
from .hostkeys import HostKeys
from .session import NetmikoSession

Object = Dict[str, Any]

# Netmiko writes every byte of a session at this level, secrets included.
for _name in ("netmiko", "paramiko"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class NetmikoDriver(Driver):
    name = "netmiko_py"
    features = ("config", "save", "keepalive")
    default_queue_strategy = "pinned"
    default_port = 22
    json_schema = {
        "connection_args": {
            "type": "object",
            "required": ["device_type"],
            "properties": {
                "device_type": {"type": "string", "minLength": 1},
                "username": {"type": ["string", "null"]},
                "password": {"type": ["string", "null"]},
                "secret": {"type": ["string", "null"]},
            },
        }
    }
    examples = {
        "/driver/validate": {
            "request": {
                "driver": "netmiko_py",
                "connection_args": {"device_type": "cisco_ios", "host": "192.0.2.1", "username": "ops"},
                "driver_args": {},
                "command": ["show version"],
            }
        }
    }

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings.read({})
        self._keys = HostKeys(self.settings.known_hosts)
        self._room = threading.BoundedSemaphore(self.settings.max_sessions)

    def configure(self, given: Object) -> None:
        """Takes the settings."""
        try:
            import netmiko  # noqa: F401
        except ImportError as error:
            raise BadRequest(
                f"Netmiko cannot be loaded ({error}): install it for the Python in this file's first line, "
                "or build the plugin with the Python that has it"
            ) from None
        self.settings = Settings.read(given)
        self._keys = HostKeys(self.settings.known_hosts)
        self._room = threading.BoundedSemaphore(self.settings.max_sessions)

    def validate(self, request: Object) -> None:
        try:
            arguments.check(request, self.settings)
        except DeviceError as error:
            raise BadRequest(f"connection_args.device_type: {error}") from None

    def connect(self, args: Object, keepalive: Optional[float]) -> NetmikoSession:
        room = self._room
        if not room.acquire(blocking=False):
            raise Unavailable(f"{self.settings.max_sessions} sessions are open, which is the setting `max_sessions`")
        try:
            plan = arguments.plan(args, self.settings, keepalive)
            return NetmikoSession(self._open(plan), plan, room.release)
        except BaseException:
            room.release()
            raise

    def test(self, args: Object) -> Object:
        session = self.connect(args, None)
        try:
            connection = session.connection
            transport = getattr(getattr(connection, "remote_conn", None), "transport", None)
            return {
                "driver": self.name,
                "host": session.plan.host,
                "device_type": session.plan.device_type,
                "prompt": connection.find_prompt(),
                "remote_version": getattr(transport, "remote_version", ""),
            }
        finally:
            session.close(False)

    def _open(self, plan: Plan) -> Any:
        if plan.device_type == "autodetect":
            plan.device_type = self._detect(plan)
        return self._connected(plan, arguments.device_class(plan.device_type))

    def _detect(self, plan: Plan) -> str:
        from netmiko import SSHDetect
        from netmiko.terminal_server.terminal_server import TerminalServerSSH

        # Its own constructor would connect without looking at the host key.
        detect = SSHDetect.__new__(SSHDetect)
        keywords = {**plan.keywords, "device_type": "terminal_server"}
        detect.connection = self._connected(Plan("terminal_server", plan.host, plan.port, keywords, plan.policy, []), TerminalServerSSH)
        detect.potential_matches = {}
        detect._results_cache = {}
        try:
            detect.connection.set_base_prompt()
            found = detect.autodetect()
        finally:
            detect.connection.disconnect()
        if not found:
            raise DeviceError("unknown_platform", f"{plan.host}: Netmiko cannot tell what this is; give its `device_type`")
        return str(found)

    def _connected(self, plan: Plan, kind: Any) -> Any:
        import paramiko
        from netmiko import exceptions

        keywords = {**plan.keywords, "device_type": plan.device_type, "auto_connect": False}
        try:
            connection = kind(**keywords)
        except (TypeError, ValueError) as error:
            raise BadRequest(f"connection_args: {error}") from None
        connection.key_policy = self._keys.policy(plan.host, plan.port, plan.policy)
        where = f"{plan.host}:{plan.port}"
        try:
            connection._open()
            return connection
        except Exception as error:
            # Netmiko hangs a filter on its logger for every object; without this it stays there.
            connection.disconnect()
            if isinstance(error, DeviceError):
                raise
            said = " ".join(str(error).split())
            if isinstance(error, paramiko.AuthenticationException) and "timeout" not in said.lower():
                user = plan.keywords.get("username")
                raise DeviceError("authentication_failed", f"{where}: the device refused user `{user}`") from error
            if isinstance(error, paramiko.BadHostKeyException):
                raise DeviceError("host_key_changed", f"{where}: {said}") from error
            if isinstance(error, exceptions.NetmikoTimeoutException) and (
                "TCP connection" in said or "DNS failure" in said
            ):
                # Netmiko's text is a lecture; what happened stands in the error behind it.
                raise DeviceError("connect_failed", f"{where}: {error.__context__ or said[:200]}") from error
            if isinstance(error, exceptions.ReadException):
                raise DeviceError("prompt_not_found", f"{where}: no prompt was recognised after login: {said[:300]}") from error
            if isinstance(error, (OSError, EOFError)):
                raise DeviceError("connect_failed", f"{where}: {said[:300]}") from error
            if isinstance(error, paramiko.SSHException):
                raise DeviceError("handshake_failed", f"{where}: {said[:300]}") from error
            if isinstance(error, ValueError):
                raise DeviceError("prompt_not_found", f"{where}: {said[:300]}") from error
            raise
