"""A store of host keys: a new device's key is kept, a changed one is refused."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from netpulse_plugin import DeviceError

log = logging.getLogger("netmiko_py")


class HostKeys:
    """An OpenSSH `known_hosts` file that this process alone writes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()

    def policy(self, host: str, port: int, policy: str) -> Any:
        """What Paramiko asks about a key that its client has not loaded: it loads none, so all."""
        import paramiko

        store = self

        class Ask(paramiko.MissingHostKeyPolicy):
            def missing_host_key(self, _client: Any, _name: str, key: Any) -> None:
                store.check(host, port, policy, key)

        return Ask()

    def check(self, host: str, port: int, policy: str, key: Any) -> None:
        """Lets a key pass, or raises :class:`DeviceError`."""
        import paramiko

        if policy == "off":
            return
        name = host if port == 22 else f"[{host}]:{port}"
        with self._lock:
            known = paramiko.HostKeys()
            try:
                known.load(self.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise DeviceError("host_key_unknown", f"{host}: the host keys in {self.path} cannot be read: {error}") from None
            kept = known.lookup(name)
            if kept:
                same = kept.get(key.get_name())
                if same is not None and same.asbytes() == key.asbytes():
                    return
                raise DeviceError(
                    "host_key_changed",
                    f"{name}: the host key is not the one stored in {self.path}; verify the new one "
                    f"({key.get_name()} {key.fingerprint}) out of band, then remove the line of {name} there",
                )
            if policy == "strict":
                raise DeviceError(
                    "host_key_unknown",
                    f"{name}: the host key ({key.get_name()} {key.fingerprint}) is not in {self.path}; add it, or use accept-new",
                )
            self._keep(f"{name} {key.get_name()} {key.get_base64()}\n")
        log.info("%s: new host key %s kept", name, key.fingerprint)

    def _keep(self, line: str) -> None:
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DeviceError("host_key_unknown", f"the host key cannot be kept in {self.path}: {error}") from None
