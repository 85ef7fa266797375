"""The report page."""

import ast
import json
import re
import string
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it publishes no types

from customization import money, report
from customization.catalogue import State, load_catalogue
from customization.charts import Captions, bar_chart, line_chart
from customization.comparing import compare, not_compared, score_records
from customization.comparison import Comparison, ComparisonSettings, Confusion
from customization.evaluation import SIDES, Prediction
from customization.formats import TestRecord, Turn
from customization.inference import InferenceSettings, build_question
from customization.problems import Problem
from customization.profile import (
    CompletionShare,
    FileProfile,
    LengthBin,
    LengthQuantiles,
    PreparedFile,
    Profile,
    Sample,
    TokenEstimate,
)
from customization.report import FailureReport, FileReport, ReportData, ResourceReport, StageReport, TimelineEntry
from customization.scoring import METRICS
from customization.texts import LANGUAGES, Sentence, load_texts
from customization.training_metrics import read_training_metrics
from customization.verdict import Verdict
from docs.render.report_schema import report_schema, schema_text

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = Path(report.__file__).parent
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{ 7*7 }}"
ARN = "arn:aws:bedrock:us-east-1:123456789012:"
NOVA = "amazon.nova-micro-v1:0:128k"
TITAN = "amazon.titan-text-express-v1:0:8k"
MINIMAL = ReportData(run_id="support-ja-0123456789", dataset="support-ja", state="succeeded")


