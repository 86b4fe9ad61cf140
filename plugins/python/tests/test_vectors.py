"""The codec against the vectors that all SDKs share."""

from __future__ import annotations

import json
import random
import re
import struct
import tracemalloc
import unittest
from pathlib import Path
from typing import Any

from stacktrail import frame as wire
from stacktrail.errors import FrameError
from stacktrail.event import Batch
from stacktrail.values import Json, Time

VECTORS = Path(__file__).resolve().parents[2] / "rpc" / "testdata" / "vectors"
TYPE = {name: number for number, name in wire.TYPES.items()}


def meaning(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return loaded


def data(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def names(bad: bool) -> list[str]:
    every = sorted(p.stem for p in VECTORS.glob("*.json"))
    return [n for n in every if ("error" in meaning(n)) == bad]


def from_json(kind: int, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        raw = bytes.fromhex(value["hex"])
        return raw if kind == wire.BYTES else raw.decode("utf-8", "surrogateescape")
    if kind == wire.INT:
        return int(value)
    if kind == wire.TIME:
        return Time(value)
    if kind == wire.FLOAT:
        return float(value)
    if kind == wire.LIST:
        return tuple(from_json(wire.STRING, v) for v in value)
    return Json(value) if kind == wire.OBJECT else value


def columns(said: dict[str, Any]) -> list[tuple[str, int, list[Any]]]:
    return [(c["name"], TYPE[c["type"]], [from_json(TYPE[c["type"]], v) for v in c["values"]]) for c in said.get("columns", [])]


class Reading(unittest.TestCase):
    def test_there_are_vectors(self) -> None:
        self.assertGreater(len(names(bad=False)), 8)
        self.assertGreater(len(names(bad=True)), 30)

    def test_good_frames_mean_what_they_say(self) -> None:
        for name in names(bad=False):
            with self.subTest(name):
                said, got = meaning(name), wire.decode(data(name))
                self.assertEqual(wire.KINDS[got.kind], said["kind"])
                self.assertEqual(got.instance, said.get("instance", 0))
                self.assertEqual(got.sequence, int(said["sequence"]))
                self.assertEqual(got.count, said.get("count", 0))
                self.assertEqual([(c.name, c.type, c.values()) for c in got.columns], columns(said))
                for c, (_, _, values) in zip(got.columns, columns(said)):
                    self.assertEqual(list(map(type, c.values())), list(map(type, values)), c.name)
                    # 0.0 and -0.0 are equal, and are not the same.
                    self.assertEqual(list(map(repr, c.values())), list(map(repr, values)), c.name)
                self.assertEqual(got.notes, said.get("notes"))
                failures = [[f["index"] & 0xFFFFFFFF, f["class"], f["after_ms"], f["reason"]] for f in said.get("failures", [])]
                self.assertEqual([[f.index, f.code, f.after_ms, f.reason] for f in got.failures], failures)

    def test_bad_frames_are_refused(self) -> None:
        for name in names(bad=True):
            with self.subTest(name), self.assertRaises(FrameError):
                wire.decode(data(name))

    def test_ids(self) -> None:
        for name in names(bad=False):
            said = meaning(name)
            if said["kind"] == "batch":
                with self.subTest(name):
                    self.assertEqual([e.id for e in Batch(wire.decode(data(name)))], said.get("ids", []))

    def test_replies_fit_their_requests(self) -> None:
        for name in names(bad=False):
            said = meaning(name)
            if "request" in said:
                asked, got = wire.decode(data(said["request"])), wire.decode(data(name))
                self.assertEqual((asked.instance, asked.sequence, asked.count), (got.instance, got.sequence, got.count))


class Schema(unittest.TestCase):
    def test_the_fields_and_their_types_are_those_of_the_document(self) -> None:
        text = (VECTORS.parents[1] / "FRAME.md").read_text()
        rows = dict(re.findall(r"^\| fields of type (\w+) \| (.*) \|$", text, re.MULTILINE))
        listed = {name: TYPE[kind] for kind, names_ in rows.items() for name in re.findall(r"`(\w+)`", names_)}
        self.assertEqual(listed, wire.SCHEMA)


class Rules(unittest.TestCase):
    """Rules that no vector shows alone."""

    def decode(self, kind: int, layout: int, count: int, payload: bytes) -> list[Any]:
        column = bytes(4) + b"\1\0x" + bytes((kind, layout)) + struct.pack("<I", len(payload)) + payload
        head = wire.HEADER.pack(b"STKF", 1, wire.PATCH, 0, wire.HEADER.size + len(column), 1, 1, count, 1)
        return wire.decode(head + column).columns[0].values()

    def test_ends_that_go_back_and_end_right(self) -> None:
        self.assertEqual(self.decode(wire.STRING, wire.ALL, 3, struct.pack("<3I", 1, 1, 2) + b"ab"), ["a", None, "b"])
        with self.assertRaises(FrameError):
            self.decode(wire.STRING, wire.ALL, 3, struct.pack("<3I", 2, 1, 2) + b"ab")
        with self.assertRaises(FrameError):
            self.decode(wire.LIST, wire.ALL, 3, struct.pack("<3I", 1, 0, 1) + struct.pack("<I", 1) + b"a")

    def test_same_of_no_events(self) -> None:
        self.assertEqual(self.decode(wire.INT, wire.SAME, 0, bytes(8)), [])

    def test_half_of_the_texts_are_written_in_layout_all(self) -> None:
        for values, layout in ((["a", None], wire.ALL), (["a", None, None], wire.SOME), (["a", "a"], wire.SAME), ([0.0, -0.0], wire.ALL)):
            kind = wire.FLOAT if 0.0 in values else wire.STRING
            column = wire.encode_column("x", kind, values)
            assert column is not None
            self.assertEqual(column[4], layout, values)


class Writing(unittest.TestCase):
    def test_exact_vectors_byte_by_byte(self) -> None:
        for name in names(bad=False):
            said = meaning(name)
            if said["bytes"] == "exact":
                with self.subTest(name):
                    self.assertEqual(encoded(said), data(name))

    def test_what_is_read_can_be_written_and_read(self) -> None:
        for name in names(bad=False):
            if meaning(name)["kind"] == "batch":
                first = wire.decode(data(name))
                again = wire.decode(wire.encode_batch(1, 1, first.count, [(c.name, c.type, c.values()) for c in first.columns]))
                kept = {(c.name, c.type): c.values() for c in again.columns}
                for c in first.columns:
                    self.assertEqual(kept.get((c.name, c.type), [None] * first.count), c.values())


def encoded(said: dict[str, Any]) -> bytes:
    head = (said.get("instance", 0), int(said["sequence"]), said.get("count", 0))
    if said["kind"] == "batch":
        return wire.encode_batch(*head, columns(said))
    if said["kind"] == "patch":
        return wire.encode_patch(*head, columns(said), said.get("notes"))
    failures = [wire.Fault(f["index"] & 0xFFFFFFFF, f["class"], f["after_ms"], f["reason"]) for f in said.get("failures", [])]
    return wire.encode_verdict(*head, failures, said.get("notes"))


def seeds() -> list[bytes]:
    """The vectors, but for a few that are large: they take long, and show nothing more."""
    return [frame for frame in (data(n) for n in names(bad=False) + names(bad=True)) if len(frame) < 10_000]


class Fuzz(unittest.TestCase):
    """Mutated frames are read or refused, in bounded memory, and never anything else."""

    SEED = 20240229
    ROUNDS = 20_000

    def test_only_frame_errors(self) -> None:
        rnd = random.Random(self.SEED)
        corpus = seeds()
        read = 0
        for number in range(self.ROUNDS):
            bad = mutate(rnd, rnd.choice(corpus))
            try:
                frame = wire.decode(bad)
                if frame.count < 5000:
                    touch(frame)
                read += 1
            except FrameError:
                pass
            except Exception as e:  # noqa: BLE001 - any other one is what this looks for
                self.fail(f"seed {self.SEED}, round {number}: {type(e).__name__}: {e}: {bad.hex()}")
        self.assertGreater(read, self.ROUNDS // 100, "hardly any mutant could be read: the fuzzer tests the header alone")

    def test_bounded_memory(self) -> None:
        rnd = random.Random(self.SEED)
        corpus = seeds()
        tracemalloc.start()
        try:
            for _ in range(2_000):
                try:
                    wire.decode(mutate(rnd, rnd.choice(corpus)))
                except FrameError:
                    pass
            self.assertLess(tracemalloc.get_traced_memory()[1], 16 << 20)
        finally:
            tracemalloc.stop()


def touch(frame: wire.Frame) -> None:
    # An SDK makes events of batches only: another frame need not hold what they need.
    for event in Batch(frame) if frame.kind == wire.BATCH else ():
        _ = event.id
        for name in event:
            _ = name
    for column in frame.columns:
        for value in column.values():
            if isinstance(value, Json):
                try:
                    value.load()
                except FrameError:
                    pass


def mutate(rnd: random.Random, good: bytes) -> bytes:
    frame = bytearray(good)
    for _ in range(rnd.randint(1, 3)):
        way = rnd.randrange(5)
        at = rnd.randrange(len(frame)) if frame else 0
        if way == 0 and frame:
            frame[at] = rnd.randrange(256)
        elif way == 1 and frame:
            frame[at] ^= 1 << rnd.randrange(8)
        elif way == 2 and len(frame) >= at + 4:
            frame[at : at + 4] = struct.pack("<I", rnd.choice((0, 1, 2, 255, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20, len(frame))))
        elif way == 3:
            del frame[at : at + rnd.randint(1, 8)]
        else:
            frame[at:at] = rnd.randbytes(rnd.randint(1, 8))
    # Mostly with a header that fits, so that what is behind it is tested too.
    if len(frame) >= 12 and rnd.random() < 0.9:
        frame[8:12] = struct.pack("<I", len(frame))
    return bytes(frame)


if __name__ == "__main__":
    unittest.main()
