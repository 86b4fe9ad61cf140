"""A served plugin over a real socket."""

from __future__ import annotations

import json
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from stacktrail import frame as wire
from stacktrail.host import CallError, Host, StartError
from stacktrail.testing import applied, batch_of

from .support import program

LIMIT = 90.0


def wait_for(what: Callable[[], bool]) -> bool:
    """Whether it comes true in time."""
    end, pause = time.monotonic() + LIMIT, threading.Event()
    while time.monotonic() < end:
        if what():
            return True
        pause.wait(0.02)
    return False


class Starting(unittest.TestCase):
    def test_started_by_hand_it_says_what_it_is(self) -> None:
        for cookie in ("", "another"):
            with Host(program(self, "several.py"), cookie=cookie, timeout=LIMIT) as host:
                self.assertEqual(host.process.wait(LIMIT), 1)
                host.wait_log()
                said = "\n".join(host.log)
                for part in ("plugin of stacktrail", "processor works: Do what the mode says.", "output sink", "- path: /"):
                    self.assertIn(part, said)

    def test_another_protocol_is_answered_with_its_own(self) -> None:
        with Host(program(self, "several.py"), protocols="7,9", timeout=LIMIT) as host:
            host.connect()
            self.assertEqual(host.ask("Describe", protocol=7)["version"], "1.2.0")

    def test_a_program_that_cannot_start(self) -> None:
        with Host(program(self, "nowhere.py"), timeout=LIMIT) as host, self.assertRaises(StartError):
            host.connect()


