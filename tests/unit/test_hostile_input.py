"""Whatever people, S3 or Bedrock send ends in a result or in an error with a name, and no text of theirs does anything.

What a module alone reads is tried in that module's tests: data files, metrics files, notices, pages, runs.csv.
"""

import io
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customization import commands, notices
from customization.catalogue import load_catalogue
from customization.errors import ArtifactUnreadable, InvalidRunRequest, RequestRejected
from customization.evaluation import Prediction, encode_predictions
from customization.formats import TestRecord, Turn
from customization.gateway.objects import Objects
from customization.gateway.runtime import BedrockRuntime
from customization.gateway.tables import to_stored
from customization.history import ROW_FILE
from customization.inference import InferenceSettings, build_question, read_answer
from customization.json_types import Json, JsonObject
from customization.planning import plan_run
from customization.prepared import read_profile
from customization.request import RunRequest, parse_request
from customization.resolution import resolve
from customization.runs import Call, PinnedFile, Plan, read_plan
from customization.uploads import (
    DATA_FILES,
    INCOMING,
    MOST_REQUEST_BYTES,
    REQUEST_FILE,
    Drop,
    dataset_of,
    explain_unused,
    is_used,
    poll_uploads,
    read_drop,
    read_request_file,
)
from tests.unit.fakes import NOW, SETTINGS, GatewayInMemory

# AWS Step Functions API, TaskFailedEventDetails
LONGEST_CAUSE = 32_768
IN_MEMORY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)

ANY_TEXT = st.one_of(
    st.text(st.characters()),  # lone surrogates too
    st.sampled_from(["", "\0", "\x1b[2J", "\u202e", "a\r\nSubject: b", "{% $states.input %}", "${x}", "{0}%s", "=1+1"]),
)
ANY_NUMBER = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**50, -(10**400), 2**63, 1e308, 5e-324, 0.1, -0.0])
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | ANY_NUMBER | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([field.alias or name for name, field in RunRequest.model_fields.items()])
INNER_FIELDS = st.sampled_from(
    [
        "records",
        "share",
        "keep",
        "modelUnits",
        "maxTokens",
        "temperature",
        "topP",
        "maxRecords",
        "compareWith",
        "epochs",
    ]
)
NEARLY = st.dictionaries(FIELDS, ANY_JSON | st.dictionaries(INNER_FIELDS, ANY_JSON, max_size=3), max_size=4)


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


class InMemory:
    """S3 of one object after another: the client of the buckets below."""

    def __init__(self) -> None:
        self.body = b""

    def get_object(self, **_: str) -> dict[str, io.BytesIO]:
        return {"Body": io.BytesIO(self.body)}


def holding(body: bytes) -> GatewayInMemory:
    """Return a gateway whose buckets hold this, whatever one reads."""
    client = InMemory()
    client.body = body
    made = GatewayInMemory(SETTINGS)
    for name in ("data", "artifacts"):
        made.__dict__[name] = Objects(client, name)  # type: ignore[arg-type]  # the one call that is made
    return made


def assert_readable(message: str) -> None:
    """A message is text for a terminal and an e-mail, and as an error of Lambda it fits the cause of Step Functions."""
    assert message
    assert all(character.isprintable() or character == "\n" for character in message), ascii(message)
    assert len(json.dumps({"errorMessage": message})) < LONGEST_CAUSE


@pytest.fixture
def fresh(call: Call) -> Call:
    return replace(call, run_id="", attempt=0)


