import threading
from datetime import UTC, datetime, timedelta

import pytest

from rehearsal.clock import ClockError, VirtualClock

START = datetime(2025, 1, 18, 9, tzinfo=UTC)
REAL_SECONDS = 10


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ClockError, match="aware datetime"):
        VirtualClock(datetime(2025, 1, 18))  # noqa: DTZ001  the mistake under test


def test_a_sleeping_thread_wakes_hours_later_in_no_time(clock: VirtualClock) -> None:
    woken: list[datetime] = []

    def sleep() -> None:
        clock.sleep(96 * 3600)
        woken.append(clock.now())

    clock.spawn(sleep, "sleeper")
    clock.wait_until_idle(REAL_SECONDS)

    assert woken == [START + timedelta(hours=96)]


def test_time_stands_still_while_somebody_works(clock: VirtualClock) -> None:
    seen: list[datetime] = []
    may_end = threading.Event()

    def work() -> None:
        may_end.wait(REAL_SECONDS)
        seen.append(clock.now())

    clock.spawn(work, "worker")
    clock.spawn(lambda: clock.sleep(60), "sleeper")
    may_end.set()
    clock.wait_until_idle(REAL_SECONDS)

    assert seen == [START]
    assert clock.now() == START + timedelta(seconds=60)


def test_sleepers_wake_one_at_a_time_in_the_order_of_their_time(clock: VirtualClock) -> None:
    order: list[tuple[int, datetime]] = []

    def sleep(seconds: int) -> None:
        clock.sleep(seconds)
        order.append((seconds, clock.now()))

    with clock.hold():
        for seconds in (30, 10, 20, 10):
            clock.spawn(lambda seconds=seconds: sleep(seconds), "sleeper")  # type: ignore[misc]  # mypy cannot infer it
    clock.wait_until_idle(REAL_SECONDS)

    assert order == [(seconds, START + timedelta(seconds=seconds)) for seconds in (10, 10, 20, 30)]


def test_a_signal_ends_a_wait_before_its_timeout(clock: VirtualClock) -> None:
    signal = clock.signal("answer")
    happened: list[bool] = []

    def answer() -> None:
        clock.sleep(5)
        signal.set()

    with clock.hold():
        clock.spawn(lambda: happened.append(signal.wait(3600)), "waiter")
        clock.spawn(answer, "answerer")
    clock.wait_until_idle(REAL_SECONDS)

    assert happened == [True]
    assert clock.now() == START + timedelta(seconds=5)


def test_a_wait_without_a_signal_ends_at_its_timeout(clock: VirtualClock) -> None:
    happened: list[bool] = []
    clock.spawn(lambda: happened.append(clock.signal("answer").wait(3600)), "waiter")
    clock.wait_until_idle(REAL_SECONDS)

    assert happened == [False]
    assert clock.now() == START + timedelta(hours=1)


def test_a_wait_that_nothing_will_end_is_reported_by_name(clock: VirtualClock) -> None:
    def wait() -> None:
        clock.signal("an answer from nobody").wait()

    clock.spawn(wait, "waiter")

    with pytest.raises(ClockError, match="an answer from nobody"):
        clock.wait_until_idle(REAL_SECONDS)


def test_a_thread_that_does_not_hold_the_clock_may_not_sleep(clock: VirtualClock) -> None:
    with pytest.raises(ClockError, match="holds the clock"):
        clock.sleep(1)


def test_a_schedule_fires_while_something_sleeps_and_does_not_make_time_move(clock: VirtualClock) -> None:
    fired: list[datetime] = []
    stop = clock.every(timedelta(minutes=15), lambda: fired.append(clock.now()))
    clock.wait_until_idle(REAL_SECONDS)
    assert clock.now() == START

    clock.advance(3600)
    stop()
    clock.advance(3600)

    assert fired == [START + timedelta(minutes=minutes) for minutes in (15, 30, 45, 60)]


def test_a_cancelled_call_does_not_keep_time_moving(clock: VirtualClock) -> None:
    called: list[bool] = []
    with clock.hold():
        cancel = clock.call_at(START + timedelta(hours=1), lambda: called.append(True), foreground=True)
        cancel()
    clock.wait_until_idle(REAL_SECONDS)

    assert not called
    assert clock.now() == START


def test_an_exception_in_a_spawned_call_is_told_and_does_not_hold_time(clock: VirtualClock) -> None:
    told: list[str] = []
    clock.on_error = lambda name, error: told.append(f"{name}: {error}")

    def fail() -> None:
        raise ValueError("broken")

    clock.spawn(fail, "call")
    clock.wait_until_idle(REAL_SECONDS)

    assert told == ["call: broken"]


def test_nothing_wakes_after_the_clock_has_stopped(clock: VirtualClock) -> None:
    clock.stop()
    clock.spawn(lambda: clock.sleep(1), "sleeper")

    with pytest.raises(ClockError, match="still working"):
        clock.wait_until_idle(0.2)
    assert clock.now() == START
