"""`python3 -m stacktrail.conformance PATH` starts a plugin as the agent would, and checks it over the wire."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import frame as wire
from . import samples
from .errors import FrameError
from .host import CallError, Host, StartError
from .testing import batch_of
from .wire import NAME

_GROWTH = 8 << 20
_WARM, _BATCHES, _EVENTS = 60, 200, 500
_BIG = 6 << 20
_STOP_SECONDS = 2.0
_SCALARS = r"(string|bool|integer|number|duration|size|secret|section|any)"
_TYPE = re.compile(rf"((list|map) of )*{_SCALARS}")
_FIELD_TYPES = frozenset(("string", "int", "float", "bool", "time", "list", "object"))


class Wrong(Exception):
    """What is wrong with the plugin."""


def _wrong(why: str) -> NoReturn:
    raise Wrong(why)


class Suite:
    """Checks of one program. `failed` holds what was found."""

    def __init__(
        self,
        path: str,
        given: dict[str, Any] | None = None,
        name: str = "",
        stateful: bool = False,
        timeout: float = 10,
        say: Callable[[str], object] = print,
        only: str = "",
    ) -> None:
        self.path, self.given, self.name, self.stateful, self.timeout, self.say = path, given or {}, name, stateful, timeout, say
        self.failed: list[tuple[str, str]] = []
        self.log: list[str] = []
        self._only = only
        self._number = 0
        self._sequence = 0
        self._host: Host | None = None
        self._state = tempfile.TemporaryDirectory(prefix="conformance-")

    def run(self) -> bool:
        """Run all checks; whether all hold."""
        try:
            self._check("does not run without the agent's cookie", self._by_hand)
            described: list[dict[str, Any]] = []
            if self._check("starts, and describes itself", lambda: described.extend(self._describe()), always=True):
                chosen = [p for p in described if self.name in ("", p.get("name"))]
                if not chosen:
                    self._check(f"has a plugin {self.name}", lambda: _wrong(f"it has {[p.get('name') for p in described]}"), always=True)
                for plugin in chosen:
                    self._plugin(plugin)
                self._check("answers to a frame that is none, and goes on", self._garbage)
                self._check("ends after SIGTERM", self._sigterm)
        finally:
            self._stop()
            self._state.cleanup()
        return not self.failed

    def _plugin(self, plugin: dict[str, Any]) -> None:
        label = f"{plugin.get('kind')} {plugin.get('name')}"
        if not self._check(f"{label}: description is sane", lambda: judge(plugin), always=True):
            return
        config, missing = samples.settings(plugin.get("config", []), self.given)
        if missing:
            self._check(
                f"{label}: can be configured",
                lambda: _wrong(f"--config must have {', '.join(missing)}: no example is described"),
                always=True,
            )
            return
        run = _Run(self, plugin, config)
        if not self._check(f"{label}: open accepts its configuration", run.opens, always=True):
            return
        self._check(f"{label}: open refuses bad configurations", run.refuses)
        for what, check in run.checks():
            self._check(f"{label}: {what}", check)

    def _check(self, what: str, check: Callable[[], object], always: bool = False) -> bool:
        if not always and self._only not in what:
            return True
        try:
            check()
        except (Wrong, StartError, CallError, FrameError) as e:
            why = self._dead() or str(e)
            self.failed.append((what, why))
            self.say(f"FAIL  {what}: {why}")
            return False
        self.say(f"ok    {what}")
        return True

    def _dead(self) -> str:
        """What to say if the program has ended; the next check starts it again."""
        if self._host is None:
            return ""
        try:
            status = self._host.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return ""
        last = self._host.log[-1] if self._host.log else ""
        self._stop()
        return f"the program ended with {status}; its last line: {last!r}"

    @property
    def host(self) -> Host:
        """The running program; it is started if it is not."""
        if self._host is None:
            self._host = Host(self.path, timeout=self.timeout)
            self._host.connect()
            self._host.ask("Describe", protocol=1, agent="conformance")
        return self._host

    def _stop(self) -> None:
        if self._host is not None:
            self._host.kill()
            self.log = self._host.log[-10:] or self.log
            self._host = None

    def _by_hand(self) -> None:
        with Host(self.path, cookie="", timeout=self.timeout) as host:
            try:
                status = host.process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                _wrong(f"it still runs after {self.timeout:g} s; started by a person it should say what it is, and exit 1")
            host.wait_log()
            if status != 1:
                _wrong(f"it exits {status}, not 1")
            if not host.log:
                _wrong("it says nothing on stderr about how it is used")

    def _describe(self) -> list[dict[str, Any]]:
        said = self.host.ask("Describe", protocol=1, agent="conformance")
        plugins = said.get("plugins")
        if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) for p in plugins):
            _wrong("Describe names no plugins")
        pairs = [(p.get("kind"), p.get("name")) for p in plugins]
        if len(set(pairs)) != len(pairs):
            _wrong("Describe names a plugin twice")
        if not said.get("version"):
            _wrong("Describe has no version")
        return plugins

    def _garbage(self) -> None:
        for method in ("Process", "Write"):
            for junk in (b"", b"STKF", b"junk" * 100, wire.encode_batch(0xFFFFFFF0, 1, 0, [])):
                try:
                    self.host.call(method, junk)
                except CallError as e:
                    if e.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                        raise
                else:
                    _wrong(f"{method} of {junk[:8]!r} ends with status OK")
        self.host.ask("Describe", protocol=1, agent="conformance")

    def _sigterm(self) -> None:
        host, before = self.host, time.monotonic()
        if not host.terminate(_STOP_SECONDS):
            self._stop()
            _wrong(f"it still runs {_STOP_SECONDS:g} s after SIGTERM")
        self.say(f"      it took {time.monotonic() - before:.2f} s")
        self._stop()


def judge(plugin: dict[str, Any]) -> None:
    """Whether a description keeps the rules."""
    if plugin.get("kind") not in ("processor", "output"):
        _wrong(f"kind is {plugin.get('kind')!r}")
    if not NAME.fullmatch(str(plugin.get("name", ""))):
        _wrong(f"name is {plugin.get('name')!r}")
    if not str(plugin.get("summary", "")).strip():
        _wrong("it has no summary (the first line of the class's docstring)")
    seen: dict[str, str] = {}
    for key in plugin.get("config") or []:
        path, kind = str(key.get("path", "")), str(key.get("type", ""))
        above = re.sub(r"(\[\]|\.\*)*\.[^.]*$", "", path)
        if not path or path in seen:
            _wrong(f"key {path!r} stands twice or has no name")
        if not _TYPE.fullmatch(kind):
            _wrong(f"key {path}: type {kind!r}")
        if above != path and not seen.get(above, "").endswith("section"):
            _wrong(f"key {path} stands before its section")
        if not str(key.get("doc", "")).strip():
            _wrong(f"key {path} has no doc")
        if key.get("required") and "default" in key:
            _wrong(f"key {path} is required and has a default")
        for member in ("default", "min", "max", "example"):
            if member in key and not isinstance(key[member], str):
                _wrong(f"key {path}: {member} must be a text, as the user would write it")
        seen[path] = kind


class _Run:
    """The checks of one plugin of the program."""

    def __init__(self, suite: Suite, plugin: dict[str, Any], config: dict[str, Any]) -> None:
        self.suite, self.plugin, self.config = suite, plugin, config
        self.processor = plugin["kind"] == "processor"

    def checks(self) -> list[tuple[str, Callable[[], object]]]:
        """The checks that need an open instance, in order."""
        every: list[tuple[str, Callable[[], object]]] = [
            ("takes an empty batch", lambda: self._feed([])),
            ("takes one event", lambda: self._feed(samples.requests(1))),
            ("takes 1,000 events", lambda: self._feed(samples.requests(1000))),
            ("takes an event with every type", lambda: self._feed(samples.every_type(), odd=True)),
            ("takes texts that are not UTF-8", lambda: self._feed(samples.not_utf8(), odd=True)),
            (f"takes a batch of {_BIG >> 20} MiB", self._big),
        ]
        if self.processor:
            every.append(("gives the same for the same events", self._same))
            if not self.suite.stateful:
                every.append(("keeps nothing between batches (--stateful if it should)", self._keeps_nothing))
        every.append(("closes, and once more", self._closes))
        every.append((f"does not grow over {_BATCHES} batches", self._grows))
        return every

    def _open(self, config: dict[str, Any] | None = None, check: bool = False) -> tuple[int, dict[str, Any]]:
        self.suite._number += 1
        number = self.suite._number
        env = {
            "pipeline": "conformance",
            "id": self.plugin["name"],
            "node_id": "node",
            "naming": "ovh",
            "once": False,
            "repeats": False,
            "state_dir": f"{self.suite._state.name}/{number}",
            "fields": {},
        }
        reply = self.suite.host.ask(
            "Open",
            instance=number,
            kind=self.plugin["kind"],
            name=self.plugin["name"],
            check=check,
            env=env,
            config=self.config if config is None else config,
        )
        return number, reply

    def _opened(self) -> int:
        number, reply = self._open()
        if reply.get("faults") or reply.get("error"):
            _wrong(f"it does not open: {_said(reply)}")
        return number

    def _close(self, number: int) -> dict[str, Any]:
        return self.suite.host.ask("Close", instance=number)

    def opens(self) -> None:
        """A good configuration is accepted, to check and to open."""
        for check in (True, False):
            number, reply = self._open(check=check)
            if reply.get("faults") or reply.get("error"):
                _wrong(f"{_said(reply)} (--config gives it another one)")
            for name, kind in (reply.get("fields") or {}).items():
                if kind not in _FIELD_TYPES:
                    _wrong(f"field {name} has type {kind!r}")
            for path in reply.get("writes") or []:
                if not str(path).startswith("/"):
                    _wrong(f"writes {path!r} is not absolute")
            if not check:
                self._close(number)

    def refuses(self) -> None:
        """Bad configurations are not."""
        for what, config in samples.bad_settings(self.plugin.get("config") or [], self.config):
            _, reply = self._open(config, check=True)
            if not reply.get("faults") and not reply.get("error"):
                _wrong(f"it accepts one {what}")

    def _send(self, number: int, events: list[dict[str, Any]]) -> tuple[wire.Frame, wire.Frame]:
        self.suite._sequence += 1
        request = batch_of(events, number, self.suite._sequence)
        asked = wire.decode(request)
        reply = self.suite.host.call("Process" if self.processor else "Write", request)
        try:
            got = wire.decode(reply)
        except FrameError as e:
            _wrong(f"the reply is refused: {e}")
        for what in ("instance", "sequence", "count"):
            if getattr(asked, what) != getattr(got, what):
                _wrong(f"the reply has {what} {getattr(got, what)}, the request {getattr(asked, what)}")
        if got.kind == wire.BATCH or (got.kind == wire.PATCH and not self.processor):
            _wrong(f"the reply of a {self.plugin['kind']} is a {wire.KINDS[got.kind]}")
        return asked, got

    def _expect(self, number: int, events: list[dict[str, Any]], odd: bool = False) -> wire.Frame:
        """Send events that must be taken. An output may refuse odd ones for good, one by one."""
        _, got = self._send(number, events)
        for f in got.failures:
            if self.processor or not odd or f.code not in (2, 4):
                which = "the whole batch" if f.index == wire.WHOLE_CALL else f"event {f.index}"
                _wrong(f"{which} failed: {f.reason or 'no reason'}")
        return got

    def _feed(self, events: list[dict[str, Any]], odd: bool = False) -> None:
        number = self._opened()
        self._expect(number, events, odd)
        self._close(number)

    def _big(self) -> None:
        number = self._opened()
        filler = "x" * (_BIG // 1000)
        self._expect(number, [{**e, "path": e["path"] + filler} for e in samples.requests(1000)], odd=True)
        self._close(number)

    def _stream(self) -> list[list[dict[str, Any]]]:
        return [samples.requests(200, 0), samples.requests(200, 1), samples.every_type(), samples.not_utf8(), samples.requests(200, 0)]

    def _same(self) -> None:
        said: list[list[Any]] = []
        for _ in range(3):
            number = self._opened()
            said.append([meaning(self._expect(number, events)) for events in self._stream()])
            self._close(number)
        for again in said[1:]:
            for batch, (first, other) in enumerate(zip(said[0], again)):
                if first != other:
                    _wrong(f"batch {batch + 1} of the same stream came out differently from a new instance: {_difference(first, other)}")

    def _keeps_nothing(self) -> None:
        number = self._opened()
        for events in self._stream():
            first = meaning(self._expect(number, events))
            self._expect(number, samples.requests(500, 9))
            again = meaning(self._expect(number, events))
            if first != again:
                _wrong(f"the same batch came out differently after another one: {_difference(first, again)}")
        self._close(number)

    def _closes(self) -> None:
        number = self._opened()
        for times in ("", " of one that is closed", " of one that is closed"):
            reply = self._close(number)
            if reply.get("error"):
                _wrong(f"Close{times}: {reply['error']}")
        self.suite._number += 1
        if self._close(self.suite._number).get("error"):
            _wrong("Close of what was never open is an error")

    def _grows(self) -> None:
        number = self._opened()
        before = 0
        for i in range(_WARM + _BATCHES):
            if i == _WARM:
                before = self.suite.host.rss()
            self._expect(number, samples.requests(_EVENTS, 100 + i, projects=1 << 60))
        grown = self.suite.host.rss() - before
        self._close(number)
        if grown > _GROWTH:
            _wrong(f"it holds {grown >> 20} MiB more after {_BATCHES} batches of {_EVENTS} events")


def _said(reply: dict[str, Any]) -> str:
    faults = [f"{f.get('key', '')}: {f.get('message', '')}" for f in reply.get("faults") or []]
    return "; ".join([*faults, *([reply["error"]] if reply.get("error") else [])])


def meaning(frame: wire.Frame) -> Any:
    """What a patch says, apart from its layout and notes."""
    return {(c.name, wire.TYPES[c.type]): c.values() for c in frame.columns}


def _difference(a: dict[Any, list[Any]], b: dict[Any, list[Any]]) -> str:
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            pairs = zip(a.get(key) or [None] * len(b[key]), b.get(key) or [None] * len(a[key]))
            for i, (x, y) in enumerate(pairs):
                if x != y:
                    return f"{key[0]} of event {i} is {x!r}, then {y!r}"
            return f"{key[0]} is changed once and not the other time"
    return "no difference"


def main(arguments: list[str] | None = None) -> int:
    """Run the checks from the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m stacktrail.conformance", description=__doc__)
    parser.add_argument("path", help="the plugin's program")
    parser.add_argument("--config", default="{}", metavar="JSON", help="its configuration; else defaults and examples")
    parser.add_argument("--name", default="", help="the plugin to check, if the program has several")
    parser.add_argument("--stateful", action="store_true", help="a processor that means to keep something from batch to batch")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the checks with this in their name, and those that they need")
    parser.add_argument("--timeout", type=float, default=10, help="seconds for the start and for each call")
    chosen = parser.parse_args(arguments)
    try:
        given = wire.parse_object(chosen.config, "JSON")
    except FrameError as e:
        parser.error(f"--config: {e}")
    suite = Suite(chosen.path, given, chosen.name, chosen.stateful, chosen.timeout, only=chosen.only)
    if suite.run():
        return 0
    print(f"\n{len(suite.failed)} failed.")
    if suite.log:
        print("The last lines of its log:", *suite.log, sep="\n  ")
    return 1


if __name__ == "__main__":
    sys.exit(main())
