"""A clock for hours that pass in milliseconds.

Virtual time stands still while somebody holds it (works) and jumps to the earliest wake-up as soon as everybody sleeps.
Wake-ups happen one at a time, in the order of their due time and then of their registration, so a run is repeatable.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial


@dataclass(order=True)
class _WakeUp:
    due: float
    # Of wake-ups at the same time the background ones come first: what is scheduled up to then happens
    foreground: bool
    order: int
    wake: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.holds = 0


class ClockError(RuntimeError):
    """The clock was used in a way that would stop time for ever, or time cannot go on."""


class VirtualClock:
    """Aware UTC time that starts at `start` and moves only when nobody holds it.

    Foreground wake-ups (sleeps, timeouts) make time move; background ones (a schedule) fire when time passes them.
    `on_error` is told of exceptions that a spawned call raises; without it they end up in threading.excepthook.
    """

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ClockError("start: expected an aware datetime, for example datetime(2025, 1, 18, tzinfo=UTC)")
        self._seconds = start.timestamp()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._holders = 0
        self._foreground = 0
        self._endless: dict[int, str] = {}
        self._wake_ups: list[_WakeUp] = []
        self._order = itertools.count()
        self._thread = _ThreadState()
        self._stopped = False
        self.on_error: Callable[[str, Exception], None] | None = None

    def now(self) -> datetime:
        """Return the virtual time, aware, in UTC."""
        return datetime.fromtimestamp(self._seconds, UTC)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep time standing still while the calling thread works; it may `sleep` inside."""
        with self._lock:
            self._enter()
        try:
            yield
        finally:
            with self._lock:
                self._leave()

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass; the calling thread must hold the clock."""
        self.signal("sleep").wait(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass from a thread that does not hold the clock, for example a test."""
        with self.hold():
            self.sleep(seconds)

    def signal(self, name: str) -> "Signal":
        """Return a new signal; `name` says what is waited for when nothing will ever set it."""
        return Signal(name, self._lock, self._block)

    def spawn(self, target: Callable[[], None], name: str) -> None:
        """Run `target` in a thread that holds the clock from this moment on."""
        with self._lock:
            self._spawn(target, name)

    def call_at(self, when: datetime, callback: Callable[[], None], *, foreground: bool = False) -> Callable[[], None]:
        """Run `callback` in a holding thread once time reaches `when`; returns a function that cancels it.

        Only a foreground call makes time move by itself.
        """
        with self._lock:
            wake = partial(self._spawn, callback, "scheduled call")
            wake_up = self._push(when.timestamp(), wake, foreground=foreground)
            self._jump_if_everybody_sleeps()
        return lambda: self._cancel(wake_up)

    def every(self, interval: timedelta, callback: Callable[[], None]) -> Callable[[], None]:
        """Run `callback` in the background each `interval` of virtual time; returns a function that ends it."""
        ended = threading.Event()

        def run() -> None:
            if not ended.is_set():
                self.call_at(self.now() + interval, run)
                callback()

        self.call_at(self.now() + interval, run)
        return ended.set

    def wait_until_idle(self, real_seconds: float) -> None:
        """Block the calling thread, which must not hold the clock, until nobody works or sleeps.

        Raises ClockError naming what is waited for when it will never happen, and when `real_seconds` have passed.
        """
        deadline = time.monotonic() + real_seconds
        with self._lock:
            while self._holders or self._foreground:
                if not self._idle.wait(deadline - time.monotonic()):
                    raise ClockError(f"still working after {real_seconds:.0f} real seconds")
            if self._endless:
                raise ClockError(f"nothing will ever set: {', '.join(sorted(self._endless.values()))}")

    def stop(self) -> None:
        """Stop time for good: no wake-up happens any more."""
        with self._lock:
            self._stopped = True

    def _enter(self) -> None:
        self._thread.holds += 1
        if self._thread.holds == 1:
            self._holders += 1

    def _leave(self) -> None:
        self._thread.holds -= 1
        if self._thread.holds == 0:
            self._release()

    def _release(self) -> None:
        self._holders -= 1
        self._jump_if_everybody_sleeps()

    def _spawn(self, target: Callable[[], None], name: str) -> None:
        self._holders += 1

        def run() -> None:
            self._thread.holds = 1
            try:
                target()
            except Exception as error:  # a thread has no caller: on_error tells people
                if self.on_error is None:
                    raise
                self.on_error(name, error)
            finally:
                with self._lock:
                    self._leave()

        threading.Thread(target=run, name=name, daemon=True).start()

    def _push(self, due: float, wake: Callable[[], None], *, foreground: bool) -> _WakeUp:
        wake_up = _WakeUp(due, foreground, next(self._order), wake)
        heapq.heappush(self._wake_ups, wake_up)
        self._foreground += foreground
        return wake_up

    def _block(self, name: str, wakers: list[Callable[[], None]], seconds: float | None) -> None:
        """Return once somebody has called what this adds to `wakers`, or after `seconds` of virtual time."""
        if not self._thread.holds:
            raise ClockError(f"{name}: only a thread that holds the clock may wait")
        woken = threading.Condition(self._lock)
        awake = False
        timeout: _WakeUp | None = None

        def wake() -> None:
            nonlocal awake
            if awake:
                return
            awake = True
            if timeout is not None:
                self._forget(timeout)
            self._holders += 1
            woken.notify()

        wakers.append(wake)
        if seconds is None:
            self._endless[id(woken)] = name
        else:
            timeout = self._push(self._seconds + max(seconds, 0.0), wake, foreground=True)
        self._release()
        while not awake:
            woken.wait()
        self._endless.pop(id(woken), None)

    def _cancel(self, wake_up: _WakeUp) -> None:
        with self._lock:
            self._forget(wake_up)

    def _forget(self, wake_up: _WakeUp) -> None:
        if not wake_up.cancelled:
            wake_up.cancelled = True
            self._foreground -= wake_up.foreground

    def _jump_if_everybody_sleeps(self) -> None:
        while not self._holders and self._foreground and not self._stopped:
            wake_up = heapq.heappop(self._wake_ups)
            if not wake_up.cancelled:
                self._forget(wake_up)
                self._seconds = max(self._seconds, wake_up.due)
                wake_up.wake()
        if not self._holders:
            self._idle.notify_all()


class Signal:
    """Something that happens once; waiting for it lets virtual time go on.

    `block` is called with the clock's `lock` held, and gives it up while it waits.
    """

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        block: Callable[[str, list[Callable[[], None]], float | None], None],
    ) -> None:
        self._name = name
        self._lock = lock
        self._block = block
        self._happened = False
        self._wakers: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._happened

    def set(self) -> None:
        """Wake everybody who waits; setting it again does nothing."""
        with self._lock:
            self._happened = True
            for wake in self._wakers:
                wake()
            self._wakers.clear()

    def wait(self, seconds: float | None = None) -> bool:
        """Return whether it happened within `seconds` of virtual time; the calling thread must hold the clock."""
        with self._lock:
            if not self._happened:
                self._block(self._name, self._wakers, seconds)
            return self._happened
