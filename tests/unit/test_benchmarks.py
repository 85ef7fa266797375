"""What the benchmarks reckon from what they have counted."""

from collections import Counter
from datetime import date

import pytest

from benchmarks.__main__ import Figure, _within
from benchmarks.run_cost import FunctionCall, RecordedRun, cost

DAY = date(2026, 11, 22)


def recorded(*calls: FunctionCall, row: int = 100, **requests: int) -> RecordedRun:
    named = Counter({name.replace("_", ":"): count for name, count in requests.items()})
    return RecordedRun(history_events=1, transitions=2, requests=named, calls=calls, log_bytes=10**9, largest_row=row)


def call(memory_mb: int) -> FunctionCall:
    return FunctionCall(function="poll_uploads", memory_mb=memory_mb, processor_seconds=1.0)


def test_a_function_with_less_than_a_processor_takes_that_much_longer_and_costs_as_much() -> None:
    whole, half = recorded(call(1769)), recorded(call(1769 // 2))
    assert half.billed_milliseconds == pytest.approx(2 * whole.billed_milliseconds, rel=0.01)
    assert half.quantities()["functionTime"] == pytest.approx(whole.quantities()["functionTime"], rel=0.01)
    assert recorded(call(3008)).billed_milliseconds == whole.billed_milliseconds


def test_waiting_for_aws_and_for_a_model_is_billed_but_not_what_the_key_does_in_its_course() -> None:
    nothing = recorded(call(1769)).billed_milliseconds
    assert recorded(call(1769), s3_GetObject=20).billed_milliseconds == pytest.approx(nothing + 1000)
    assert recorded(call(1769), bedrock_InvokeModel=8).billed_milliseconds == pytest.approx(nothing + 1000)
    assert recorded(call(1769), kms_Decrypt=1000).billed_milliseconds == nothing


def test_a_write_bills_a_unit_for_each_kilobyte_of_the_row_and_a_read_for_each_four() -> None:
    quantities = recorded(call(512), row=5_000, dynamodb_PutItem=3, dynamodb_GetItem=3).quantities()
    assert (quantities["tableWrites"], quantities["tableReads"]) == (15, 6)


def test_a_price_is_for_as_many_as_its_unit_says() -> None:
    costs = cost(recorded(call(512), s3_PutObject=1000, kms_Decrypt=10_000, sns_Publish=100_000), "us-east-1", DAY)
    assert (costs["objectWrites"], costs["keyRequests"], costs["emails"]) == (0.005, 0.03, 2.0)
    assert costs["stateTransitions"] == pytest.approx(2 * 0.000025)
    assert costs["logs"] == pytest.approx(0.5, rel=0.001)


def test_a_region_without_a_price_is_no_region_without_cost() -> None:
    with pytest.raises(LookupError, match="no row for"):
        cost(recorded(call(512), s3_PutObject=1), "eu-west-1", DAY)


def test_a_figure_above_its_bar_stands_out_and_one_without_a_bar_is_kept() -> None:
    broken = Figure(what="a", ours="3 s", floor="1 s", ratio=3.0, most=2.3)
    assert not broken.is_kept
    assert broken.line() == "| a | 3 s | 1 s | **3.00** | 2.3 |"
    assert Figure(what="a", ours="3 s", floor="1 s", ratio=3.0).is_kept


def test_a_time_that_is_promised_as_such_is_shown_beside_its_bar() -> None:
    assert _within("a", 15.0, 15).is_kept
    assert _within("a", 18.0, 15).line() == "| a | 18.0 s | bar 15 s | **1.20** | 1 |"
