"""The agent's side of the wire, as far as tests need it: start a plugin's program, call it, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from typing import Any

import grpc

from . import wire


class StartError(Exception):
    """The program did not become a plugin."""


class CallError(Exception):
    """A call had no answer, or a status other than OK."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}" if reason else code)
        self.code = code


class Host:
    """A plugin's program, started as the agent starts it."""

    def __init__(self, path: str, *, cookie: str = wire.COOKIE, protocols: str = str(wire.PROTOCOL), timeout: float = 10) -> None:
        self.timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="plugin-")
        self._log: deque[str] = deque(maxlen=1000)
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "STACKTRAIL_PLUGIN": cookie,
            "PLUGIN_PROTOCOL_VERSIONS": protocols,
            "PLUGIN_UNIX_SOCKET_DIR": self._folder.name,
        }
        try:
            self.process = subprocess.Popen(
                [path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as e:
            self._folder.cleanup()
            raise StartError(f"starting {path}: {e}") from None
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.channel: grpc.Channel | None = None

    def __enter__(self) -> Host:  # noqa: PYI034 - Self is newer than the oldest Python served
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.append(line.decode("utf-8", "replace").rstrip("\n"))

    @property
    def log(self) -> list[str]:
        """The last lines that it wrote to stderr."""
        return list(self._log)

    def wait_log(self) -> None:
        """Wait for the log of a program that has ended."""
        self._reader.join(self.timeout)

    def connect(self) -> None:
        """Read the handshake line and connect."""
        parts = self._line().split("|")
        if len(parts) != 6 or parts[0] != "1" or parts[2] != "unix" or parts[4:] != ["grpc", ""]:
            raise StartError(f"the first line on stdout is no handshake: {'|'.join(parts)[:200]!r}")
        if parts[1] != str(wire.PROTOCOL):
            raise StartError(f"the plugin speaks protocol {parts[1]}, not {wire.PROTOCOL}")
        self.channel = grpc.insecure_channel(f"unix:{parts[3]}", options=wire.LIMITS)
        try:
            grpc.channel_ready_future(self.channel).result(self.timeout)
        except grpc.FutureTimeoutError:
            raise StartError("the socket does not answer") from None

    def _line(self) -> str:
        assert self.process.stdout is not None
        fd, text, end = self.process.stdout.fileno(), b"", time.monotonic() + self.timeout
        while b"\n" not in text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise StartError(f"no handshake line in {self.timeout:g} s")
            more = os.read(fd, 4096)
            if not more:
                self.process.wait(self.timeout)
                self._reader.join(1)
                last = self.log[-1] if self.log else ""
                raise StartError(f"the program ended with {self.process.returncode} before its handshake line; it said {last!r}")
            text += more
        return text.split(b"\n")[0].decode("utf-8", "replace")

    def call(self, method: str, request: bytes, timeout: float | None = None) -> bytes:
        """One call; CallError if it has no answer."""
        assert self.channel is not None, "not connected"
        stub = self.channel.unary_unary(f"/{wire.SERVICE}/{method}", None, None)
        try:
            return bytes(stub(request, timeout=timeout or self.timeout))
        except grpc.RpcError as e:
            raise CallError(e.code().name, e.details() or "") from None

    def ask(self, method: str, **members: Any) -> dict[str, Any]:
        """A call in JSON."""
        reply = self.call(method, json.dumps(members).encode())
        try:
            said = json.loads(reply)
        except ValueError:
            raise CallError("OK", f"the reply of {method} is no JSON: {reply[:100]!r}") from None
        if not isinstance(said, dict):
            raise CallError("OK", f"the reply of {method} is no JSON object")
        return said

    def rss(self) -> int:
        """Bytes of memory that the program holds."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def terminate(self, timeout: float) -> bool:
        """Ask the program to end; whether it did in time."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and all that it started."""
        if self.channel is not None:
            self.channel.close()
        self._signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass
