"""The README's plugin works as it stands there."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"


class Readme(unittest.TestCase):
    def test_the_processor_and_its_test(self) -> None:
        blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        names: dict[str, Any] = {"__name__": "readme"}
        ran = 0
        for block in blocks:
            if "Mask" in block:
                exec(compile(block, str(README), "exec", dont_inherit=True), names)  # noqa: S102 - it is our own README
                ran += 1
        self.assertEqual(ran, 2)


if __name__ == "__main__":
    unittest.main()
