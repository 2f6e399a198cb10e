"""A request's arguments as Netmiko's, and what of them is not let through."""

from __future__ import annotations

import difflib
import inspect
import io
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from netpulse_plugin import BadRequest, DeviceError

Object = Dict[str, Any]

#: Of Netmiko's own arguments: those that would let a request read files, run programs or write logs on
#: this machine, or mean nothing over REST. With what to do instead.
WITHHELD = {
    "ssh_config_file": "it can run programs on this machine",
    "system_host_keys": "this driver has a host-key store of its own (setting `known_hosts`)",
    "alt_host_keys": "this driver has a host-key store of its own (setting `known_hosts`)",
    "alt_key_file": "this driver has a host-key store of its own (setting `known_hosts`)",
    "session_log": "it would write files on this machine",
    "session_log_record_writes": "there is no session log",
    "session_log_file_mode": "there is no session log",
    "serial_settings": "serial lines are not supported",
    "sock": "a socket cannot be passed by REST",
    "sock_telnet": "proxies are not supported",
    "use_keys": "keys of the server's own user are not tried; give `key_file` or `pkey`",
    "allow_agent": "the server's own agent is not asked; give `key_file` or `pkey`",
    "auto_connect": "this driver connects when it should",
    "verbose": "there is nobody to print to",
}
#: Arguments that reach the device another way: left out, the connection would go elsewhere.
REFUSED = ("proxy_host", "proxy_username", "proxy_password")
#: Read by NetPulse itself.
ELSEWHERE = {"save", "enable_mode", "host_key_policy", "ssh_strict", "driver", "credential_ref", "hostname"}
PARSING = {"use_textfsm", "textfsm_template", "use_ttp", "ttp_template", "use_genie", "raise_parsing_error"}
COMMAND = {
    "expect_string", "read_timeout", "delay_factor", "max_loops", "auto_find_prompt", "strip_prompt",
    "strip_command", "normalize", "cmd_verify",
}  # fmt: skip
CONFIG = {
    "read_timeout", "config_mode_command", "enter_config_mode", "error_pattern", "terminator",
    "bypass_commands", "exit_config_mode", "strip_prompt", "strip_command", "cmd_verify", "delay_factor", "max_loops",
}  # fmt: skip


@dataclass
class Settings:
    """What users write under the plugin's settings."""

    #: `accept-new`, `strict` or `off`.
    host_keys: str = "accept-new"
    known_hosts: str = ""
    #: Folders below which requests may name private keys.
    key_dirs: List[str] = field(default_factory=list)
    max_sessions: int = 500
    conn_timeout: float = 10.0

    @classmethod
    def read(cls, given: Object) -> "Settings":
        """Reads them. Raises :class:`BadRequest` with a sentence."""
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise BadRequest(f"the setting `{unknown[0]}` is not known: there are {known}")
        settings = cls(**given)
        if settings.host_keys not in ("accept-new", "strict", "off"):
            raise BadRequest("the setting `host_keys` should be accept-new, strict or off")
        if not isinstance(settings.key_dirs, list) or not all(isinstance(d, str) for d in settings.key_dirs):
            raise BadRequest("the setting `key_dirs` should be a list of folders")
        if not isinstance(settings.max_sessions, int) or not 1 <= settings.max_sessions <= 100_000:
            raise BadRequest("the setting `max_sessions` should be a number, 1 to 100000")
        if not isinstance(settings.conn_timeout, (int, float)) or not 0 < settings.conn_timeout <= 600:
            raise BadRequest("the setting `conn_timeout` should be seconds, at most 600")
        if not settings.known_hosts:
            home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
            settings.known_hosts = os.path.join(home, "netpulse", "netmiko_known_hosts")
        return settings


@dataclass
class Plan:
    """A connection, understood."""

    device_type: str
    host: str
    port: int
    #: For Netmiko's own class.
    keywords: Object
    policy: str
    warnings: List[str]


def device_class(name: Any) -> Any:
    """Netmiko's class for a device type. Raises :class:`DeviceError` (`unknown_platform`)."""
    from netmiko.ssh_dispatcher import CLASS_MAPPER

    if not isinstance(name, str) or not name:
        raise BadRequest("connection_args.device_type: Field required")
    if name == "autodetect":
        return None
    found = CLASS_MAPPER.get(name)
    if found is None or "serial" in name:
        near = difflib.get_close_matches(name, CLASS_MAPPER, n=3)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise DeviceError("unknown_platform", f"Netmiko has no device type `{name}`{hint}")
    return found


