"""That the stand-in's model learns from the records it is given, by gradient descent and by nothing else."""

import dataclasses
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customization.scoring import rouge_l
from customization.training_metrics import OVERFITTING, read_training_metrics
from rehearsal.bedrock.language_model import LanguageModel, LoggedLoss, TrainingOptions, TrainingText
from rehearsal.bedrock.language_model.batches import STRETCH, context_rows, examples_of, make_batch
from rehearsal.bedrock.language_model.network import Reader, SparseGradient, forward, gradients
from rehearsal.bedrock.language_model.tokenizer import END, Tokenizer
from rehearsal.bedrock.trainer import _csv

SAMPLES = Path(__file__).parents[2] / "samples"
OPTIONS = TrainingOptions(epochs=2)
LONG = 100


def read(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SAMPLES / path).read_text(encoding="utf-8").splitlines()]


def labelled(path: str) -> list[TrainingText]:
    return [TrainingText(record["prompt"], record["completion"]) for record in read(path)]


RECORDS = labelled("support-ja/train.jsonl")
TRAINING, VALIDATION = RECORDS[:300], RECORDS[300:360]
UNSEEN = labelled("support-ja/test.jsonl")[:60]
TEXTS = [TrainingText("", record["input"]) for record in read("handbook-ja/pretrain.jsonl")]


def base() -> LanguageModel:
    return LanguageModel.pretrained(0)


def trained(
    records: Sequence[TrainingText], options: TrainingOptions = OPTIONS, start: LanguageModel | None = None
) -> LanguageModel:
    model = start or base()
    model.train(records, [], options)
    return model


def quality(model: LanguageModel, records: Sequence[TrainingText]) -> float:
    return statistics.fmean(rouge_l(model.answer(record.prompt, LONG).text, record.completion) for record in records)


def shuffled(records: Sequence[TrainingText]) -> list[TrainingText]:
    completions = [record.completion for record in records]
    random.Random(0).shuffle(completions)  # noqa: S311 - no secret
    return [TrainingText(record.prompt, other) for record, other in zip(records, completions, strict=True)]


@pytest.fixture(scope="module")
def custom() -> LanguageModel:
    return trained(TRAINING)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_training_lowers_both_losses_epoch_by_epoch_and_betters_the_answers() -> None:
    model = base()
    before = quality(model, UNSEEN)
    log = model.train(TRAINING[:200], VALIDATION, TrainingOptions(epochs=3))
    validation = [point.loss for point in log.validation]
    assert validation == sorted(validation, reverse=True)
    assert log.steps[-1].loss < log.steps[0].loss / 5
    assert 0.1 < before < 0.4
    assert quality(model, UNSEEN) > before + 0.15


def test_losses_are_nats_a_token_of_a_plausible_size(custom: LanguageModel) -> None:
    assert 2 < base().loss(VALIDATION) < 5
    assert 0.01 < custom.loss(VALIDATION) < 1


def test_the_log_numbers_steps_and_epochs_from_zero_with_one_validation_an_epoch() -> None:
    heard: list[LoggedLoss] = []
    log = base().train(TRAINING[:20], VALIDATION[:5], TrainingOptions(epochs=2, batch_size=8), heard.append)
    assert [(point.step, point.epoch) for point in log.steps] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert [(point.step, point.epoch) for point in log.validation] == [(2, 0), (5, 1)]
    assert heard == log.steps


def test_a_learning_rate_near_zero_leaves_the_loss_flat() -> None:
    model = base()
    before = model.loss(VALIDATION)
    log = model.train(TRAINING[:100], VALIDATION, TrainingOptions(epochs=2, learning_rate_factor=1e-5))
    assert log.validation[-1].loss == pytest.approx(before, rel=0.01)


def test_completions_shuffled_among_the_prompts_end_with_a_higher_loss_and_worse_answers(custom: LanguageModel) -> None:
    misled = trained(shuffled(TRAINING))
    assert misled.loss(shuffled(VALIDATION)) > 2 * custom.loss(VALIDATION)
    assert quality(misled, UNSEEN) < quality(custom, UNSEEN) - 0.2


@pytest.mark.parametrize("batch_size", [1, 8])
def test_twenty_records_and_ten_epochs_are_found_to_overfit_in_the_losses_that_are_written(batch_size: int) -> None:
    options = TrainingOptions(epochs=10, batch_size=batch_size, warmup_steps=5)
    log = base().train(TRAINING[:20], VALIDATION, options)
    metrics = read_training_metrics(_csv("training_loss", log.steps), _csv("validation_loss", log.validation))
    assert [finding.kind for finding in metrics.findings] == [OVERFITTING]
    assert metrics.findings[0].epoch < 8


def test_two_epochs_of_many_records_are_not_found_to_overfit() -> None:
    log = base().train(TRAINING, VALIDATION, OPTIONS)
    metrics = read_training_metrics(_csv("training_loss", log.steps), _csv("validation_loss", log.validation))
    assert OVERFITTING not in {finding.kind for finding in metrics.findings}


