"""Ending an execution from outside while its states wait."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rehearsal.clock import Signal, VirtualClock
from rehearsal.embedded.states.errors import ExecutionEnded


class Control:
    """What an execution and the children of its Map states wait through, so that ending it wakes them all."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._waiting: set[Signal] = set()
        self._children: set[Control] = set()
        self._ended = False

    def end(self) -> None:
        """Make every wait, present and future, raise ExecutionEnded; children first."""
        with self._lock:
            self._ended = True
            waiting, children = list(self._waiting), list(self._children)
        for child in children:
            child.end()
        for signal in waiting:
            signal.set()

    def wait(self, signal: Signal, seconds: float | None = None) -> bool:
        """Return whether `signal` was set within `seconds` of virtual time; raises ExecutionEnded."""
        with self._lock:
            self._raise_if_ended()
            self._waiting.add(signal)
        happened = signal.wait(seconds)
        with self._lock:
            self._waiting.discard(signal)
            self._raise_if_ended()
        return happened

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; raises ExecutionEnded."""
        self.wait(self.clock.signal("sleep"), seconds)

    @contextmanager
    def child(self) -> Iterator["Control"]:
        """Yield a control that ends with this one and can be ended alone."""
        control = Control(self.clock)
        with self._lock:
            self._raise_if_ended()
            self._children.add(control)
        try:
            yield control
        finally:
            with self._lock:
                self._children.discard(control)

    def _raise_if_ended(self) -> None:
        if self._ended:
            raise ExecutionEnded
