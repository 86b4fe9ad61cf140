"""A batch and its events, as a plugin sees them: views over the columns of a frame."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator, MutableMapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any

from . import frame as wire
from .errors import Deadline, Failure
from .values import Json, Time

_INT64 = 1 << 63


class Batch:
    """Events that came together. It, and what is in it, is the plugin's only until `process` or `write` returns."""

    __slots__ = ("_changed", "_columns", "_deadline", "_dropped", "_failures", "_frame", "_values")

    def __init__(self, frame: wire.Frame, deadline: float | None = None) -> None:
        self._frame = frame
        self._columns: dict[str, list[wire.Column]] = {}
        for column in frame.columns:
            self._columns.setdefault(column.name, []).append(column)
        self._values: dict[str, list[Any]] = {}
        self._changed: set[str] = set()
        self._dropped: bytearray | None = None
        self._failures: dict[int, Failure] = {}
        self._deadline = deadline

    def __len__(self) -> int:
        return self._frame.count

    def __getitem__(self, index: int) -> Event:
        count = self._frame.count
        if not -count <= index < count:
            raise IndexError(f"event {index} of {count}")
        return Event(self, index % count)

    def __iter__(self) -> Iterator[Event]:
        """The events one after the other. Raises Deadline once the time for the call is nearly over."""
        for index in range(self._frame.count):
            if not index & 63:
                self.check_deadline()
            yield Event(self, index)

    def time_left(self) -> float:
        """Seconds until this call should give up: use it as timeout of what waits."""
        return float("inf") if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def check_deadline(self) -> None:
        """Raise Deadline if no time is left."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Deadline("gave up shortly before the deadline of the call")

    def column(self, name: str) -> list[Any]:
        """A field of all events, None where it is absent: for plugins in a hurry. It is a copy."""
        values = self._load(_wire_name(name))
        return [v.load() if type(v) is Json else v for v in values]

    def set_column(self, name: str, values: Sequence[Any]) -> None:
        """Set a field of all events; None removes it."""
        if len(values) != self._frame.count:
            raise ValueError(f"{len(values)} values for {self._frame.count} events")
        key = _writable(name)
        self._values[key] = [None if v is None else _checked(key, v) for v in values]
        self._changed.add(key)

    def fail(self, index: int, failure: Failure) -> None:
        """Say that one event was not written, and why. Outputs only."""
        if not 0 <= index < self._frame.count:
            raise IndexError(f"event {index} of {self._frame.count}")
        self._failures[index] = failure

    def _load(self, key: str) -> list[Any]:
        values = self._values.get(key)
        if values is None:
            columns = self._columns.get(key, ())
            values = columns[0].values() if columns else [None] * self._frame.count
            for column in columns[1:]:
                values = [b if a is None else a for a, b in zip(values, column.values())]
            self._values[key] = values
        return values

    def _set(self, key: str, index: int, value: Any) -> None:
        values = self._load(key)
        old = values[index]
        if type(old) is not type(value) or old != value:
            values[index] = value
            self._changed.add(key)

    def _drop(self, index: int, dropped: bool) -> None:
        if self._dropped is None:
            self._dropped = bytearray(self._frame.count)
        self._dropped[index] = dropped

    def _patch_columns(self) -> Iterator[tuple[str, int, wire.Values]]:
        for key in sorted(self._changed):
            values = self._values[key]
            types = {wire.TYPE_OF[t] for t in set(map(type, values)) if t is not type(None)}
            if len(types) > 1:
                for kind in sorted(types):
                    yield key, kind, [v if v is not None and wire.TYPE_OF[type(v)] == kind else None for v in values]
            elif types:
                yield key, types.pop(), values
            elif key in self._columns:
                yield key, self._columns[key][0].type, values
        if self._dropped is not None and any(self._dropped):
            yield "@dropped", wire.BOOL, list(map(bool, self._dropped))

    def _encode_patch(self, notes: dict[str, Any] | None) -> bytes:
        f = self._frame
        return wire.encode_patch(f.instance, f.sequence, f.count, self._patch_columns(), notes)


class Event(MutableMapping[str, Any]):
    """One event: a mapping of its fields by name. An absent field is no key; set to None or to an empty text it is absent.

    Values are str, int, float, bool, bytes, Time, tuple (of str) and Object. Lists and objects are copies: assign what is new.
    """

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch = batch
        self._index = index

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or the default if the event has none."""
        batch = self._batch
        values = batch._values.get(name)
        if values is None or name[:1] == "@":
            values = batch._load(_wire_name(name))
        value = values[self._index]
        if value is None:
            return default
        return value.load() if type(value) is Json else value

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        key = _writable(name)
        self._batch._set(key, self._index, None if value is None else _checked(key, value))

    def __delitem__(self, name: str) -> None:
        key = _writable(name)
        if self._batch._load(key)[self._index] is None:
            raise KeyError(name)
        self._batch._set(key, self._index, None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._batch._load(_wire_name(name))[self._index] is not None

    def __iter__(self) -> Iterator[str]:
        batch = self._batch
        for key in [*batch._columns, *(k for k in batch._values if k not in batch._columns)]:
            if not wire.is_own(key) and batch._load(key)[self._index] is not None:
                yield key[1:] if key[:1] == "@" else key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Event({dict(self)!r})"

    @property
    def index(self) -> int:
        """Its place in the batch, from 0."""
        return self._index

    @property
    def stream(self) -> str:
        """Name of the stream that it was read from."""
        return str(self._own("@stream") or "")

    @property
    def offset(self) -> int:
        """Its place in the stream."""
        return int(self._own("@offset") or 0)

    @property
    def read_at(self) -> Time | None:
        """When it was read."""
        value: Time | None = self._own("@read_at")
        return value

    @property
    def raw(self) -> bytes:
        """The record as it was read, without the newline."""
        value: bytes = self._own("@raw") or b""
        return value

    @raw.setter
    def raw(self, value: bytes) -> None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"raw must be bytes, not {type(value).__name__}")
        self._batch._set("@raw", self._index, bytes(value) or None)

    @property
    def id(self) -> str:
        """32 hexadecimal digits that a far end should know the event by: sent again, it has the same."""
        line = self._own("@line") & 0xFFFFFFFFFFFFFFFF
        length = int(self._own("@length") or 0)
        text = wire.to_bytes(self.stream) + b"\0" + struct.pack("<qQ", self.offset, line)
        if length > 0:
            text += struct.pack("<q", length)
        return hashlib.sha256(text).hexdigest()[:32]

    @property
    def dropped(self) -> bool:
        """Whether this plugin dropped it."""
        return self._batch._dropped is not None and bool(self._batch._dropped[self._index])

    def drop(self) -> None:
        """Let it go: it reaches no output. Processors only."""
        self._batch._drop(self._index, True)

    def fail(self, failure: Failure) -> None:
        """Say that it was not written, and why. Outputs only."""
        self._batch.fail(self._index, failure)

    def _own(self, key: str) -> Any:
        return self._batch._load(key)[self._index]


