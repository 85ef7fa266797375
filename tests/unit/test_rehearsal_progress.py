"""What a person sees while a rehearsal runs and when it has ended, in a terminal and in a pipe."""

from datetime import UTC, date, datetime, timedelta
from io import StringIO

import pytest

from customization.json_types import JsonObject
from rehearsal.embedded.states.history import Happening
from rehearsal.progress import Progress, what_is_left

START = datetime(2026, 11, 22, 9, tzinfo=UTC)
MODEL = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0:128k/47918a830a45"
DEPLOYMENT = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc"


class Terminal(StringIO):
    """What rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def happening(minutes: int, kind: str, name: str, detail: JsonObject | None = None) -> Happening:
    return Happening(START + timedelta(minutes=minutes), kind, name, "arn", detail or {})


RUN = [
    happening(0, "state-entered", "PollUploads", {"type": "Task"}),
    happening(0, "state-entered", "JoinedWaitingRun", {"type": "Succeed"}),
    happening(1, "state-entered", "PlanRun", {"type": "Task"}),
    happening(2, "state-entered", "IsBaselineNeeded", {"type": "Choice"}),
    happening(2, "state-entered", "EvaluateBaselineShard", {"type": "Task"}),
    happening(2, "state-exited", "EvaluateBaselineShard", {"output": {"answered": 40, "failed": 1}}),
    happening(3, "state-exited", "EvaluateBaselineShard", {"output": {"answered": 26}}),
    happening(9, "state-exited", "PollCustomizationJob", {"output": {"phase": "Training: InProgress"}}),
    happening(10, "state-exited", "PollCustomizationJob", {"output": {"phase": "Training: InProgress"}}),
    happening(30, "state-retried", "PlanRun", {"error": "Throttled"}),
]
END = happening(31, "execution-ended", "machine")
LINES = [
    "11-22 09:01:00  PlanRun",
    "11-22 09:09:00    job Training: InProgress",
    "11-22 09:30:00  PlanRun: Throttled",
    "          EvaluateBaseline: 67 records evaluated",
]


def test_in_a_pipe_each_thing_that_is_done_is_one_plain_line() -> None:
    stream = StringIO()
    progress = Progress(stream)
    for one in [*RUN, END]:
        progress.watch(one)
    assert stream.getvalue().splitlines() == LINES


def test_in_a_terminal_a_line_is_renewed_with_state_virtual_time_and_records_evaluated() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    shown = []
    for one in RUN:
        progress.watch(one)
        status = progress._status
        shown.append(str(status.status) if status else "")
    assert shown[0] == "11-22 09:00:00  PollUploads"
    assert shown[1] == shown[0], "a file that only joins is not shown"
    assert shown[3:7] == [
        "11-22 09:02:00  IsBaselineNeeded",
        "11-22 09:02:00  EvaluateBaselineShard",
        "11-22 09:02:00  EvaluateBaseline: 41 records evaluated",
        "11-22 09:03:00  EvaluateBaseline: 67 records evaluated",
    ]
    progress.watch(END)
    assert progress._status is None
    written = terminal.getvalue()
    assert "\x1b[2K" in written, "the line is wiped before it is written again"
    for line in [shown[0], *LINES]:
        assert line in written


def test_what_stays_is_told_with_why_and_what_it_costs() -> None:
    model, deployment = what_is_left([MODEL, DEPLOYMENT], "us-east-1", date(2026, 11, 22))
    assert model.startswith("The custom model is kept, so that it can be put into use; its storage costs 1.95 USD a m")
    assert model.endswith(MODEL)
    assert deployment == f"Still in use, and billed as long as it is: {DEPLOYMENT}"
    assert list(what_is_left([], "us-east-1", date(2026, 11, 22))) == ["Nothing is left that bills."]