class Served(unittest.TestCase):
    host: Host
    number = 0

    @classmethod
    def setUpClass(cls) -> None:
        cls.host = Host(program(cls, "several.py"), timeout=LIMIT)
        cls.addClassCleanup(cls.host.kill)
        cls.host.connect()

    def open(self, name: str = "works", check: bool = False, **config: Any) -> dict[str, Any]:
        Served.number += 1
        kind = "output" if name == "sink" else "processor"
        env = {"pipeline": "p", "id": name, "state_dir": "/var/lib/x", "unknown": 1}
        return self.host.ask("Open", instance=self.number, kind=kind, name=name, check=check, config=config, env=env)

    def send(self, method: str, events: list[dict[str, Any]], timeout: float | None = None) -> tuple[wire.Frame, wire.Frame]:
        request = batch_of(events, self.number, (1 << 64) - 1)
        return wire.decode(request), wire.decode(self.host.call(method, request, timeout))

    def status(self, method: str, request: bytes) -> str:
        with self.assertRaises(CallError) as caught:
            self.host.call(method, request)
        return caught.exception.code

    def test_describe(self) -> None:
        said = self.host.ask("Describe", protocol=1, agent="1.0.0")
        self.assertEqual((said["version"], said["sdk"]), ("1.2.0", "python 1"))
        works, sink = said["plugins"]
        self.assertEqual(
            {k: v for k, v in sink.items()},
            {
                "kind": "output",
                "name": "sink",
                "summary": "Do with each event what its query says.",
                "knows_ids": True,
                "linger": "500ms",
                "config": [],
            },
        )
        self.assertEqual(
            works["config"],
            [
                {
                    "path": "mode",
                    "type": "string",
                    "doc": "What to do.",
                    "default": '"good"',
                    "enum": ["good", "raise", "exit", "slow", "print", "secret"],
                },
                {"path": "limits", "type": "section", "doc": "When to give up."},
                {"path": "limits.time", "type": "duration", "doc": "Longest time.", "default": "1s", "min": "1ms"},
                {"path": "rules", "type": "list of section", "doc": "Rules.", "default": "[]"},
                {"path": "rules[].when", "type": "string", "doc": "When it applies.", "required": True},
                {"path": "names", "type": "map of string", "doc": "Names.", "default": "{}"},
                {"path": "size", "type": "size", "doc": "A size.", "default": "64KiB", "max": "1MiB"},
                {"path": "token", "type": "secret", "doc": "A secret."},
                {"path": "maybe", "type": "number", "doc": "A number or nothing."},
            ],
        )

    def test_check_makes_no_instance(self) -> None:
        self.assertEqual(self.open(check=True), {"fields": {"seen_int": "int"}, "writes": []})
        self.assertEqual(self.status("Process", batch_of([], self.number)), "NOT_FOUND")

    def test_all_faults_at_once(self) -> None:
        reply = self.open(check=True, mode="bad", rules=[{"when": "x"}, {}], limits={"time": "61000000000ns"}, size=2 << 20, names={"a": 1})
        faults = {f["key"]: (f["message"], f["suggestion"]) for f in reply["faults"]}
        self.assertEqual(faults["limits.time"], ("is more than the deadline", "1m"))
        self.assertEqual(faults["rules[1].when"], ("is required", ""))
        self.assertEqual(faults["size"], ("must be at most 1MiB", ""))
        self.assertEqual(faults["names.a"], ("must be a text", ""))
        self.assertIn("must be one of good", faults["mode"][0])

    def test_an_error_shows_no_secret(self) -> None:
        reply = self.open(mode="secret", token="s3cret-token")
        self.assertEqual(reply, {"error": "OSError: cannot log in with ***"})
        self.assertTrue(wait_for(lambda: any("open failed" in line for line in self.host.log)))
        self.assertFalse([line for line in self.host.log if "s3cret" in line])

    def test_unknown_plugin(self) -> None:
        self.assertIn("no processor 'nobody'", self.open("nobody")["error"])

    def test_process(self) -> None:
        self.open()
        asked, got = self.send("Process", [{"method": "GET"}, {"method": "OPTIONS"}, {"path": b"/\xff".decode("utf-8", "surrogateescape")}])
        self.assertEqual((got.kind, got.sequence, got.count), (wire.PATCH, (1 << 64) - 1, 3))
        self.assertEqual([c.name for c in got.columns], ["seen_int", "@dropped"])
        self.assertEqual(got.notes, {"count": [["dropped", "options", 1]]})
        rows = applied(asked, got)
        self.assertIsNone(rows[1])
        assert rows[2] is not None
        self.assertEqual(rows[2]["path"].encode("utf-8", "surrogateescape"), b"/\xff")

    def test_what_it_raises_is_a_verdict(self) -> None:
        for mode, reason in (("raise", "KeyError: 'no such thing'"), ("exit", "SystemExit: 3")):
            self.open(mode=mode)
            _, got = self.send("Process", [{"method": "GET"}])
            self.assertEqual((got.kind, [f.reason for f in got.failures]), (wire.VERDICT, [reason]))
        self.assertTrue(wait_for(lambda: sum('"process failed"' in line for line in self.host.log) >= 2))
        line = next(line for line in self.host.log if '"process failed"' in line and "KeyError" in line)
        said = json.loads(line)
        self.assertEqual((said["level"], said["events"]), ("ERROR", 1))
        self.assertIn("several.py", said["traceback"])

    def test_it_gives_up_before_the_deadline(self) -> None:
        for seconds in (3, 15, 60):
            self.open(mode="slow")
            try:
                _, got = self.send("Process", [{"method": "GET"}], timeout=seconds)
            except CallError:
                continue  # A tenth of it was too short for this machine just now.
            self.assertIn("deadline", got.failures[0].reason)
            return
        self.fail("no call gave up before its deadline")

    def test_what_is_printed_is_logged(self) -> None:
        self.open(mode="print")
        self.send("Process", [])
        self.assertTrue(wait_for(lambda: "printed" in self.host.log))

    def test_write(self) -> None:
        self.assertEqual(self.open("sink")["writes"], ["/var/lib/x/out"])
        _, got = self.send("Write", [{"query": "retry"}, {}, {"query": "permanent"}])
        self.assertEqual([(f.index, f.code, f.reason) for f in got.failures], [(0, 1, "table is locked"), (2, 2, "no such index")])
        self.assertEqual(got.notes, {"fail": [["far end", "slow"]]})
        _, got = self.send("Write", [{}, {"query": "throttle"}])
        self.assertEqual([(f.index, f.code, f.after_ms, f.reason) for f in got.failures], [(wire.WHOLE_CALL, 3, 1500, "429")])
        _, got = self.send("Write", [{"query": "large"}])
        self.assertEqual(got.failures[0].code, 4)
        self.assertEqual(self.send("Write", [])[1].failures, [])

    def test_writes_at_the_same_time(self) -> None:
        self.open("sink")
        good: list[bool] = []
        calls = [threading.Thread(target=lambda: good.append(not self.send("Write", [{"query": "meet"}])[1].failures)) for _ in range(3)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        self.assertEqual(good, [True] * 3)

    def test_faults_of_the_caller(self) -> None:
        self.open("sink")
        batch = batch_of([], self.number)
        self.assertEqual(self.status("Process", batch), "UNIMPLEMENTED")
        self.assertEqual(self.status("Write", b"junk"), "INVALID_ARGUMENT")
        self.assertEqual(self.status("Write", wire.encode_patch(self.number, 1, 0, [])), "INVALID_ARGUMENT")
        self.assertEqual(self.status("Open", b"junk"), "INVALID_ARGUMENT")
        self.assertEqual(self.status("Open", b"[]"), "INVALID_ARGUMENT")
        self.assertEqual(self.status("Run", b""), "UNIMPLEMENTED")

    def test_close(self) -> None:
        self.open(mode="print")
        for _ in range(2):
            self.assertEqual(self.host.ask("Close", instance=self.number), {})
        self.assertEqual(self.status("Process", batch_of([], self.number)), "NOT_FOUND")
        self.assertTrue(wait_for(lambda: any('"mode": "print"' in line and '"closed"' in line for line in self.host.log)))

    def test_a_large_batch(self) -> None:
        self.open()
        asked, got = self.send("Process", [{"path": "x" * (40 << 20)}])
        self.assertEqual((got.kind, got.count), (wire.PATCH, asked.count))


class Ending(unittest.TestCase):
    def test_sigterm_closes_what_is_open(self) -> None:
        with Host(program(self, "several.py"), timeout=LIMIT) as host:
            host.connect()
            host.ask("Open", instance=1, kind="processor", name="works", config={}, env={})
            self.assertTrue(host.terminate(LIMIT))
            self.assertEqual(host.process.returncode, 0)
            self.assertTrue(wait_for(lambda: any('"closed"' in line for line in host.log)))

    def test_sigterm_ends_it_while_a_call_hangs(self) -> None:
        with Host(program(self, "several.py"), timeout=LIMIT) as host:
            host.connect()
            host.ask("Open", instance=1, kind="output", name="sink", config={}, env={})
            with self.assertRaises(CallError):
                host.call("Write", batch_of([{"query": "hang"}], 1), timeout=0.5)
            self.assertTrue(host.terminate(LIMIT))

    def test_a_plugin_that_dies_is_a_named_error(self) -> None:
        with Host(program(self, "several.py"), timeout=LIMIT) as host:
            host.connect()
            host.ask("Open", instance=1, kind="output", name="sink", config={}, env={})
            with self.assertRaises(CallError):
                host.call("Write", batch_of([{"query": "kill"}], 1))
            self.assertEqual(host.process.wait(LIMIT), 5)


if __name__ == "__main__":
    unittest.main()
