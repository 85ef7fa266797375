"""What people are told: in their language, whole, and in a form that no data can break."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization import leases, money, notices
from customization.errors import AccessDenied
from customization.failures import explain
from customization.leases import Lease, Release
from customization.links import Links, move_command
from customization.notices import LONGEST_SUBJECT, SUBJECTS, Notice
from customization.profile import FileProfile, PreparedFile, Profile
from customization.promotion import promote
from customization.runs import Call, Plan
from customization.sweeper import sweep
from customization.texts import LANGUAGES, Sentence, load_texts
from tests.unit import test_report
from tests.unit.fakes import NOW, BedrockInMemory, GatewayInMemory

if TYPE_CHECKING:
    from customization.json_types import JsonObject

EVIL = "x\n\nSubject: y\r\x00\t$model ${runId} {places} %s <b>\u2028 終"
LINKS = Links("us-east-1", "artifacts", "arn:aws:sns:us-east-1:123456789012:topic")
ARN = "arn:aws:states:us-east-1:123456789012:execution:Customization:first"
LINK = LINKS.execution(ARN)
PARAMETER = "/dev/0a1b2c3d/datasets/support/model"


def lease(kind: str = "provisioned", **changes: object) -> Lease:
    made = Lease(
        resource_name="dev-0a1b2c3d-support-0123456789",
        kind=kind,
        run_id="support-0123456789",
        dataset="support",
        execution_arn=ARN,
        opened_at=NOW,
        hard_end=NOW + timedelta(hours=9),
        keep_until=NOW + timedelta(hours=6),
        hourly_usd=20.5,
    )
    return msgspec.structs.replace(made, **changes)


def profile() -> Profile:
    tokens = {"low": 900, "likely": 1000, "high": 1100}
    train = msgspec.convert(
        {"name": "train.jsonl", "origin": "train.jsonl", "records": 1234, "bytes": 9, "sha256": "", "tokens": tokens,
         "completionTokens": tokens},
        PreparedFile,
    )  # fmt: skip
    empty: tuple[FileProfile, ...] = ()
    return Profile(files=empty, prepared={"train": train}, test_records=0, test_digest="", warnings=(), notes=())


def estimate() -> money.Estimate:
    usage = money.Usage(
        model="amazon.nova-micro-v1:0:128k",
        region="us-east-1",
        training=(money.TrainingUsage("FINE_TUNING", 480_000, 3), money.TrainingUsage("FINE_TUNING", None, 1)),
        stored_models=1,
    )
    return money.estimate(usage, money.load_prices(), NOW)


def told(plan: Plan, text: str = "text") -> Iterator[Notice]:
    """Yield a notice of each kind, with `text` wherever data may stand."""
    language = plan.language
    plan = msgspec.structs.replace(plan, warnings=(text,), base_model_identifier=text)
    data = test_report.full(text, "ja" if language == "ja" else "en")
    first: JsonObject = {
        "startedAt": NOW.isoformat(),
        "executionArn": ARN,
        "verdict": "better",
        "reason": text,
        "reportKey": text,
    }
    outcome = Release(text, "model", "released")
    yield notices.started(plan, profile(), estimate(), attempt=2, job_hours=(24, 96), links=LINKS)
    yield notices.estimated(plan, profile(), estimate(), LINKS)
    yield notices.duplicate(msgspec.structs.replace(plan, promote="if-better", dataset=text), first, LINKS)
    yield notices.duplicate(plan, {**first, "verdict": None, "state": "RUNNING"}, LINKS)
    yield notices.finished(data, [lease(), lease("model")], execution_arn=ARN, key="runs/x/report.html", links=LINKS)
    failed = notices.failed(title=text, state=text, error=text, cause="c", fix="f", language=language, link=LINK)
    yield failed
    yield notices.Notice(failed.subject, notices.after_release(failed.message, [outcome], [lease()], language))
    for status in ("ABORTED", "TIMED_OUT", "FAILED", "GONE"):
        yield notices.ended(run_id=text, status=status, cause="c", fix="f", language=language, link=LINK)
    yield notices.done(run_id=text, language=language, link=LINK)
    named = text[:300]  # Amazon S3 takes 1,024 bytes as a key
    for key in (f"incoming/{named}.csv", f"incoming/{named}"):
        yield notices.unused(bucket="data", key=key, better_key="k", names=["train.jsonl"], language=language)
    for until in (None, NOW.isoformat()):
        lines = [Sentence("notice.doubtInconclusive"), Sentence("notice.doubtNotCompared")]
        value: JsonObject = {"arn": text, "until": until}
        yield notices.in_use(
            run_id=text, dataset=text, parameter=text, value=value, lines=lines, language=language, link=LINK
        )
    for arn in ("", text):
        what = {"dataset": text, "kind": "provisioned", "name": text, "parameter": text, "previous_arn": arn}
        for is_gone in (True, False):
            yield notices.withdrawn(run_id=text, is_gone=is_gone, language=language, **what)
    yield notices.ends_soon(run_id=text, lease=lease(dataset=text), until=NOW, parameter=text, language=language)
    yield notices.released(dataset=text, outcomes=[outcome], language=language)
    yield notices.released(dataset=text, outcomes=[], language=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_notice_is_worded_in_the_language_of_the_run(plan: Plan, language: str) -> None:
    found = list(told(msgspec.structs.replace(plan, language=language)))
    assert {notice.subject.split(":")[0] for notice in found} >= {"Started", "Better", "In use", "Released"}
    for notice in found:
        in_japanese = re.search(r"[ぁ-ん]", notice.message) is not None
        assert in_japanese is (language == "ja"), notice.message
        assert "None" not in notice.message


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_data_breaks_a_line_a_place_or_a_subject(plan: Plan, language: str) -> None:
    plan = msgspec.structs.replace(plan, language=language)
    for plain, hostile in zip(told(plan), told(plan, EVIL), strict=True):
        assert hostile.message.count("\n") == plain.message.count("\n"), hostile.message
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028]", hostile.message)
        assert "\nSubject:" not in hostile.message
        assert hostile.subject.isascii()
        assert hostile.subject.isprintable()
        assert 0 < len(hostile.subject) <= LONGEST_SUBJECT


@given(title=st.text(), state=st.text())
def test_whatever_stands_in_it_a_subject_is_what_sns_takes(title: str, state: str) -> None:
    for code in SUBJECTS:
        made = notices.subject(code, title=title, state=state, status=state or "x")
        assert made.isascii()
        assert made.isprintable()
        assert 0 < len(made) <= LONGEST_SUBJECT
        assert not made[0].isspace()


def test_every_subject_in_the_table_is_used_and_fits() -> None:
    source = notices.__file__
    with open(source) as file:  # noqa: PTH123 - a line is shorter than an import
        text = file.read()
    for code, wording in SUBJECTS.items():
        assert wording.isascii()
        assert f'subject("{code}"' in text or code in {"better", "worse", "inconclusive", "not compared"}


def test_the_start_is_told_with_records_warnings_cost_and_hours(plan: Plan) -> None:
    plan = msgspec.structs.replace(plan, warnings=tuple(f"warning {number}" for number in range(14)))
    message = notices.started(plan, profile(), estimate(), attempt=2, job_hours=(24, 96), links=LINKS).message
    assert "as attempt 2: FINE_TUNING of amazon.nova-micro-v1:0:128k" in message
    assert "- train: 1,234 records, about 1,000 tokens" in message
    assert "- warning 9\n- and 4 more" in message
    assert "About 1.5 to 4 hours" in message
    assert "has not started after 24 hours or has not ended after 96 hours" in message
    assert "Training (FINE_TUNING): unknown, ? x 1,000 tokens and no source gives a price" in message
    assert "Storage of the custom model: 1.9500 USD, 1 x custom model month at 1.95 USD" in message
    assert f"states/home?region=us-east-1#/v2/executions/details/{ARN}" in message


def test_the_end_tells_what_is_kept_for_a_shorter_time_than_was_asked_for() -> None:
    told = notices.finished(
        test_report.full("question"), [lease()], execution_arn=ARN, key="k", links=LINKS, kept_short="Shorter."
    )
    assert "until 2026-11-22 15:00 UTC\nShorter.\n" in told.message


def test_the_end_is_told_with_verdict_scores_cost_next_step_three_examples_and_links() -> None:
    data = test_report.full("question")
    notice = notices.finished(
        data, [lease(), lease("model", state="CLOSED")], execution_arn=ARN, key="runs/a b/report.html", links=LINKS
    )
    message = notice.message
    assert notice.subject == "Better: support-ja-0123456789"
    assert message.startswith("The custom model answers better than the base model: on 39 test records")
    assert "Next step: " in message
    assert re.search(r"- .*decides\): base model \d+\.\d % \(.* - .*\), custom model \d+\.\d %", message)
    cost = r"Cost: [\d.]+ USD as reckoned from use, estimated [\d.]+ USD\. No source gives a price for: Training"
    assert re.search(cost, message)
    assert message.count("  Expected: ") == 3
    assert (
        "- provisioned throughput dev-0a1b2c3d-support-0123456789, 20.5 USD an hour, until 2026-11-22 15:00 UTC"
        in message
    )
    assert "custom model dev" not in message
    assert (
        "s3://artifacts/runs/a b/report.html\nhttps://us-east-1.console.aws.amazon.com/s3/object/artifacts" in message
    )
    assert "prefix=runs%2Fa%20b%2Freport.html" in message
    assert LINK in message


def test_a_duplicate_is_told_when_it_first_ran_and_what_its_verdict_was(plan: Plan) -> None:
    first: JsonObject = {
        "startedAt": "2026-11-20T08:15:00+00:00",
        "executionArn": ARN,
        "verdict": "worse",
        "reason": "Because.",
    }
    message = notices.duplicate(plan, {**first, "reportKey": "runs/x/report.html"}, LINKS).message
    assert "Run support-0123456789 started at 2026-11-20 08:15 UTC. Its verdict: Worse.\nBecause." in message
    assert "s3://artifacts/runs/x/report.html" in message
    assert "still under way" in notices.duplicate(plan, {**first, "verdict": None}, LINKS).message


@pytest.mark.parametrize(
    ("promote", "first", "is_told"),
    [
        ("if-better", {"verdict": "better"}, True),
        ("if-better", {"verdict": "better", "promoted": True}, False),
        ("if-better", {"verdict": "worse"}, False),
        ("if-better", {"verdict": None}, False),
        ("never", {"verdict": "better"}, False),
    ],
)
def test_a_duplicate_that_asks_to_promote_a_better_model_is_told_how_without_training_again(
    plan: Plan, promote: str, first: "JsonObject", *, is_told: bool
) -> None:
    row: JsonObject = {"startedAt": "2026-11-20T08:15:00+00:00", "executionArn": ARN, **first}
    message = notices.duplicate(msgspec.structs.replace(plan, promote=promote), row, LINKS).message
    assert message.startswith("This request would do the same work on the same data again, so nothing was started.")
    ready = '{"dataset": "support", "action": "promote", "data": "support-0123456789"}'
    assert (f"start the state machine with:\n{ready}\n" in message) is is_told
    assert "set force to true" in message


@pytest.mark.parametrize(
    ("partition", "console"),
    [
        ("aws", "https://us-east-1.console.aws.amazon.com/"),
        ("aws-us-gov", "https://us-east-1.console.amazonaws-us-gov.com/"),
    ],
)
def test_links_lead_to_the_console_of_the_partition(partition: str, console: str) -> None:
    links = Links("us-east-1", "bucket", f"arn:{partition}:sns:us-east-1:123456789012:topic")
    assert links.execution(ARN).startswith(console)
    assert links.artifact("key").startswith(console)


@given(key=st.text(st.characters(exclude_categories=["C", "Z"])))
def test_the_command_that_moves_a_file_holds_one_source_whatever_its_key(key: str) -> None:
    words = shlex.split(move_command("data", key, "incoming/x/train.jsonl"))
    assert words == ["aws", "s3", "mv", f"s3://data/{key}", "s3://data/incoming/x/train.jsonl"]


def test_a_key_with_line_breaks_is_moved_by_a_command_of_one_line() -> None:
    key = "incoming/a\nb\t'終'\x7f$(touch x)7.jsonl"
    command = move_command("data", key, "incoming/x/train.jsonl")
    assert command.isprintable()
    bash = shutil.which("bash")
    assert bash
    shown = subprocess.run([bash, "-c", f'aws() {{ printf %s "$3"; }}; {command}'], capture_output=True, check=True)  # noqa: S603 - the command is the test
    assert shown.stdout.decode() == f"s3://data/{key}"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "20.5 USD an hour, until 2026-11-22 15:00 UTC"),
        ({"hourly_usd": None}, "price unknown, until"),
        ({"hourly_usd": 0.0, "kind": "on-demand"}, "no hourly price, answers bill by the token, until"),
        (
            {"kind": "model", "keep_until": NOW + timedelta(days=3650)},
            "storage by the month, until somebody releases it",
        ),
        ({"kind": "job"}, "customization job dev-0a1b2c3d-support-0123456789"),
        ({"state": "CLOSED"}, "Nothing of this run bills any more."),
    ],
)
def test_what_still_bills_is_told_with_its_price_and_its_end(
    changes: dict[str, str | datetime | float | None], says: str
) -> None:
    assert says in notices.still_billing([msgspec.structs.replace(lease(), **changes)], "en")


def test_documented_failures_are_explained_in_japanese_too() -> None:
    failure = explain("CustomizationJobFailed", "internal error when processing the request", "ja")
    assert "Bedrock 側でエラーが起きました" in failure.cause
    assert "もう一度実行" in failure.fix
    assert "済んだ作業" in explain("Odd", "odd", "ja").fix


@pytest.fixture
def served(claimed: GatewayInMemory, bedrock: BedrockInMemory, plan: Plan, call: Call) -> GatewayInMemory:
    """A promoted model whose deployment is kept for six hours; its run has ended."""
    claimed.runs.update(call.run_id, {"jobName0": "job", "language": "ja", "state": "SUCCEEDED"})
    bedrock.models.add("arn:model/job")
    made = lease("on-demand", keep_until=None)
    claimed.runs.update(call.run_id, {"servingName": made.resource_name})
    leases.open_lease(claimed, made)
    tags = {"deployment": "0a1b2c3d"}
    arn = bedrock.serve(
        mode=made.kind,
        name=made.resource_name,
        model_arn="arn:model/job",
        tags=tags,
        units=1,
        token="t",  # noqa: S106  no secret
    )
    kept = msgspec.structs.replace(plan, keep=6.0)
    promote(claimed, kept, call, serving_arn=arn, model_arn="arn:model/job")
    claimed.executions[ARN] = "SUCCEEDED"
    return claimed


def test_the_end_of_a_promoted_lease_is_told_once_at_least_an_hour_before(served: GatewayInMemory) -> None:
    def subjects_after(**later: float) -> list[str]:
        served.published.clear()
        sweep(served, NOW + timedelta(**later))
        return [subject for subject, _ in served.published]

    assert subjects_after(hours=4, minutes=30) == []
    assert subjects_after(hours=4, minutes=59) == ["Ends soon: support-0123456789"]
    assert "2026-11-22 15:00" in served_message(served)
    assert "使用中" in served_message(served)
    assert subjects_after(hours=5, minutes=14) == []
    assert subjects_after(hours=6)[0] == "No longer in use: support-0123456789"


def test_what_is_told_of_a_promoted_lease_is_told_by_the_next_sweep_where_it_is_refused(
    served: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_subject: str, _message: str) -> None:
        raise AccessDenied("no permission")

    for hours, told in ((5, "Ends soon"), (6, "No longer in use")):
        with monkeypatch.context() as patch:
            patch.setattr(served, "publish", refuse)
            refused = sweep(served, NOW + timedelta(hours=hours)).refused
        assert all("notice about" in action.did for action in refused)
        assert refused
        served.published.clear()
        for minutes in (15, 30):
            sweep(served, NOW + timedelta(hours=hours, minutes=minutes))
        assert [subject.partition(":")[0] for subject, _ in served.published] == [told]
    assert leases.open_leases(served) == []


def served_message(gateway: GatewayInMemory) -> str:
    return gateway.published[-1][1]


def test_a_lease_that_is_kept_but_serves_no_model_in_use_ends_without_a_word(claimed: GatewayInMemory) -> None:
    leases.open_lease(claimed, lease("on-demand"))
    claimed.executions[ARN] = "SUCCEEDED"
    sweep(claimed, NOW + timedelta(hours=5))
    assert claimed.published == []


def test_notices_take_their_codes_from_texts_that_exist_in_every_language() -> None:
    texts = load_texts()
    with open(notices.__file__) as file:  # noqa: PTH123 - a line is shorter than an import
        named = set(re.findall(r"[\"'](notice\.[A-Za-z]+|price\.[a-z]+)[\"']", file.read()))
    assert len(named) > 40
    for code in named:
        assert set(texts[code]) == set(LANGUAGES), code


def test_a_message_of_everything_at_once_fits_sns_and_the_state_machine(plan: Plan) -> None:
    # Amazon SNS takes 262,144 bytes (API reference, Publish), a state's output as many (Step Functions quotas)
    long = "長" * 5_000
    assert max(len(json.dumps(notice.message).encode()) for notice in told(plan, long)) < 120_000