class Page(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open[-1:]:
            self.text += data

    def ids(self) -> set[str]:
        return {value for tag, name, value in self.attributes if name == "id" and tag == "section"}


def comparison(text: str = "an answer", *, gain: int = 6) -> Comparison:
    words = [f"word{number}" for number in range(12)]
    records = [
        TestRecord(f"r{number}", (Turn("user", text),), " ".join(words), category=f"{text} {number % 2}")
        for number in range(40)
    ]
    base = [Prediction(record.record_id, "base", f"{text} {' '.join(words[:4])}") for record in records]
    custom = [
        Prediction(record.record_id, "custom", f"{text} {' '.join(words[: 4 + gain])}", latency_ms=4.0)
        for record in records
    ]
    custom[3] = Prediction("r3", "custom", error=f"RequestRejected: {text}")
    compared = compare(score_records(records, {"base": base, "custom": custom}), ComparisonSettings())
    labels = (text, "other label")
    return msgspec.structs.replace(
        compared,
        against_in_use=Sentence("reason.noBaseline"),
        signatures={"chrF": text},
        confusions=(Confusion("custom", labels, ((7, 1, 0), (0, 3, 2))),),
    )


def profile(text: str) -> Profile:
    tokens = TokenEstimate(900, 1000, 1100)
    sample = Sample(40, 4000, {"latin": 0.75, "japanese": 0.25}, 200, 150, compared=40, similar=3)
    file = FileProfile(
        name=text,
        format="prompt_completion",
        records=1234,
        characters=5678,
        tokens=tokens,
        length=LengthQuantiles(10, 20, 30),
        histogram=(LengthBin(1, 10, 600), LengthBin(11, 30, 634)),
        counted=1234,
        duplicates=3,
        dropped={"leaked": 2, "subset": 0},
        distinct_prompts=1230,
        distinct_completions=17,
        short_completions=4,
        completions=(CompletionShare(text, 1000, 0.8125),),
        categories={text: 4},
        sample=sample,
    )
    prepared = PreparedFile(text, text, 1230, 99_000, "ab" * 32, tokens, tokens)
    warning = Problem("warning", "code", text, text)
    return Profile(
        files=(file, msgspec.structs.replace(file, name="test.jsonl")),
        prepared={"train": prepared},
        test_records=40,
        test_digest="",
        representativeness=0.625,
        prompts_in_training=5,
        warnings=(warning,),
        notes=(),
    )


def estimated_for(model: str) -> money.Estimate:
    usage = money.Usage(
        model=model,
        region="us-east-1",
        training=(
            money.TrainingUsage("FINE_TUNING", 480_000, 3),
            money.TrainingUsage("CONTINUED_PRE_TRAINING", None, 1),
        ),
        baseline=money.AnswersUsage(24_000, 18_000),
        serving_mode="provisioned",
        serving_hours=1.5,
        stored_models=1,
    )
    return money.estimate(usage, money.load_prices(), NOW)


def trained(model: str) -> StageReport:
    losses = "step_number,epoch_number,training_loss\n" + "".join(f"{s},{s // 50},{3 / (s + 1)}\n" for s in range(100))
    metrics = read_training_metrics(losses.encode(), b"step_number,epoch_number,validation_loss\n49,0,1\n99,1,1.5\n")
    return StageReport(
        customization_type="FINE_TUNING",
        training_id="0123456789",
        base_model=model,
        hyper_parameters={"epochCount": "2"},
        job_name="dev-0a1b2c3d-0123456789-1",
        job_arn=f"{ARN}model-customization-job/{model}/abcdef123456",
        model_arn=f"{ARN}custom-model/{model}/abcdef123456",
        metrics=metrics,
    )


def full(text: str = "an answer", language: Literal["en", "ja"] = "en", model: str = NOVA) -> ReportData:
    base, estimated = load_catalogue().find(model), estimated_for(model)
    return ReportData(
        run_id="support-ja-0123456789",
        dataset="support-ja",
        state="succeeded",
        language=language,
        is_rehearsal=True,
        name=text,
        region="us-east-1",
        base_model=model,
        started_at=NOW,
        ended_at=NOW + timedelta(hours=3, minutes=5),
        comparison=comparison(text),
        stages=(trained(model), StageReport(customization_type="FINE_TUNING", training_id="1", base_model=text)),
        profile=profile(text),
        execution_arn="arn:aws:states:us-east-1:123456789012:execution:Customization:first",
        request={"dataset": "support-ja", "inference": {"maxTokens": 256, "system": text}, "keep": False},
        estimate=estimated,
        settlement=money.settle(estimated, estimated),
        resources=(
            ResourceReport(name=text, kind="provisioned", state="released", hourly_usd=20.5),
            ResourceReport(name="model", kind="model", state="kept", until=NOW + timedelta(days=14)),
        ),
        timeline=(TimelineEntry(NOW, "PlanRun", text),),
        files=(FileReport("incoming/support-ja/train.jsonl", "v1", 12_345, "ab" * 32),),
        notes=(text,),
        call=report.call_as_python(
            build_question(base, f"{ARN}custom-model-deployment/abcdef123456", _record(text), InferenceSettings()),
            "us-east-1",
        ),
    )


def _record(text: str) -> TestRecord:
    return TestRecord("r0", (Turn("user", text),), "")


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_script() -> None:
    html = report.render_report(full())
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "iframe", "img", "object", "use", "image"} & set(page.tags)
    assert not [
        item for item in page.attributes if item[1] in {"src", "href", "xlink:href"} or item[1].startswith("on")
    ]
    assert not re.search(r"url\(|@import|//[a-z]+\.", re.sub(r"http://www\.w3\.org/\S+", "", html))
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert ("meta", "content", policy) in page.attributes


def test_every_section_is_there_when_everything_is_known() -> None:
    page = Page(report.render_report(full()))
    assert page.ids() == {
        "notes", "scores", "answers", "categories", "confusion", "examples", "training", "data", "cost", "resources",
        "timeline", "request", "lineage", "call",
    }  # fmt: skip


def test_data_is_escaped_wherever_it_stands() -> None:
    plain, hostile = Page(report.render_report(full("text"))), Page(report.render_report(full(EVIL)))
    assert sorted(plain.tags) == sorted(hostile.tags)
    assert hostile.text.count("<script>alert(1)</script>") > 20
    assert "49" not in "".join(re.findall(r"on=.alert\(2\)>&\"'(.{0,12})", hostile.text))


