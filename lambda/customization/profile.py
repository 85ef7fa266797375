"""What the data files hold, in figures: written to profile.json, read by the estimate and the report."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from customization.formats import RawText, Record
from customization.problems import Problem


class TokenEstimate(msgspec.Struct, frozen=True):
    """Tokens that a text may have: few, likely and many, by the rates of `estimate_tokens`."""

    low: int
    likely: int
    high: int


class LengthQuantiles(msgspec.Struct, frozen=True):
    """Characters of a record, prompt and completion together."""

    p50: int
    p90: int
    max: int


class LengthBin(msgspec.Struct, frozen=True, rename="camel"):
    """How many records have from `least` to `most` characters, both included."""

    least: int
    most: int
    records: int


class CompletionShare(msgspec.Struct, frozen=True, rename="camel"):
    """One of the most frequent completions, as a short excerpt, and its share of all (0 to 1)."""

    text: str
    records: int
    share: float


class Sample(msgspec.Struct, frozen=True, rename="camel"):
    """What was found in a sample of a file's records: the same ones for the same content, whatever its order.

    `scripts`: share of the letters by script (latin, japanese for kana, han, hangul, cyrillic, other). `bigrams` are
    pairs of neighbouring words, or of characters where a script has no spaces. `similar`: how many of the first
    `compared` sampled records nearly repeat another of them; `compared` is 0 when that was not looked for.
    """

    records: int
    characters: int
    scripts: dict[str, float]
    bigrams: int
    distinct_bigrams: int
    compared: int = 0
    similar: int = 0


class FileProfile(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One file as it was uploaded.

    `duplicates`: records that repeat an earlier one of the file. `dropped`: records that were written nowhere, by
    reason: leaked (a held-out file has them), subset, repeated and unasked (of test records). `completions`: the most
    frequent ones, up to ten. Duplicates, distinct texts and completions are counted in the first `counted` records.
    """

    name: str
    format: str
    records: int
    characters: int
    tokens: TokenEstimate
    length: LengthQuantiles
    histogram: tuple[LengthBin, ...] = ()
    counted: int = 0
    duplicates: int
    dropped: dict[str, int]
    distinct_prompts: int = 0
    distinct_completions: int = 0
    short_completions: int = 0
    completions: tuple[CompletionShare, ...] = ()
    categories: dict[str, int] = {}
    sample: Sample | None = None


class PreparedFile(msgspec.Struct, frozen=True, rename="camel"):
    """One file as it was written, from the records of the uploaded file `origin`.

    `sha256` is that of the records' digests in their order: equal for the same records, however their texts are spelt.
    `tokens` are those of whole records, what a training job is billed for once an epoch; `completion_tokens` are part
    of them. `epoch_usd`: what one epoch of training on them costs, None where that is not known or not trained on.
    """

    name: str
    origin: str
    records: int
    bytes: int
    sha256: str
    tokens: TokenEstimate
    completion_tokens: TokenEstimate
    epoch_usd: float | None = None


