"""What a plugin raises, and what each means to the agent."""

from __future__ import annotations


class FrameError(Exception):
    """The bytes are no frame, or break a rule of the wire."""


class Failure(Exception):
    """Why events were not written. Raised in `write` it is about the whole call; `event.fail` says it of one."""

    code = 1

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def after_ms(self) -> int:
        """Milliseconds to wait; 0 for all but Throttle."""
        return 0


class Retry(Failure):
    """Could not be written now. The agent tries again, with backoff."""

    code = 1


class Permanent(Failure):
    """Will never be accepted. The event goes to the dead letter."""

    code = 2


class Throttle(Failure):
    """The far end asks for a pause of so many seconds."""

    code = 3

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds

    @property
    def after_ms(self) -> int:
        """The pause in whole milliseconds, rounded up."""
        if not self.seconds > 0:
            return 0
        return min(int(min(self.seconds, 1e7) * 1000 + 0.999), 0xFFFFFFFF)


class TooLarge(Failure):
    """The call, or the event, holds too much. The agent halves the call."""

    code = 4


class Deadline(Retry):
    """Nine tenths of the time for this call are over. Raised by the batch while it is read."""


class ConfigFault(Exception):
    """A fault of the configuration at a key, such as `rules[2].when`. Raised in `check`, `open` or `__post_init__`."""

    def __init__(self, key: str, message: str, suggestion: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.message = message
        self.suggestion = suggestion


class ConfigFaults(Exception):
    """Several faults at once, so that the user need not find them one by one."""

    def __init__(self, *faults: ConfigFault) -> None:
        super().__init__("; ".join(str(f) for f in faults))
        self.faults = faults