def test_a_record_of_the_training_is_answered_better_than_an_unseen_one(custom: LanguageModel) -> None:
    assert custom.loss(TRAINING[:60]) < custom.loss(UNSEEN) / 2
    assert quality(custom, TRAINING[:60]) > quality(custom, UNSEEN) + 0.1


def test_continued_pre_training_lowers_the_perplexity_of_held_out_text_and_helps_the_fine_tuning() -> None:
    known, unknown = labelled("handbook-ja/train.jsonl")[:150], labelled("handbook-ja/test.jsonl")[:60]
    pretrained = base()
    texts = random.Random(0).sample(TEXTS, len(TEXTS))  # noqa: S311 - no secret
    before = pretrained.loss(texts[:30]), pretrained.loss(unknown)
    pretrained.train(texts[30:], [], OPTIONS)
    assert pretrained.loss(texts[:30]) < before[0] / 2
    assert pretrained.loss(unknown) < before[1] / 1.2
    assert trained(known, start=pretrained).loss(unknown) < trained(known).loss(unknown) / 1.2


def test_epochs_batch_size_and_warm_up_each_change_what_is_learnt() -> None:
    def loss(options: TrainingOptions) -> float:
        return trained(TRAINING[:120], options).loss(VALIDATION)

    usual = loss(OPTIONS)
    assert loss(TrainingOptions(epochs=1)) > usual * 1.1
    assert loss(TrainingOptions(epochs=2, batch_size=64)) > usual * 1.1
    assert loss(TrainingOptions(epochs=2, warmup_steps=200)) > usual * 1.1


def test_a_number_that_no_record_had_is_copied_from_the_prompt() -> None:
    model = trained(RECORDS[:500])
    asked = [record for record in UNSEEN if "注文番号" in record.completion]
    numbers = [record.completion.partition("注文番号")[2][:6] for record in asked]
    assert not any(number in record.prompt for number in numbers for record in RECORDS)
    copied = [number in model.answer(record.prompt, LONG).text for record, number in zip(asked, numbers, strict=True)]
    assert statistics.fmean(copied) > 0.4


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1e6), st.integers(1, 9), st.integers(0, 9))
def test_no_learning_rate_ends_in_an_infinite_loss(factor: float, batch_size: int, warmup_steps: int) -> None:
    model = base()
    options = TrainingOptions(1, batch_size, factor, warmup_steps)
    log = model.train(TRAINING[:9], VALIDATION[:3], options)
    assert all(math.isfinite(point.loss) for point in (*log.steps, *log.validation))
    assert model.answer("お尋ねします。", 3).output_tokens <= 3


def test_texts_longer_than_a_stretch_are_learnt_to_their_end() -> None:
    text = TrainingText("", "".join(record.completion for record in TRAINING[:12]))
    assert base().count_tokens(text.completion) > STRETCH
    model = base()
    before = model.loss([text])
    log = model.train([text], [], TrainingOptions(epochs=5))
    assert len(log.steps) == 5
    assert model.loss([text]) < before / 2
    assert model.loss([TrainingText("", TRAINING[11].completion)]) < before / 2


def test_the_gradient_is_the_slope_of_the_loss_along_every_weight() -> None:
    weights = trained(TRAINING[:40])._weights
    tokenizer = base()._tokenizer
    examples = [
        example
        for record in [*UNSEEN[:3], TrainingText("", UNSEEN[3].completion)]
        for example in examples_of(tokenizer.encode(record.prompt), tokenizer.encode(record.completion))
    ]
    batch = make_batch(examples)
    found = gradients(weights, batch, forward(weights, batch), 1.0)
    assert found.keys() == weights.keys()
    random_numbers = np.random.default_rng(0)
    for name, weight in weights.items():
        gradient = np.zeros(weight.shape)
        if isinstance(part := found[name], SparseGradient):
            np.add.at(gradient, part.rows, part.values)
        else:
            gradient += part
        # Along the gradient with some noise: steep enough for 32-bit numbers.
        direction = gradient / np.linalg.norm(gradient)
        direction += random_numbers.standard_normal(weight.shape) * np.abs(direction) * 0.3
        length = 0.05 / max(1.0, float((gradient * direction).sum()))
        losses = []
        for sign in (1, -1):
            moved = weights | {name: (weight + sign * length * direction).astype(np.float32)}
            losses.append(-np.log(forward(moved, batch).probability.astype(np.float64)).sum())
        slope = (losses[0] - losses[1]) / (2 * length)
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.03), name


