"""A Netmiko connection at work."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any, Callable, Optional, Union

from netpulse_plugin import DeviceError, Rejected, Result, Session, Work, current_call

from . import arguments
from .arguments import Plan

log = logging.getLogger("netmiko_py")

#: What devices say of a line that they refuse, vendor by vendor; `error_pattern` replaces it.
REFUSED = re.compile(
    r"^\s*\^\s*$"
    r"|^\s*% ?(?:unrecognized|unknown|invalid|incomplete|ambiguous|wrong|bad |error|cannot|can't|unable|unavailable"
    r"|not allowed|permission denied|authorization (?:failed|denied)|configuration failed|no such|too many)"
    r"|^command (?:rejected|authorization failed|fail)"
    r"|invalid input detected"
    r"|^\s*error\b\s*:"
    r"|^\s*(?:syntax error|unknown command|missing argument|missing mandatory|no valid completions|invalid syntax)"
    r"|^\s*(?:unrecognized command|incomplete command|ambiguous command|wrong parameter|too many parameters)"
    r"|^\s*(?:configuration path: .*(?:not valid|invalid)|set failed|delete failed|nothing to delete)"
    r"|^\s*invalid (?:command|value|parameter)|^\s*value validation failed",
    re.IGNORECASE | re.MULTILINE,
)
#: Where in the configuration the session is, which is no answer.
CONTEXT = re.compile(r"^\s*(?:\[edit[^\]]*\]|\{[\w:-]+\})\s*$")
#: The words that commit and save, as devices echo them.
OWN = re.compile(r"^(?:commit|write|save|copy)\b[\w :-]*$")
#: Lines after which the prompt is another one.
RENAMES = re.compile(r"^\s*(?:set\s+system\s+)?(?:hostname|host-name|sysname|switchname|prompt)\s", re.IGNORECASE)
#: How candidates are thrown away, by Netmiko's class.
DISCARD = {"Juniper": "rollback 0", "VyOS": "discard", "Huawei": "clear configuration candidate", "PaloAlto": "revert config",
           "CiscoXr": "abort", "NokiaSros": "discard", "NokiaSrl": "discard now"}  # fmt: skip
#: Seconds that a command has to end after Ctrl-C, before its connection is closed.
AFTER_CTRL_C = 3.0


class NetmikoSession(Session):
    """One connection to one device."""

    def __init__(self, connection: Any, plan: Plan, closed: Callable[[], None]) -> None:
        self.connection = connection
        self._closed: Optional[Callable[[], None]] = closed
        self._closing = threading.Lock()
        self.plan = plan
        self.candidate = arguments.has_commit(type(connection))
        self.metadata = {"device_type": plan.device_type}
        self._enabled = False
        self._aborted = False
        self._renamed = False
        self._banner: Optional[str] = None
        self._at_work = threading.Event()

    # --- what every call does -----------------------------------------------------------------

    def _failed(self, error: Exception, what: str = "") -> Exception:
        """Netmiko's and Paramiko's exceptions as ours."""
        from netmiko.exceptions import ReadTimeout

        host = self.plan.host
        if isinstance(error, (DeviceError, Rejected)):
            return error
        transport = getattr(getattr(self.connection, "remote_conn", None), "transport", None)
        dead = transport is not None and not transport.is_active()
        if isinstance(error, (OSError, EOFError)) or dead or self.connection.remote_conn is None:
            return DeviceError("session_lost", f"{host}: the session was lost{what}")
        if isinstance(error, ReadTimeout):
            # What comes late would be taken for the next answer.
            self.usable = False
            first = " ".join(str(error).split())[:300]
            return DeviceError("read_timeout", f"{host}: {first}{what}")
        if isinstance(error, ValueError) and str(error):
            return DeviceError("plugin_failed", f"{host}: {' '.join(str(error).split())[:500]}{what}")
        return error

    def _read_timeout(self, work: Work, default: float) -> float:
        return current_call().remaining(arguments.seconds(work.driver_args, "read_timeout", default))

    def _result(self, line: str, text: str) -> Result:
        return Result(line, text)

    def _first(self, work: Work, config: bool) -> None:
        warnings = self.plan.warnings + arguments.unused(work.driver_args, config)
        self.metadata = {"device_type": self.plan.device_type, **({"warnings": warnings} if warnings else {})}
        self._enabled = False
        self._aborted = False
        self._renamed = False
        try:
            self.connection.clear_buffer()
        except Exception as error:
            raise self._failed(error) from error

    def _enable(self) -> None:
        connection = self.connection
        try:
            if not connection.check_enable_mode():
                connection.enable()
                self._enabled = True
        except Exception as error:
            known = self._failed(error)
            if isinstance(known, DeviceError) and known.code in ("plugin_failed", "read_timeout"):
                # It may still stand at the question for the secret.
                self.usable = False
                known = DeviceError("enable_failed", f"{self.plan.host}: privileged mode was not reached: check `secret`")
            raise known from error

    # --- commands -----------------------------------------------------------------------------

    def begin(self, work: Work) -> None:
        self._first(work, config=False)
        if work.enable_mode:
            self._enable()

    def command(self, command: str, work: Work) -> Union[str, Result]:
        options = {
            key: work.driver_args[key]
            for key in ("expect_string", "auto_find_prompt", "strip_prompt", "strip_command", "normalize")
            if work.driver_args.get(key) is not None
        }
        options["cmd_verify"] = bool(work.driver_args.get("cmd_verify", False))
        timeout = self._read_timeout(work, 30.0)
        self._at_work.set()
        try:
            text = self.connection.send_command(command, read_timeout=timeout, **options)
        except Exception as error:
            raise self._failed(error, f" (`{command}`)") from error
        finally:
            self._at_work.clear()
        return self._result(command, text)

    def end(self, work: Work) -> None:
        if self._enabled:
            self.connection.exit_enable_mode()

    def interrupt(self) -> None:
        if not self._at_work.is_set():
            return
        try:
            self.connection.write_channel("\x03")
        except Exception as error:
            log.info("%s: no Ctrl-C: %s", self.plan.host, error)
        timer = threading.Timer(AFTER_CTRL_C, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        if self._at_work.is_set():
            self.usable = False
            self.close(force=True)

    # --- changes ------------------------------------------------------------------------------

    def enter_config(self, work: Work) -> None:
        self._first(work, config=True)
        if not self.alive():
            raise DeviceError("session_lost", f"{self.plan.host}: the device closed the idle session")
        self._banner = None
        if work.driver_args.get("enter_config_mode") is False:
            if work.enable_mode:
                self._enable()
            return
        self._enable()
        own = work.driver_args.get("config_mode_command")
        try:
            if own:
                self.connection.config_mode(config_command=own)
            else:
                self.connection.config_mode()
            self.connection.clear_buffer()
        except Exception as error:
            known = self._failed(error)
            if isinstance(known, DeviceError) and known.code in ("plugin_failed", "read_timeout"):
                known = DeviceError("config_mode_failed", f"{self.plan.host}: Failed to enter configuration mode. {known}")
            raise known from error

    def line(self, line: str, work: Work) -> Union[str, Result]:
        connection = self.connection
        timeout = self._read_timeout(work, 10.0)
        bypass = arguments.pattern(work.driver_args, "bypass_commands")
        echo_only = self._in_banner(line) or bool(bypass and bypass.search(line))
        self._at_work.set()
        try:
            connection.write_channel(connection.normalize_cmd(line))
            # The echo first: what is left of an earlier answer must not be taken for this one's.
            echo = line.strip()
            seen = ""
            if echo and work.driver_args.get("cmd_verify") is not False:
                seen = connection.read_until_pattern(pattern=re.escape(echo), read_timeout=timeout)
            if echo_only:
                return self._result(line, "")
            if RENAMES.match(line):
                text = seen + connection.read_channel_timing(last_read=1.0, read_timeout=timeout)
                self._learn(text)
            else:
                text = seen + connection.read_until_pattern(pattern=self._prompt(work), read_timeout=timeout)
        except Exception as error:
            raise self._failed(error, f" (`{line}`)") from error
        finally:
            self._at_work.clear()
        answer = self._clean(line, text)
        errors = arguments.pattern(work.driver_args, "error_pattern", re.IGNORECASE | re.MULTILINE) or REFUSED
        if errors.search(answer):
            said = [row for row in answer.splitlines() if row.strip(" ^")]
            raise Rejected(said[-1].strip() if said else "it was marked as wrong", answer)
        return self._result(line, answer)

    def _in_banner(self, line: str) -> bool:
        """Whether no prompt follows: inside of a text that ends with a mark of its own."""
        if self._banner is not None:
            if self._banner in line:
                self._banner = None
                return False
            return True
        opened = re.match(r"\s*banner\s+\w+\s+(\^C|\S)(.*)$", line)
        if opened and opened.group(1) not in opened.group(2):
            self._banner = opened.group(1)
            return True
        return False

    def _prompt(self, work: Work) -> str:
        terminator = str(work.driver_args.get("terminator") or "#")
        return rf"(?:^|\n)[^\n]*{re.escape(self.connection.base_prompt)}[^\n]*(?:[\]#>$%]|{terminator})\s*$"

    def _learn(self, text: str) -> None:
        self._renamed = True
        rows = text.strip().splitlines()
        found = re.match(r"^[\[<]?[*~]?(?P<name>[^()\s\]>#$%]+?)(?:\([^)]*\))?[\]>#$%]+$", rows[-1].strip()) if rows else None
        if found:
            self.connection.base_prompt = found.group("name")

    def _clean(self, line: str, text: str) -> str:
        rows = text.replace("\r", "").split("\n")
        for index, row in enumerate(rows):
            if line.strip() and line.strip() in row:
                rows = rows[index + 1 :]
                break
        rows = [row for row in rows[:-1] if not CONTEXT.match(row)]  # The last one is the prompt.
        return "\n".join(rows).strip("\n").rstrip()

    def commit(self, work: Work) -> str:
        try:
            said = self.connection.commit()
        except ValueError as error:
            text = str(error)
            if "ommit" in text or "ailed" in text:
                rows = [row.strip() for row in text.splitlines() if row.strip()]
                raise Rejected(" ".join(rows)[:500], text) from error
            raise self._failed(error, " (commit)") from error
        except Exception as error:
            raise self._failed(error, " (commit)") from error
        return self._said(said)

    def _said(self, text: str) -> str:
        """What a device said, without the prompts around it."""
        prompt = re.compile(rf"^[<\[]?[*~]?{re.escape(self.connection.base_prompt)}[^ ]*[\]#>$%]")
        rows = [row.rstrip() for row in text.replace("\r", "").split("\n")]
        rows = [row for row in rows if row and not prompt.match(row) and not CONTEXT.match(row)]
        if rows and OWN.match(rows[0]):
            rows = rows[1:]
        return "\n".join(rows)

    def discard(self, work: Work) -> None:
        kind = next((name for name in DISCARD if type(self.connection).__name__.startswith(name)), None)
        if kind is None:
            raise DeviceError(
                "not_supported", f"Netmiko has no way to discard the candidate of a {self.plan.device_type}; look at the device"
            )
        command = DISCARD[kind]
        if command == "abort":
            # It leaves the configuration mode too.
            self._aborted = True
        try:
            self.connection.write_channel(self.connection.normalize_cmd(command))
            self.connection.read_until_pattern(pattern=re.escape(command), read_timeout=20.0)
            self.connection.read_until_pattern(pattern=self._prompt(work), read_timeout=20.0)
        except Exception as error:
            raise self._failed(error, f" (`{command}`)") from error

    def leave_config(self, work: Work) -> None:
        connection = self.connection
        try:
            if work.driver_args.get("enter_config_mode") is not False and not self._aborted:
                connection.exit_config_mode()
            if self._renamed:
                connection.set_base_prompt()
            if self._enabled and not work.save:
                connection.exit_enable_mode()
        except Exception as error:
            raise self._failed(error) from error

    def save(self, work: Work) -> str:
        try:
            said = self.connection.save_config()
        except (NotImplementedError, AttributeError) as error:
            if self.candidate:
                return ""  # The commit has saved.
            raise DeviceError("not_supported", f"{self.plan.host}: Netmiko cannot save here") from error
        except Exception as error:
            raise self._failed(error, " (save)") from error
        finally:
            if self._enabled:
                self.connection.exit_enable_mode()
        if REFUSED.search(said) or re.search(r"\[fail(?:ed)?\]|open failed|copy failed|not enough space", said, re.I):
            raise DeviceError("save_failed", f"{self.plan.host}: {' '.join(said.split())[:300]}")
        return self._said(said)

    # --- life ---------------------------------------------------------------------------------

    def alive(self) -> bool:
        try:
            if not self.connection.is_alive():
                return False
            # Netmiko only writes; an answer tells whether somebody reads.
            self.connection.clear_buffer()
            self.connection.write_channel(self.connection.RETURN)
            self.connection.read_until_pattern(pattern=re.escape(self.connection.base_prompt), read_timeout=10.0)
            self.connection.clear_buffer()
            return True
        except Exception:
            return False

    def close(self, force: bool) -> None:
        if force or not self.usable:
            # Without the vendor's words of parting: nobody may say anything, or nobody listens.
            self.connection.cleanup = lambda *_args, **_kwargs: None
            transport = getattr(getattr(self.connection, "remote_conn", None), "transport", None)
            try:
                # First of all the socket: Paramiko's own closing waits for its thread.
                if transport is not None:
                    transport.sock.close()
            except Exception as error:
                log.info("%s: %s", self.plan.host, error)
        try:
            self.connection.disconnect()
        finally:
            with self._closing:
                closed, self._closed = self._closed, None
            if closed is not None:
                closed()
