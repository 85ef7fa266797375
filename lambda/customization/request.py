"""The run request: what a person writes into run.json or the Step Functions console, and how its mistakes are named."""

import difflib
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from customization.errors import InvalidRunRequest
from customization.identity import OWN_TAGS
from customization.json_types import Json, JsonObject
from customization.problems import MESSAGE_BYTES
from customization.settings import Defaults
from customization.shapes import FORMAT_KEYS, kind_of
from customization.texts import Language, Sentence, one_line, read_language, say, wording

DATASET = r"[a-z0-9](-?[a-z0-9]){0,29}"
RUN_ID = rf"{DATASET}-[0-9a-f]{{10}}"
LONGEST_KEEP_HOURS = 720
# TooManyTagsException: 50 tags a resource, and four are this project's.
MOST_TAGS = 46
# Bedrock's whole numbers have 32 bits; nobody spends a million dollars on a run.
LARGEST_NUMBER = 2**31 - 1
LARGEST_BUDGET_USD = 1_000_000
# Amazon Bedrock API, CreateModelCustomizationJob
LONGEST_IDENTIFIER = 2_048
# Amazon Bedrock Runtime API, InferenceConfiguration
MOST_STOP_SEQUENCES = 2_500
_MOST_PROBLEMS = 50
_LONGEST_QUOTE = 80
_MOST_DIGITS = 20

CustomizationType = Literal["FINE_TUNING", "CONTINUED_PRE_TRAINING"]
ServingMode = Literal["auto", "on-demand", "provisioned", "none"]
UnknownPriceItem = Literal[
    "training", "baselineAnswers", "customAnswers", "provisionedThroughput", "customModelStorage"
]
Metric = Literal["exactMatch", "contains", "tokenF1", "rougeL", "chrF", "labelAccuracy", "jsonValid", "jsonMatch"]
DataFile = Literal["train.jsonl", "pretrain.jsonl", "validation.jsonl", "test.jsonl"]
_TYPES = get_args(CustomizationType)
_NUMBER = {"anyOf": [{"type": "number"}, {"type": "string"}]}
_TAG_KEY = re.compile(r"[a-zA-Z0-9\s._:/=+@-]{1,128}", re.ASCII)
_TAG_VALUE = re.compile(r"[a-zA-Z0-9\s._:/=+@-]{0,256}", re.ASCII)


class _RefusedError(ValueError):
    """What is wrong within one field: pairs of a path below it, such as `.epochCount`, and a sentence."""

    def __init__(self, *problems: tuple[str, Sentence]) -> None:
        super().__init__("\n".join(f"{path}: {say(sentence, 'en')}" for path, sentence in problems))
        self.problems = problems


def _instead_of(value: object, expected: str) -> Sentence:
    """Return "found …; expected …", the latter by its code."""
    values, terms = _found(value)
    return Sentence("request.found", values, {**terms, "expected": expected})


def plain_number(value: object) -> str:
    """Return a hyperparameter's value as Bedrock takes it: a decimal string without exponent, such as "0.00001".

    Raises ValueError where `value` is neither a number nor the text of one.
    """
    try:
        number = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise _RefusedError(("", _instead_of(value, "expected.plainNumber")))
    return format(number.normalize(), "f")


def _plain_values(values: Mapping[str, object], path: str = "") -> dict[str, str]:
    """Return every value as text; raises ValueError naming each one that is no number."""
    plain: dict[str, str] = {}
    problems: list[tuple[str, Sentence]] = []
    for name, value in values.items():
        try:
            plain[name] = plain_number(value)
        except _RefusedError as error:
            problems += [(f"{path}.{name}", sentence) for _, sentence in error.problems]
    if problems:
        raise _RefusedError(*problems)
    return plain


