"""That the committed samples are what the generator writes, that they can be run, and that they are worth running."""

import json
import random
import re
import statistics
import tomllib
from collections import Counter
from datetime import date

import pytest

from customization.bootstrap import bootstrap_intervals
from customization.catalogue import load_catalogue
from customization.json_types import JsonObject
from customization.request import parse_request
from customization.resolution import ResolvedRequest, resolve
from customization.scoring import ROUGE_L, choose_primary_metric, rouge_l
from customization.settings import Defaults
from rehearsal.bedrock.language_model import LanguageModel, TrainingOptions, TrainingText
from samples.generate import SAMPLES, generated_files

DEFAULTS = Defaults(
    base_model_identifier="amazon.nova-micro-v1:0:128k",
    budget_usd=20,
    monthly_budget_usd=200,
    settle_seconds=60,
    job_start_hours=24,
    job_end_hours=96,
    language="en",
)
FOLDERS = ("support-ja", "support-en", "handbook-ja", "tutorial-titan")
LABELLED = [f"{folder}/{name}.jsonl" for folder in FOLDERS for name in ("train", "test")]
INPUTS = sorted(path.name for path in (SAMPLES / "inputs").glob("*.json"))


def read(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SAMPLES / path).read_text(encoding="utf-8").splitlines()]


def texts(path: str) -> list[TrainingText]:
    return [TrainingText(record["prompt"], record["completion"]) for record in read(path)]


def resolved(document: JsonObject, folder: str, day: date) -> ResolvedRequest:
    files = {path.name for path in (SAMPLES / folder).glob("*.jsonl")}
    request = parse_request({"dataset": folder, **document}, DEFAULTS)
    assert set(request.expect) <= files
    return resolve(request, files=files, catalogue=load_catalogue(), region="us-east-1", today=day)


def day_of(document: JsonObject) -> date:
    return date(2025, 1, 18) if "titan" in str(document.get("baseModelIdentifier")) else date(2026, 11, 22)


def scores(model: LanguageModel, records: list[TrainingText]) -> list[float]:
    return [rouge_l(model.answer(record.prompt, 256).text, record.completion) for record in records]


def test_the_committed_files_are_what_the_generator_writes() -> None:
    written = generated_files()
    for path, data in written.items():
        assert (SAMPLES / path).read_bytes() == data, f"{path}: run python -m samples.generate"
    assert {f"{path.parent.name}/{path.name}" for path in SAMPLES.glob("*/*.jsonl")} == written.keys()


def test_the_samples_are_small_enough_for_a_repository() -> None:
    sizes = [len(data) for data in generated_files().values()]
    assert max(sizes) < 1_000_000
    assert sum(sizes) < 2_500_000


def test_the_main_sample_has_the_promised_number_of_records() -> None:
    assert len(read("support-ja/train.jsonl")) >= 1_200
    assert len(read("support-ja/test.jsonl")) >= 200


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_question_comes_twice_in_a_folder(folder: str) -> None:
    prompts = Counter(
        record["prompt"]
        for path in (SAMPLES / folder).glob("*.jsonl")
        for record in read(f"{folder}/{path.name}")
        if "prompt" in record
    )
    assert prompts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("path", LABELLED)
def test_every_record_is_whole_and_free_of_words_that_a_base_model_reserves(path: str) -> None:
    reserved = {
        word.casefold()
        for model in load_catalogue().models
        for limits in model.limits.values()
        for word in limits.reserved_words
    }
    assert reserved
    for record in read(path):
        assert record.keys() == {"prompt", "completion", "category"}
        assert all(value.strip() == value != "" for value in record.values())
        assert not any(sign in text for text in record.values() for sign in ("{", "}", "。。", "  "))
        assert not any(word in text.casefold() for text in record.values() for word in reserved)


