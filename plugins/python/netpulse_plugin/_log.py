"""Logs as JSON lines on stderr, with the secrets of the calls in flight masked."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sys
import threading
from typing import Any, Dict, Iterable, Iterator, List, TextIO

#: What stands where a secret stood.
MASK = "******"

_SECRET_KEYS = frozenset(
    "password passwd secret private_key token pkey passphrase proxy_password proxy_pkey "
    "proxy_passphrase sudo_password secret_id api_key enable_password community key_data".split()
)

#: Attributes that every log record has; the others came in with ``extra=``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def is_secret_key(key: str) -> bool:
    """Whether the value under ``key`` is a secret."""
    key = key.lower()
    return key in _SECRET_KEYS or key.endswith(("_password", "_secret"))


def secrets_in(value: Any, inside: bool = False) -> Iterator[str]:
    """Every secret text in ``value``. Texts shorter than four characters are left out: masking
    them would garble ordinary output."""
    if isinstance(value, dict):
        for key, item in value.items():
            # A mapping names the fields of a secret, not their values.
            if key != "field_mapping":
                yield from secrets_in(item, inside or is_secret_key(str(key)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from secrets_in(item, inside)
    elif inside and isinstance(value, str) and len(value) >= 4:
        yield value


class Masker:
    """Knows the secrets that must not be written down just now."""

    def __init__(self) -> None:
        self._held: Dict[str, int] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, secrets: Iterable[str]) -> Iterator[None]:
        """Masks ``secrets`` inside the block."""
        held = list(secrets)
        self.hold(held)
        try:
            yield
        finally:
            self.release(held)

    def hold(self, secrets: Iterable[str]) -> None:
        """Masks ``secrets`` from now on; each hold needs its release."""
        with self._lock:
            for secret in secrets:
                self._held[secret] = self._held.get(secret, 0) + 1

    def release(self, secrets: Iterable[str]) -> None:
        """Takes one hold back."""
        with self._lock:
            for secret in secrets:
                left = self._held.get(secret, 0) - 1
                if left > 0:
                    self._held[secret] = left
                else:
                    self._held.pop(secret, None)

    def clean(self, text: str) -> str:
        """``text`` with every held secret masked, the longest first."""
        with self._lock:
            held: List[str] = sorted(self._held, key=len, reverse=True)
        for secret in held:
            if secret in text:
                text = text.replace(secret, MASK)
        return text


#: The process's own.
MASKER = Masker()


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``msg``, ``logger`` and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line: Dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower().replace("critical", "error").replace("warning", "warn"),
            "msg": MASKER.clean(record.getMessage()),
            "logger": record.name,
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in line:
                text = value if isinstance(value, str) else json.dumps(value, default=str)
                plain = isinstance(value, (bool, int, float)) or value is None
                line[key] = MASK if is_secret_key(key) else (value if plain else MASKER.clean(text))
        if record.exc_info:
            line["trace"] = MASKER.clean(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _Prints:
    """``print`` in a plugin becomes log records: stdout belongs to the host."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._local = threading.local()
        self._log = logging.getLogger("print")

    def write(self, text: str) -> int:
        kept = getattr(self._local, "rest", "") + text
        *lines, rest = kept.split("\n")
        self._local.rest = rest[-65536:]
        for line in lines:
            if line.strip():
                self._log.info("%s", line)
        return len(text)

    def flush(self) -> None:
        """There is nothing to flush: a record is written at once."""

    def isatty(self) -> bool:
        return False


def setup(level: str = "info", stream: TextIO = sys.stderr) -> None:
    """Sends the root logger's records to ``stream`` as JSON lines, and prints to the log."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    known = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING"}
    root.setLevel(known.get(level.lower(), "ERROR"))
    # A closed stderr is the host's end, not a reason to write tracebacks about logging.
    logging.raiseExceptions = False
    sys.stdout = _Prints()
