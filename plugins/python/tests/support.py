"""What the tests share."""

from __future__ import annotations

import stat
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent


def program(test: unittest.TestCase | type[unittest.TestCase], script: str, *arguments: str) -> str:
    """A program that runs a script below tests/plugins with this Python and this SDK, in the agent's bare environment."""
    folder = tempfile.TemporaryDirectory()
    (test.addClassCleanup if isinstance(test, type) else test.addCleanup)(folder.cleanup)
    path = Path(folder.name) / Path(script).stem
    line = " ".join(f"'{a}'" for a in (sys.executable, str(HERE / "plugins" / script), *arguments))
    path.write_text(f"#!/bin/sh\nPYTHONPATH='{HERE.parent}' exec {line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