def _read_hyper_parameters(value: object) -> object:
    if not isinstance(value, dict):
        raise _RefusedError(("", _instead_of(value, "expected.hyperParameters")))
    keyed = [name for name in value if name in _TYPES]
    if not keyed:
        return _plain_values(value)
    if len(keyed) < len(value) or not all(isinstance(inner, dict) for inner in value.values()):
        raise _RefusedError(("", Sentence("request.mixture", {"types": ", ".join(_TYPES)})))
    return {kind: _plain_values(inner, f".{kind}") for kind, inner in value.items()}


def _read_keep(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int | float) and 0 < value <= LONGEST_KEEP_HOURS):
        return value
    values, terms = _found(value)
    raise _RefusedError(("", Sentence("request.keep", {**values, "most": str(LONGEST_KEEP_HOURS)}, terms)))


def _check_tags(tags: dict[str, str]) -> dict[str, str]:
    problems = [(f".{key}", Sentence("request.ownTag")) for key in tags if key in OWN_TAGS]
    problems += [(f".{key}", Sentence("request.awsTag")) for key in tags if key.lower().startswith("aws:")]
    problems += [(f".{key}", _instead_of(key, "expected.tag")) for key in tags if not _TAG_KEY.fullmatch(key)]
    problems += [
        (f".{key}", _instead_of(value, "expected.tag"))
        for key, value in tags.items()
        if not _TAG_VALUE.fullmatch(value)
    ]
    if len(tags) > MOST_TAGS:
        problems.append(("", Sentence("request.mostTags", {"found": str(len(tags)), "most": str(MOST_TAGS)})))
    if problems:
        raise _RefusedError(*problems)
    return tags


def _check_mapping(mapping: dict[str, str]) -> dict[str, str]:
    problems = []
    for key, target in mapping.items():
        if target not in FORMAT_KEYS:
            near = difflib.get_close_matches(target, FORMAT_KEYS, n=1)
            values = {"found": shown(target), "names": ", ".join(FORMAT_KEYS), "near": "".join(near)}
            problems.append((f".{key}", Sentence("request.mappedNear" if near else "request.mapped", values)))
    if problems:
        raise _RefusedError(*problems)
    return mapping


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        field_title_generator=lambda name, _: to_camel(name),
    )


class Subset(_Part):
    """Which part of the training records to train on: a number of them, or a share."""

    records: int | None = Field(
        default=None, ge=1, le=LARGEST_NUMBER, description="so many training records", examples=[200]
    )
    share: float | None = Field(default=None, gt=0, lt=1, description="this share of them", examples=[0.1])


class Serving(_Part):
    """How the custom model is served while it is evaluated, and for how long afterwards."""

    mode: ServingMode = Field(default="auto", description="auto takes on-demand where model, Region and date allow it")
    model_units: int = Field(default=1, ge=1, le=LARGEST_NUMBER, description="model units of a provisioned throughput")
    keep: Annotated[bool | float, BeforeValidator(_read_keep)] = Field(
        default=False,
        description=f"false, or hours after the evaluation (≤ {LONGEST_KEEP_HOURS}), or true where no hour is billed",
        examples=[8],
    )


class Inference(_Part):
    """How every model that is compared is asked."""

    max_tokens: int = Field(default=256, ge=1, le=LARGEST_NUMBER, description="longest answer in tokens")
    temperature: float = Field(default=0.0, ge=0, le=1, description="0 gives the most likely answer")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="nucleus sampling; the model's own default if left out"
    )
    stop_sequences: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), max_length=MOST_STOP_SEQUENCES, description="texts that end an answer", examples=[["\n\n"]]
    )
    system: str = Field(default="", description="system prompt of records that bring none")


class Evaluation(_Part):
    """How the custom model is compared."""

    max_records: int = Field(default=500, ge=1, le=LARGEST_NUMBER, description="at most so many test records are asked")
    minimum_gain: float = Field(default=0.0, ge=0, lt=1, description="better means better by more than this")
    primary_metric: Metric | None = Field(
        default=None, description="the score that decides; chosen from the data if left out", examples=["labelAccuracy"]
    )
    compare_with: str | None = Field(
        default=None,
        pattern=f"^{RUN_ID}$",
        description="a runId whose model is compared too",
        examples=["support-ja-0123456789"],
    )


