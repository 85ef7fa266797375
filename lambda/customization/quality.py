"""What makes a good result unlikely although Bedrock takes the data: thresholds and their warnings."""

from customization.problems import Problems
from customization.profile import FileProfile

DOMINANT_SHARE = 0.9  # of one completion
SHORT_SHARE = 0.1  # of completions of fewer than three characters
LEAST_DISTINCT_PROMPTS = 0.5
LEAST_DISTINCT_BIGRAMS = 0.1
SIMILAR_SHARE = 0.2
LEAST_SEEN_SHARE = 0.3
_ENOUGH_TO_TELL = 50  # records; shares of fewer say little
_ENOUGH_BIGRAMS = 2_000


def warn_of_file(file: FileProfile, problems: Problems) -> None:
    """Add a warning for each threshold that a file's figures pass."""
    if file.records < _ENOUGH_TO_TELL:
        return
    short = file.short_completions / file.records
    if short >= SHORT_SHARE:
        problems.add("short_completions", file.name, share=_percent(short))
    prompts = file.distinct_prompts / file.counted
    if prompts < LEAST_DISTINCT_PROMPTS:
        problems.add("few_distinct_prompts", file.name, share=_percent(prompts))
    sample = file.sample
    if sample is None:
        return
    if sample.bigrams >= _ENOUGH_BIGRAMS and sample.distinct_bigrams < LEAST_DISTINCT_BIGRAMS * sample.bigrams:
        problems.add("little_variety", file.name, share=_percent(sample.distinct_bigrams / sample.bigrams))
    if sample.compared and sample.similar >= SIMILAR_SHARE * sample.compared:
        problems.add("similar_records", file.name, share=_percent(sample.similar / sample.compared))


def warn_of_test(file: str, seen_share: float, problems: Problems) -> None:
    """Add a warning when training shows little of what is asked; `seen_share` of the test's bigrams from 0 to 1."""
    if seen_share < LEAST_SEEN_SHARE:
        problems.add("unlike_training", file, share=_percent(seen_share))


def _percent(share: float) -> int:
    return int(share * 100)
