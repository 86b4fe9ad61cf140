"""Batches, events and what the SDK makes of Python's values."""

from __future__ import annotations

import io
import json
import logging
import unittest
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from stacktrail import Batch, Event, Object, Processor, Seconds, Secret, Size, Time, clean, option
from stacktrail import frame as wire
from stacktrail import log as logs
from stacktrail.config import decode, describe
from stacktrail.errors import ConfigFaults
from stacktrail.testing import Instance, applied, batch_of


def batch(*events: dict[str, Any]) -> Batch:
    return Batch(wire.decode(batch_of(events)))


def patched(b: Batch) -> list[dict[str, Any] | None]:
    return applied(b._frame, patch(b))


def patch(b: Batch) -> wire.Frame:
    return wire.decode(b._encode_patch(None))


class Events(unittest.TestCase):
    def test_a_mapping(self) -> None:
        e = batch({"query": "a=1", "level": 0, "@@own": "x", "zone": 4}, {"zone": "north"})[0]
        self.assertEqual(dict(e), {"query": "a=1", "level": 0, "@own": "x", "zone": 4})
        self.assertEqual((e["@own"], e.get("@own"), e.get("path"), e.get("path", "-"), len(e)), ("x", "x", None, "-", 4))
        self.assertNotIn("path", e)
        with self.assertRaises(KeyError):
            e["path"]

    def test_only_what_changed_is_sent(self) -> None:
        b = batch({"query": "a", "path": "/a", "level": 1}, {"query": "b", "path": "/b", "level": 2})
        for e in b:
            e["query"] = e["query"]
            e["level"] = 2
        got = patch(b)
        self.assertEqual([(c.name, c.values()) for c in got.columns], [("level", [2, 2])])

    def test_a_value_that_is_equal_and_of_another_type_is_a_change(self) -> None:
        b = batch({"x": 1, "y": 0.0, "z": 1})
        b[0].update({"x": True, "y": 0, "z": 1})
        self.assertEqual([(c.name, wire.TYPES[c.type], c.values()) for c in patch(b).columns], [("x", "bool", [True]), ("y", "int", [0])])

    def test_every_type_goes_there_and_back(self) -> None:
        values = {
            "s": "x",
            "i": -5,
            "f": 0.5,
            "b": False,
            "t": Time(-1),
            "l": ("a", "", "b"),
            "o": {"a": [1]},
            "@at": "own",
        }
        b = batch({})
        b[0].update(values)
        row = patched(b)[0]
        assert row is not None
        for name, value in values.items():
            got = row["@@at" if name == "@at" else name]
            self.assertEqual((got, got == value), (value, True))
        self.assertEqual({type(row[n]) for n in "ift"}, {int, float, Time})

    def test_values_of_other_types(self) -> None:
        class Text(str):
            __slots__ = ()

        b = batch({})
        e = b[0]
        e["when"] = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=1)))
        e["text"] = Text("x")
        e["list"] = ["a"]
        e["api_response_time_num"] = 2
        self.assertEqual(e["when"], Time(1709204400000001000))
        self.assertEqual(e["when"].datetime(), datetime(2024, 2, 29, 11, 0, 0, 1, tzinfo=timezone.utc))
        self.assertEqual((type(e["text"]), e["list"], type(e["api_response_time_num"])), (str, ("a",), float))
        patch(b)

    def test_what_the_wire_does_not_take_is_refused_where_it_is_set(self) -> None:
        e = batch({})[0]
        for name, value, error in (
            ("x", float("nan"), ValueError),
            ("x", float("inf"), ValueError),
            ("x", 1 << 63, ValueError),
            ("x", object(), TypeError),
            ("x", [1], TypeError),
            ("x", {"a": float("nan")}, ValueError),
            ("x", datetime(2024, 1, 1), ValueError),
            ("method", 1, TypeError),
            ("level", 1 << 31, ValueError),
            ("level", True, TypeError),
            ("event_id", "x", ValueError),
            ("log_offset_int", 1, ValueError),
            ("", "x", ValueError),
            ("x" * 70000, "x", ValueError),
        ):
            with self.subTest(name=name[:20], value=value), self.assertRaises(error):
                e[name] = value
        self.assertEqual(dict(e), {})

    def test_empty_is_absent_and_zero_is_not(self) -> None:
        b = batch({"query": "x", "level": 3, "path": "/"}, {"query": "y", "level": 4, "path": "/"})
        for e in b:
            e["query"] = ""
            e["level"] = 0
        del b[0]["path"]
        self.assertNotIn("query", b[0])
        got = {c.name: c for c in patch(b).columns}
        self.assertEqual(got["query"].values(), [None, None])
        self.assertEqual((got["level"].values(), got["path"].values()), ([0, 0], [None, "/"]))

    def test_a_field_that_changes_its_type(self) -> None:
        b = batch({"zone": "a"}, {"zone": 1}, {"zone": "c"})
        b[0]["zone"] = 2.5
        got = patch(b)
        self.assertEqual(
            [(wire.TYPES[c.type], c.values()) for c in got.columns],
            [("string", [None, None, "c"]), ("int", [None, 1, None]), ("float", [2.5, None, None])],
        )

    def test_texts_that_are_not_utf8_stay(self) -> None:
        raw = [b"\xff\xfe", b"caf\xe9", b"ok", "é".encode()]
        texts = [r.decode("utf-8", "surrogateescape") for r in raw]
        b = batch(*({"path": t, "query": t} for t in texts))
        for e in b:
            e["path"] = "/" + e["path"]
        rows = patched(b)
        self.assertEqual([r["path"].encode("utf-8", "surrogateescape") for r in rows if r], [b"/" + r for r in raw])
        self.assertEqual(clean(texts[1]), "caf\ufffd")
        b[0]["path"] = "half \ud800"
        self.assertEqual((patched(b)[0] or {})["path"], "half \ufffd")

    def test_objects_are_copies_and_say_so(self) -> None:
        b = batch({"attributes": {"a": 1}})
        e = b[0]
        with self.assertRaises(TypeError):
            e["attributes"]["b"] = 2
        e["attributes"] = dict(e["attributes"], b=2)
        self.assertEqual((patched(b)[0] or {})["attributes"], {"a": 1, "b": 2})
        self.assertIsInstance(e["attributes"], Object)

    def test_raw_and_drop(self) -> None:
        b = batch({"@raw": b"one"}, {"@raw": b"two"})
        b[0].raw = b"***"
        b[1].drop()
        self.assertEqual([c.name for c in patch(b).columns], ["@raw", "@dropped"])
        rows = patched(b)
        self.assertEqual((rows[0] or {})["@raw"], b"***")
        self.assertIsNone(rows[1])
        with self.assertRaises(TypeError):
            b[0].raw = "text"  # type: ignore[assignment]

    def test_columns(self) -> None:
        b = batch({"query": "a"}, {})
        self.assertEqual(b.column("query"), ["a", None])
        b.set_column("query", [None, "x"])
        self.assertEqual([(c.name, c.values()) for c in patch(b).columns], [("query", [None, "x"])])
        with self.assertRaises(ValueError):
            b.set_column("query", [])

    def test_indexes(self) -> None:
        b = batch({"level": 1}, {"level": 2})
        self.assertEqual((b[-1]["level"], len(b), [e.index for e in b]), (2, 2, [0, 1]))
        for index in (2, -3):
            with self.assertRaises(IndexError):
                b[index]
        self.assertIsInstance(b[0], Event)