class RunRequest(_Part):
    """A run request. Its field names are Amazon Bedrock's own where Bedrock has one."""

    dataset: str = Field(pattern=f"^{DATASET}$", description="name of a folder under incoming/")
    action: Literal["run", "estimate", "promote", "rollback", "release"] = Field(
        default="run", description="estimate spends nothing; promote, rollback and release act on earlier runs"
    )
    name: str = Field(default="", max_length=200, description="your own words for this run")
    data: str = Field(
        default="newest",
        pattern=f"^(newest|{RUN_ID})$",
        description="newest, or a runId: its files again",
        examples=["support-ja-0123456789"],
    )
    expect: tuple[DataFile, ...] = Field(
        default=(), description="files that must be in the folder", examples=[["train.jsonl", "test.jsonl"]]
    )
    base_model_identifier: str = Field(max_length=LONGEST_IDENTIFIER, description="a base model of the catalogue")
    customization_type: CustomizationType | None = Field(
        default=None, description="from the files: train.jsonl is fine-tuned on, pretrain.jsonl pre-trained on"
    )
    hyper_parameters: Annotated[
        dict[str, str] | dict[str, dict[str, str]],
        BeforeValidator(_read_hyper_parameters),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [*_NUMBER["anyOf"], {"type": "object", "additionalProperties": _NUMBER}]
                },
            }
        ),
    ] = Field(
        default={},
        description="by name, or keyed by customizationType where a run has two stages",
        examples=[{"epochCount": 4, "learningRate": "0.00002"}],
    )
    subset: Subset | None = Field(
        default=None,
        description="part of the training records; such a run is never promoted",
        examples=[{"records": 200}],
    )
    field_mapping: Annotated[dict[str, str], AfterValidator(_check_mapping)] = Field(
        default={},
        description="keys of your records to those of the format",
        examples=[{"question": "prompt", "answer": "completion"}],
    )
    strip_role_cues: bool = Field(
        default=False, description="take cues such as `User: …` and `Bot:` off, in training, test and questions alike"
    )
    budget_usd: float = Field(gt=0, le=LARGEST_BUDGET_USD, description="this run's budget in US dollars")
    accept_unknown_prices: tuple[UnknownPriceItem, ...] = Field(
        default=(),
        description="items that may be spent on though no source gives their price",
        examples=[["customAnswers"]],
    )
    serving: Serving = Serving()
    promote: Literal["never", "if-better"] = Field(default="never", description="make it the data set's model in use")
    keep_model: Literal["never", "if-better", "always"] = Field(
        default="if-better",
        description="never: the custom model goes with the run; if-better: it goes at once where it is worse and stays "
        "14 days otherwise, also where nothing is decided, and longer while it is in use or one of the best three of "
        "its data set; always: it stays until somebody releases it",
    )
    inference: Inference = Inference()
    evaluation: Evaluation = Evaluation()
    language: Language = Field(description="of the report and the notifications")
    force: bool = Field(default=False, description="train again though this very training has run")
    tags: Annotated[dict[str, str], AfterValidator(_check_tags)] = Field(
        default={},
        description=f"put on every Bedrock resource, at most {MOST_TAGS}",
        examples=[{"cost-center": "4711"}],
    )

    def hyper_parameters_of(self, customization_type: str) -> dict[str, str]:
        """Return what the request sets for one stage."""
        values: dict[str, str] = {}
        for name, value in self.hyper_parameters.items():
            if isinstance(value, str):
                values[name] = value
            elif name == customization_type:
                values.update(value)
        return values


def run_request_schema() -> JsonObject:
    """Return the JSON Schema of a run request; what cdk.json sets a default for is not required."""
    schema: JsonObject = RunRequest.model_json_schema()
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "required": ["dataset"]}


