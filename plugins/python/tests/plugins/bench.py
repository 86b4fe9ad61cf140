"""What the benchmarks of the agent's side call, as its own plugin for them does: next to nothing, so that the way there and back is measured."""

from __future__ import annotations

from stacktrail import Batch, Output, Processor, serve


class Touch(Processor[None]):
    """Change one field."""

    name = "touch"

    def process(self, batch: Batch) -> None:
        """Change it event by event, as most plugins do."""
        for e in batch:
            e["query"] = "limit=***"


class Void(Output[None]):
    """Keep nothing."""

    name = "void"

    def write(self, batch: Batch) -> None:
        """Look at each event's id and path, as any output must."""
        for e in batch:
            _ = e.id, e.get("path")


serve(Touch, Void)
