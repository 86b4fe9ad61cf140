"""What the tests run in a Python process: an output that writes each event once, and a processor that marks events or goes wrong."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from dataclasses import dataclass

from stacktrail import Batch, ConfigFault, Env, Output, Processor, clean, option, serve


@dataclass
class FileConfig:
    """Where to write."""

    path: str = option(required=True, doc="File to append to: one line of JSON for each event.")
    table: str = option(default="", doc="The far end knows none, which shows when the output is opened.")

    def __post_init__(self) -> None:
        if not os.path.isabs(self.path):
            raise ConfigFault("path", "must be absolute")


class Once(Output[FileConfig]):
    """Append each event to a file, once however often it comes."""

    name = "once"
    knows_ids = True

    def open(self, config: FileConfig, env: Env) -> None:
        """Learn what stands in the file, and cut off half a line. An older process that is still dying is waited for."""
        if config.table:
            raise ConfigFault("table", "is not known there")
        self.file = os.open(config.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self.file, fcntl.LOCK_EX)
        with open(config.path, "rb") as f:
            text = f.read()
        whole = text.rfind(b"\n") + 1
        os.ftruncate(self.file, whole)
        self.seen = {json.loads(line)["event_id"] for line in text[:whole].splitlines()}

    def write(self, batch: Batch) -> None:
        """Write what is new."""
        new = {e.id: e for e in batch if e.id not in self.seen}
        rest = b"".join(
            json.dumps({"event_id": key, "path": clean(e.get("path", "")), "marked": e.get("marked_bool", False)}).encode() + b"\n"
            for key, e in new.items()
        )
        while rest:
            rest = rest[os.write(self.file, rest) :]
        self.seen.update(new)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


@dataclass
class MarkConfig:
    """At which paths to go wrong."""

    raise_at: str = option(default="", doc="An event with this path makes it raise.")
    hang_at: str = option(default="", doc="An event with this path makes it hang, whatever the deadline is.")
    exit_at: str = option(default="", doc="An event with this path ends the process.")


class Mark(Processor[MarkConfig]):
    """Mark each event."""

    name = "mark"

    def open(self, config: MarkConfig, env: Env) -> None:
        """Keep the configuration."""
        self.config = config
        self.fields = {"marked_bool": "bool"}

    def process(self, batch: Batch) -> None:
        """Mark, or go wrong."""
        for e in batch:
            path = e.get("path")
            if path is not None and path == self.config.raise_at:
                raise RuntimeError("this path is too much")
            if path is not None and path == self.config.hang_at:
                threading.Event().wait()
            if path is not None and path == self.config.exit_at:
                os._exit(3)
            e["marked_bool"] = True


def main() -> None:
    """Serve both."""
    serve(Mark, Once, version="1.0.0")


def exits() -> None:
    """End before anything else."""
    print("nothing works here", file=sys.stderr)
    sys.exit(3)