@pytest.mark.parametrize("state", ["succeeded", "failed", "estimated"])
def test_a_run_of_which_only_its_names_are_known_has_a_page(state: Literal["succeeded", "failed", "estimated"]) -> None:
    page = Page(report.render_report(msgspec.structs.replace(MINIMAL, state=state)))
    assert "support-ja-0123456789" in page.text
    assert page.ids() == set()


@pytest.mark.parametrize(
    "field", [name for name in ReportData.__struct_fields__ if name not in {"run_id", "dataset", "state"}]
)
def test_any_part_may_be_missing(field: str) -> None:
    default = getattr(MINIMAL, field)
    Page(report.render_report(msgspec.structs.replace(full(), **{field: default})))


def test_a_failed_run_says_first_what_failed_and_what_to_do() -> None:
    failure = FailureReport(
        "CustomizationJobFailed", "Bedrock could not read the data.", "Check it.", "PollCustomizationJob"
    )
    page = Page(report.render_report(msgspec.structs.replace(MINIMAL, state="failed", failure=failure)))
    assert page.text.index("The run failed at PollCustomizationJob.") < page.text.index("Bedrock could not read")
    assert page.text.index("Check it.") < page.text.index("CustomizationJobFailed")


def test_pre_training_alone_shows_its_losses_and_no_scores() -> None:
    data = msgspec.structs.replace(full(), comparison=not_compared())
    page = Page(report.render_report(data))
    assert "Not compared" in page.text
    assert "scores" not in page.ids()
    assert "training" in page.ids()


def test_a_custom_model_that_answered_nothing_has_a_page_without_scores() -> None:
    record = TestRecord("r0", (Turn("user", "question"),), "answer")
    predictions = {
        "base": [Prediction("r0", "base", "answer")],
        "custom": [Prediction("r0", "custom", error="ServiceUnavailable: the model was lost")],
    }
    lost = compare(score_records([record], predictions), ComparisonSettings())
    page = Page(report.render_report(msgspec.structs.replace(MINIMAL, comparison=lost)))
    assert page.ids() == {"answers"}
    assert "ServiceUnavailable: the model was lost" in page.text


def test_the_verdict_stands_before_everything_else_in_one_sentence() -> None:
    page = Page(report.render_report(full()))
    assert page.text.index("The custom model answers better than the base model") < page.text.index("Scores")


def test_unknown_prices_are_printed_as_unknown_and_not_as_zero() -> None:
    data = full()
    assert data.estimate
    assert "training" in data.estimate.unknown
    page = Page(report.render_report(data))
    assert "No source gives a price for: Training" in page.text
    assert "unknown" in page.text[page.text.index("Item") :]


def test_training_is_marked_as_estimated_where_it_took_place_since_bedrock_does_not_report_its_tokens() -> None:
    data = full()
    assert data.estimate
    marked = "FINE_TUNINGas estimated; Bedrock does not report the tokens it trained on"
    text = Page(report.render_report(data)).text.replace("\n", "")
    assert "Reckoned from use (USD)" in text
    assert (text.count(marked), text.count("as estimated; ")) == (1, 1)
    untrained = tuple(item for item in data.estimate.items if item.name != "training")
    settled = money.settle(data.estimate, msgspec.structs.replace(data.estimate, items=untrained))
    adopted = Page(report.render_report(msgspec.structs.replace(data, settlement=settled)))
    assert "as estimated; " not in adopted.text


def test_the_data_are_told_with_their_diversity_and_how_they_stand_for_the_test() -> None:
    page = Page(report.render_report(full()))
    assert "62.5 % occur in the training records too" in page.text
    assert "5 test prompts occur in training with another completion" in page.text
    for told in ("1,230", "75.0 %", "7.5 %", "81.2 %"):
        assert told in page.text, told
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert any("1-10: 600, 11-30: 634" in label for label in labels)
    assert any("Latin 75%, kana 25%" in label for label in labels)
    assert any("900 - 1,100" in label for label in labels)


def test_a_model_that_is_not_served_any_more_is_asked_by_a_call_that_says_so() -> None:
    data = msgspec.structs.replace(full(), served_arn="arn")
    assert "Nothing serves the model any more" not in Page(report.render_report(data)).text
    assert "Nothing serves the model any more" in Page(report.render_report(full())).text


