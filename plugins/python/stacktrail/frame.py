"""The frame of the wire: bytes to columns and back, as FRAME.md has it. Columns are read when they are touched."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from math import isfinite
from typing import Any, NoReturn

from .errors import FrameError
from .values import Json, Time

MAGIC = b"STKF"
VERSION = 1
BATCH, PATCH, VERDICT = 1, 2, 3
STRING, INT, FLOAT, BOOL, TIME, LIST, OBJECT, BYTES = range(1, 9)
ALL, SAME, SOME = 0, 1, 2
WHOLE_CALL = 0xFFFFFFFF

MAX_FRAME = 64 << 20
MAX_EVENTS = 1 << 20
MAX_COLUMNS = 4096
MAX_REASON = 4096
MAX_NOTES = 64 << 10
MAX_NAME = 0xFFFF

HEADER = struct.Struct("<4sBBHIIQII")
FAILURE = struct.Struct("<IBII")
U32 = struct.Struct("<I")
U16 = struct.Struct("<H")

KINDS = {BATCH: "batch", PATCH: "patch", VERDICT: "verdict"}
TYPES = {STRING: "string", INT: "int", FLOAT: "float", BOOL: "bool", TIME: "time", LIST: "list", OBJECT: "object", BYTES: "bytes"}
TYPE_OF: dict[type, int] = {str: STRING, int: INT, float: FLOAT, bool: BOOL, Time: TIME, tuple: LIST, Json: OBJECT, bytes: BYTES}

# The fields of the schema, as FRAME.md lists them.
_STRINGS = """
access_key_id account_id action action_name api_microversion api_version client data_center domain_id environment error event_id
fingerprinted_iplb format forwarded_for global_request_id host http_version kind log_file log_host logger message method original outcome
outcome_raw parent_request_id path program project_domain_id project_id project_name query record_class referer region request_args
request_body_raw request_headers_raw request_id resource_id resource_name resource_type resource_uri route schema_version service
source_system system_scope timestamp_basis user user_agent user_domain_id user_id user_name
"""
_INTS = "api_response_code_int api_response_size_int level log_offset_int process_id_int request_body_size_int request_header_size_int"
_BOOLS = "api_response_size_includes_headers_bool event_id_synthetic_bool identity_unverified_bool truncated_bool"
SCHEMA = {
    **dict.fromkeys(_STRINGS.split(), STRING),
    **dict.fromkeys(_INTS.split(), INT),
    "api_response_time_num": FLOAT,
    **dict.fromkeys(_BOOLS.split(), BOOL),
    **dict.fromkeys(("timestamp", "end_time_date", "observed_date", "recorded_date", "start_time_date"), TIME),
    **dict.fromkeys(("resource_ids", "roles", "suspect", "tags", "unknown_fields"), LIST),
    **dict.fromkeys(("attributes", "metadata"), OBJECT),
}
INT32 = frozenset(("api_response_code_int", "level"))
READ_ONLY = frozenset(("schema_version", "event_id", "log_offset_int"))
# The agent's own columns.
OWN = {
    "@stream": STRING,
    **dict.fromkeys(("@offset", "@length", "@line"), INT),
    "@read_at": TIME,
    "@raw": BYTES,
    "@dropped": BOOL,
}
OWN_IN_PATCH = frozenset(("@raw", "@dropped"))
# Without these an event's id would be another's.
ORIGIN = ("@offset", "@line")

# A value of a column. None is an absent one.
Value = str | int | float | bool | Time | tuple[str, ...] | Json | bytes
Values = Sequence[Value | None]

_FIXED = {INT: ("q", 8), FLOAT: ("d", 8), BOOL: ("?", 1), TIME: ("q", 8)}
_TEXTS = frozenset((STRING, OBJECT, BYTES))


def _refuse(why: str) -> NoReturn:
    raise FrameError(why)


class Column:
    """One column. Its payload was checked when it was made; `values` decodes it."""

    __slots__ = ("_data", "_ends", "_list_ends", "_mask", "count", "layout", "name", "type")

    def __init__(self, name: str, kind: int, layout: int, count: int, payload: memoryview) -> None:
        self.name, self.type, self.layout, self.count = name, kind, layout, count
        self._mask = 0
        self._ends: Sequence[int] = ()
        self._list_ends: Sequence[int] = ()
        number = count
        if layout == SAME:
            number = 1
        elif layout == SOME:
            size = (count + 7) // 8
            if len(payload) < size:
                _refuse(f"column {name!r}: the bitmap is cut")
            self._mask = int.from_bytes(payload[:size], "little")
            if self._mask >> count:
                _refuse(f"column {name!r}: a bit beyond the last event")
            number = self._mask.bit_count()
            payload = payload[size:]
        elif layout != ALL:
            _refuse(f"column {name!r}: unknown layout {layout}")
        self._data = self._check(number, payload)

    def _check(self, number: int, payload: memoryview) -> memoryview:
        kind = self.type
        if kind in _FIXED:
            if len(payload) != number * _FIXED[kind][1]:
                _refuse(f"column {self.name!r}: {len(payload)} bytes for {number} values")
            if kind == FLOAT and not all(map(isfinite, struct.unpack(f"<{number}d", payload))):
                _refuse(f"column {self.name!r}: a number that is not finite")
            if kind == BOOL and payload.tobytes().strip(b"\0\1"):
                _refuse(f"column {self.name!r}: a bool that is neither 0 nor 1")
            return payload
        if number == 0:
            if payload:
                _refuse(f"column {self.name!r}: bytes without a value")
            return payload
        if kind == LIST:
            self._list_ends, payload = self._read_ends(number, payload)
            number = self._list_ends[-1]
        elif kind not in _TEXTS:
            _refuse(f"column {self.name!r}: unknown type {kind}")
        self._ends, payload = self._read_ends(number, payload)
        if (self._ends[-1] if number else 0) != len(payload):
            _refuse(f"column {self.name!r}: the last end is not the end of the texts")
        return payload

    def _read_ends(self, number: int, payload: memoryview) -> tuple[Sequence[int], memoryview]:
        if len(payload) < 4 * number:
            _refuse(f"column {self.name!r}: {number} ends do not fit")
        ends = list(struct.unpack_from(f"<{number}I", payload))
        if ends != sorted(ends):
            _refuse(f"column {self.name!r}: an end goes back")
        return ends, payload[4 * number :]

    def present(self) -> int:
        """A number with bit i set if event i has a value."""
        every = (1 << self.count) - 1
        if self.type in _FIXED or self.layout == SAME:
            mask = self._mask if self.layout == SOME else every
            return mask if self.type in _FIXED or (self.count and self._stored()[0] is not None) else 0
        bits = "".join("0" if v is None else "1" for v in reversed(self.values()))
        return int(bits, 2) if bits else 0

    @property
    def removes(self) -> bool:
        """Whether it holds no value at all: in a patch it takes the field from all events."""
        return self.layout == SOME and not self._mask or self.layout == ALL and not self.count

    @property
    def full(self) -> bool:
        """Whether every event has a value; of numbers, bools and times only."""
        return self.layout != SOME or self._mask.bit_count() == self.count

    def values(self) -> list[Value | None]:
        """One value for each event, None where it has none."""
        stored = self._stored()
        if self.layout == ALL:
            return stored
        if self.layout == SAME:
            return stored * self.count
        following = iter(stored)
        bits = f"{self._mask:0{self.count}b}"[::-1] if self.count else ""
        return [next(following) if bit == "1" else None for bit in bits]

    def _stored(self) -> list[Value | None]:
        kind = self.type
        if kind in _FIXED:
            letter, size = _FIXED[kind]
            numbers = struct.unpack(f"<{len(self._data) // size}{letter}", self._data)
            return list(map(Time, numbers)) if kind == TIME else list(numbers)
        if kind == BYTES:
            blob = self._data.tobytes()
            return [blob[a:b] or None for a, b in _spans(self._ends)]
        texts = _texts(self._data.tobytes(), self._ends)
        if kind == LIST:
            return [tuple(texts[a:b]) or None for a, b in _spans(self._list_ends)]
        if kind == OBJECT:
            return [Json(t) if t else None for t in texts]
        return [t or None for t in texts]


def _spans(ends: Sequence[int]) -> Iterable[tuple[int, int]]:
    return zip(chain((0,), ends), ends)


def _texts(blob: bytes, ends: Sequence[int]) -> list[str]:
    if blob.isascii():
        text = blob.decode("ascii")
        return [text[a:b] for a, b in _spans(ends)]
    return [blob[a:b].decode("utf-8", "surrogateescape") for a, b in _spans(ends)]


def to_bytes(text: str) -> bytes:
    """The bytes of a text, also of one that was not UTF-8. Half a surrogate pair becomes U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode()


