"""For unit tests of plugins: opens one in the test's process and feeds it events, over the real codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from . import config as configs
from . import frame as wire
from .errors import Failure
from .event import Batch, _exact
from .plugin import Env, Output, Plugin, Processor
from .values import Json

P = TypeVar("P", bound=Plugin[Any])


def batch_of(events: Sequence[Mapping[str, Any]], instance: int = 1, sequence: int = 1) -> bytes:
    """The frame of a batch of events. A key such as `@raw` is a column of the agent's own; streams and offsets are made up."""
    rows = [_row(i, e) for i, e in enumerate(events)]
    columns: dict[tuple[str, int], list[Any]] = {}
    for i, row in enumerate(rows):
        for name, value in row.items():
            if value is not None:
                columns.setdefault((name, wire.TYPE_OF[type(value)]), [None] * len(rows))[i] = value
    return wire.encode_batch(instance, sequence, len(rows), ((name, kind, values) for (name, kind), values in columns.items()))


def _row(i: int, event: Mapping[str, Any]) -> dict[str, Any]:
    made = {"@stream": "0123456789abcdef", "@offset": 100 * i, "@line": 1 + i}
    return {**made, **{name: None if v is None else _exact(name, v) for name, v in event.items()}}


class Instance(Generic[P]):
    """An open plugin. `config` is what the user would write, in the JSON of the wire: durations as `"1000000000ns"`."""

    def __init__(self, plugin: type[P], config: Mapping[str, Any] | None = None, state_dir: str = "", **env: Any) -> None:
        self.plugin = plugin()
        settings = None if plugin.config_type is None else configs.decode(plugin.config_type, dict(config or {}))
        where = Env(state_dir=Path(state_dir), **env)
        self.plugin.check(settings, where)
        self.plugin.open(settings, where)
        self.notes: dict[str, Any] = {}

    def process(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
        """The events after the processor, None for those that it dropped."""
        assert isinstance(self.plugin, Processor)
        frame = wire.decode(batch_of(events))
        batch = Batch(frame)
        self.plugin.process(batch)
        patch = wire.decode(batch._encode_patch(self.plugin._take_notes()))
        self.notes = patch.notes or {}
        return applied(frame, patch)

    def write(self, events: Sequence[Mapping[str, Any]]) -> dict[int, Failure]:
        """The events that the output did not write, by index. What it raises for the whole call is raised."""
        assert isinstance(self.plugin, Output)
        batch = Batch(wire.decode(batch_of(events)))
        self.plugin.write(batch)
        self.notes = self.plugin._take_notes() or {}
        return dict(batch._failures)

    def close(self) -> None:
        """Close the plugin."""
        self.plugin.close()


def applied(frame: wire.Frame, patch: wire.Frame) -> list[dict[str, Any] | None]:
    """What the agent has after a patch: one mapping for each event, None for those dropped."""
    named = {c.name for c in patch.columns}
    rows: list[dict[str, Any]] = [{} for _ in range(frame.count)]
    for column in [*(c for c in frame.columns if c.name not in named), *patch.columns]:
        for row, value in zip(rows, column.values()):
            if value is not None:
                row[column.name] = value.load() if isinstance(value, Json) else value
    return [None if row.pop("@dropped", False) else row for row in rows]
