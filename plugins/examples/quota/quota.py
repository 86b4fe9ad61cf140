"""A processor that tags the requests of projects that are over a rate."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from stacktrail import Batch, ConfigFault, Env, Processor, option, serve


@dataclass
class Config:
    """What an operator sets."""

    limit: int = option(required=True, min=1, doc="Requests that a project may make in a window.", example=600)
    window: timedelta = option(default=timedelta(minutes=1), min=timedelta(seconds=1), doc="Length of a window, in the log's own time.")
    mode: Literal["sliding", "fixed"] = option(
        default="sliding", doc="What is counted: the last window's length before each request, or windows that begin at fixed times."
    )
    by: str = option(default="project_id", doc="Field whose values are counted apart.")
    tag: str = option(default="over_quota_bool", doc="Field that is set to true in events over the limit.")
    projects: int = option(default=10000, min=1, doc="Values that are remembered; the one not seen for longest is forgotten first.")

    def __post_init__(self) -> None:
        if self.tag == self.by:
            raise ConfigFault("tag", "is the field that is counted by", "over_quota_bool")


@dataclass
class Usage:
    """What one project used: requests in its newest window and in the one before, and how many came too late since."""

    number: int
    now: int = 0
    before: int = 0
    late: int = 0


# So many late events in a row are the present: the time that made them late was wrong.
_LATE = 100


class Quota(Processor[Config]):
    """Tag events of projects that make more requests in a window than they may."""

    name = "quota"

    def open(self, config: Config, env: Env) -> None:
        """Start with nothing counted."""
        self.config = config
        self.fields = {config.tag: "bool"}
        self.window = config.window // timedelta(microseconds=1) * 1000
        self.usage: OrderedDict[str, Usage] = OrderedDict()

    def process(self, batch: Batch) -> None:
        """Count each event, and tag those that are too many."""
        over = late = 0
        for e in batch:
            who, when = e.get(self.config.by), e.get("timestamp")
            if who is None or when is None:
                continue
            used = self._count(str(who), int(when))
            if used is None:
                late += 1
            elif used > self.config.limit * self.window:
                e[self.config.tag] = True
                over += 1
        if over:
            self.count("over_quota", over)
        if late:
            self.count("too_late", late)

    def _count(self, who: str, when: int) -> int | None:
        """Requests so far, times the window's length so that they stay whole; None if the time lies before what is remembered."""
        number, into = divmod(when, self.window)
        usage = self.usage.get(who)
        if usage is None:
            usage = self.usage[who] = Usage(number)
            if len(self.usage) > self.config.projects:
                self.usage.popitem(last=False)
        self.usage.move_to_end(who)
        if number < usage.number - 1:
            usage.late += 1
            if usage.late < _LATE:
                return None
            usage.number, usage.now, usage.before = number, 0, 0
        usage.late = 0
        if number > usage.number:
            usage.before = usage.now if number == usage.number + 1 else 0
            usage.number, usage.now = number, 0
        if number == usage.number:
            usage.now += 1
            slid = usage.before * (self.window - into) if self.config.mode == "sliding" else 0
            return usage.now * self.window + slid
        usage.before += 1
        return usage.before * self.window


def main() -> None:
    """Serve the processor."""
    serve(Quota, version="1.0.0")


if __name__ == "__main__":
    main()
