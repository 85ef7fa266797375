"""A training has another id exactly where Bedrock is given something else: nothing is adopted or paid for wrongly."""

from dataclasses import dataclass, replace

import pytest

from customization.json_types import JsonObject
from customization.planning import plan_run
from customization.preparation import prepare
from customization.prepared import STAGE_FILES, data_key
from customization.runs import Call, Plan, read_plan
from tests.unit.data_files import CONTINUED_PRE_TRAINING, FINE_TUNING, TITAN_EXPRESS, json_lines
from tests.unit.fakes import GatewayInMemory

Files = dict[str, list[JsonObject]]


def examples(count: int, start: int = 0) -> list[JsonObject]:
    return [
        {"question": f"User: Where is order {number}?\nBot:", "answer": f"At {number}.", "more": "Anything else?"}
        for number in range(start, start + count)
    ]


def texts(count: int, start: int = 0) -> list[JsonObject]:
    return [{"heading": f"Order {number}", "body": "It is under way."} for number in range(start, start + count)]


LABELLED = {"question": "prompt", "answer": "completion", "more": "completion"}
RAW = {"heading": "input", "body": "input"}
BOTH: Files = {"pretrain": texts(80), "train": examples(80)}
HELD_OUT: Files = {"validation": examples(9, 100), "test": examples(30, 200)}
HELD_OUT_TEXTS: Files = {"validation": texts(9, 100), "test": examples(30, 200)}
RUNS: dict[str, tuple[Files, JsonObject]] = {
    "both": (BOTH, {}),
    "both with held-out files": ({**BOTH, **HELD_OUT}, {}),
    "fine-tuning": (BOTH, {"customizationType": FINE_TUNING}),
    "fine-tuning with held-out files": ({**BOTH, **HELD_OUT}, {"customizationType": FINE_TUNING}),
    "pre-training": (BOTH, {"customizationType": CONTINUED_PRE_TRAINING, "serving": {"mode": "none"}}),
    "pre-training with held-out files": (
        {**BOTH, **HELD_OUT_TEXTS},
        {"customizationType": CONTINUED_PRE_TRAINING},
    ),
}
OTHER_REQUESTS: dict[str, JsonObject] = {
    "texts joined in another order": {"fieldMapping": {**LABELLED, "body": "input", "heading": "input"}},
    "answers joined in another order": {
        "fieldMapping": {**RAW, "question": "prompt", "more": "completion", "answer": "completion"}
    },
    "a key of the texts unused": {"fieldMapping": {**LABELLED, "body": "input"}},
    "a key of the examples unused": {"fieldMapping": {**RAW, "question": "prompt", "answer": "completion"}},
    "without role cues": {"stripRoleCues": True},
    "a subset": {"subset": {"records": 50}},
    "fewer questions": {"evaluation": {"maxRecords": 7}},
    "another system prompt": {"inference": {"system": "Answer briefly."}},
    "pre-trained for longer": {"hyperParameters": {CONTINUED_PRE_TRAINING: {"epochCount": 7}}},
    "fine-tuned for longer": {"hyperParameters": {FINE_TUNING: {"epochCount": 7}}},
}


@dataclass(frozen=True)
class Prepared:
    """A prepared run: for each stage its trainingId, and what Bedrock is given up to the end of it."""

    run: str
    ids: list[str]
    given: list[list[object]]
    test: bytes


def prepared(gateway: GatewayInMemory, call: Call, files: Files, request: JsonObject, dataset: str) -> Prepared:
    """Plan and prepare a run in a folder of its own, so that no run stands in the way of the next."""
    for name, records in files.items():
        gateway.data.put(f"incoming/{dataset}/{name}.jsonl", json_lines(records))
    asked: JsonObject = {
        "dataset": dataset,
        "baseModelIdentifier": TITAN_EXPRESS,
        "fieldMapping": {**RAW, **LABELLED},
        **request,
    }
    planned = plan_run(gateway, asked, replace(call, run_id="", attempt=0))
    plan = read_plan(gateway, str(planned["runId"]))
    prepare(gateway, plan, replace(call, run_id=plan.run_id, attempt=plan.attempt))
    given = [_given(gateway, plan, stage) for stage in range(len(plan.stages))]
    return Prepared(
        run=plan.run_id.removeprefix(dataset),
        ids=[stage.training_id for stage in plan.stages],
        given=[given[: stage + 1] for stage in range(len(given))],
        test=_content(gateway, plan, "test"),
    )


def _given(gateway: GatewayInMemory, plan: Plan, stage: int) -> object:
    kind, hyper_parameters = plan.stages[stage].customization_type, plan.stages[stage].hyper_parameters
    return kind, hyper_parameters, [_content(gateway, plan, name) for name in STAGE_FILES[kind]]


def _content(gateway: GatewayInMemory, plan: Plan, name: str) -> bytes:
    key = data_key(plan, name)
    return gateway.artifacts.read(key) if list(gateway.artifacts.listed(key)) else b""


def other_ids(before: Prepared, after: Prepared) -> list[bool]:
    return [old != new for old, new in zip(before.ids, after.ids, strict=True)]


def other_data(before: Prepared, after: Prepared) -> list[bool]:
    return [old != new for old, new in zip(before.given, after.given, strict=True)]


def changed(files: Files, name: str) -> list[JsonObject]:
    """Return a file with more records, a held-out one with some of the training file, which then loses them."""
    new = texts if "body" in files[name][0] else examples
    return [*files[name], *new(5, 0 if name in HELD_OUT else 300)]


@pytest.mark.parametrize("run", RUNS)
def test_a_file_counts_for_a_training_exactly_where_its_records_reach_it(
    gateway: GatewayInMemory, call: Call, run: str
) -> None:
    files, request = RUNS[run]
    before = prepared(gateway, call, files, request, "before")
    for name in files:
        after = prepared(gateway, call, {**files, name: changed(files, name)}, request, f"other-{name}")
        assert other_ids(before, after) == other_data(before, after), name
        is_other_work = (before.given, before.test) != (after.given, after.test)
        assert (before.run != after.run) == is_other_work, name


@pytest.mark.parametrize("run", [run for run, (files, _) in RUNS.items() if "test" in files])
def test_a_missing_held_out_file_counts_where_it_is_then_made_of_the_training_file(
    gateway: GatewayInMemory, call: Call, run: str
) -> None:
    files, asked = RUNS[run]
    request: JsonObject = {**asked, "serving": {"mode": "none"}}
    before = prepared(gateway, call, files, request, "before")
    for name in HELD_OUT:
        rest = {other: records for other, records in files.items() if other != name}
        after = prepared(gateway, call, rest, request, f"without-{name}")
        assert other_ids(before, after) == other_data(before, after), name


def test_a_field_of_the_request_counts_for_those_stages_whose_training_it_changes(
    gateway: GatewayInMemory, call: Call
) -> None:
    files, request = RUNS["both with held-out files"]
    before = prepared(gateway, call, files, request, "before")
    for number, (name, change) in enumerate(OTHER_REQUESTS.items()):
        after = prepared(gateway, call, files, {**request, **change}, f"other-{number}")
        assert other_ids(before, after) == other_data(before, after), name
