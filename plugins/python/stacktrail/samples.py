"""Batches and configurations that the conformance run feeds to a plugin."""

from __future__ import annotations

import json
import re
from typing import Any

from .values import Time

_START = 1_700_000_000_000_000_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|us|µs|ns|s)")
_NS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?)B?")


def requests(count: int, seed: int = 0, projects: int = 7) -> list[dict[str, Any]]:
    """Events of plain requests. Another seed gives others."""
    return [_request(seed * count + i, projects) for i in range(count)]


def _request(n: int, projects: int) -> dict[str, Any]:
    event: dict[str, Any] = {
        "@stream": f"{n % 3:016x}",
        "@offset": 211 * n,
        "@line": n * 0x9E3779B97F4A7C15 % (1 << 63),
        "@read_at": Time(_START + n * 10_000_000 + 500),
        "timestamp": Time(_START + n * 10_000_000),
        "method": ("GET", "POST", "DELETE")[n % 3],
        "path": f"/v2.1/servers/{n:08x}",
        "client": f"192.0.2.{n % 250}",
        "user_agent": "curl/8",
        "request_id": f"req-{n:032x}",
        "project_id": f"{n % projects:032x}",
        "user_id": f"{n % 11:032x}",
        "api_response_code_int": (200, 201, 404, 500)[n % 4],
        "api_response_size_int": n % 5000,
        "api_response_time_num": n % 997 / 1000,
        "@raw": b"192.0.2.1 - - GET /v2.1/servers?password=secret %d" % n + b"." * 300,
    }
    if n % 2:
        event["query"] = f"limit={n}&password=secret{n}"
    return event


def every_type() -> list[dict[str, Any]]:
    """Events with a field of each type, with the ends of their ranges, and a name with two types."""
    full = {
        "x_text": "text",
        "x_long": "é" * 5000,
        "x_int": -(1 << 63),
        "x_int2": (1 << 63) - 1,
        "x_float": -1.5e300,
        "x_true": True,
        "x_false": False,
        "x_time": Time(-1),
        "x_list": ["a", "", "b"],
        "x_object": {"a": [1, None, {"b": "é"}]},
        "@@timestamp": "own",
        "x_mixed": 7,
        "attributes": {"haproxy_backend": "nova"},
        "roles": ["admin"],
        "truncated_bool": True,
        "api_response_time_num": 0.0,
        "level": 3,
        "Ünïcode name": "x",
    }
    return [{**_request(1, 7), **full}, {**_request(2, 7), "x_mixed": "seven"}, {}, {"@raw": b"not a request at all"}]


def not_utf8() -> list[dict[str, Any]]:
    """Events whose texts are not UTF-8, the way a log may have them."""
    odd = [b"\xff\xfe", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"a\0b", b"\xf4\x90\x80\x80"]
    texts = [b.decode("utf-8", "surrogateescape") for b in odd]
    return [
        {**_request(i, 7), "path": "/" + t, "query": "q=" + t, "user_agent": t, "user_id": t, "project_id": t, "roles": [t], "@raw": b}
        for i, (b, t) in enumerate(zip(odd, texts))
    ]


def settings(keys: list[dict[str, Any]], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration in the JSON of Open: what is given over defaults and examples, and the required keys that neither has."""
    made: dict[str, Any] = {}
    missing: list[str] = []
    for key in keys:
        path, kind = key.get("path", ""), key.get("type", "")
        if "[]" in path or ".*" in path or "." in path and _at(made, path.rpartition(".")[0]) is None:
            continue
        value = _at(given, path)
        if kind == "section":
            if value is not None or not key.get("optional"):
                _put(made, path, dict(value or {}))
        elif value is not None:
            _put(made, path, _convert(kind, value))
        elif key.get("required") and "example" in key:
            _put(made, path, _convert(kind, _yaml(kind, key["example"])))
        elif key.get("required"):
            missing.append(path)
        elif "default" in key:
            _put(made, path, _convert(kind, _yaml(kind, key["default"])))
    return made, missing


def bad_settings(keys: list[dict[str, Any]], good: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Configurations that must be refused, each with what is wrong with it."""
    bad: list[tuple[str, dict[str, Any]]] = []
    for key in keys:
        path, kind = key.get("path", ""), key.get("type", "")
        if "." in path or "[]" in path:
            continue
        if key.get("required"):
            bad.append((f"without {path}, which is required", {k: v for k, v in good.items() if k != path}))
        wrong: Any = "text" if kind.startswith(("list", "map", "section")) else ["no", "scalar"]
        if kind != "any":
            bad.append((f"with {path} of another type", {**good, path: wrong}))
        if key.get("enum"):
            bad.append((f"with {path} that is none of its enum", {**good, path: "no such value"}))
        for limit, step in (("min", -1), ("max", 1)):
            if limit in key and kind in ("integer", "size", "number", "duration"):
                beyond = _beyond(kind, _convert(kind, _yaml(kind, key[limit])), step)
                bad.append((f"with {path} beyond its {limit}", {**good, path: beyond}))
    return bad


def _beyond(kind: str, limit: Any, step: int) -> Any:
    return f"{int(limit[:-2]) + step * 1_000_000}ns" if kind == "duration" else limit + step


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[name] = value


def _yaml(kind: str, written: Any) -> Any:
    if not isinstance(written, str) or kind in ("duration", "size"):
        return written
    try:
        return json.loads(written)
    except ValueError:
        return written


def _convert(kind: str, value: Any) -> Any:
    if kind == "duration" and isinstance(value, str):
        return f"{round(sum(float(n) * _NS[unit] for n, unit in _DURATION.findall(value)))}ns"
    if kind == "size" and isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        base = 1024 if match[2].endswith("i") else 1000
        return round(float(match[1]) * base ** " KMGT".index(match[2][:1] or " "))
    return value
