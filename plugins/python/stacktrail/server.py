"""Serves plugins to the agent: handshake, gRPC server, and the five calls."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from . import config, wire
from . import frame as frames
from . import log as logs
from .errors import ConfigFault, ConfigFaults, Failure, FrameError, Retry
from .event import Batch
from .plugin import Env, Output, Plugin, Processor

SDK = "python 1"
# 64 calls with events come at a time, and a few others beside them. Idle threads cost little; a call that waits for one may miss its deadline.
_THREADS = 80
# SIGTERM to end: the agent sends SIGKILL after two seconds.
_STOP_SECONDS = 1.5
_GIVE_UP = 0.9

PluginType = type[Plugin[Any]]


class Server:
    """Answers the five calls for the plugins of one program. Every method takes and gives the bytes of one message."""

    def __init__(self, plugins: list[PluginType], version: str, mask: logs.Masker | None = None) -> None:
        self.plugins = {(p.kind, p.name): p for p in plugins}
        self.version = version
        self.mask = mask or logs.Masker()
        self.log = logging.getLogger("stacktrail")
        self._instances: dict[int, Plugin[Any]] = {}
        self._lock = threading.Lock()

    def describe(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Say which plugins there are, and how each is configured."""
        _json(request, context)
        said = {"version": self.version, "sdk": SDK, "plugins": [_describe(p) for p in self.plugins.values()]}
        return frames.json_text(said)

    def open(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Make an instance, or judge its configuration only."""
        asked = _json(request, context)
        plugin = self.plugins.get((asked.get("kind", ""), asked.get("name", "")))
        if plugin is None:
            return frames.json_text({"error": f"there is no {asked.get('kind')} {asked.get('name')!r} in this program"})
        number = int(asked.get("instance", 0))
        reply = self._open(plugin, number, asked)
        return frames.json_text(reply)

    def _open(self, kind: PluginType, number: int, asked: dict[str, Any]) -> dict[str, Any]:
        check = bool(asked.get("check"))
        try:
            settings = None if kind.config_type is None else config.decode(kind.config_type, asked.get("config") or {})
            self.mask.learn(number, config.secrets(settings))
            plugin = kind()
            env = _env(asked.get("env") or {}, check)
            plugin.log = logs.Log(logging.getLogger(kind.name), {"pipeline": env.pipeline, "id": env.id})
            _start(plugin, settings, env)
            if check:
                self.mask.forget(number)
                return {"fields": dict(plugin.fields), "writes": list(plugin.writes)}
        except (ConfigFault, ConfigFaults) as e:
            said = e.faults if isinstance(e, ConfigFaults) else (e,)
            return self._faulty(number, {"faults": [self._fault(f) for f in said]})
        except BaseException as e:
            self.log.exception("open failed", extra={"instance": number})
            return self._faulty(number, {"error": self._reason(e)})
        with self._lock:
            self._instances[number] = plugin
        return {"fields": dict(plugin.fields), "writes": list(plugin.writes)}

    def _faulty(self, number: int, reply: dict[str, Any]) -> dict[str, Any]:
        self.mask.forget(number)
        return reply

    def _fault(self, fault: ConfigFault) -> dict[str, str]:
        return {"key": fault.key, "message": self.mask(fault.message), "suggestion": self.mask(fault.suggestion)}

    def process(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Let a processor work on a batch."""
        plugin, batch, frame = self._batch(request, context, Processor, "Process")
        try:
            plugin.process(batch)
            return batch._encode_patch(plugin._take_notes())
        except BaseException as e:  # noqa: BLE001
            return self._verdict(plugin, frame, [self._whole(e, "process", frame)])

    def write(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Let an output write a batch."""
        plugin, batch, frame = self._batch(request, context, Output, "Write")
        try:
            plugin.write(batch)
            failures = [self._failure(index, f) for index, f in batch._failures.items()]
        except BaseException as e:  # noqa: BLE001
            failures = [self._whole(e, "write", frame)]
        return self._verdict(plugin, frame, failures)

    def close(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Close an instance; one that is not open is closed already."""
        number = _json(request, context).get("instance", 0)
        with self._lock:
            plugin = self._instances.pop(number, None)
        if plugin is None:
            return b"{}"
        try:
            plugin.close()
        except BaseException as e:
            self.log.exception("close failed", extra={"instance": number})
            return frames.json_text({"error": self._reason(e)})
        finally:
            self.mask.forget(number)
        return b"{}"

    def close_all(self) -> None:
        """Close what the agent left open."""
        with self._lock:
            left, self._instances = self._instances, {}
        for number, plugin in left.items():
            try:
                plugin.close()
            except BaseException:
                self.log.exception("close failed", extra={"instance": number})

    def _batch(self, request: bytes, context: grpc.ServicerContext, kind: type, call: str) -> tuple[Any, Batch, frames.Frame]:
        try:
            frame = frames.decode(request)
        except FrameError as e:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
        if frame.kind != frames.BATCH:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{call} takes a batch, not a {frames.KINDS[frame.kind]}")
        with self._lock:
            plugin = self._instances.get(frame.instance)
        if plugin is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"instance {frame.instance} is not open")
        assert plugin is not None
        if not isinstance(plugin, kind):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{plugin.name} is a {plugin.kind}")
        left = context.time_remaining()
        deadline = None if left is None else time.monotonic() + left * _GIVE_UP
        return plugin, Batch(frame, deadline), frame

    def _whole(self, e: BaseException, call: str, frame: frames.Frame) -> frames.Fault:
        if isinstance(e, Failure):
            return self._failure(frames.WHOLE_CALL, e)
        self.log.error("%s failed", call, exc_info=e, extra={"instance": frame.instance, "events": frame.count})
        return frames.Fault(frames.WHOLE_CALL, Retry.code, 0, self._reason(e))

    def _failure(self, index: int, f: Failure) -> frames.Fault:
        return frames.Fault(index, f.code, f.after_ms, self.mask(f.reason))

    def _verdict(self, plugin: Plugin[Any], frame: frames.Frame, failures: list[frames.Fault]) -> bytes:
        return frames.encode_verdict(frame.instance, frame.sequence, frame.count, failures, plugin._take_notes())

    def _reason(self, e: BaseException) -> str:
        text = str(e)
        return self.mask(f"{type(e).__name__}: {text}" if text else type(e).__name__)


def _start(plugin: Plugin[Any], settings: Any, env: Env) -> None:
    judges = type(plugin).check is not Plugin.check
    if judges:
        plugin.check(settings, env)
    if not env.check:
        plugin.open(settings, env)
    elif not judges and isinstance(plugin, Processor):
        plugin.open(settings, env)
        plugin.close()


def _json(request: bytes, context: grpc.ServicerContext) -> dict[str, Any]:
    try:
        value = json.loads(str(request, "utf-8"))
    except (ValueError, RecursionError) as e:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no JSON: {e}")
    if not isinstance(value, dict):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no JSON object")
    return dict(value)


def _env(said: dict[str, Any], check: bool) -> Env:
    known = {k: v for k, v in said.items() if k in Env.__dataclass_fields__ and k not in ("check", "state_dir")}
    return Env(**known, state_dir=Path(said.get("state_dir", "")), check=check)


def _describe(plugin: PluginType) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": plugin.kind, "name": plugin.name, "summary": plugin.summary()}
    if issubclass(plugin, Output):
        said["knows_ids"] = plugin.knows_ids
        said["linger"] = config.write_duration(timedelta(seconds=plugin.linger))
    said["config"] = config.describe(plugin.config_type)
    return said


def handlers(server: Server) -> grpc.GenericRpcHandler[bytes, bytes]:
    """The calls, by their paths on the wire. Messages are bytes."""
    calls: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]] = {
        "Describe": server.describe,
        "Open": server.open,
        "Process": server.process,
        "Write": server.write,
        "Close": server.close,
    }
    return grpc.method_handlers_generic_handler(
        wire.SERVICE, {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
    )


def listen(server: Server, path: str) -> grpc.Server:
    """Start to answer on a unix socket."""
    pool = ThreadPoolExecutor(_THREADS, "call")
    rpc = grpc.server(pool, handlers=[handlers(server)], options=wire.LIMITS)
    if not rpc.add_insecure_port(f"unix:{path}"):
        raise OSError(f"cannot listen on {path}")
    rpc.start()
    return rpc


def serve(*plugins: PluginType, version: str = "0.0.0") -> None:
    """Serve the plugins until the agent ends the program. The last thing that a plugin's program does; it does not return."""
    _judge(plugins)
    if os.environ.get("STACKTRAIL_PLUGIN") != wire.COOKIE:
        _by_hand(plugins, version)
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR", "")
    if not folder:
        sys.exit("PLUGIN_UNIX_SOCKET_DIR is not set: the agent sets it")
    stop = _terminated()
    mask = logs.Masker()
    logs.install(mask)
    server = Server(list(plugins), version, mask)
    path = os.path.join(folder, "plugin.sock")
    rpc = listen(server, path)
    _handshake(path)
    stop()
    _end(rpc, server)


def _terminated() -> Callable[[], None]:
    """A function that waits for SIGTERM, from now on. The signal comes through a pipe: no lock is taken where it may strike."""
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def wait() -> None:
        while os.read(wake, 1) != bytes((signal.SIGTERM,)):
            pass

    return wait


def _handshake(path: str) -> None:
    """Tell the agent where to connect. From then on, what is printed goes to the log."""
    os.write(1, f"1|{wire.PROTOCOL}|unix|{path}|grpc|\n".encode())
    os.dup2(2, 1)


def _end(rpc: grpc.Server, server: Server) -> None:
    limit = threading.Timer(_STOP_SECONDS, os._exit, (0,))
    limit.daemon = True
    limit.start()
    rpc.stop(_STOP_SECONDS / 2).wait()
    server.close_all()
    logging.shutdown()
    # Threads that a plugin left behind would keep the interpreter waiting.
    os._exit(0)


def _judge(plugins: tuple[PluginType, ...]) -> None:
    if not plugins:
        raise TypeError("serve needs at least one plugin")
    seen: set[tuple[str, str]] = set()
    for p in plugins:
        if not issubclass(p, (Processor, Output)):
            raise TypeError(f"{p.__name__} is neither a Processor nor an Output")
        if not wire.NAME.fullmatch(p.name):
            raise TypeError(f"{p.__name__}.name is {p.name!r}: it must be lower-case letters, digits, _ and -, and begin with a letter")
        if (p.kind, p.name) in seen:
            raise TypeError(f"two plugins are called {p.name}")
        seen.add((p.kind, p.name))
        config.describe(p.config_type)


def _by_hand(plugins: tuple[PluginType, ...], version: str) -> None:
    program = os.path.realpath(sys.argv[0])
    lines = [f"This program is a plugin of stacktrail (version {version}). The agent starts it; by itself it does nothing.", ""]
    lines += [f"  {p.kind} {p.name}: {p.summary()}" for p in plugins]
    first = plugins[0]
    keys = [k for k in config.describe(first.config_type) if k.get("required") and "." not in k["path"]]
    section = ", ".join(f"{k['path']}: {k.get('example', '…')}" for k in keys)
    lines += [
        "",
        "In the agent's configuration:",
        "",
        "  plugins:",
        f"    - path: {program}",
        "  pipelines:",
        "    - name: …",
        f"      {first.kind}s: [{{{first.name}: {{{section}}}}}]",
        "",
        f"To test it: python3 -m stacktrail.conformance {program}",
        "",
    ]
    sys.stderr.write("\n".join(lines))
    sys.exit(1)