def asked_language(document: Json, defaults: Defaults) -> Language:
    """Return the language in which a request is answered, however wrong the rest of it is."""
    language = document.get("language") if isinstance(document, dict) else None
    return read_language(language) or defaults.language


def parse_request(document: Json, defaults: Defaults) -> RunRequest:
    """Return the run request in `document`, with the defaults of cdk.json where it is silent.

    Raises:
        InvalidRunRequest: naming every problem with the field's path, what was found and what is expected.
    """
    if not isinstance(document, dict):
        problem = Sentence("request.noObject", terms={"found": kind_of(document).code})
        raise InvalidRunRequest(say(problem, defaults.language))
    language = asked_language(document, defaults)
    filled: JsonObject = {
        "baseModelIdentifier": defaults.base_model_identifier,
        "budgetUsd": defaults.budget_usd,
        "language": defaults.language,
        **document,
    }
    try:
        text = json.dumps(filled)
    except (RecursionError, ValueError) as error:  # the latter: a number of thousands of digits
        raise refusal([say(Sentence("request.tooDeep"), language)], language) from error
    try:
        request = RunRequest.model_validate_json(text)
    except ValidationError as error:
        raise refusal(
            [text for problem in error.errors() for text in _describe(problem, language)], language
        ) from error
    problems = _contradictions(request)
    if problems:
        raise refusal([f"{path}: {say(sentence, language)}" for path, sentence in problems], language)
    return request


def refusal(problems: list[str], language: Language) -> InvalidRunRequest:
    """Return the error that lists `problems`, which are in `language` already, a line each, or the first of many.

    What follows the first has room in 8,000 bytes.
    """
    heading = Sentence("request.problem" if len(problems) == 1 else "request.problems", {"count": f"{len(problems):,}"})
    lines = [f"- {one_line(text)}" for text in problems[:_MOST_PROBLEMS]]
    ends = accumulate(len(line.encode()) for line in lines)
    listed = [
        line for place, (line, end) in enumerate(zip(lines, ends, strict=True)) if not place or end <= MESSAGE_BYTES
    ]
    if len(problems) > len(listed):
        more = Sentence("request.more", {"count": f"{len(problems) - len(listed):,}"})
        listed.append(f"- {say(more, language)}")
    return InvalidRunRequest("\n".join((say(heading, language), *listed)))


def _contradictions(request: RunRequest) -> list[tuple[str, Sentence]]:
    """Return what is wrong between fields that are right by themselves."""
    problems = []
    if request.subset and (request.subset.records is None) == (request.subset.share is None):
        problems.append(("subset", Sentence("request.subset")))
    if request.action == "promote" and request.data == "newest":
        problems.append(("data", Sentence("request.whichRun")))
    if request.data != "newest" and request.data.rpartition("-")[0] != request.dataset:
        values = {"found": shown(request.data), "dataset": request.dataset}
        problems.append(("data", Sentence("request.otherRun", values)))
    return problems


def _describe(problem: ErrorDetails, language: Language) -> list[str]:
    """Return a line for each thing that is wrong; a validator of this module has the path within and the sentence."""
    path = ".".join(_quoted(str(part)) for part in problem["loc"])
    refused = problem.get("ctx", {}).get("error")
    if isinstance(refused, _RefusedError):
        return [f"{path}{_quoted(inner)}: {say(sentence, language)}" for inner, sentence in refused.problems]
    if problem["type"] == "extra_forbidden":
        return [f"{path}: {say(_unknown_field(problem['loc']), language)}"]
    if problem["type"] == "json_invalid" and "recursion" in problem["msg"]:
        return [say(Sentence("request.tooDeep"), language)]
    if problem["type"] == "json_invalid":
        return [say(Sentence("request.notUnicode", {"reason": problem["msg"]}), language)]
    if problem["type"] == "missing":
        return [f"{path}: {say(Sentence('request.noDataset'), language)}"]
    found = problem["input"]
    choices = re.findall("'([^']+)'", problem["msg"]) if problem["type"] == "literal_error" else []
    near = difflib.get_close_matches(found, choices, n=1, cutoff=0.7) if isinstance(found, str) else []
    is_prompt = path.startswith("inference") and isinstance(found, str)
    values, terms = _found(found, is_quoted=not is_prompt)
    values |= {"near": "".join(near), "expected": _expected(problem, path, choices, language)}
    return [f"{path}: {say(Sentence('request.foundNear' if near else 'request.found', values, terms), language)}"]


