"""What a plugin derives from."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import threading
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

from .event import Batch
from .frame import MAX_NOTES, json_text
from .log import Log

C = TypeVar("C")


@dataclass
class Env:
    """Where an instance works."""

    pipeline: str = ""
    id: str = ""
    node_id: str = ""
    state_dir: Path = Path()
    """The instance's own directory. It makes it if it needs one."""
    once: bool = False
    """The agent reads what is there, and ends."""
    repeats: bool = False
    naming: str = ""
    """What an output should call fields: `ovh` (as they stand), `ecs`, `otel`."""
    fields: dict[str, str] = field(default_factory=dict)
    """Extra fields that plugins before this one define, with their types."""
    check: bool = False
    """Only the configuration is judged: touch nothing outside."""


class Plugin(Generic[C]):
    """What processors and outputs share. Derive from Processor or Output."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    """Its key in the agent's configuration. The first line of the class's docstring is its summary."""
    config_type: ClassVar[type | None] = None
    fields: Mapping[str, str] = MappingProxyType({})
    """Extra fields that it defines, with their types: string, int, float, bool, time, list, object."""
    writes: Sequence[str] = ()
    """Absolute paths that it writes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            origin, args = typing.get_origin(base), typing.get_args(base)
            if inspect.isclass(origin) and issubclass(origin, Plugin) and args and dataclasses.is_dataclass(args[0]):
                cls.config_type = typing.cast(type, args[0])

    def __init__(self) -> None:
        self.log = Log(logging.getLogger(type(self).name), {})
        self._notes_lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._health: dict[str, str] = {}

    @classmethod
    def summary(cls) -> str:
        """One sentence that says what it does: the first line of the class's docstring."""
        return (inspect.cleandoc(cls.__doc__).splitlines() or [""])[0] if cls.__doc__ else ""

    def open(self, config: C, env: Env) -> None:
        """Get ready: called once, before anything else. Raise ConfigFault for what the user should change."""

    def check(self, config: C, env: Env) -> None:
        """Judge the configuration and touch nothing outside. A processor that has none is opened and closed instead."""

    def close(self) -> None:
        """Let go of everything. Nothing is called after it."""

    def count(self, name: str, n: int = 1, reason: str = "") -> None:
        """Add to a counter that the agent's metrics show."""
        with self._notes_lock:
            self._counts[name, reason] = self._counts.get((name, reason), 0) + n

    def health(self, key: str, problem: str = "") -> None:
        """Show a lasting problem in the agent's health, until the same key comes without one."""
        with self._notes_lock:
            self._health[key] = problem

    def _take_notes(self) -> dict[str, Any] | None:
        """What was counted and said since the last reply; what does not fit waits for the next one."""
        with self._notes_lock:
            if not self._counts and not self._health:
                return None
            notes: dict[str, list[Any]] = {"count": [], "fail": []}
            room = MAX_NOTES - 100
            for key, problem in list(self._health.items()):
                room = _add(notes["fail"], [key[:1000], problem[:4000]], room)
                if room < 0:
                    break
                del self._health[key]
            for (name, reason), n in list(self._counts.items()):
                room = _add(notes["count"], [name[:1000], reason[:1000], n], room)
                if room < 0:
                    break
                del self._counts[name, reason]
        return {member: rows for member, rows in notes.items() if rows}


def _add(rows: list[Any], row: list[Any], room: int) -> int:
    room -= len(json_text(row)) + 1
    if room >= 0:
        rows.append(row)
    return room


class Processor(Plugin[C]):
    """Changes events. Calls of one instance come one after the other."""

    kind = "processor"

    def process(self, batch: Batch) -> None:
        """Change the events of a batch. An exception means that nothing of it was changed."""
        raise NotImplementedError


class Output(Plugin[C]):
    """Writes events. With more than one worker, calls of one instance come at the same time."""

    kind = "output"
    knows_ids: ClassVar[bool] = False
    """The far end knows events by their ids, so that sending one again does no harm."""
    linger: ClassVar[float] = 0.0
    """Default of `batch.linger`, in seconds."""

    def write(self, batch: Batch) -> None:
        """Write a batch. What it returns from is safe, but for events that `event.fail` was called on."""
        raise NotImplementedError
