"""Plugins for stacktrail in Python: derive from Processor or Output, and serve."""

from .config import Seconds, Secret, Size, option
from .errors import ConfigFault, ConfigFaults, Deadline, Failure, FrameError, Permanent, Retry, Throttle, TooLarge
from .event import Batch, Event
from .plugin import Env, Output, Processor
from .server import serve
from .values import Object, Time, clean

__all__ = [
    "Batch",
    "ConfigFault",
    "ConfigFaults",
    "Deadline",
    "Env",
    "Event",
    "Failure",
    "FrameError",
    "Object",
    "Output",
    "Permanent",
    "Processor",
    "Retry",
    "Seconds",
    "Secret",
    "Size",
    "Throttle",
    "Time",
    "TooLarge",
    "clean",
    "option",
    "serve",
]