@pytest.fixture
def dropped(gateway: GatewayInMemory) -> GatewayInMemory:
    gateway.data.put("incoming/support/train.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    return gateway


@given(NEARLY | ANY_JSON)
def test_any_json_is_a_run_request_or_is_refused_in_lines_that_can_be_read(document: Json) -> None:
    asked: Json = {"dataset": "support", **document} if isinstance(document, dict) else document
    try:
        assert isinstance(parse_request(asked, SETTINGS.defaults), RunRequest)
    except InvalidRunRequest as error:
        assert_readable(str(error))


@IN_MEMORY
@given(NEARLY)
def test_whatever_request_is_taken_is_kept_in_the_table_of_runs(
    dropped: GatewayInMemory, fresh: Call, document: JsonObject
) -> None:
    try:
        run_id = str(plan_run(dropped, {**document, "dataset": "support"}, fresh)["runId"])
    except InvalidRunRequest as error:
        assert_readable(str(error))
    else:
        assert not run_id or dropped.runs.get(run_id) is not None


LARGE: dict[str, Json] = {
    "nested 900 deep": {"name": nested(900)},
    "nested 50,000 deep": {"name": nested(50_000)},
    "a number of 5,000 digits": {"hyperParameters": {"epochCount": 10**5_000}},
    "more model units than a number holds": {"serving": {"modelUnits": 10**50}},
    "more tokens than a table holds": {"inference": {"maxTokens": 10**50}},
    "more than all the money": {"budgetUsd": 1e308},
    "20,000 fields": {f"k{name}": name for name in range(20_000)},
    "20,000 hyperparameters": {"hyperParameters": {f"k{name}": "1" for name in range(20_000)}},
    "10,000 mapped keys": {"fieldMapping": {f"k{name}": "prommpt" for name in range(10_000)}},
    "60,000 stop sequences": {"inference": {"stopSequences": ["x"] * 60_000}},
    "the same file 20,000 times": {"expect": ["train.json"] * 20_000},
    "a key of 200 kB": {"k" * 200_000: 1},
    "a hyperparameter of 200 kB": {"hyperParameters": {"k" * 200_000: "1"}},
    "a model of 250 kB": {"baseModelIdentifier": "x" * 250_000},
    "fifty keys of eighty control characters": {"\x1b" * 78 + f"{name:02}": 1 for name in range(50)},
    "a key with lines of its own": {"a\nWhat to do: pay\x1b[2J": 1},
    "a space that Bedrock does not take": {"tags": {"a": "b\u3000c"}},
}


@pytest.mark.parametrize("fields", LARGE.values(), ids=LARGE.keys())
def test_what_is_too_large_or_not_to_be_seen_is_refused_within_what_step_functions_takes(fields: JsonObject) -> None:
    files = {"train.jsonl": PinnedFile("incoming/support/train.jsonl", "1", 1, "a")}
    with pytest.raises(InvalidRunRequest) as caught:
        resolve(
            parse_request({**fields, "dataset": "support"}, SETTINGS.defaults),
            files=files,
            catalogue=load_catalogue(),
            region="us-east-1",
            today=NOW.date(),
        )
    assert_readable(str(caught.value))


def test_of_many_problems_the_first_are_told_and_how_many_more_there_are() -> None:
    with pytest.raises(InvalidRunRequest, match="has 1,200 problems") as caught:
        parse_request({"dataset": "support", **{f"k{name}": 1 for name in range(1_200)}}, SETTINGS.defaults)
    _, *told, last = str(caught.value).splitlines()
    assert last == f"- and {1_200 - len(told):,} more; mend these first"
    assert len(told) > 20


@pytest.mark.parametrize("system", ["x" * 250_000, "あ" * 80_000])
def test_the_longest_request_that_step_functions_takes_fits_the_table_of_runs(
    dropped: GatewayInMemory, fresh: Call, system: str
) -> None:
    request: JsonObject = {"dataset": "support", "inference": {"system": system}}
    assert plan_run(dropped, request, fresh)["outcome"] == "planned"


TYPED: JsonObject = {"detail": {"bucket": {"name": "data"}, "object": {"key": "incoming/x/y"}}}


@pytest.mark.parametrize(
    "event",
    [
        {"source": "aws.s3"},
        {"source": "aws.s3", "detail": {"bucket": "data", "object": []}},
        {"source": "aws.s3", "detail": {"bucket": {"name": "data"}, "object": {"key": 7}}},
        {"source": "aws.s3", "dataset": "support"},
        {"source": "aws.s3", "time": "now", "detail": {"bucket": {"name": "data"}, "object": {"key": "incoming/x/y"}}},
        {"source": "aws.s3", "time": "9" * 200_000, **TYPED},
        {"source": "aws.s3", "time": "2026-11-22", **TYPED},
        {"source": "aws.s3", "detail": {"bucket": {"name": "data"}, "object": {"key": "incoming/\ud800/run.json"}}},
        {"source": "aws.s3", "detail": {"bucket": {"name": "data"}, "object": {"key": "é" * 200_000 + "\x00"}}},
        {"source": "aws.s3", "detail": {"bucket": {"name": "b" * 200_000}, "object": {"key": "incoming/x/y"}}},
    ],
)
def test_what_is_like_an_event_and_is_none_is_refused_by_name(event: JsonObject) -> None:
    with pytest.raises(InvalidRunRequest, match="expected an event of Amazon S3, or a run request") as caught:
        read_drop(event)
    assert_readable(str(caught.value))


def test_an_input_without_data_set_is_answered_with_ready_inputs_whatever_it_is(
    dropped: GatewayInMemory, fresh: Call
) -> None:
    inputs: list[Json] = ["\ud800", {"x": "\ud800\x1b[2J"}, nested(50_000), None, "x" * 300_000]
    for asked in inputs:
        with pytest.raises(InvalidRunRequest, match=r'Ready inputs:\n{"dataset": "support", ') as caught:
            plan_run(dropped, asked, fresh)
        assert_readable(str(caught.value))


def test_ready_inputs_name_data_sets_alone_and_no_more_than_people_read(gateway: GatewayInMemory, fresh: Call) -> None:
    for folder in ['x"}\nRun this: {"dataset": "y', "UPPER", *(f"set-{place:03d}" for place in range(102))]:
        gateway.data.put(f"incoming/{folder}/train.jsonl", b"")
    with pytest.raises(InvalidRunRequest, match=r"\nand 2 more folders$") as caught:
        plan_run(gateway, {}, fresh)
    assert_readable(str(caught.value))
    assert "Run this" not in str(caught.value)


# Keys as EventBridge sends them: any Unicode up to 1,024 bytes, nothing encoded
KEYS = st.one_of(
    ANY_TEXT.map(lambda text: text.encode("utf-8", "ignore").decode()[:500]),
    st.sampled_from(
        ["..", "a/../../b", "%2e%2e%2f", "a+b%20c", "a b", "support/", "'; rm -rf /; '", "$(reboot)", "a\n"]
    ),
)


@given(folder=KEYS, file=KEYS | st.sampled_from([*DATA_FILES, REQUEST_FILE]))
def test_a_key_is_of_a_data_set_or_is_refused_with_one_command_that_moves_it_to_one(folder: str, file: str) -> None:
    drop = Drop(bucket="data", key=f"{INCOMING}{folder}/{file}")
    try:
        dataset = dataset_of(drop)
    except InvalidRunRequest as error:
        message = str(error)
    else:
        assert drop.key == f"{INCOMING}{dataset}/{drop.file_name}"
        return
    assert_readable(message)
    assert "\n" not in message
    program, command, move, _, to = shlex.split(message.partition("; move it: ")[2].replace("$'", "'"))
    assert (program, command, move) == ("aws", "s3", "mv")
    moved = Drop(bucket="data", key=to.removeprefix("s3://data/"))
    assert dataset_of(moved)
    assert is_used(moved)


@pytest.mark.parametrize("key", ["incoming/support//train.jsonl", "incoming/support///run.json"])
def test_a_folder_with_an_empty_name_below_a_data_set_is_not_the_data_set(key: str) -> None:
    with pytest.raises(InvalidRunRequest, match="found 'support/"):
        dataset_of(Drop(bucket="data", key=key))
    assert not is_used(Drop(bucket="data", key="incoming/support//test.jsonl"))


@IN_MEMORY
@given(KEYS)
def test_a_file_that_no_run_will_use_is_told_of_in_a_message_without_lines_of_its_own(
    gateway: GatewayInMemory, key: str
) -> None:
    drop = read_drop({"source": "aws.s3", "detail": {"bucket": {"name": "data"}, "object": {"key": f"incoming/{key}"}}})
    assert drop is not None
    told = len(gateway.published)
    explain_unused(gateway, drop, NOW)
    for subject, message in gateway.published[told:]:
        assert_readable(message)
        assert "\nrm" not in message
        assert subject.isascii()


RUN_JSON: JsonObject = {
    "source": "aws.s3",
    "detail": {"bucket": {"name": "data"}, "object": {"key": "incoming/support/run.json"}},
}
BAD_REQUEST_FILES = {
    "more than 256 kB": (b'{"name": "' + b"x" * MOST_REQUEST_BYTES + b'"}', "expected at most 262,144 bytes"),
    "nested 100,000 deep": (b"[" * 100_000, "not JSON"),
    "a number of 5,000 digits": (b'{"budgetUsd": ' + b"9" * 5_000 + b"}", "not JSON"),
    "two budgets": (b'{"budgetUsd": 5, "budgetUsd": 500}', "an object has the key 'budgetUsd' twice"),
    "UTF-16": ('{"budgetUsd": 5}'.encode("utf-16"), "byte 0 is not UTF-8"),
    "an empty file": (b"", "not JSON"),
    "another data set": (b'{"dataset": "' + b"x" * 200_000 + b'"}', "expected 'support', the folder's name"),
    "no text as data set": (b'{"dataset": ["support"]}', "expected 'support', the folder's name"),
}


@pytest.mark.parametrize(("body", "says"), BAD_REQUEST_FILES.values(), ids=BAD_REQUEST_FILES.keys())
def test_a_run_json_that_cannot_be_read_is_refused_by_name(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRunRequest, match=says) as caught:
        read_request_file(holding(body), "support")
    assert_readable(str(caught.value))


@given(st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_run_json_is_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read_request_file(holding(body), "support"), dict)
    except InvalidRunRequest as error:
        assert_readable(str(error))


def test_a_run_json_that_cannot_be_read_holds_no_folder_up(dropped: GatewayInMemory, fresh: Call) -> None:
    later = replace(fresh, now=NOW.replace(year=2100))
    for body, _ in BAD_REQUEST_FILES.values():
        dropped.data.put("incoming/support/run.json", body)
        assert poll_uploads(dropped, RUN_JSON, later, NOW)["status"] == "complete"


def test_the_expectation_of_a_run_json_with_a_byte_order_mark_is_waited_for(
    dropped: GatewayInMemory, fresh: Call
) -> None:
    dropped.data.put("incoming/support/run.json", b'\xef\xbb\xbf{"expect": ["test.jsonl"]}')
    assert (
        poll_uploads(dropped, RUN_JSON, replace(fresh, now=NOW.replace(year=2100)), NOW.replace(year=2100))["status"]
        == "waiting"
    )


def test_keys_that_no_xml_can_hold_are_asked_for_encoded() -> None:
    class S3:
        def list_multipart_uploads(self, **parameters: str) -> dict[str, list[dict[str, str]]]:
            assert parameters["EncodingType"] == "url"
            return {"Uploads": [{"Key": "incoming/support/a%01+b"}]}

    bucket = Objects(S3(), "data")  # type: ignore[arg-type]  # the one call that is made
    assert bucket.open_uploads("incoming/support/") == ["incoming/support/a\x01 b"]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda body: body[: len(body) // 2],
    "empty": lambda _: b"",
    "another type": lambda _: b"[]",
    "not UTF-8": lambda body: body.replace(b"support", b"\xff\xfe", 1),
    "nested": lambda _: b'{"files": ' + b'{"a":' * 100_000,
    "of another run": lambda body: body.replace(b"support-0123456789", b"support-ffffffffff"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_manifest_that_was_tampered_with_is_named(plan: Plan, damage: Callable[[bytes], bytes]) -> None:
    manifest = msgspec.json.encode(plan)
    assert read_plan(holding(manifest), plan.run_id) == plan
    with pytest.raises(ArtifactUnreadable, match=r"s3://artifacts/runs/support-0123456789/manifest\.json: "):
        read_plan(holding(damage(manifest)), plan.run_id)


def test_artifacts_that_were_tampered_with_are_named(plan: Plan) -> None:
    with pytest.raises(ArtifactUnreadable, match=r"profile\.json: Expected `array`"):
        read_profile(holding(b'{"files": 1}'), plan)
    with pytest.raises(ArtifactUnreadable, match=r"s3://artifacts/answers/x\.jsonl"):
        holding(b'{"recordId": "a"\n').artifacts.decoded_lines("answers/x.jsonl", Prediction)


MODELS = [
    "amazon.nova-micro-v1:0:128k",
    "amazon.titan-text-lite-v1:0:4k",
    "cohere.command-light-text-v14:7:4k",
    "meta.llama3-1-8b-instruct-v1:0:128k",
]
RECORD = TestRecord("a", (Turn("user", "b"),), "c")
SAID = st.one_of(
    st.fixed_dictionaries(
        {
            "output": st.fixed_dictionaries({"message": st.fixed_dictionaries({"content": st.lists(
                st.fixed_dictionaries({"text": ANY_TEXT}), max_size=2)})}),
            "usage": st.fixed_dictionaries({"inputTokens": ANY_JSON, "outputTokens": ANY_NUMBER}),
            "stopReason": ANY_TEXT,
        }
    ),
    st.fixed_dictionaries(
        {"results": st.lists(st.fixed_dictionaries({"outputText": ANY_TEXT, "tokenCount": ANY_NUMBER}))}
    ),
    st.fixed_dictionaries(
        {
            "generations": st.lists(st.fixed_dictionaries({"text": ANY_TEXT, "finish_reason": ANY_TEXT})),
            "ResponseMetadata": st.fixed_dictionaries(
                {"HTTPHeaders": st.fixed_dictionaries({"x-amzn-bedrock-input-token-count": ANY_TEXT})}
            ),
        }
    ),
    st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4),
)  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@given(response=SAID)
def test_whatever_a_model_answers_can_be_kept_or_fails_its_record_alone(model: str, response: JsonObject) -> None:
    base = load_catalogue().find(model)
    call = build_question(base, "model", RECORD, InferenceSettings())
    try:
        answer = read_answer(base, call, response)
    except RequestRejected:
        return
    prediction = Prediction(
        "a",
        "custom",
        text=answer.text,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        stop_reason=answer.stop_reason,
    )
    kept = msgspec.json.Decoder(Prediction).decode_lines(encode_predictions([prediction]))
    assert kept == [prediction]


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000, b'"text"', b"9" * 5_000])
def test_a_body_that_is_no_json_object_is_an_error_of_its_record(body: bytes) -> None:
    class Said:
        def read(self) -> bytes:
            return body

    class Client:
        def invoke_model(self, **_: object) -> dict[str, object]:
            return {"body": Said(), "ResponseMetadata": {"HTTPHeaders": {}}}

    with pytest.raises(RequestRejected, match="no JSON object"):
        BedrockRuntime(Client()).ask("invoke_model", {"modelId": "model", "body": {}})  # type: ignore[arg-type]  # has the one call that is made


