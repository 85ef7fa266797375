"""How near an answer comes to its reference: every score is between 0 and 1, higher is better.

Texts are compared after NFKC and case folding. Words are the units, but scripts written without spaces between words
(Japanese, Chinese) and Korean, whose particles stick to the words, are compared character by character. chrF looks at
characters in every script, so it decides where words cannot be told apart (Thai, Lao, Burmese, Khmer).
"""

import json
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import cast

from customization.comparison import PrimaryMetric
from customization.json_types import Json
from customization.texts import Sentence

EXACT_MATCH = "exactMatch"
CONTAINS = "contains"
TOKEN_F1 = "tokenF1"  # noqa: S105 - the name of a score
ROUGE_L = "rougeL"
CHRF = "chrF"
LABEL_ACCURACY = "labelAccuracy"
JSON_VALID = "jsonValid"
JSON_MATCH = "jsonMatch"
METRICS = (EXACT_MATCH, CONTAINS, TOKEN_F1, ROUGE_L, CHRF, LABEL_ACCURACY, JSON_VALID, JSON_MATCH)

# A label is short, and each occurs several times: else the references are answers, not labels.
_MAX_LABELS = 20
_MAX_LABEL_CHARACTERS = 40
_MIN_RECORDS_PER_LABEL = 3
# Beyond these an answer is not searched for each of them.
_MOST_SOUGHT_LABELS = 100
_JSON_SHARE = 0.95
# In units: words, or half as many characters again in scripts that are compared by character.
_EXACT_UNITS = 3
_SHORT_UNITS = 20
_CHARACTERS_PER_WORD = 2.5

_BY_CHARACTER = (
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U000323af"
)
_UNIT = re.compile(f"[{_BY_CHARACTER}]|[^\\W{_BY_CHARACTER}]+")
_CHARACTER_UNIT = re.compile(f"[{_BY_CHARACTER}]")
# Thai and Lao, Burmese, Khmer
_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


# Each text is looked at by several metrics, one text after the other.
@lru_cache(maxsize=16)
def normalized(text: str) -> str:
    """Return `text` in NFKC, case folded, its white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


@lru_cache(maxsize=16)
def units(text: str) -> tuple[str, ...]:
    """Return the words of `text`, or characters where the script has no words; punctuation counts only when alone."""
    folded = normalized(text)
    return tuple(_UNIT.findall(folded) or folded.replace(" ", ""))


def exact_match(answer: str, reference: str) -> float:
    """Return 1 when both are the same text."""
    return float(normalized(answer) == normalized(reference))


def contains(answer: str, reference: str) -> float:
    """Return 1 when the units of the reference occur in the answer in one piece, at unit borders."""
    return float(_joined(units(reference)) in _joined(units(answer)))


def token_f1(answer: str, reference: str) -> float:
    """Return the F1 of the units in common, whatever their order."""
    ours, theirs = units(answer), units(reference)
    return _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L: the F1 of the longest common subsequence of units (Lin 2004, with beta 1)."""
    ours, theirs = units(answer), units(reference)
    return _f1(_longest_common(ours, theirs), len(ours), len(theirs))