def plan(args: Object, settings: Settings, keepalive: Optional[float]) -> Plan:
    """Reads connection arguments. Raises :class:`BadRequest` or :class:`DeviceError`."""
    from netmiko import BaseConnection

    kind = device_class(args.get("device_type"))
    host = str(args.get("host") or args.get("ip") or args.get("hostname") or "").strip()
    if not host or host.startswith("-") or not re.match(r"^[\w.:%\[\]-]+$", host):
        raise BadRequest("connection_args.host: Input should be a host name or an address")
    for key in REFUSED:
        if args.get(key):
            raise BadRequest(f"connection_args.{key}: jump hosts are not supported by netmiko_py; use `driver: netmiko`")
    own = set(inspect.signature(BaseConnection.__init__).parameters) - {"self", "ip", "host"}
    telnet = str(args["device_type"]).endswith("_telnet")
    keywords: Object = {"host": host, "conn_timeout": settings.conn_timeout}
    warnings = []
    for key, value in args.items():
        if key in ("host", "ip", "pkey", "key_file", "key_filename") or key in ELSEWHERE or value is None:
            continue
        if key in WITHHELD:
            if value not in (False, "", {}, "write"):
                warnings.append(f"`{key}` was not used: {WITHHELD[key]}")
        elif key in own:
            keywords[key] = value
        else:
            warnings.append(f"`{key}` was not used: Netmiko has no such argument")
    try:
        keywords["port"] = port = int(args.get("port") or (23 if telnet else 22))
    except (TypeError, ValueError):
        port = 0
    if not 0 < port < 65536:
        raise BadRequest("connection_args.port: Input should be a port, 1 to 65535")
    if keywords.get("disabled_algorithms") is not None and not isinstance(keywords["disabled_algorithms"], dict):
        raise BadRequest("connection_args.disabled_algorithms: Input should be an object of lists")
    for key in ("timeout", "conn_timeout", "auth_timeout", "banner_timeout", "blocking_timeout", "session_timeout"):
        value = keywords.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
            raise BadRequest(f"connection_args.{key}: Input should be a number of seconds")
    if "keepalive" not in keywords and keepalive:
        keywords["keepalive"] = int(keepalive)
    _key(args, settings, keywords)
    policy = _policy(args, settings)
    if kind is None and telnet:
        raise BadRequest("connection_args.device_type: autodetect works over SSH only")
    return Plan(str(args["device_type"]), host, port, keywords, policy, warnings)


def _policy(args: Object, settings: Settings) -> str:
    words = {"auto_add": "accept-new", "warning": "accept-new", "accept-new": "accept-new",
             "reject": "strict", "strict": "strict", "off": "off"}  # fmt: skip
    given = args.get("host_key_policy")
    if given is not None:
        if given not in words:
            raise BadRequest(f"connection_args.host_key_policy: Input should be one of {', '.join(words)}")
        return words[given]
    return "strict" if args.get("ssh_strict") is True else settings.host_keys


def _key(args: Object, settings: Settings, keywords: Object) -> None:
    text = args.get("pkey")
    file = args.get("key_file") or args.get("key_filename")
    if text:
        keywords["pkey"] = read_key(str(text), args.get("passphrase") or None)
        keywords["use_keys"] = True
    elif file:
        real = os.path.realpath(str(file))
        inside = any(real.startswith(os.path.realpath(folder) + os.sep) for folder in settings.key_dirs)
        if not inside:
            raise BadRequest(
                "connection_args.key_file: the file is not below a folder of the setting `key_dirs`; send the key itself as `pkey`"
            )
        keywords.update(key_file=real, use_keys=True)


def read_key(text: str, passphrase: Optional[str]) -> Any:
    """A private key out of its text. Raises :class:`BadRequest`."""
    import paramiko

    locked = False
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text.strip() + "\n"), password=passphrase)
        except paramiko.PasswordRequiredException:
            locked = True
        except Exception:  # Each class fails in its own way at another's key.
            continue
    if locked:
        raise BadRequest("connection_args.pkey: the key is locked: give `passphrase`")
    raise BadRequest("connection_args.pkey: this is no private key that can be read (or the passphrase is wrong)")


def unused(driver_args: Object, config: bool) -> List[str]:
    """Which driver arguments change nothing, a sentence each."""
    own, other = (CONFIG, COMMAND) if config else (COMMAND, CONFIG)
    idle = {"exit_config_mode": True, "enter_config_mode": True, "terminator": "#"}
    found = []
    for key, value in driver_args.items():
        if key in own or key in PARSING or key in ELSEWHERE or value is None or idle.get(key) == value:
            continue
        why = ("it is for commands" if config else "it is for `config`") if key in other else "Netmiko has no such argument"
        found.append(f"`{key}` was not used: {why}")
    if config and driver_args.get("exit_config_mode") is False:
        found.append("`exit_config_mode` was not used: configuration mode is always left")
    return found


def seconds(driver_args: Object, key: str, default: float) -> float:
    """A time out of the driver arguments. Raises :class:`BadRequest`."""
    value = driver_args.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86400:
        raise BadRequest(f"driver_args.{key}: Input should be seconds, at most 86400")
    # Netmiko waits for ever at 0; a job's own time is the end of that here.
    return float(value) or 86400.0


def pattern(driver_args: Object, key: str, flags: int = 0) -> Optional["re.Pattern[str]"]:
    """A pattern out of the driver arguments. Raises :class:`BadRequest`."""
    text = driver_args.get(key)
    if not text:
        return None
    try:
        return re.compile(str(text), flags)
    except re.error as error:
        raise BadRequest(f"driver_args.{key}: this is no pattern: {error}") from None


def check(request: Object, settings: Settings) -> None:
    """Everything wrong with a request that can be seen without the device."""
    args: Object = request.get("connection_args") or {}
    kind = device_class(args.get("device_type"))
    driver_args: Object = request.get("driver_args") or {}
    seconds(driver_args, "read_timeout", 1.0)
    for key in ("expect_string", "error_pattern", "bypass_commands"):
        pattern(driver_args, key)
    if request.get("save") and kind is not None and not _saves(kind):
        raise BadRequest(f"save: Netmiko knows no way to save the configuration of a {args['device_type']}; leave `save` out")
    masked: Tuple[str, ...] = ("pkey", "key_file", "key_filename")
    plan({key: value for key, value in args.items() if key not in masked}, settings, None)


def has_commit(kind: Any) -> bool:
    """Whether lines wait for a commit."""
    from netmiko import BaseConnection

    return kind.commit is not BaseConnection.commit


def _saves(kind: Any) -> bool:
    from netmiko import BaseConnection

    return has_commit(kind) or kind.save_config is not BaseConnection.save_config