@given(st.floats(min_value=-1e125, max_value=1e125) | st.integers(-(2**53), 2**53))
def test_every_number_that_a_run_has_is_one_for_dynamodb(value: float) -> None:
    kept = Decimal(to_stored(value)["N"])
    assert kept == 0 or -130 <= kept.adjusted() <= 125
    assert float(kept) == pytest.approx(value, abs=1e-129)


@given(cause=ANY_TEXT, fix=ANY_TEXT, error=ANY_TEXT)
def test_a_failure_is_told_in_readable_lines_whatever_its_cause_holds(cause: str, fix: str, error: str) -> None:
    told = notices.failed(
        title="support-0123456789", state="PlanRun", error=error, cause=cause, fix=fix, language="en", link="https://x"
    )
    assert_readable(told.message)


def test_a_terminal_gets_no_control_character_from_what_somebody_called_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    row = {"runId": "support-a", "dataset": "support", "state": "FAILED", "startedAt": NOW.isoformat()}
    row["name"] = "\x1b[2J\u202eevil\nFAILED  "
    (tmp_path / "run" / ROW_FILE).write_text(json.dumps(row))
    monkeypatch.setattr(sys, "argv", ["commands", "runs", "support", "--from", str(tmp_path)])
    assert commands.main() == commands.DONE
    told = capsys.readouterr().out
    assert_readable(told)
    assert "  name          [2J evil FAILED\n" in told
    monkeypatch.setattr(sys, "argv", ["commands", "runs", "\x1b[2J", "--from", str(tmp_path)])
    assert commands.main() == commands.FAILED
    assert_readable(capsys.readouterr().err)