def _expected(problem: ErrorDetails, path: str, choices: list[str], language: Language) -> str:
    """Return what the field takes; Pydantic's own words where this module has none."""
    if choices:
        named = [f'"{choice}"' for choice in choices]
        return wording("request.or", language).join(part for part in (", ".join(named[:-1]), named[-1]) if part)
    code, bound = _EXPECTED.get(problem["type"], ("", ""))
    code = _PATTERNS.get(path, code)
    if not code:
        return problem["msg"]
    value = problem.get("ctx", {}).get(bound, "")
    return say(Sentence(code, {"bound": plain_number(value) if bound else ""}), language)


# By Pydantic's types of errors: what is expected, and where the error holds the bound
_EXPECTED = {
    "string_type": ("expected.text", ""),
    "tuple_type": ("expected.array", ""),
    "dict_type": ("expected.object", ""),
    "model_type": ("expected.object", ""),
    "bool_type": ("expected.boolean", ""),
    "float_type": ("expected.number", ""),
    "finite_number": ("expected.number", ""),
    "int_type": ("expected.wholeNumber", ""),
    "int_from_float": ("expected.wholeNumber", ""),
    "greater_than_equal": ("expected.atLeast", "ge"),
    "greater_than": ("expected.above", "gt"),
    "less_than_equal": ("expected.atMost", "le"),
    "less_than": ("expected.below", "lt"),
    "too_long": ("expected.fewer", "max_length"),
    "string_too_long": ("expected.shorter", "max_length"),
    "string_too_short": ("expected.longer", "min_length"),
}
_PATTERNS = {"dataset": "expected.dataset", "data": "expected.data", "evaluation.compareWith": "expected.run"}


def _unknown_field(location: tuple[int | str, ...]) -> Sentence:
    *parents, name = map(str, location)
    if "commitment" in name.lower():
        return Sentence("request.commitment")
    fields = _FIELDS[".".join(parents)]
    near = difflib.get_close_matches(name, fields, n=1)
    if near:
        return Sentence("request.unknownNear", {"near": near[0]})
    return Sentence("request.unknownField", {"names": ", ".join(fields)})


_FIELDS = {
    path: [to_camel(name) for name in fields]
    for path, fields in {
        "": RunRequest.model_fields,
        "subset": Subset.model_fields,
        "serving": Serving.model_fields,
        "inference": Inference.model_fields,
        "evaluation": Evaluation.model_fields,
    }.items()
}


def _found(value: object, *, is_quoted: bool = True) -> tuple[dict[str, str], dict[str, str]]:
    """Return what was found as a value or as a term of a sentence.

    What may hold a prompt is told by its kind: what a function raises is in its log, and no log shall have prompts.
    """
    if is_quoted and not isinstance(value, list | dict):
        return {"found": shown(value)}, {}
    return {}, {"found": kind_of(value).code}


def shown(value: object) -> str:
    """Return a short quotation of a JSON value on one line."""
    try:
        return _quoted(json.dumps(value, ensure_ascii=False, default=str))
    except (RecursionError, ValueError):
        return "..."


def _quoted(text: str) -> str:
    """Return the beginning of `text` with escapes for what moves a cursor, or looks like a space and is none."""
    escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:_LONGEST_QUOTE])
    return escaped if len(text) <= _LONGEST_QUOTE else f"{escaped}..."
