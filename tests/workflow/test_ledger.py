"""What the stand-in bills for the samples, priced by itself, is what the pipeline estimated and settled."""

import json
from datetime import date

import pytest

from customization.json_types import JsonObject, as_list, as_object
from rehearsal.synthesis import ROOT
from tests.workflow import data
from tests.workflow.conftest import TODAY, Deploy
from tests.workflow.pipeline import Pipeline

pytestmark = pytest.mark.exhaustive

NEAR = 0.05
THEN = date(2025, 1, 18)
# Bedrock says of answers how many tokens they have, of a training it does not
ITEMS = {
    ("training", ""): "trainingTokens",
    ("baselineAnswers", "input"): "inputTokens",
    ("baselineAnswers", "output"): "outputTokens",
    ("customAnswers", "input"): "customInputTokens",
    ("customAnswers", "output"): "customOutputTokens",
    ("provisionedThroughput", ""): "provisionedThroughput",
    ("customModelStorage", ""): "storage",
}
# The one model with a price for each of its items
PROVISIONED: JsonObject = {
    "baseModelIdentifier": "amazon.nova-2-lite-v1:0:256k",
    "hyperParameters": {"epochCount": 2},
    "serving": {"mode": "provisioned"},
    "budgetUsd": 100,
}


def run_sample(pipeline: Pipeline, name: str, changes: JsonObject) -> JsonObject:
    """Run a sample with a budget that is enough for it, and return its settlement."""
    files = {file.name: file.read_bytes() for file in (ROOT / "samples" / name).iterdir()}
    asked = as_object(json.loads(files["run.json"]), "run.json")
    files["run.json"] = data.request(**{**asked, "acceptUnknownPrices": data.ACCEPTED, **changes})
    execution = pipeline.run(files, name)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    return as_object(pipeline.document(execution, "report.json")["settlement"], "settlement")


def sums(settlement: JsonObject, which: str) -> dict[str, float]:
    """Return a column of the settlement, by the ledger's names of what is billed."""
    found: dict[str, float] = {}
    for entry in as_list(settlement["items"], "items"):
        item = as_object(entry, "item")
        part = str(item["part"]) if item["name"] in {"baselineAnswers", "customAnswers"} else ""
        billed_as = ITEMS[str(item["name"]), part]
        found[billed_as] = found.get(billed_as, 0.0) + float(str(item[which] or 0))
    return found


@pytest.mark.parametrize(
    ("name", "day", "changes"),
    [
        ("support-ja", TODAY, {}),
        ("support-en", TODAY, {}),
        ("support-ja", TODAY, PROVISIONED),
        ("handbook-ja", THEN, {}),
        ("tutorial-titan", THEN, {}),
    ],
    ids=["support-ja", "support-en", "provisioned", "two-stages", "tutorial-titan"],
)
def test_the_ledger_is_within_five_percent_of_the_estimate_and_the_settlement(
    deploy: Deploy, name: str, day: date, changes: JsonObject
) -> None:
    with deploy(day) as pipeline:
        pipeline.forget()
        settlement = run_sample(pipeline, name, changes)
        # Storage is estimated for a month of 30 days
        pipeline.skip_time(days=30)
        billed = pipeline.billed()
    quantities = {item: quantity for item, (quantity, _) in billed.items()}
    used, estimated = sums(settlement, "actualQuantity"), sums(settlement, "estimatedQuantity")
    assert quantities == pytest.approx(used, rel=NEAR)
    answers = {item for item in used if item.endswith("putTokens")}
    assert {item: quantities[item] for item in answers} == pytest.approx({item: used[item] for item in answers})
    certain = quantities.keys() - answers
    assert certain >= {"trainingTokens", "storage"}
    assert ("provisionedThroughput" in certain) == (changes == PROVISIONED or day == THEN)
    for item in certain:
        assert quantities[item] == pytest.approx(estimated[item], rel=NEAR), item
    paid = sum(usd for _, usd in billed.values())
    assert paid == pytest.approx(float(str(settlement["actualUsd"])), rel=NEAR, abs=1e-6)
    assert paid == pytest.approx(float(str(settlement["estimatedUsd"])), rel=NEAR, abs=1e-6)


@pytest.mark.parametrize("fault", ["serving-stuck", "serving-fails", "job-fails-validation"])
def test_what_a_run_that_failed_has_spent_is_what_the_ledger_bills(deploy: Deploy, fault: str) -> None:
    with deploy() as pipeline:
        pipeline.forget()
        pipeline.inject(fault)
        execution = pipeline.run({**pipeline.folder(), "run.json": data.request(**PROVISIONED)})
        assert execution.outcome.status == "FAILED"
        pipeline.pass_time(minutes=31)
        spent = float(str(pipeline.row_of(execution)["spentUsd"]))
        [month] = [row for row in pipeline.rows() if str(row["runId"]).startswith("month#")]
        assert month["committedUsd"] == spent > 0
        pipeline.skip_time(days=30)
        billed = pipeline.billed()
    assert ("provisionedThroughput" in billed) == fault.startswith("serving")
    assert sum(usd for _, usd in billed.values()) == pytest.approx(spent, rel=NEAR)