@dataclass
class Timed:
    every: Seconds = option(default=Seconds(90), min=Seconds(0.001), doc="Every.")
    size: Size = option(default=Size(1000), doc="Size.")
    day: timedelta = option(default=timedelta(days=1), doc="Day.")
    text: str = option(default="a", loose=True, doc="Text.")
    secret: Secret = option(default=Secret(), doc="Secret.")


class Configs(unittest.TestCase):
    def test_written_as_a_user_would(self) -> None:
        said = {k["path"]: k for k in describe(Timed)}
        self.assertEqual([said[n].get("default") for n in ("every", "size", "day", "secret")], ["90s", "1000", "24h", None])
        self.assertEqual((said["every"]["min"], said["text"]["loose"]), ("1ms", True))

    def test_values(self) -> None:
        made = decode(Timed, {"every": "1500000000ns", "size": 5, "day": "-1000ns", "text": 7, "secret": "hush"})
        self.assertEqual((made.every, made.size, made.day, made.text), (1.5, 5, timedelta(microseconds=-1), "7"))
        self.assertEqual((str(made.secret), repr(made), made.secret.reveal()), ("***", repr(made), "hush"))
        self.assertNotIn("hush", repr(made))
        self.assertEqual(decode(Timed, {}), Timed())

    def test_wrong_values(self) -> None:
        with self.assertRaises(ConfigFaults) as caught:
            decode(Timed, {"every": "1s", "size": True, "secret": []})
        self.assertEqual([f.key for f in caught.exception.faults], ["every", "size", "secret"])

    def test_a_config_that_cannot_be_described(self) -> None:
        @dataclass
        class Odd:
            x: set[str] = option(default=None)

        @dataclass
        class NoDefault:
            x: int

        for kind in (Odd, NoDefault):
            with self.assertRaisesRegex(TypeError, r"\.x: "):
                describe(kind)


