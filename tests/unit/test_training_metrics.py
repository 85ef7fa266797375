"""Reading Bedrock's metrics files."""

import math
import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customization.texts import say
from customization.training_metrics import TrainingMetrics, find_metrics_files, perplexity, read_training_metrics

JOB = "runs/x/bedrock/0/model-customization-job-abcdef123456"
STEPS_AN_EPOCH = 50


def training_csv(loss: Callable[[int], float], epochs: int = 3) -> bytes:
    rows = (
        f"{step},{step // STEPS_AN_EPOCH},{loss(step)},{math.exp(min(loss(step), 50))}"
        for step in range(STEPS_AN_EPOCH * epochs)
    )
    return "\n".join(["step_number,epoch_number,training_loss,perplexity", *rows, ""]).encode()


def validation_csv(losses: Sequence[float]) -> bytes:
    rows = (f"{STEPS_AN_EPOCH * (epoch + 1) - 1},{epoch},{loss},1" for epoch, loss in enumerate(losses))
    return "\n".join(["step_number,epoch_number,validation_loss,perplexity", *rows, ""]).encode()


def settling(step: int) -> float:
    return 2 * math.exp(-step / 25) + 0.8


@pytest.mark.parametrize("folder", ["post_fine_tuning_validation", "post_fine_tuning_validation/validation"])
def test_both_layouts_of_the_output_are_found(folder: str) -> None:
    keys = [
        f"{JOB}/training_artifacts/step_wise_training_metrics.csv",
        f"{JOB}/validation_artifacts/{folder}/validation_metrics.csv",
        f"{JOB}/.write_access_check_file.temp",
    ]
    assert find_metrics_files(keys) == (keys[0], keys[1])
    assert find_metrics_files(keys[2:]) == (None, None)


def test_losses_are_read_by_header_whatever_the_order_of_the_columns() -> None:
    metrics = read_training_metrics(
        b"\xef\xbb\xbfperplexity,training_loss,extra,step_number,epoch_number\r\n20.1,3.0,x,0,0\r\n7.4,2.0,y,1,0\r\n",
        b"step_number,epoch_number,validation_loss,perplexity\n1,0,2.5,12.2\n",
    )
    assert [(point.step, point.loss) for point in metrics.training] == [(0, 3.0), (1, 2.0)]
    assert (metrics.first_training_loss, metrics.final_training_loss) == (3.0, 2.0)
    assert metrics.training_perplexity == pytest.approx(math.exp(2.0))
    assert metrics.validation_perplexity == pytest.approx(math.exp(2.5))
    assert [(epoch.epoch, epoch.training_loss, epoch.validation_loss) for epoch in metrics.epochs] == [(1, 2.5, 2.5)]


def test_missing_files_and_the_metrics_of_other_methods_give_no_losses() -> None:
    assert read_training_metrics(None, None) == TrainingMetrics()
    rewards = read_training_metrics(b"step_number,critic/rewards/mean\n0,0.1\n1,0.2\n", None)
    assert rewards.final_training_loss is None
    assert rewards.skipped_rows == 2


def test_rows_without_a_finite_loss_are_counted_and_left_out() -> None:
    metrics = read_training_metrics(
        b"step_number,epoch_number,training_loss\n0,0,nan\n1,0,\n2,0,1e999\n3\n1e300,x,1.5\n", None
    )
    assert metrics.skipped_rows == 4
    assert [point.loss for point in metrics.training] == [1.5]


def test_an_infinite_perplexity_is_not_reported() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) is None


@given(st.binary(), st.binary())
def test_no_content_breaks_the_reader_and_the_result_is_json(training: bytes, validation: bytes) -> None:
    header = b"step_number,epoch_number,training_loss,validation_loss\n"
    metrics = read_training_metrics(header + training, header + validation)
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=TrainingMetrics) == metrics


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats())))
def test_no_numbers_break_the_reader(rows: list[tuple[float, float, float]]) -> None:
    lines = "\n".join(["step_number,epoch_number,training_loss", *(f"{a},{b},{c}" for a, b, c in rows)])
    msgspec.json.encode(read_training_metrics(lines.encode(), None))