@dataclass
class Fault:
    """One failure of a verdict. The index WHOLE_CALL stands for all events."""

    index: int
    code: int
    after_ms: int = 0
    reason: str = ""


@dataclass
class Frame:
    """A frame that was read."""

    kind: int
    instance: int = 0
    sequence: int = 0
    count: int = 0
    columns: list[Column] = field(default_factory=list)
    notes: dict[str, Any] | None = None
    failures: list[Fault] = field(default_factory=list)


def decode(data: bytes) -> Frame:
    """Read and check a whole frame."""
    if len(data) < HEADER.size:
        _refuse("less than a header")
    magic, version, kind, flags, length, instance, sequence, count, n = HEADER.unpack_from(data)
    if magic != MAGIC:
        _refuse("not a frame")
    if version != VERSION:
        _refuse(f"unknown version {version}")
    if kind not in KINDS:
        _refuse(f"unknown kind {kind}")
    if flags:
        _refuse(f"unknown flags {flags:#x}")
    if length != len(data) or length > MAX_FRAME:
        _refuse(f"the frame has {len(data)} bytes, its header says {length}")
    if count > MAX_EVENTS:
        _refuse(f"{count} events are too many")
    frame = Frame(kind, instance, sequence, count)
    reader = _Reader(data)
    if kind != BATCH:
        frame.notes = _read_notes(reader)
    if kind == VERDICT:
        frame.failures = _read_failures(reader, n, count)
    else:
        frame.columns = _read_columns(reader, n, count)
    if reader.left():
        _refuse(f"{reader.left()} bytes follow the last part")
    _check(frame)
    return frame


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self._at = HEADER.size

    def left(self) -> int:
        return len(self._view) - self._at

    def take(self, size: int) -> memoryview:
        if size > self.left():
            _refuse(f"{size} bytes are said to follow, there are {self.left()}")
        self._at += size
        return self._view[self._at - size : self._at]

    def u32(self) -> int:
        return int(U32.unpack(self.take(4))[0])