class Profile(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Everything that is known of a run's data: `files` as uploaded, `prepared` by the name of their sink.

    `test_digest` is the `sha256` of the prepared test.jsonl, empty without test records. `representativeness`:
    share (0 to 1) of the sampled test records' bigrams that the sampled training records have too, None without both.
    `prompts_in_training`: test records whose prompt training has with another completion.
    """

    files: tuple[FileProfile, ...]
    prepared: dict[str, PreparedFile]
    test_records: int
    test_digest: str
    representativeness: float | None = None
    prompts_in_training: int = 0
    warnings: tuple[Problem, ...]
    notes: tuple[Problem, ...]


# Characters of 3 bytes in UTF-8 are nearly all of the Chinese, Japanese and Korean scripts and of those of India and
# Thailand; tokens per such character, and per other one.
_WIDE = (0.45, 0.9, 1.5)
_NARROW = (1 / 6, 0.22, 1 / 3)


_COMMON_SHARE = 0.99
_MOST_BINS = 20


def estimate_tokens(characters: int, utf8_bytes: int, characters_per_token: float = 6.0) -> TokenEstimate:
    """Return how many tokens a text of so many characters and UTF-8 bytes has: low, likely and high.

    Bytes tell scripts apart without looking at characters: a Latin letter has one, a Cyrillic one two, a Japanese one
    three, so a two-byte character counts as half a wide one. Rates, measured in November 2026 on Japanese and English
    customer questions, documentation and arithmetic, and on sentences in other languages, with the public vocabularies
    of Llama 3 (128,000 tokens), Claude 2 (65,000) and a 32,000-token SentencePiece model like Llama 2's: 0.62 to 1.09
    tokens per Japanese, 0.58 to 1.18 per Chinese, Korean or Hindi, 0.30 to 0.52 per Russian character; 2.8 to 5.2
    English characters per token. `low` for narrow characters is the rule of the Bedrock user guide, about 6 characters
    per token, or the model's own `characters_per_token` (AWS's validator for Claude reckons with 3).
    """
    wide = min((utf8_bytes - characters) / 2, characters)
    narrow = characters - wide
    rates = zip(_WIDE, (max(_NARROW[0], 1 / characters_per_token), *_NARROW[1:]), strict=True)
    return TokenEstimate(*(round(wide * wide_rate + narrow * narrow_rate) for wide_rate, narrow_rate in rates))


def most_tokens(utf8_bytes: int) -> float:
    """Return a number that the tokens of a text of so many bytes cannot exceed by any of the estimates."""
    return utf8_bytes * 0.5


class Size(msgspec.Struct, frozen=True, gc=False):
    """Characters and UTF-8 bytes of a record's texts, and of its completion alone (0 for raw text)."""

    characters: int
    utf8_bytes: int
    completion_characters: int
    completion_bytes: int


def size_of(record: Record) -> Size:
    """Return the sizes of a record's texts, roles and keys not counted."""
    if isinstance(record, RawText):
        characters = len(record.text)
        return Size(characters, characters if record.text.isascii() else len(record.text.encode()), 0, 0)
    characters = utf8_bytes = last_characters = last_bytes = 0
    if record.system:
        characters, utf8_bytes = len(record.system), len(record.system.encode())
    for turn in record.turns:
        text = turn.text
        last_characters = len(text)
        last_bytes = last_characters if text.isascii() else len(text.encode())
        characters += last_characters
        utf8_bytes += last_bytes
    return Size(characters, utf8_bytes, last_characters, last_bytes)


class Totals(NamedTuple):
    """The sizes of records added up."""

    records: int = 0
    characters: int = 0
    utf8_bytes: int = 0
    completion_characters: int = 0
    completion_bytes: int = 0

    def tokens(self) -> TokenEstimate:
        return estimate_tokens(self.characters, self.utf8_bytes)

    def completion_tokens(self) -> TokenEstimate:
        return estimate_tokens(self.completion_characters, self.completion_bytes)


def length_quantiles(lengths: Mapping[int, int]) -> LengthQuantiles:
    """Return the exact quantiles of lengths that occur so many times: what so large a share does not exceed."""
    records = sum(lengths.values())

    def quantile(share: float) -> int:
        passed = 0
        for length in sorted(lengths):
            passed += lengths[length]
            if passed >= share * records:
                return length
        return 0

    return LengthQuantiles(quantile(0.5), quantile(0.9), max(lengths, default=0))


def histogram(lengths: Mapping[int, int]) -> tuple[LengthBin, ...]:
    """Return how many records have how many characters, in bins of equal width of 1, 2 or 5 times a power of ten.

    There are at most 20 bins up to the length that 99 of 100 records do not exceed; the last one holds the rest too.
    """
    if not lengths:
        return ()
    passed, records, common = 0, sum(lengths.values()), 0
    for common in sorted(lengths):
        passed += lengths[common]
        if passed >= _COMMON_SHARE * records:
            break
    sizes = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    width = next(size for size in sizes if common // size < _MOST_BINS)
    last = common // width
    counts = [0] * (last + 1)
    for length, count in lengths.items():
        counts[min(length // width, last)] += count
    bounds = [(place * width, (place + 1) * width - 1) for place in range(last)]
    bounds.append((last * width, max((last + 1) * width - 1, *lengths)))
    return tuple(LengthBin(least, most, count) for (least, most), count in zip(bounds, counts, strict=True))