def test_a_training_that_settles_gets_no_finding() -> None:
    assert read_training_metrics(training_csv(settling), validation_csv([1.3, 1.1, 1.09])).findings == ()


def test_overfitting_names_the_epoch_at_which_it_began_and_the_epoch_count_to_try() -> None:
    metrics = read_training_metrics(
        training_csv(lambda step: 2 * math.exp(-step / 60) + 0.1, epochs=5),
        validation_csv([1.4, 1.2, 1.3, 1.5, 1.9]),
        {"epochCount": "5"},
    )
    (finding,) = metrics.findings
    assert (finding.kind, finding.epoch) == ("overfitting", 3)
    assert "From epoch 3 on" in say(finding.meaning, "en")
    assert say(finding.advice, "en") == "Set epochCount to 2."


def test_validation_that_rises_with_the_training_loss_is_no_overfitting() -> None:
    metrics = read_training_metrics(training_csv(lambda step: 1 + step / 100), validation_csv([1.2, 1.7, 2.2]))
    assert [finding.kind for finding in metrics.findings] == ["divergence"]


def test_divergence_names_the_epoch_and_a_lower_learning_rate() -> None:
    metrics = read_training_metrics(
        training_csv(lambda step: 2 - step / 60 if step < 60 else 1 + (step - 60) / 20), None, {"learningRate": "0.01"}
    )
    (finding,) = metrics.findings
    assert (finding.kind, finding.epoch) == ("divergence", 2)
    assert say(finding.advice, "en") == "Lower learningRate from 0.01, for example to 0.001."


def test_a_loss_that_is_no_number_any_more_is_divergence() -> None:
    rows = "step_number,epoch_number,training_loss\n0,0,3\n1,1,NaN\n2,1,inf\n"
    (finding,) = read_training_metrics(rows.encode(), None, {"learningRate": "0.1"}).findings
    assert (finding.kind, finding.epoch) == ("divergence", 2)
    assert finding.meaning.code == "finding.notFinite"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("steps", [10, 40, 300])
def test_noise_around_a_settled_loss_gets_no_finding_of_divergence(seed: int, steps: int) -> None:
    noise = random.Random(seed)  # noqa: S311 - test data
    rows = (f"{step},{step * 3 // steps},{1 + noise.gauss(0, 0.2)}" for step in range(steps))
    csv = "\n".join(["step_number,epoch_number,training_loss", *rows])
    assert "divergence" not in [finding.kind for finding in read_training_metrics(csv.encode(), None).findings]


def test_a_flat_loss_is_under_training_and_wants_a_higher_learning_rate() -> None:
    metrics = read_training_metrics(training_csv(lambda step: 3 - step / 10_000), None, {"learningRate": "1e-07"})
    (finding,) = metrics.findings
    assert (finding.kind, finding.epoch) == ("underTraining", 1)
    assert say(finding.advice, "en") == "Raise learningRate from 1e-07, for example to 1e-06."


def test_a_loss_that_still_falls_at_the_end_wants_more_epochs() -> None:
    metrics = read_training_metrics(training_csv(lambda step: 4 * math.exp(-step / 90), epochs=2), None)
    (finding,) = metrics.findings
    assert (finding.kind, finding.epoch) == ("underTraining", 2)
    assert say(finding.advice, "en") == "Raise epochCount from 2, for example to 4."


def test_epochs_that_are_counted_from_1_are_not_shifted() -> None:
    metrics = read_training_metrics(b"step_number,epoch_number,training_loss\n1,1,3\n2,2,2\n", None)
    assert [epoch.epoch for epoch in metrics.epochs] == [1, 2]
