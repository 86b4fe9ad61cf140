"""Types of values that Python has no exact one for."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from .errors import FrameError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Time(int):
    """An instant: nanoseconds since 1970-01-01T00:00:00Z."""

    __slots__ = ()

    @classmethod
    def of(cls, when: datetime) -> Time:
        """The instant of a datetime, which must have a time zone."""
        if when.tzinfo is None:
            raise ValueError("a time without a time zone")
        return cls((when - _EPOCH) // timedelta(microseconds=1) * 1000)

    def datetime(self) -> datetime:
        """As a datetime in UTC; nanoseconds are cut."""
        return _EPOCH + timedelta(microseconds=self // 1000)

    def __repr__(self) -> str:
        return f"Time({int(self)})"


class Object(dict[str, Any]):
    """An object of an event. It is a copy, so it cannot be changed in place: assign `dict(old, key=value)` to the field."""

    def _locked(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("an event's object is a copy; change it with event[name] = dict(old, key=value)")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _locked


class Json(str):
    """The text of an object that nobody has looked at yet."""

    __slots__ = ()

    def load(self) -> Object:
        """Parse it."""
        try:
            value = json.loads(self)
        except (ValueError, RecursionError) as e:
            raise FrameError(f"an object that is no JSON: {e}") from None
        if not isinstance(value, dict):
            raise FrameError("an object that is no JSON object")
        return Object(value)


def clean(text: str) -> str:
    """The text with U+FFFD for every byte that was not UTF-8, fit for a far end that wants UTF-8."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
