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
}


def run_sample(pipeline: Pipeline, name: str) -> JsonObject:
    """Run a sample as it is, with a budget that is enough for it, and return its settlement."""
    files = {file.name: file.read_bytes() for file in (ROOT / "samples" / name).iterdir()}
    asked = as_object(json.loads(files["run.json"]), "run.json")
    files["run.json"] = data.request(**{**asked, "acceptUnknownPrices": data.ACCEPTED})
    execution = pipeline.run(files, name)
    assert execution.outcome.status == "SUCCEEDED", execution.outcome.cause
    return as_object(pipeline.document(execution, "report.json")["settlement"], "settlement")


def quantities(settlement: JsonObject, which: str) -> dict[str, float]:
    """Return what was estimated or used of each item that is billed by tokens, by the ledger's names."""
    sums: dict[str, float] = {}
    for entry in as_list(settlement["items"], "items"):
        item = as_object(entry, "item")
        part = "" if item["name"] == "training" else str(item["part"])
        billed_as = ITEMS.get((str(item["name"]), part))
        if billed_as is not None:
            sums[billed_as] = sums.get(billed_as, 0.0) + float(str(item[which]))
    return sums


@pytest.mark.parametrize(
    ("name", "day"), [("support-ja", TODAY), ("support-en", TODAY), ("handbook-ja", THEN), ("tutorial-titan", THEN)]
)
def test_the_ledger_is_within_five_percent_of_the_estimate_and_the_settlement(
    deploy: Deploy, name: str, day: date
) -> None:
    with deploy(day) as pipeline:
        pipeline.forget()
        settlement = run_sample(pipeline, name)
        billed = pipeline.billed()
        used = quantities(settlement, "actualQuantity")
        assert used.keys() == {item for item in billed if item.endswith("Tokens")}
        for item, quantity in used.items():
            assert billed[item][0] == pytest.approx(quantity, rel=NEAR if item == "trainingTokens" else 1e-6), item
        estimated = quantities(settlement, "estimatedQuantity")
        assert billed["trainingTokens"][0] == pytest.approx(estimated["trainingTokens"], rel=NEAR)
        # Storage is estimated for a month, which has hardly begun
        stored = sum(
            float(str(item["actualUsd"]))
            for item in (as_object(entry, "item") for entry in as_list(settlement["items"], "items"))
            if item["name"] == "customModelStorage"
        )
        paid = sum(usd for item, (_, usd) in billed.items() if item != "storage")
        assert paid == pytest.approx(float(str(settlement["actualUsd"])) - stored, rel=NEAR, abs=1e-6)
        assert paid == pytest.approx(float(str(settlement["estimatedUsd"])) - stored, rel=NEAR, abs=1e-6)
