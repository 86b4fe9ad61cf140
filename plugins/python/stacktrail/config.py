"""The configuration of a plugin: a dataclass, described to the agent and made from what the agent sends."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, Union

from .errors import ConfigFault, ConfigFaults

C = TypeVar("C")


class Size(int):
    """A number of bytes, written as `64KiB` or `10MB`."""


class Seconds(float):
    """A duration in seconds, written as `1.5s` or `10m`. `timedelta` will do as well."""


class Secret:
    """A text that never shows: `reveal()` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the far end only."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***" if self._text else ""


def option(
    *,
    default: Any = MISSING,
    doc: str = "",
    required: bool = False,
    min: Any = None,
    max: Any = None,
    example: Any = None,
    loose: bool = False,
) -> Any:
    """A key of the configuration. Without a default it must be required, or its type must allow None or be a section.

    `min` and `max` are values of the key's type; `example` is one to start from; a `loose` text takes any scalar.
    """
    metadata = {"stacktrail": _Rules(doc, required, min, max, example, loose)}
    if isinstance(default, (list, dict)) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata, kw_only=True)
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)


@dataclass(frozen=True)
class _Rules:
    doc: str = ""
    required: bool = False
    min: Any = None
    max: Any = None
    example: Any = None
    loose: bool = False


@dataclass(frozen=True)
class _Shape:
    """The type of a key: what the wire calls it, and how a value is read and written."""

    name: str
    read: Callable[[Any, str, list[ConfigFault]], Any]
    write: Callable[[Any], str]
    section: type | None = None
    enum: tuple[str, ...] = ()
    inner: str = ""


_UNITS = (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1))
_DURATION = re.compile(r"(-?\d{1,19})ns")


def _nanoseconds(value: timedelta | float) -> int:
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000
    return round(value * 10**9)


def write_duration(value: Any) -> str:
    """As the user would write it: in the largest unit that takes it whole."""
    ns = _nanoseconds(value)
    if ns == 0:
        return "0s"
    return next(f"{ns // size}{unit}" for unit, size in _UNITS if ns % size == 0)


def _write_size(value: Any) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(int(value))


def _write(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, timedelta):
        return write_duration(value)
    return str(value)


def _want(types_: tuple[type, ...], said: str, make: Callable[[Any], Any]) -> Callable[[Any, str, list[ConfigFault]], Any]:
    def read(value: Any, path: str, faults: list[ConfigFault]) -> Any:
        if isinstance(value, types_) and (bool in types_ or not isinstance(value, bool)):
            return make(value)
        faults.append(ConfigFault(path, f"must be {said}"))
        return None

    return read


def _read_duration(make: Callable[[int], Any]) -> Callable[[Any, str, list[ConfigFault]], Any]:
    def read(value: Any, path: str, faults: list[ConfigFault]) -> Any:
        if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            return make(int(match[1]))
        faults.append(ConfigFault(path, "must be a duration"))
        return None

    return read


_SCALARS: dict[Any, _Shape] = {
    str: _Shape("string", _want((str,), "a text", str), _write),
    bool: _Shape("bool", _want((bool,), "true or false", bool), _write),
    int: _Shape("integer", _want((int,), "a whole number", int), _write),
    float: _Shape("number", _want((int, float), "a number", float), _write),
    Size: _Shape("size", _want((int,), "a size", Size), _write_size),
    Secret: _Shape("secret", _want((str,), "a text", Secret), _write),
    timedelta: _Shape("duration", _read_duration(lambda ns: timedelta(microseconds=ns / 1000)), write_duration),
    Seconds: _Shape("duration", _read_duration(lambda ns: Seconds(ns / 10**9)), write_duration),
    Any: _Shape("any", lambda value, path, faults: value, _write),
}


def _shape(hint: Any) -> _Shape:
    if hint in _SCALARS:
        return _SCALARS[hint]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _Shape("section", lambda value, path, faults: _read_section(hint, value, path, faults), _write, section=hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and all(isinstance(a, str) for a in args):
        return _Shape("string", _read_enum(args), _write, enum=args)
    if origin is list and len(args) == 1:
        item = _shape(args[0])
        return _Shape(f"list of {item.name}", _read_list(item), _write, item.section, item.enum, "[]" + item.inner)
    if origin is dict and len(args) == 2 and args[0] is str:
        item = _shape(args[1])
        return _Shape(f"map of {item.name}", _read_map(item), _write, item.section, item.enum, ".*" + item.inner)
    raise TypeError(
        f"a configuration cannot hold {hint}; it can hold str, bool, int, float, timedelta, Seconds, Size, Secret, "
        "Literal of texts, Any, dataclasses, and lists and dicts of these"
    )


def _read_enum(allowed: tuple[str, ...]) -> Callable[[Any, str, list[ConfigFault]], Any]:
    def read(value: Any, path: str, faults: list[ConfigFault]) -> Any:
        if value not in allowed:
            faults.append(ConfigFault(path, "must be one of " + ", ".join(allowed)))
        return value

    return read


def _read_list(item: _Shape) -> Callable[[Any, str, list[ConfigFault]], Any]:
    def read(value: Any, path: str, faults: list[ConfigFault]) -> Any:
        if not isinstance(value, list):
            faults.append(ConfigFault(path, "must be a list"))
            return None
        return [item.read(v, f"{path}[{i}]", faults) for i, v in enumerate(value)]

    return read


def _read_map(item: _Shape) -> Callable[[Any, str, list[ConfigFault]], Any]:
    def read(value: Any, path: str, faults: list[ConfigFault]) -> Any:
        if not isinstance(value, dict):
            faults.append(ConfigFault(path, "must be a map"))
            return None
        return {k: item.read(v, f"{path}.{k}", faults) for k, v in value.items()}

    return read


@dataclass(frozen=True)
class _Key:
    name: str
    shape: _Shape
    optional: bool
    rules: _Rules
    default: Any


def _keys(config: type) -> Iterator[_Key]:
    hints = typing.get_type_hints(config)
    for f in dataclasses.fields(config):
        hint, optional = hints[f.name], False
        if typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint):
            rest = [a for a in typing.get_args(hint) if a is not type(None)]
            hint, optional = (rest[0] if len(rest) == 1 else hint), True
        try:
            shape = _shape(hint)
        except TypeError as e:
            raise TypeError(f"{config.__name__}.{f.name}: {e}") from None
        default = f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else MISSING
        rules = f.metadata.get("stacktrail", _Rules())
        if default is MISSING and not rules.required and not optional and shape.name != "section":
            raise TypeError(f"{config.__name__}.{f.name}: needs a default, required=True, or a type that allows None")
        yield _Key(f.name, shape, optional, rules, default)


