"""Which models a run is compared with, what they answered, and what the reader should know of how they were chosen."""

from typing import TYPE_CHECKING

import msgspec

from customization.answering import model_of, read_answers
from customization.comparison import Comparison, RecordResult
from customization.errors import ArtifactUnreadable, ResourceNotFound
from customization.evaluation import BASE, COMPARE_WITH, CUSTOM, IN_USE, Prediction
from customization.formats import TestRecord
from customization.json_types import JsonObject
from customization.model_in_use import read_in_use
from customization.prepared import read_profile
from customization.runs import Plan, read_plan
from customization.texts import Sentence

if TYPE_CHECKING:
    from customization.gateway import Gateway


class Compared(msgspec.Struct, frozen=True):
    """The answers by side, of those sides that have any, and notes for the report."""

    answers: dict[str, list[Prediction]]
    notes: tuple[Sentence, ...]


def predictions_key(run_id: str) -> str:
    """Return where every record's answers and scores are kept."""
    return f"runs/{run_id}/evaluation/predictions.jsonl"


def read_compared(gateway: "Gateway", plan: Plan, records: list[TestRecord]) -> Compared:
    """Return what base model, custom model, model in use and the run of evaluation.compareWith answered."""
    answers = {side: read_answers(gateway, plan, model_of(gateway, plan, side), side) for side in (BASE, CUSTOM)}
    notes = list(_changed_test_set(gateway, plan))
    in_use = read_in_use(gateway, plan.dataset)
    if in_use and in_use.model_name != model_of(gateway, plan, CUSTOM):
        answers[IN_USE] = read_answers(gateway, plan, in_use.model_name, IN_USE)
        if not answers[IN_USE]:
            notes.append(Sentence("note.inUseNotAsked", {"runId": in_use.promoted_run_id}))
    if plan.evaluation.compare_with:
        answers[COMPARE_WITH], note = _answers_of_run(gateway, plan, plan.evaluation.compare_with, records)
        notes.append(note)
    return Compared({side: given for side, given in answers.items() if given}, tuple(notes))


def _answers_of_run(
    gateway: "Gateway", plan: Plan, run_id: str, records: list[TestRecord]
) -> tuple[list[Prediction], Sentence]:
    """Return what the custom model of another run answered to the records that both runs have, and what to know of it.

    A record's id follows from its content, so that the same record has the same id in every run.
    """
    try:
        found = gateway.artifacts.decoded_lines(predictions_key(run_id), RecordResult)
    except (ResourceNotFound, ArtifactUnreadable):
        found = []
    wanted = {record.record_id for record in records}
    answers = [
        msgspec.structs.replace(result.predictions[CUSTOM], side=COMPARE_WITH)
        for result in found
        if result.record_id in wanted and CUSTOM in result.predictions
    ]
    values = {"runId": run_id, "common": str(len(answers)), "records": str(len(records))}
    if not answers:
        return [], Sentence("note.compareWithNothing", values)
    try:
        is_same = read_plan(gateway, run_id).inference == plan.inference
    except (ResourceNotFound, ArtifactUnreadable):
        is_same = False
    return answers, Sentence("note.compareWith" if is_same else "note.compareWithOtherInference", values)


def _changed_test_set(gateway: "Gateway", plan: Plan) -> list[Sentence]:
    """Return a note where the run before this one was measured with other test records."""
    rows = gateway.runs.query("byDataset", "dataset", plan.dataset)
    this = plan.started_at.isoformat()
    earlier = [row for row in rows if str(row["startedAt"]) < this and row.get("testDigest")]
    last = max(earlier, key=lambda row: str(row["startedAt"]), default=None)
    if last is None or last["testDigest"] == read_profile(gateway, plan).test_digest:
        return []
    return [Sentence("note.testSetChanged", {"runId": str(last["runId"])})]


def scores_for_row(comparison: Comparison, test_digest: str) -> JsonObject:
    """Return what the table of runs keeps of a comparison; `history` reads it."""
    metric = comparison.primary.metric if comparison.primary else ""
    kept: JsonObject = {
        "metric": metric,
        "testDigest": test_digest,
        "scores": {
            model.side: _interval(model.scores[metric]) for model in comparison.models if metric in model.scores
        },
        "gains": {difference.side: _interval(difference.gain) for difference in comparison.differences},
    }
    baseline = comparison.difference(comparison.baseline)
    return {**kept, "pairs": baseline.pairs if baseline else 0}


def _interval(interval: msgspec.Struct) -> JsonObject:
    value: JsonObject = msgspec.json.decode(msgspec.json.encode(interval))
    return value
