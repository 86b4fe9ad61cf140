"""Log lines as the agent reads them: JSON on stderr."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

MAX_LINE = 4096
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Masker:
    """Knows the secrets of all open instances and keeps them out of texts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: dict[int, set[str]] = {}

    def learn(self, instance: int, secrets: set[str]) -> None:
        """Remember the secrets of an instance. Very short ones are left: they stand in any text."""
        with self._lock:
            self._secrets[instance] = {s for s in secrets if len(s) > 3}

    def forget(self, instance: int) -> None:
        """Forget them, when the instance is closed."""
        with self._lock:
            self._secrets.pop(instance, None)

    def __call__(self, text: str) -> str:
        with self._lock:
            known = [s for secrets in self._secrets.values() for s in secrets]
        for secret in sorted(known, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


# The class takes a parameter from Python 3.11 on.
if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class Log(_Adapter):
    """An instance's log: each line says which pipeline and plugin it is about."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add that to what the line itself says."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class Handler(logging.Handler):
    """Writes each record as one JSON line that fits into what the agent keeps."""

    def __init__(self, mask: Masker) -> None:
        super().__init__()
        self._mask = mask

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self._line(record)
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a log that fails must not fail what is logged
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str:
        level = "ERROR" if record.levelno >= logging.ERROR else "WARN" if record.levelno >= logging.WARNING else record.levelname
        said: dict[str, Any] = {"level": level if level in ("ERROR", "WARN", "INFO") else "DEBUG", "msg": self._mask(record.getMessage())}
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in said and key != "time":
                said[key] = value if isinstance(value, (bool, int, float)) else self._mask(str(value))
        if record.exc_info and record.exc_info[0] is not None:
            said["traceback"] = self._mask("".join(traceback.format_exception(*record.exc_info)))
        return _fit(said)


def _fit(said: dict[str, Any]) -> str:
    """One line of at most MAX_LINE bytes: the longest texts lose their beginnings."""
    line = json.dumps(said)
    while len(line) > MAX_LINE:
        longest = max(said, key=lambda k: len(json.dumps(said[k])))
        text = str(said[longest])
        if len(text) < 16:
            return json.dumps({"level": said["level"], "msg": str(said["msg"])[:200]})
        said[longest] = "…" + text[len(text) // 4 + 2 :] if longest == "traceback" else text[: len(text) * 3 // 4 - 1] + "…"
        line = json.dumps(said)
    return line


def install(mask: Masker) -> None:
    """Send everything that the program logs to the agent."""
    logging.basicConfig(level=logging.INFO, handlers=[Handler(mask)], force=True)
    logging.captureWarnings(True)
