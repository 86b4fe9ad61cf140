"""Plugins that each do one thing wrong; its name is the argument. The conformance run must find it."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from dataclasses import dataclass
from typing import Any

import stacktrail.server as serving
from stacktrail import Batch, Env, Output, Processor, Retry, config, option, wire
from stacktrail import frame as frames

MODE = sys.argv[1]
COUNTER = itertools.count()


@dataclass
class Config:
    limit: int = option(default=3, min=1, doc="" if MODE == "undocumented" else "A number.")


class Bad(Processor[Config]):
    """Do something wrong."""

    name = "bad"

    def open(self, config: Config, env: Env) -> None:
        self.kept: list[Any] = []
        self.seen = 0

    def process(self, batch: Batch) -> None:
        if MODE == "empty":
            batch[0]
        elif MODE == "dies":
            os._exit(9)
        elif MODE == "hangs":
            threading.Event().wait()
        elif MODE == "grows":
            self.kept.append([e.id for e in batch])
        for e in batch:
            self.seen += 1
            if MODE == "types":
                e["upper"] = "".join(e[name].upper() for name in e if name not in e.get("skip", ()))
            elif MODE == "utf8":
                e.get("path", "").encode()
            elif MODE == "random":
                e["dice_int"] = random.randrange(1 << 40)
            elif MODE == "shared":
                e["number_int"] = next(COUNTER)
            elif MODE == "keeps":
                e["number_int"] = self.seen


class Refuses(Output[Config]):
    """Accept nothing."""

    name = "bad"

    def write(self, batch: Batch) -> None:
        raise Retry("no route to host")


def forged(self: Batch, notes: Any) -> bytes:
    frame = self._frame
    sequence = frame.sequence + (MODE == "sequence")
    column = [("event_id", frames.STRING, ["x"] * frame.count)] if MODE == "illegal" and frame.count else []
    count = frame.count + (MODE == "count")
    return b"junk" if MODE == "junk" else frames.encode_patch(frame.instance, sequence, count, column)


def misbehave() -> None:
    if MODE == "cookie":
        os.environ["STACKTRAIL_PLUGIN"] = wire.COOKIE
    elif MODE == "prints":
        os.write(1, b"hello\n")
    elif MODE == "ends":
        sys.exit("cannot find my files")
    elif MODE == "silent":
        threading.Event().wait()
    elif MODE == "summary":
        Bad.__doc__ = None
    elif MODE == "type":
        config._SCALARS[int] = config._Shape("whole", config._SCALARS[int].read, str)
    elif MODE == "accepts":
        config.decode = lambda kind, value: kind()  # type: ignore[assignment]
    elif MODE == "small":
        wire.LIMITS.clear()
    elif MODE in ("illegal", "sequence", "count", "junk"):
        Batch._encode_patch = forged  # type: ignore[method-assign]
    elif MODE == "closes":
        serving.Server.close = lambda *_: b'{"error": "it is not open"}'  # type: ignore[method-assign]
    elif MODE == "sigterm":
        serving._end = lambda *_: threading.Event().wait()  # type: ignore[assignment]
    elif MODE == "garbage":
        frames.decode = lambda data: os._exit(7)


if __name__ == "__main__":
    if len(sys.argv) > 1 and os.environ.get("STACKTRAIL_PLUGIN") == wire.COOKIE or MODE == "cookie":
        misbehave()
    serving.serve(Refuses if MODE == "refuses" else Bad, version="1.0.0")