def _longest_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, with a bit for each of ours (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, unit in enumerate(ours):
        places[unit] = places.get(unit, 0) | 1 << place
    every = rest = (1 << len(ours)) - 1
    for unit in theirs:
        matched = rest & places.get(unit, 0)
        rest = (rest + matched | rest - matched) & every
    return len(ours) - rest.bit_count()


def chrf(answer: str, reference: str) -> float:
    """Return chrF of the normalized texts: the F score, recall counting most, of runs of one to six characters."""
    # Whoever only reads a comparison, such as the report, does without numpy.
    from customization.chrf import sentence_chrf  # noqa: PLC0415

    return sentence_chrf(normalized(answer), normalized(reference))


def signatures(metrics: Collection[str]) -> dict[str, str]:
    """Return metric → the signature of its settings and version, for those of `metrics` that a library defines."""
    if CHRF not in metrics:
        return {}
    from customization.chrf import SIGNATURE  # noqa: PLC0415  as above

    return {CHRF: SIGNATURE}


def json_valid(answer: str, _reference: str) -> float:
    """Return 1 when the answer is one JSON value, inside a Markdown fence or not."""
    return float(_parsed(answer) is not _NOTHING)


def json_match(answer: str, reference: str) -> float:
    """Return the F1 of the fields, by path and value: 1 when both are the same JSON, 0 when the answer is not JSON."""
    ours, theirs = _parsed(answer), _parsed(reference)
    if ours is _NOTHING or theirs is _NOTHING:
        return 0.0
    left, right = Counter(_fields(cast("Json", ours))), Counter(_fields(cast("Json", theirs)))
    return _f1(sum((left & right).values()), left.total(), right.total())


def named_label(answer: str, labels: Collection[str]) -> str:
    """Return the one of the normalized `labels` that the answer is, or else the only one it contains, or else ''.

    Of more than 100 labels none is looked for inside the answer.
    """
    if normalized(answer) in labels:
        return normalized(answer)
    if len(labels) > _MOST_SOUGHT_LABELS:
        return ""
    said = _joined(units(answer))
    found = [label for label in labels if _label_key(label) in said]
    # "not good" contains "good" as well: the longest is meant when it covers the others.
    longest = max(found, key=len, default="")
    covered = [label for label in found if label != longest and _label_key(label) in _label_key(longest)]
    is_unambiguous = len(covered) == len(found) - 1 and _label_key(longest) not in map(_label_key, covered)
    return longest if is_unambiguous else ""


def label_set(references: Sequence[str]) -> tuple[str, ...]:
    """Return the normalized labels when the references are few, short and repeated, or else ()."""
    labels = sorted({normalized(reference) for reference in references})
    is_classification = (
        1 < len(labels) <= _MAX_LABELS
        and len(references) >= _MIN_RECORDS_PER_LABEL * len(labels)
        and all(0 < len(label) <= _MAX_LABEL_CHARACTERS for label in labels)
    )
    return tuple(labels) if is_classification else ()


def choose_primary_metric(references: Sequence[str]) -> PrimaryMetric:
    """Return the metric that suits what the references look like, with the reason; `references` must not be empty."""
    labels = label_set(references)
    if labels:
        return PrimaryMetric(LABEL_ACCURACY, Sentence("metric.labels", {"labels": str(len(labels))}))
    if sum(_is_json_document(reference) for reference in references) >= _JSON_SHARE * len(references):
        return PrimaryMetric(JSON_MATCH, Sentence("metric.json"))
    if _is_without_spaces(references):
        return PrimaryMetric(CHRF, Sentence("metric.noSpaces"))
    length = statistics.median(_words(reference) for reference in references)
    values = {"words": f"{length:.0f}"}
    if length <= _EXACT_UNITS:
        return PrimaryMetric(EXACT_MATCH, Sentence("metric.veryShort", values))
    if length <= _SHORT_UNITS:
        return PrimaryMetric(TOKEN_F1, Sentence("metric.short", values))
    return PrimaryMetric(ROUGE_L, Sentence("metric.long", values))


def metrics_for(references: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that mean something for these references, in a fixed order.

    chrF is left out for labels, JSON and the shortest answers, where it tells no more than the others and costs most.
    """
    chosen = [EXACT_MATCH, CONTAINS, TOKEN_F1, ROUGE_L]
    if references and choose_primary_metric(references).metric in {TOKEN_F1, ROUGE_L, CHRF}:
        chosen.append(CHRF)
    if label_set(references):
        chosen.append(LABEL_ACCURACY)
    if any(_is_json_document(reference) for reference in references):
        chosen += [JSON_VALID, JSON_MATCH]
    return tuple(chosen)


def score(answer: str, reference: str, metrics: Sequence[str], labels: Collection[str] = ()) -> dict[str, float]:
    """Return metric → score of one answer; `labels` are those of `label_set`, needed for labelAccuracy alone."""
    scores: dict[str, float] = {}
    for metric in metrics:
        if metric == LABEL_ACCURACY:
            scores[metric] = float(named_label(answer, labels) == normalized(reference))
        else:
            scores[metric] = _SCORES[metric](answer, reference)
    return scores


_SCORES: Mapping[str, Callable[[str, str], float]] = {
    EXACT_MATCH: exact_match,
    CONTAINS: contains,
    TOKEN_F1: token_f1,
    ROUGE_L: rouge_l,
    CHRF: chrf,
    JSON_VALID: json_valid,
    JSON_MATCH: json_match,
}
_NOTHING = object()


def _f1(common: int, answered: int, expected: int) -> float:
    if not answered and not expected:
        return 1.0
    return 2 * common / (answered + expected)


def _joined(parts: Sequence[str]) -> str:
    return "\0" + "\0".join(parts) + "\0"


@lru_cache(maxsize=_MOST_SOUGHT_LABELS)
def _label_key(label: str) -> str:
    return _joined(units(label))


def _is_without_spaces(references: Sequence[str]) -> bool:
    """Return whether most characters are of scripts without spaces that are not compared by character."""
    text = "".join(references)
    return 2 * sum(1 for _ in _WITHOUT_SPACES.finditer(text)) > len(text)


def _words(text: str) -> float:
    parts, characters = units(text), len(_CHARACTER_UNIT.findall(normalized(text)))
    return len(parts) - characters + characters / _CHARACTERS_PER_WORD


def _parsed(text: str) -> object:
    """Return the JSON value that `text` is, or _NOTHING; NaN and Infinity are no JSON."""
    fenced = _FENCE.match(text)
    try:
        return cast("object", json.loads(fenced.group(1) if fenced else text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError):
        return _NOTHING


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _is_json_document(text: str) -> bool:
    return isinstance(_parsed(text), dict | list)


def _fields(value: Json) -> list[tuple[tuple[str, ...], str, str | float | None]]:
    """Return the leaves as (path, type, value): an empty container is a leaf, strings are normalized, 1 is 1.0."""
    leaves: list[tuple[tuple[str, ...], str, str | float | None]] = []
    pending: list[tuple[tuple[str, ...], Json]] = [((), value)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, dict) and item:
            pending += [((*path, key), member) for key, member in item.items()]
        elif isinstance(item, list) and item:
            pending += [((*path, f"[{index}]"), member) for index, member in enumerate(item)]
        elif isinstance(item, str):
            leaves.append((path, "str", normalized(item)))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            leaves.append((path, "number", item))
        else:
            leaves.append((path, type(item).__name__, str(item)))
    return leaves
