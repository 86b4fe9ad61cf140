"""Tests of quota: `make test` runs them, and the conformance run."""

from __future__ import annotations

import random
import unittest
from typing import Any

from stacktrail import Time
from stacktrail.errors import ConfigFaults
from stacktrail.testing import Instance

from quota import Quota

BEGIN = 1_700_000_040  # a whole minute


def at(second: float, who: str | None = "p1") -> dict[str, Any]:
    return {"timestamp": Time(round((BEGIN + second) * 10**9)), "project_id": who}


def opened(**config: Any) -> Instance[Quota]:
    return Instance(Quota, {"limit": 3, "window": "60000000000ns", **config})


def tags(quota: Instance[Quota], *events: dict[str, Any]) -> list[bool]:
    return [bool(e and e.get("over_quota_bool")) for e in quota.process(events)]


class Counting(unittest.TestCase):
    def test_fixed_windows_begin_anew(self) -> None:
        q = opened(mode="fixed")
        self.assertEqual(tags(q, *(at(s) for s in (0, 10, 20, 30, 59.999, 60, 61))), [False] * 3 + [True] * 2 + [False] * 2)

    def test_a_sliding_window_remembers_the_last_one(self) -> None:
        q = opened()
        self.assertEqual(tags(q, at(10), at(20), at(30)), [False] * 3)
        # At 1:06, nine tenths of the three before count: 2.7 + 1.
        self.assertEqual(tags(q, at(66)), [True])
        # At 1:50, a sixth of them: 0.5 + 2.
        self.assertEqual(tags(q, at(110)), [False])
        # Two windows later nothing of them is left.
        self.assertEqual(tags(q, at(250), at(251), at(252), at(253)), [False] * 3 + [True])

    def test_projects_are_counted_apart(self) -> None:
        q = opened()
        self.assertEqual(tags(q, *(at(0, f"p{n}") for n in range(10))), [False] * 10)

    def test_events_without_a_project_or_a_time_are_left_alone(self) -> None:
        q = opened(limit=1)
        self.assertEqual(tags(q, at(0, None), at(0, None), {"project_id": "p1"}, {"project_id": "p1"}), [False] * 4)

    def test_late_events(self) -> None:
        q = opened(mode="fixed", limit=2)
        self.assertEqual(tags(q, at(0), at(61), at(30), at(31)), [False, False, False, True])
        self.assertEqual(tags(q, at(200), at(1)), [False, False])
        self.assertEqual(q.notes["count"], [["too_late", "", 1]])

    def test_one_time_in_the_far_future_does_not_end_the_counting(self) -> None:
        q = opened(mode="fixed", limit=10)
        self.assertEqual(tags(q, at(10**8), *[at(1)] * 99), [False] * 100)
        self.assertEqual(tags(q, *[at(2)] * 12), [False] * 10 + [True] * 2)

    def test_counters(self) -> None:
        q = opened(limit=1)
        tags(q, at(0), at(1), at(2))
        self.assertEqual(q.notes, {"count": [["over_quota", "", 2]]})

    def test_another_field_and_tag(self) -> None:
        q = opened(limit=1, by="client", tag="busy_bool")
        rows = q.process([{**at(0), "client": "192.0.2.1"}] * 2)
        self.assertEqual([bool(r and r.get("busy_bool")) for r in rows], [False, True])
        self.assertEqual(q.plugin.fields, {"busy_bool": "bool"})


class Stream(unittest.TestCase):
    def test_how_events_are_batched_does_not_matter(self) -> None:
        rnd = random.Random(7)
        events = [at(n * 0.4 + rnd.uniform(-30, 0), f"p{rnd.randrange(40)}") for n in range(3000)]
        for mode in ("sliding", "fixed"):
            whole = tags(opened(mode=mode), *events)
            self.assertTrue(any(whole) and not all(whole))
            parts, q, i = [], opened(mode=mode), 0
            while i < len(events):
                size = rnd.randrange(1, 200)
                parts += tags(q, *events[i : i + size])
                i += size
            self.assertEqual(parts, whole)

    def test_memory_is_bounded(self) -> None:
        q = opened(projects=100)
        for n in range(50):
            tags(q, *(at(n, f"p{n}-{i}") for i in range(100)))
        self.assertEqual(len(q.plugin.usage), 100)

    def test_the_project_not_seen_for_longest_is_forgotten(self) -> None:
        q = opened(projects=2, limit=1)
        self.assertEqual(
            tags(q, at(0, "a"), at(1, "b"), at(2, "a"), at(3, "c"), at(4, "a"), at(5, "b")), [False, False, True, False, True, False]
        )

    def test_it_opens_with_nothing_counted(self) -> None:
        self.assertEqual([tags(opened(limit=1), at(0)) for _ in range(2)], [[False], [False]])


class Config(unittest.TestCase):
    def test_faults(self) -> None:
        for config, key in (
            ({"limit": 0}, "limit"),
            ({"window": "1000000ns"}, "window"),
            ({"tag": "project_id"}, "tag"),
            ({"mode": "odd"}, "mode"),
        ):
            with self.assertRaises(ConfigFaults) as caught:
                opened(**config)
            self.assertEqual([f.key for f in caught.exception.faults], [key])


if __name__ == "__main__":
    unittest.main()