def _read_columns(reader: _Reader, n: int, count: int) -> list[Column]:
    if n > MAX_COLUMNS:
        _refuse(f"{n} columns are too many")
    columns: list[Column] = []
    names: dict[str, dict[int, Column]] = {}
    for _ in range(n):
        name = _utf8(reader.take(int(U16.unpack(reader.take(2))[0])), "name")
        if not name:
            _refuse("a column without a name")
        kind, layout = reader.take(2)
        if kind not in TYPES:
            _refuse(f"column {name!r}: unknown type {kind}")
        column = Column(name, kind, layout, count, reader.take(reader.u32()))
        if kind in names.setdefault(name, {}):
            _refuse(f"two columns {name!r} of type {TYPES[kind]}")
        names[name][kind] = column
        columns.append(column)
    for same in names.values():
        if len(same) > 1:
            _check_apart(list(same.values()))
    return columns


def _check_apart(columns: list[Column]) -> None:
    seen = 0
    for column in columns:
        present = column.present()
        if seen & present:
            _refuse(f"an event has two values of {column.name!r}")
        seen |= present


def _utf8(view: memoryview, what: str) -> str:
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        _refuse(f"a {what} that is not UTF-8")


def _read_failures(reader: _Reader, n: int, count: int) -> list[Fault]:
    if n > max(count, 1):
        _refuse(f"{n} failures of {count} events")
    failures: list[Fault] = []
    seen: set[int] = set()
    for _ in range(n):
        index, code, after, size = FAILURE.unpack(reader.take(FAILURE.size))
        if index in seen or (index == WHOLE_CALL and n > 1):
            _refuse(f"failure {index} stands beside another about it")
        if index >= count and index != WHOLE_CALL:
            _refuse(f"failure of event {index} of {count}")
        if not 1 <= code <= 4:
            _refuse(f"unknown class {code}")
        if after and code != 3:
            _refuse(f"a pause with class {code}")
        if size > MAX_REASON:
            _refuse(f"a reason of {size} bytes")
        seen.add(index)
        failures.append(Fault(index, code, after, _utf8(reader.take(size), "reason")))
    return failures


