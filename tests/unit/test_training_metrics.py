"""Reading Bedrock's metrics files."""

import math
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from customization.catalogue import HyperParameter, load_catalogue
from customization.charts import Captions, line_chart
from customization.texts import LANGUAGES, say
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
    assert (metrics.first_training_perplexity, metrics.final_training_perplexity) == (20.1, 7.4)
    assert (metrics.first_validation_perplexity, metrics.final_validation_perplexity) == (12.2, 12.2)
    assert metrics.epochs[0].training_perplexity == pytest.approx(math.exp(2.5))
    assert metrics.epochs[0].validation_perplexity == pytest.approx(math.exp(2.5))
    assert metrics.notes == ()
    assert [(epoch.epoch, epoch.training_loss, epoch.validation_loss) for epoch in metrics.epochs] == [(1, 2.5, 2.5)]


def test_a_file_without_perplexity_gets_e_to_the_power_of_the_loss() -> None:
    metrics = read_training_metrics(b" Step_Number , Epoch_Number,Training_Loss \n0,0,3\n1,0,2\n", None)
    assert metrics.first_training_perplexity == pytest.approx(math.exp(3))
    assert metrics.final_training_perplexity == pytest.approx(math.exp(2))
    assert (metrics.first_validation_loss, metrics.first_validation_perplexity) == (None, None)


def test_the_first_and_the_last_step_are_those_whatever_the_order_of_the_rows() -> None:
    metrics = read_training_metrics(
        b"step_number,epoch_number,training_loss\n1,1,2\n0,1,3\n1,0,4\n0,0,5\n10,1,1\n9,1,1.5\n", None
    )
    assert [point.loss for point in metrics.training] == [5, 4, 3, 2, 1.5, 1]


def test_a_file_without_a_column_of_losses_is_named_with_the_columns_that_it_has() -> None:
    metrics = read_training_metrics(b"step_number,critic/rewards/mean\n0,0.1\n", b"")
    (training, validation) = (say(note, "en") for note in metrics.notes)
    assert "no column training_loss; its columns are: step_number, critic/rewards/mean" in training
    assert "no column validation_loss" in validation


def test_a_cell_beyond_the_parsers_limit_is_named_with_its_line() -> None:
    lines = f"step_number,epoch_number,training_loss\n0,0,3\n1,0,{'9' * 200_000}\n2,0,1\n"
    metrics = read_training_metrics(lines.encode(), None)
    assert [point.loss for point in metrics.training] == [3]
    assert "beyond line 2" in say(metrics.notes[0], "en")


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


HEADERS = (
    "step_number",
    "epoch_number",
    "training_loss",
    "validation_loss",
    "perplexity",
    "Epoch_Number ",
    "",
    '"',
    "x",
)
CELLS = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["", "NaN", "-inf", "1e999", "9" * 400, '"', "0x10", "1_0", "\x00", "\uff11", "\ufeff"]),
)


@given(
    st.lists(st.sampled_from(HEADERS), min_size=1, max_size=7),
    st.lists(st.lists(CELLS, max_size=8), max_size=30),
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff", "\n"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_hostile_files_give_losses_or_a_note_and_findings_that_can_be_said(
    header: list[str], rows: list[list[str]], begin: str, end: str
) -> None:
    content = (begin + end.join(",".join(row) for row in [header, *rows])).encode()
    metrics = read_training_metrics(content, content, {"learningRate": "nan", "epochCount": "x"})
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=TrainingMetrics) == metrics
    assert metrics.training or metrics.skipped_rows or metrics.notes
    for sentence in (*metrics.notes, *(part for it in metrics.findings for part in (it.meaning, it.advice))):
        assert all(say(sentence, language) for language in LANGUAGES)


@given(st.binary(), st.binary())
def test_no_content_breaks_the_reader_and_the_result_is_json(training: bytes, validation: bytes) -> None:
    header = b"step_number,epoch_number,training_loss,validation_loss\n"
    metrics = read_training_metrics(header + training, header + validation)
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=TrainingMetrics) == metrics


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats())))
@example([(float(step), 0.0, 0.1) for step in range(300)])
@example([(float(step), 0.0, 5e-324 * step) for step in range(2)])
@example([(9e15 - step, 0.0, 0.1 + step) for step in range(2)])
@example([(float(step), 0.0, sys.float_info.max * (-1) ** (step // 200)) for step in range(400)])
def test_no_numbers_break_the_reader_and_the_chart_of_them(rows: list[tuple[float, float, float]]) -> None:
    lines = "\n".join(["step_number,epoch_number,training_loss", *(f"{a},{b},{c}" for a, b, c in rows)])
    metrics = read_training_metrics(lines.encode(), None)
    msgspec.json.encode(metrics)
    points = [(float(point.step), point.loss) for point in metrics.training]
    with ended_within(seconds=5):
        assert line_chart(Captions("loss", "by step"), {"loss": points}).startswith("<svg")


@contextmanager
def ended_within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError from whatever has not come to its end by then."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


def test_rising_validation_is_no_overfitting_where_nothing_is_known_of_the_training_loss() -> None:
    assert read_training_metrics(None, validation_csv([1.0, 1.5, 2.0])).findings == ()


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


@pytest.mark.parametrize(
    ("hyper_parameters", "bounds", "advice"),
    [
        ({"learningRate": "5e-06"}, (1e-6, 1e-4), "Lower learningRate from 5e-06, for example to 1e-06."),
        ({"learningRate": "1e-06", "batchSize": "8"}, (1e-6, 1e-4), "Raise batchSize from 8, for example to 16."),
        ({"learningRate": "1e-06"}, (1e-6, 1e-4), "The hyperparameters are at the limits of the base model"),
        ({}, None, "Lower learningRate."),
    ],
)
def test_advice_stays_within_what_the_base_model_takes(
    hyper_parameters: dict[str, str], bounds: tuple[float, float] | None, advice: str
) -> None:
    known = [HyperParameter("learningRate", "float", *bounds)] if bounds else []
    rows = "step_number,epoch_number,training_loss\n0,0,3\n1,0,NaN\n"
    (finding,) = read_training_metrics(rows.encode(), None, hyper_parameters, known).findings
    assert say(finding.advice, "en").startswith(advice)


def test_advice_names_the_learning_rate_as_each_base_model_does_and_a_value_that_it_takes() -> None:
    flat = training_csv(lambda step: 3 - step / 10_000)
    for model in load_catalogue().text_models():
        for known in model.hyper_parameters.values():
            (finding,) = read_training_metrics(flat, None, {}, known).findings
            values = finding.advice.values
            if finding.advice.code != "advice.raiseTo":
                assert not any(item.default for item in known)
                continue
            item = next(item for item in known if item.name == values["name"])
            assert item.maximum is None or float(values["try"]) <= item.maximum
            assert item.default is None or float(values["try"]) > item.default


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