def test_what_stays_until_somebody_releases_it_has_no_date() -> None:
    endless = ResourceReport(
        name="model", kind="model", state="kept", until=NOW + timedelta(days=3650), is_endless=True
    )
    page = Page(report.render_report(msgspec.structs.replace(MINIMAL, resources=(endless,))))
    assert "until somebody releases it" in page.text
    assert "2036" not in page.text


def test_a_rehearsal_says_so_and_a_real_run_does_not() -> None:
    data = full()
    assert "Rehearsal:" in Page(report.render_report(data)).text
    assert "Rehearsal:" not in Page(report.render_report(msgspec.structs.replace(data, is_rehearsal=False))).text


def test_charts_have_a_name_a_description_and_no_id_twice() -> None:
    html = report.render_report(full())
    page = Page(html)
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert page.tags.count("svg") == len(labels) == 8
    assert any("base model: " in label and "%" in label for label in labels)
    assert not [item for item in page.attributes if item[1] == "id" and item[0] != "section"]


def test_long_series_are_thinned_without_losing_their_ends() -> None:
    points = [(float(step), 1.0 / (step + 1)) for step in range(10_000)]
    short = line_chart(Captions("a", "b"), {"loss": points[:100]})
    long = line_chart(Captions("a", "b"), {"loss": points})
    assert len(long) < 4 * len(short)


def test_a_bar_chart_of_one_value_and_of_odd_labels_is_drawn() -> None:
    chart = bar_chart(
        Captions("<a>", '"b"'), ["<i>&", "非常に長いカテゴリの名前" * 5], {"x": [0.0, 1.0]}, horizontal=True
    )
    assert "<i>" not in chart
    assert 'aria-label="&lt;a&gt;. &quot;b&quot;"' in chart


@pytest.mark.parametrize(("model", "method"), [(NOVA, "client.converse"), (TITAN, "client.invoke_model")])
def test_the_call_to_paste_is_python_that_asks_for_the_very_text(model: str, method: str) -> None:
    html = report.render_report(full(f"{EVIL}\n'''\\", model=model))
    page = Page(html)
    code = page.text[page.text.rindex("import json") :].strip()
    ast.parse(code)
    assert method in code
    assert (
        any(
            isinstance(node, ast.Constant) and isinstance(node.value, str) and EVIL in node.value
            for node in ast.walk(ast.parse(code))
        )
        or EVIL[:20] in code
    )


def test_the_json_is_the_same_data() -> None:
    data = full(EVIL)
    assert msgspec.json.decode(report.report_json(data), type=ReportData) == data


def test_the_json_keeps_to_its_schema_however_much_is_known() -> None:
    validator = Draft202012Validator(report_schema())
    Draft202012Validator.check_schema(report_schema())
    for data in (full(EVIL), MINIMAL, msgspec.structs.replace(MINIMAL, comparison=not_compared())):
        assert not list(validator.iter_errors(json.loads(report.report_json(data))))
    broken = json.loads(report.report_json(full())) | {"stages": "none"}
    assert [error.json_path for error in validator.iter_errors(broken)] == ["$.stages"]


def test_the_schema_in_the_documentation_is_that_of_the_code() -> None:
    written = (PACKAGE.parents[1] / "docs" / "report.schema.json").read_bytes()
    assert json.loads(written) == json.loads(schema_text()), "write it anew: make docs"


def test_english_and_japanese_pages_have_the_same_structure() -> None:
    english, japanese = (
        Page(report.render_report(full(language=language))) for language in get_args(Literal["en", "ja"])
    )
    assert english.tags == japanese.tags
    assert "カスタムモデルの回答はベースモデルより優れています" in japanese.text
    assert ("html", "lang", "ja") in japanese.attributes


def _placeholders(text: str) -> set[str]:
    return {found.group("named") or found.group("braced") for found in string.Template.pattern.finditer(text)}


