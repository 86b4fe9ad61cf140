"""The conformance run finds what it says it finds, and nothing in a good plugin."""

from __future__ import annotations

import unittest

from stacktrail.conformance import Suite, main

from .support import program

# What each bad plugin does: the check that finds it, and a part of the reason.
BAD = {
    "cookie": ("without the agent's cookie", "still runs"),
    "prints": ("starts", "no handshake: 'hello'"),
    "ends": ("starts", "cannot find my files"),
    "silent": ("starts", "no handshake line"),
    "summary": ("description is sane", "no summary"),
    "type": ("description is sane", "'whole'"),
    "undocumented": ("description is sane", "no doc"),
    "accepts": ("refuses bad", "it accepts one with limit of another type"),
    "empty": ("empty batch", "IndexError"),
    "dies": ("one event", "ended with 9"),
    "hangs": ("one event", "DEADLINE_EXCEEDED"),
    "types": ("every type", "AttributeError"),
    "utf8": ("not UTF-8", "UnicodeEncodeError"),
    "small": ("MiB", "RESOURCE_EXHAUSTED"),
    "random": ("the same", "dice_int"),
    "shared": ("the same", "number_int"),
    "keeps": ("keeps nothing", "number_int"),
    "illegal": ("one event", "event_id"),
    "sequence": ("one event", "sequence"),
    "count": ("one event", "count"),
    "junk": ("one event", "less than a header"),
    "grows": ("does not grow", "MiB more"),
    "closes": ("closes", "it is not open"),
    "garbage": ("a frame that is none", "ended with 7"),
    "sigterm": ("SIGTERM", "still runs"),
    "refuses": ("one event", "no route to host"),
}
SLOW = {"cookie": 3.0, "silent": 3.0, "hangs": 5.0}


class Finds(unittest.TestCase):
    def test_each_bad_plugin(self) -> None:
        for mode, (check, reason) in BAD.items():
            with self.subTest(mode):
                suite = Suite(program(self, "bad.py", mode), timeout=SLOW.get(mode, 60), say=lambda _: None, only=check)
                self.assertFalse(suite.run())
                what, why = suite.failed[0]
                self.assertIn(check, what)
                self.assertIn(reason, why)

    def test_only_that(self) -> None:
        suite = Suite(program(self, "bad.py", "nothing"), timeout=60, say=lambda _: None)
        self.assertTrue(suite.run(), suite.failed)


class Passes(unittest.TestCase):
    def test_a_processor(self) -> None:
        suite = Suite(program(self, "mask.py"), {"pattern": "secret[0-9]+"}, timeout=60, say=lambda _: None)
        self.assertTrue(suite.run(), suite.failed)

    def test_a_program_with_two(self) -> None:
        suite = Suite(program(self, "several.py"), timeout=60, say=lambda _: None)
        self.assertTrue(suite.run(), suite.failed)

    def test_exit_codes(self) -> None:
        self.assertEqual(main([program(self, "mask.py"), "--only", "sane", "--timeout", "60"]), 0)
        self.assertEqual(main([program(self, "bad.py", "summary"), "--only", "sane", "--timeout", "60"]), 1)
        self.assertEqual(main(["/nowhere/plugin"]), 1)


if __name__ == "__main__":
    unittest.main()