def _wire_name(name: str) -> str:
    return "@" + name if name[:1] == "@" else name


def _writable(name: str) -> str:
    if name in wire.READ_ONLY:
        raise ValueError(f"{name} cannot be changed")
    if not name or len(name) > 1000:
        raise ValueError("the name of a field has 1 to 1,000 characters")
    if not name.isascii():
        name.encode()
    return _wire_name(name)


def _checked(key: str, value: Any) -> Any:
    """The value in the exact type that the wire has for it, or None for what the wire takes as absent."""
    value = _exact(key, value)
    wanted = wire.SCHEMA.get(key)
    if type(value) is bytes:
        raise TypeError(f"{key}: a field cannot hold bytes; decode them with \"utf-8\" and \"surrogateescape\"")
    if wanted is None or value is None:
        return value
    if wanted == wire.FLOAT and type(value) is int:
        return float(value)
    if wire.TYPE_OF[type(value)] != wanted:
        raise TypeError(f"{key} must be {wire.TYPES[wanted]}, not {wire.TYPES[wire.TYPE_OF[type(value)]]}")
    if key in wire.INT32 and not -(1 << 31) <= value < 1 << 31:
        raise ValueError(f"{key}: {value} does not fit into 32 bits")
    return value


def _exact(key: str, value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return value or None
    if kind is bool or kind is Time or kind is int:
        if not -_INT64 <= value < _INT64:
            raise ValueError(f"{key}: {value} does not fit into 64 bits")
        return value
    if isinstance(value, str):
        return str.__str__(value) or None
    if isinstance(value, int):
        return _exact(key, int(value))
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"{key}: {value} is no finite number")
        return float(value)
    if isinstance(value, datetime):
        return _exact(key, Time.of(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value) or None
    if isinstance(value, dict):
        return Json(wire.json_text(value).decode())
    if isinstance(value, (list, tuple)):
        if not all(isinstance(item, str) for item in value):
            raise TypeError(f"{key}: a list holds texts only")
        return tuple(value) or None
    raise TypeError(f"{key}: an event cannot hold a {type(value).__name__}")