def describe(config: type | None) -> list[dict[str, Any]]:
    """The keys of a configuration, as Describe sends them."""
    return [] if config is None else list(_describe(config, ""))


def _describe(config: type, prefix: str) -> Iterator[dict[str, Any]]:
    for key in _keys(config):
        rules, shape = key.rules, key.shape
        said: dict[str, Any] = {"path": prefix + key.name, "type": shape.name, "doc": rules.doc}
        if rules.required:
            said["required"] = True
        elif key.default not in (MISSING, None) and shape.name not in ("section", "secret"):
            said["default"] = shape.write(key.default)
        if key.optional and shape.name == "section":
            said["optional"] = True
        if shape.enum:
            said["enum"] = list(shape.enum)
        for name, limit in (("min", rules.min), ("max", rules.max), ("example", rules.example)):
            if limit is not None:
                said[name] = shape.write(limit)
        if rules.loose:
            said["loose"] = True
        yield said
        if shape.section is not None:
            yield from _describe(shape.section, f"{prefix}{key.name}{shape.inner}.")


def decode(config: type[C], value: Any) -> C:
    """Make a configuration from the JSON of Open. Raises ConfigFaults with every fault."""
    faults: list[ConfigFault] = []
    made = _read_section(config, value, "", faults)
    if faults:
        raise ConfigFaults(*faults)
    return typing.cast(C, made)


def _read_section(config: type, value: Any, path: str, faults: list[ConfigFault]) -> Any:
    if not isinstance(value, dict):
        faults.append(ConfigFault(path, "must be a section"))
        return None
    before = len(faults)
    prefix = path + "." if path else ""
    values: dict[str, Any] = {}
    for key in _keys(config):
        if value.get(key.name) is not None:
            values[key.name] = _read_key(key, value[key.name], prefix + key.name, faults)
        elif key.rules.required:
            faults.append(ConfigFault(prefix + key.name, "is required"))
        elif key.default is MISSING:
            section = key.shape.section if key.shape.name == "section" and not key.optional else None
            values[key.name] = None if section is None else _read_section(section, {}, prefix + key.name, faults)
    if len(faults) > before:
        return None
    try:
        return config(**values)
    except ConfigFault as fault:
        faults.append(_below(prefix, fault))
    except ConfigFaults as several:
        faults.extend(_below(prefix, fault) for fault in several.faults)
    return None


def _below(prefix: str, fault: ConfigFault) -> ConfigFault:
    return ConfigFault((prefix + fault.key).rstrip("."), fault.message, fault.suggestion)


def _read_key(key: _Key, raw: Any, path: str, faults: list[ConfigFault]) -> Any:
    before = len(faults)
    if key.rules.loose and key.shape.name == "string" and isinstance(raw, (bool, int, float)):
        raw = json.dumps(raw)
    value = key.shape.read(raw, path, faults)
    if len(faults) > before:
        return None
    rules = key.rules
    if rules.required and (value == "" or value == [] or value == {} or (isinstance(value, Secret) and not value)):
        faults.append(ConfigFault(path, "is required"))
    if rules.min is not None and value < rules.min:
        faults.append(ConfigFault(path, f"must be at least {key.shape.write(rules.min)}"))
    if rules.max is not None and value > rules.max:
        faults.append(ConfigFault(path, f"must be at most {key.shape.write(rules.max)}"))
    return value


def secrets(config: Any) -> set[str]:
    """The texts of all secrets in a configuration, to keep them out of messages."""
    if isinstance(config, Secret):
        return {config.reveal()} if config else set()
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return set().union(*(secrets(getattr(config, f.name)) for f in dataclasses.fields(config)))
    if isinstance(config, dict):
        return set().union(*(secrets(v) for v in config.values()))
    if isinstance(config, list):
        return set().union(*(secrets(v) for v in config))
    return set()