def test_every_text_exists_in_every_language_with_the_same_places() -> None:
    for code, wordings in load_texts().items():
        assert set(wordings) == set(LANGUAGES), code
        assert all(wordings.values()), code
        assert len({frozenset(_placeholders(wording)) for wording in wordings.values()}) == 1, code
        assert all(string.Template(wording).is_valid() for wording in wordings.values()), code


def _used_codes() -> tuple[set[str], set[str]]:
    """Return the codes that modules and templates name whole, and the families of which they name the beginning."""
    whole: set[str] = set()
    families = set[str]()
    code = re.compile(r"[a-z][A-Za-z]*\.[A-Za-z][A-Za-z-]*")
    known = {name.split(".")[0] for name in load_texts()}
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE / "templates").glob("*.j2")]:
        for quoted in re.findall(r"(?=[\"']([^\"'\n]*)[\"'{])", path.read_text()):
            if (PACKAGE / "templates" / quoted).exists() or quoted.endswith(".csv"):
                continue
            if code.fullmatch(quoted) and quoted.split(".")[0] in known:
                whole.add(quoted)
            elif quoted.endswith(".") and quoted[:-1] in known:
                families.add(quoted[:-1])
    return whole, families


def _family_members() -> set[str]:
    findings = {"overfitting", "divergence", "underTraining"}
    kinds: dict[str, Iterable[str]] = {
        "side": SIDES,
        "verdict": get_args(Verdict),
        "metricName": METRICS,
        "costItem": money.ITEM_NAMES,
        "findingName": findings,
        "resourceKind": get_args(msgspec.structs.fields(ResourceReport)[1].type),
        "resourceState": get_args(msgspec.structs.fields(ResourceReport)[2].type),
        "outcome": ("released", "stopping", "absent", "refused", "handedOver"),
        "ended": ("ABORTED", "TIMED_OUT", "FAILED", "GONE"),
        "endedFix": ("ABORTED", "TIMED_OUT", "FAILED", "GONE"),
        "runState": ("RUNNING", "SUCCEEDED", "ESTIMATED", "FAILED", "ABORTED", "TIMED_OUT", "GONE"),
        "script": ("latin", "japanese", "han", "hangul", "cyrillic", "other"),
        "unit": {row.unit for row in money.load_prices().rows},
        "costPart": ("input", "output", "no commitment", "model in use: input", "model in use: output"),
        "examples": ("best", "worst", "mostChanged"),
        "dropped": ("leaked", "subset", "repeated", "unasked"),
        "reason": (
            *("noTestRecords", "noBaseline", "noAnswers"),
            *("againstInUseBetter", "againstInUseWorse", "againstInUseUndecided"),
        ),
        "runs": ("dataChanged", "dataAdded", "dataLeftOut"),
        "nextStep": ("noTestRecords", "noBaseline", "noAnswers"),
        "lifecycle": get_args(State),
        "spendLess": money.ITEM_NAMES,
        "advice": ("raise", "lower", "raiseTo", "lowerTo"),
    }
    return {f"{family}.{member}" for family, members in kinds.items() for member in members}


def test_no_code_is_without_a_text_and_no_text_without_a_use() -> None:
    whole, families = _used_codes()
    known = set(load_texts())
    assert (whole | _family_members()) - known == set()
    assert known - whole - _family_members() == set()
    assert families


def test_a_fresh_process_renders_the_page_within_a_second_and_a_half_of_processor_time() -> None:
    program = (
        "import sys, time; began = time.process_time();"
        f"sys.path[:0] = {[str(PACKAGE.parent)]!r};"
        "from customization.report import ReportData, render_report;"
        "data = __import__('msgspec').json.decode(sys.stdin.buffer.read(), type=ReportData);"
        "render_report(data); print(time.process_time() - began)"
    )
    seconds = [
        float(
            subprocess.run(  # noqa: S603 - this very interpreter
                [sys.executable, "-c", program], input=report.report_json(full()), capture_output=True, check=True
            ).stdout
        )
        for _ in range(2)
    ]
    assert min(seconds) < 1.5
