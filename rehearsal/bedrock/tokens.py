"""How the stand-in counts tokens for limits and bills."""

import re
from itertools import islice

# A word of up to ten letters, a number of three digits, a frequent Japanese ending and every other character are one
# token each. That gives 4 to 5 English letters and about 1.1 Japanese characters a token, as the tokenizers of the
# offered families do, whose 65,000 to 200,000 tokens hold the common English words of that length whole.
_ENDINGS = (
    "ください|ありがとう|ございま|ました|ません|ている|でしょう|ように|"
    "です|ます|した|して|から|まで|ない|され|こと|もの|ので|たい|ても|れて"
)
_TOKEN = re.compile(rf"[A-Za-z\u00c0-\u024f]{{1,10}}|[0-9]{{1,3}}|{_ENDINGS}|[^\sA-Za-z0-9\u00c0-\u024f]")


def count_tokens(text: str) -> int:
    """Return the number of tokens of `text`."""
    return sum(1 for _ in _TOKEN.finditer(text))


def first_tokens(text: str, count: int) -> str:
    """Return `text` up to the end of its first `count` tokens, all of it when it has no more."""
    ends = [match.end() for match in islice(_TOKEN.finditer(text), count + 1)]
    return text if len(ends) <= count else text[: ends[count - 1]]