def _read_notes(reader: _Reader) -> dict[str, Any] | None:
    size = reader.u32()
    if size > MAX_NOTES:
        _refuse(f"notes of {size} bytes")
    text = reader.take(size)
    if not size:
        return None
    notes = parse_object(_utf8(text, "notes"), "notes")
    for member, shape in (("count", (str, str, int)), ("fail", (str, str))):
        rows = notes.get(member)
        if rows is None:
            continue
        if not isinstance(rows, list) or not all(isinstance(r, list) and tuple(map(type, r)) == shape for r in rows):
            _refuse(f"notes: {member} has another shape")
    if not all(-(1 << 63) <= row[2] < 1 << 63 for row in notes.get("count") or ()):
        _refuse("notes: a count does not fit into 64 bits")
    return notes


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def parse_object(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object; FrameError if it is none."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise FrameError(f"{what}: no JSON: {e}") from None
    if not isinstance(value, dict):
        _refuse(f"{what}: no JSON object")
    return value


def _check(frame: Frame) -> None:
    patch = frame.kind == PATCH
    named: set[str] = set()
    for column in frame.columns:
        _check_type(column, patch)
        if column.name in named and (column.name in SCHEMA or column.name in OWN):
            _refuse(f"two columns {column.name!r}, which has one type")
        named.add(column.name)
        if patch:
            _check_values(column)
    if frame.kind == BATCH and frame.count:
        for name in ORIGIN:
            if not any(c.name == name and c.full for c in frame.columns):
                _refuse(f"not every event has {name}")


def is_own(name: str) -> bool:
    """Whether a column is the agent's own."""
    return name[:1] == "@" and name[:2] != "@@"


def _check_type(column: Column, patch: bool) -> None:
    name, kind, own = column.name, column.type, is_own(column.name)
    if patch and (name in READ_ONLY or (own and name not in OWN_IN_PATCH)):
        _refuse(f"a patch must not hold {name}")
    if patch and column.removes and not own:
        return
    wanted = OWN.get(name, kind) if own else SCHEMA.get(name, kind)
    if wanted != kind and not (wanted == FLOAT and kind == INT):
        _refuse(f"{name} must be {TYPES[wanted]}, not {TYPES[kind]}")
    if kind == BYTES and not own:
        _refuse(f"{name} cannot hold bytes")


def _check_values(column: Column) -> None:
    if column.name in INT32:
        for number in column.values():
            if isinstance(number, int) and not -(1 << 31) <= number < 1 << 31:
                _refuse(f"{column.name}: {number} does not fit into 32 bits")
    if column.type == OBJECT:
        for text in column.values():
            if text is not None:
                parse_object(str(text), column.name)
                if not str(text).startswith("{"):
                    _refuse(f"{column.name}: an object begins with {{")


def encode_column(name: str, kind: int, values: Values) -> bytes | None:
    """A column in the layout that FRAME.md picks; None if no event has a value."""
    count = len(values)
    have = count - values.count(None)
    if not have:
        return None
    if have == count:
        payload, same = _encode_full(kind, values)
        return _column(name, kind, SAME if same else ALL, payload)
    if kind in _FIXED or have * 2 < count:
        payload = _encode_values(kind, [v for v in values if v is not None])
        return _column(name, kind, SOME, _bitmap(values) + payload)
    empty: Any = () if kind == LIST else b"" if kind == BYTES else ""
    return _column(name, kind, ALL, _encode_values(kind, [empty if v is None else v for v in values]))


def encode_removal(name: str, kind: int, count: int) -> bytes:
    """A column of a patch that takes the field from all events."""
    return _column(name, kind, SOME, bytes((count + 7) // 8))


def _encode_full(kind: int, values: Values) -> tuple[bytes, bool]:
    if len(values) < 2:
        return _encode_values(kind, values), False
    if kind in _FIXED:
        # Bytes are compared, not numbers: 0.0 and -0.0 are equal and not the same.
        payload = _encode_values(kind, values)
        size = _FIXED[kind][1]
        if payload == payload[:size] * len(values):
            return payload[:size], True
        return payload, False
    if values.count(values[0]) == len(values):
        return _encode_values(kind, values[:1]), True
    return _encode_values(kind, values), False


def _column(name: str, kind: int, layout: int, payload: bytes) -> bytes:
    text = name.encode()
    if not 1 <= len(text) <= MAX_NAME:
        _refuse(f"a name of {len(text)} bytes")
    return b"".join((U16.pack(len(text)), text, bytes((kind, layout)), U32.pack(len(payload)), payload))


def _bitmap(values: Values) -> bytes:
    bits = "".join("0" if v is None else "1" for v in reversed(values))
    return int(bits, 2).to_bytes((len(values) + 7) // 8, "little")


def _encode_values(kind: int, values: Sequence[Any]) -> bytes:
    if kind in _FIXED:
        return struct.pack(f"<{len(values)}{_FIXED[kind][0]}", *values)
    if kind == LIST:
        ends = list(accumulate(map(len, values)))
        return struct.pack(f"<{len(ends)}I", *ends) + _encode_texts([t for items in values for t in items])
    if kind == BYTES:
        return _encode_blobs(values)
    return _encode_texts(values)


def _encode_texts(texts: Sequence[str]) -> bytes:
    joined = "".join(texts)
    if joined.isascii():
        return struct.pack(f"<{len(texts)}I", *accumulate(map(len, texts))) + joined.encode("ascii")
    return _encode_blobs([to_bytes(t) for t in texts])


def _encode_blobs(blobs: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(blobs)}I", *accumulate(map(len, blobs))) + b"".join(blobs)


def encode_batch(instance: int, sequence: int, count: int, columns: Iterable[tuple[str, int, Values]]) -> bytes:
    """A batch; columns without a value are left out."""
    parts = [c for c in (encode_column(*column) for column in columns) if c is not None]
    return _frame(BATCH, instance, sequence, count, len(parts), parts)


def encode_patch(
    instance: int, sequence: int, count: int, columns: Iterable[tuple[str, int, Values]], notes: dict[str, Any] | None = None
) -> bytes:
    """A patch; a column without a value removes the field."""
    parts = [encode_column(*c) or encode_removal(c[0], c[1], count) for c in columns]
    return _frame(PATCH, instance, sequence, count, len(parts), [_encode_notes(notes), *parts])


def encode_verdict(instance: int, sequence: int, count: int, failures: Sequence[Fault], notes: dict[str, Any] | None = None) -> bytes:
    """A verdict; reasons are cut to what the wire takes."""
    parts = [_encode_notes(notes)]
    for f in failures:
        reason = _cut(f.reason)
        parts.append(FAILURE.pack(f.index, f.code, f.after_ms if f.code == 3 else 0, len(reason)) + reason)
    return _frame(VERDICT, instance, sequence, count, len(failures), parts)


def _cut(reason: str) -> bytes:
    text = reason.encode("utf-8", "replace")
    return text if len(text) <= MAX_REASON else text[:MAX_REASON].decode("utf-8", "ignore").encode()


def _encode_notes(notes: dict[str, Any] | None) -> bytes:
    text = json_text(notes) if notes else b""
    return U32.pack(len(text)) + text


def json_text(value: Any) -> bytes:
    """JSON without spaces, in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _frame(kind: int, instance: int, sequence: int, count: int, n: int, parts: list[bytes]) -> bytes:
    length = HEADER.size + sum(map(len, parts))
    if length > MAX_FRAME:
        _refuse(f"a frame of {length} bytes is too large")
    if kind != VERDICT and n > MAX_COLUMNS:
        _refuse(f"{n} columns are too many")
    return b"".join((HEADER.pack(MAGIC, VERSION, kind, 0, length, instance, sequence, count, n), *parts))
