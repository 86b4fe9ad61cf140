"""A program with plugins that show what the tests of the server look at."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from stacktrail import Batch, ConfigFault, Env, Output, Permanent, Processor, Retry, Secret, Size, Throttle, TooLarge, option, serve


@dataclass
class Rule:
    when: str = option(required=True, doc="When it applies.")


@dataclass
class Limits:
    time: timedelta = option(default=timedelta(seconds=1), min=timedelta(milliseconds=1), doc="Longest time.")

    def __post_init__(self) -> None:
        if self.time > timedelta(minutes=1):
            raise ConfigFault("time", "is more than the deadline", "1m")


@dataclass
class Config:
    mode: Literal["good", "raise", "exit", "slow", "print", "secret"] = option(default="good", doc="What to do.")
    limits: Limits = field(default_factory=Limits, metadata=option(doc="When to give up.").metadata)
    rules: list[Rule] = option(default=[], doc="Rules.")
    names: dict[str, str] = option(default={}, doc="Names.")
    size: Size = option(default=Size(65536), max=Size(1 << 20), doc="A size.")
    token: Secret = option(default=Secret(), doc="A secret.")
    maybe: float | None = option(default=None, doc="A number or nothing.")


class Works(Processor[Config]):
    """Do what the mode says."""

    name = "works"

    def open(self, config: Config, env: Env) -> None:
        self.config, self.env = config, env
        self.fields = {"seen_int": "int"}
        if not env.check and config.mode == "secret":
            raise OSError(f"cannot log in with {config.token.reveal()}")

    def process(self, batch: Batch) -> None:
        mode = self.config.mode
        if mode == "raise":
            raise KeyError("no such thing")
        if mode == "exit":
            sys.exit(3)
        if mode == "print":
            print("printed", flush=True)
        while mode == "slow":
            for _ in batch:
                pass
        for e in batch:
            e["seen_int"] = e.index
            if e.get("method") == "OPTIONS":
                e.drop()
                self.count("dropped", reason="options")

    def close(self) -> None:
        self.log.info("closed", extra={"mode": self.config.mode})


class Sink(Output[None]):
    """Do with each event what its query says."""

    name = "sink"
    knows_ids = True
    linger = 0.5
    together = threading.Barrier(3)

    def open(self, config: None, env: Env) -> None:
        self.writes = [str(env.state_dir / "out")]

    def write(self, batch: Batch) -> None:
        for e in batch:
            match e.get("query"):
                case "retry":
                    e.fail(Retry("table is locked"))
                case "permanent":
                    e.fail(Permanent("no such index"))
                case "throttle":
                    raise Throttle(1.5, "429")
                case "large":
                    raise TooLarge("too much")
                case "meet":
                    self.together.wait(60)
                case "hang":
                    threading.Event().wait()
                case "kill":
                    os._exit(5)
        self.health("far end", "slow")


if __name__ == "__main__":
    serve(Works, Sink, version="1.2.0")