class Counts(Processor[None]):
    """Count."""

    name = "counts"

    def process(self, batch: Batch) -> None:
        for e in batch:
            self.count(e["path"], 2)


class Notes(unittest.TestCase):
    def test_counts_add_up(self) -> None:
        i = Instance(Counts)
        i.process([{"path": "a"}, {"path": "b"}, {"path": "a"}])
        self.assertEqual(i.notes, {"count": [["a", "", 4], ["b", "", 2]]})
        i.process([])
        self.assertEqual(i.notes, {})

    def test_what_does_not_fit_comes_later(self) -> None:
        i, names, rounds = Instance(Counts), {f"{n:0500d}" for n in range(300)}, 0
        i.process([{"path": n} for n in names])
        got = {row[0] for row in i.notes["count"]}
        while got != names:
            rounds += 1
            self.assertLess(rounds, 10)
            i.process([])
            got |= {row[0] for row in i.notes["count"]}


class Logs(unittest.TestCase):
    def lines(self, *arguments: Any, **extra: Any) -> list[str]:
        mask = logs.Masker()
        mask.learn(1, {"hushhush"})
        logger = logging.getLogger("test")
        logger.propagate = False
        logger.handlers = [logs.Handler(mask)]
        self.addCleanup(logger.handlers.clear)
        with redirect_stderr(io.StringIO()) as out:
            logger.warning(*arguments, **extra)
        return out.getvalue().splitlines()

    def test_one_line_of_json_without_secrets(self) -> None:
        (line,) = self.lines("a\nb %s", "hushhush", extra={"n": 3, "who": "hushhush"})
        self.assertEqual(json.loads(line), {"level": "WARN", "msg": "a\nb ***", "n": 3, "who": "***"})

    def test_long_lines_are_cut_and_stay_json(self) -> None:
        for text in ("x" * 100_000, "é" * 100_000, "\udcff" * 5000):
            (line,) = self.lines(text, extra={"more": text})
            self.assertLessEqual(len(line.encode()), logs.MAX_LINE)
            self.assertEqual(json.loads(line)["level"], "WARN")

    def test_the_end_of_a_traceback_stays(self) -> None:
        def deep(n: int) -> None:
            if n:
                deep(n - 1)
            raise ValueError("x" * 300 + "at the bottom")

        try:
            deep(0)
        except ValueError:
            (line,) = self.lines("m", exc_info=True, extra={"pad": "y" * 3900})
        self.assertTrue(json.loads(line)["traceback"].rstrip().endswith("at the bottom"))


if __name__ == "__main__":
    unittest.main()