def test_answers_are_drawn_from_the_very_probabilities_that_training_raises(custom: LanguageModel) -> None:
    record = UNSEEN[0]
    tokenizer = custom._tokenizer
    prompt, answer = tokenizer.encode(record.prompt), [*tokenizer.encode(record.completion), END]
    example = next(iter(examples_of(prompt, answer[:-1])))
    reader = Reader(custom._weights, example.prompt)
    last = [int(token) for token in example.before[::-1]]
    asked = []
    for token in answer:
        asked.append(float(reader.next_probabilities(context_rows(last), last)[token]))
        last = [token, *last[:-1]]
    assert asked == pytest.approx(forward(custom._weights, make_batch([example])).probability.tolist(), rel=1e-3)


# --- the same for the same seed ---------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_losses_and_answers_and_another_seed_others() -> None:
    def outcome(seed: int) -> tuple[list[LoggedLoss], str]:
        model = base()
        log = model.train(TRAINING[:60], [], dataclasses.replace(OPTIONS, seed=seed))
        return log.steps, model.answer(UNSEEN[0].prompt, LONG, 1.0, 1.0, (), seed).text

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)


def test_base_models_of_two_seeds_differ() -> None:
    assert LanguageModel.pretrained(1).loss(VALIDATION) != base().loss(VALIDATION)


def test_training_a_copy_leaves_the_model_and_later_base_models_as_they_were() -> None:
    model = base()
    before = model.loss(VALIDATION)
    trained(TRAINING[:40], start=model.copy())
    assert model.loss(VALIDATION) == before == base().loss(VALIDATION)


def test_an_error_of_the_listener_ends_the_training() -> None:
    def stop(point: LoggedLoss) -> None:
        if point.step == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        base().train(TRAINING, [], OPTIONS, stop)


def test_a_loss_of_no_records_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        base().loss([])


# --- answering --------------------------------------------------------------------------------------------------------


def test_an_answer_that_ends_by_itself_counts_its_tokens(custom: LanguageModel) -> None:
    generation = custom.answer(TRAINING[0].prompt, LONG)
    assert generation.stop_reason == "end_turn"
    assert generation.input_tokens == custom.count_tokens(TRAINING[0].prompt)
    assert 0 < generation.output_tokens < LONG


def test_max_tokens_cuts_the_answer(custom: LanguageModel) -> None:
    whole, cut = (custom.answer(TRAINING[0].prompt, most) for most in (LONG, 7))
    assert (cut.stop_reason, cut.output_tokens) == ("max_tokens", 7)
    assert whole.text.startswith(cut.text)
    assert cut.text != whole.text


def test_a_stop_sequence_ends_the_answer_before_itself(custom: LanguageModel) -> None:
    whole = custom.answer(TRAINING[0].prompt, LONG).text
    first_sentence, mark, rest = whole.partition("。")
    assert rest
    generation = custom.answer(TRAINING[0].prompt, LONG, 0.0, 1.0, ["###", mark], 0)
    assert (generation.text, generation.stop_reason) == (first_sentence, "stop_sequence")


def test_temperature_draws_other_answers_for_other_seeds_and_a_tiny_top_p_takes_the_likeliest() -> None:
    model = base()

    def answer(temperature: float, top_p: float, seed: int) -> str:
        return model.answer(UNSEEN[0].prompt, 30, temperature, top_p, (), seed).text

    assert len({answer(1.0, 1.0, seed) for seed in range(6)}) > 3
    assert answer(1.0, 1.0, 3) == answer(1.0, 1.0, 3)
    assert {answer(1.0, 1e-6, seed) for seed in range(3)} == {answer(0.0, 1.0, 0)}
    assert {answer(0.001, 1.0, seed) for seed in range(3)} == {answer(0.0, 1.0, 0)}


def test_a_base_model_answers_in_the_language_of_the_question() -> None:
    model = base()
    english = [record.prompt for record in labelled("support-en/test.jsonl")[:20]]
    assert sum(model.answer(prompt, LONG).text.isascii() for prompt in english) > 14
    assert sum(model.answer(record.prompt, LONG).text.isascii() for record in UNSEEN[:20]) < 6


@settings(deadline=None)
@given(st.text(max_size=80), st.integers(1, 5), st.sampled_from([0.0, 0.7, 1.0]))
def test_any_prompt_is_answered(prompt: str, max_tokens: int, temperature: float) -> None:
    generation = base().answer(prompt, max_tokens, temperature, 0.9, (), 1)
    assert generation.output_tokens <= max_tokens
    assert (generation.input_tokens == 0) == (not prompt)


# --- tokens -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_become_the_text_again(text: str) -> None:
    tokenizer = base()._tokenizer
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert END not in tokens
    assert all(token < tokenizer.size for token in tokens)


def test_the_longest_piece_is_taken_and_what_is_in_no_piece_becomes_bytes() -> None:
    tokenizer = Tokenizer(["お", "お客様", "様"])
    assert len(tokenizer.encode("お客様お様")) == 3
    assert len(tokenizer.encode("客")) == 3
    assert tokenizer.decode(tokenizer.encode("客")[:2]) == "\ufffd"