@pytest.mark.parametrize("folder", ["support-ja", "support-en"])
def test_some_words_and_some_pairs_of_product_and_situation_are_only_asked_in_the_test(folder: str) -> None:
    content = tomllib.loads((SAMPLES / "content" / f"{folder}.toml").read_text(encoding="utf-8"))
    train, test = read(f"{folder}/train.jsonl"), read(f"{folder}/test.jsonl")
    held_out = [
        situation["heldOutStatement"].format(product=product["name"], **product)
        for situation in content["situations"]
        for product in content["products"]
    ]
    assert not any(statement in record["prompt"] for statement in held_out for record in train)
    assert sum(statement in record["prompt"] for statement in held_out for record in test) > len(test) / 2
    known = {without_order(record["completion"]) for record in train}
    assert len(test) / 10 < sum(without_order(record["completion"]) not in known for record in test) < len(test) / 2


def without_order(text: str) -> str:
    return re.sub("[A-Z][0-9]{5}", "", text)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_request_of_every_folder_is_accepted_on_a_day_on_which_its_model_is_offered(folder: str) -> None:
    document = json.loads((SAMPLES / folder / "run.json").read_bytes())
    found = resolved(document, folder, day_of(document))
    assert found.serving_mode != "none"
    assert found.stages


def test_the_tutorial_trains_titan_text_express_as_tutorials_do() -> None:
    document = json.loads((SAMPLES / "tutorial-titan" / "run.json").read_bytes())
    found = resolved(document, "tutorial-titan", date(2025, 1, 18))
    assert found.model.base_model_identifier == "amazon.titan-text-express-v1:0:8k"
    (stage,) = found.stages
    assert {name: stage.hyper_parameters[name] for name in ("epochCount", "batchSize", "learningRate")} == {
        "epochCount": "3",
        "batchSize": "8",
        "learningRate": "0.00001",
    }
    assert (found.serving_mode, found.request.serving.model_units) == ("provisioned", 1)
    assert (found.request.inference.max_tokens, found.request.inference.temperature) == (256, 0.7)
    assert (SAMPLES / "tutorial-titan" / "validation.jsonl").is_file()


def test_the_handbook_makes_a_chain_of_two_stages() -> None:
    document = json.loads((SAMPLES / "handbook-ja" / "run.json").read_bytes())
    found = resolved(document, "handbook-ja", date(2025, 1, 18))
    assert [stage.customization_type for stage in found.stages] == ["CONTINUED_PRE_TRAINING", "FINE_TUNING"]


@pytest.mark.parametrize("name", [name for name in INPUTS if name != "list-data-sets.json"])
def test_every_console_input_is_accepted(name: str) -> None:
    document = json.loads((SAMPLES / "inputs" / name).read_bytes())
    resolved(document, document["dataset"], day_of(document))


def test_the_empty_console_input_asks_for_the_list_of_data_sets() -> None:
    assert json.loads((SAMPLES / "inputs" / "list-data-sets.json").read_bytes()) == {}


def test_the_main_sample_teaches_much_but_not_everything_and_nothing_when_its_answers_are_shuffled() -> None:
    train, test = texts("support-ja/train.jsonl")[-600:], texts("support-ja/test.jsonl")
    assert choose_primary_metric([record.completion for record in test]).metric == ROUGE_L
    base = LanguageModel.pretrained(0)
    custom, misled = base.copy(), base.copy()
    completions = [record.completion for record in train]
    random.Random(1).shuffle(completions)  # noqa: S311 - no secret
    wrong = [TrainingText(record.prompt, other) for record, other in zip(train, completions, strict=True)]
    for model, taught in ((custom, train), (misled, wrong)):
        model.train(taught, [], TrainingOptions(epochs=2, warmup_steps=10))
    before, after = scores(base, test), scores(custom, test[::2])
    assert 0.15 < statistics.fmean(before) < 0.35
    assert 0.70 < statistics.fmean(after) < 0.97
    gains = [[new - old] for new, old in zip(scores(misled, test), before, strict=True)]
    (interval,) = bootstrap_intervals(gains, 0)
    assert interval.low <= 0
