"""Starts the worker processes that handlers run in.

On Linux one process imports the libraries once and forks a worker whenever one is needed, which takes milliseconds;
elsewhere, where a fork after imports is not safe, each worker is a new interpreter.
"""

import array
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BufferedIOBase
from pathlib import Path

from customization.json_types import Json, JsonObject, as_object

_PROGRAM = Path(__file__).resolve().parent.parent / "worker.py"
_CAN_FORK = sys.platform == "linux"


class WorkerDiedError(Exception):
    """The worker's process ended without an answer."""


@dataclass(frozen=True)
class WorkerSettings:
    """What makes a process a function: nothing but these variables is in its environment."""

    environment: dict[str, str]
    root: Path
    handler: str
    log: Path


@dataclass(frozen=True)
class _Channel:
    """Two ends that lead to a worker; `process` is one of ours to wait for, None when another one has forked it."""

    reader: BufferedIOBase
    writer: BufferedIOBase
    process: "subprocess.Popen[bytes] | None" = None


class Worker:
    """One process that answers one request at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._log = settings.log
        self._log_read = settings.log.stat().st_size if settings.log.exists() else 0
        self._channel = _forked_channel() if _CAN_FORK else _interpreter_channel()
        described: JsonObject = {
            "environment": dict(settings.environment),
            "root": str(settings.root),
            "handler": settings.handler,
            "log": str(settings.log),
        }
        self._process = int(str(as_object(self._exchange(described), "worker")["pid"]))
        self._timed_out = False

    def call(self, request: JsonObject, real_seconds: float, meet: Callable[[], None] = lambda: None) -> JsonObject:
        """Return the worker's answer; raises WorkerDiedError, or TimeoutError when `real_seconds` were not enough.

        `meet` is called where the request says that the worker is to meet another one, which it waits for.
        """
        self._timed_out = False
        timer = threading.Timer(real_seconds, self._kill_for_time)
        timer.daemon = True
        timer.start()
        try:
            answer = as_object(self._exchange(request), "worker")
            if "meets" not in answer:
                return answer
            meet()
            return as_object(self._exchange({"met": True}), "worker")
        except WorkerDiedError:
            if self._timed_out:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def new_log_text(self) -> str:
        """Return what the function has written since the last call."""
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            text = log.read()
        self._log_read += len(text)
        return text.decode(errors="replace")

    def close(self) -> None:
        """End the process by closing its channel."""
        for stream in {self._channel.reader, self._channel.writer}:
            with suppress(OSError):
                stream.close()
        if self._channel.process is not None:
            self._channel.process.wait()

    def _kill_for_time(self) -> None:
        self._timed_out = True
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)

    def _exchange(self, message: JsonObject) -> Json:
        try:
            self._channel.writer.write(json.dumps(message).encode() + b"\n")
            self._channel.writer.flush()
            line = self._channel.reader.readline()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerDiedError from error
        if not line:
            raise WorkerDiedError
        answer: Json = json.loads(line)
        return answer


class _Forker:
    """The process that has the libraries imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = _start(["fork", str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        atexit.register(self._stop)

    def channel(self) -> _Channel:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            descriptors = array.array("i", [theirs.fileno()])
            self._socket.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        with ours:
            stream = ours.makefile("rwb")
        return _Channel(stream, stream)

    def _stop(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def start_forker() -> _Forker:
    """Start the process that imports the libraries, once; it goes on importing while this one does other things."""
    return _Forker()


def _forked_channel() -> _Channel:
    return start_forker().channel()


def _interpreter_channel() -> _Channel:
    process = _start(["serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdout is None or process.stdin is None:
        raise OSError("the worker was started without pipes")
    with process.stdout as theirs_out, process.stdin as theirs_in:
        reader, writer = os.fdopen(os.dup(theirs_out.fileno()), "rb"), os.fdopen(os.dup(theirs_in.fileno()), "wb")
    return _Channel(reader, writer, process)


def _start(
    arguments: list[str],
    *,
    pass_fds: tuple[int, ...] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> "subprocess.Popen[bytes]":
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(  # noqa: S603  this interpreter with this project's own program
        [sys.executable, "-I", str(_PROGRAM), *arguments],
        env={**environment, "TZ": "UTC", "LANG": "C.UTF-8"},
        pass_fds=pass_fds,
        stdin=stdin,
        stdout=stdout,
        start_new_session=True,
    )
