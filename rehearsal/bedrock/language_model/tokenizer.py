"""Text to tokens and back: frequent pieces of the base text, and bytes for everything else."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

# No text has these tokens. END ends every text and stands before the beginning of one without a prompt, ANSWER before
# the beginning of an answer.
END = 0
ANSWER = 257

_FIRST_PIECE = 258
_LONGEST_PIECE = 8
# A substring that a longer one contains nearly always is no piece of its own.
_SHARE_OF_LONGER = 0.8
_KANA = [chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FD))]
# Pieces never cross from Japanese to other writing, nor take in punctuation and digits.
_WORD = re.compile(r" ?[A-Za-z]+|[^\W\dA-Za-z_]+")


def learn_pieces(texts: Iterable[str], frequent: int = 300, least_count: int = 4) -> list[str]:
    """Return every character of `texts` beyond ASCII, and the `frequent` substrings that save the most tokens."""
    characters: Counter[str] = Counter(_KANA)
    substrings: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
        for word in _WORD.findall(text):
            for start in range(len(word)):
                for end in range(start + 2, min(start + _LONGEST_PIECE, len(word)) + 1):
                    substrings[word[start:end]] += 1
    in_longer: Counter[str] = Counter()
    for piece, count in substrings.items():
        for shorter in (piece[1:], piece[:-1]):
            in_longer[shorter] = max(in_longer[shorter], count)
    saved = {
        piece: count * (len(piece) - 1)
        for piece, count in substrings.items()
        if count >= least_count and in_longer[piece] < count * _SHARE_OF_LONGER
    }
    chosen = sorted(saved, key=lambda piece: (-saved[piece], piece))[:frequent]
    return sorted(character for character in characters if not character.isascii()) + chosen


class Tokenizer:
    """Takes the longest known piece at each place; what is in no piece is written as the bytes of its UTF-8."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._tokens = {piece: _FIRST_PIECE + index for index, piece in enumerate(pieces)}
        self._bytes = [b"", *(bytes([value]) for value in range(256)), b"", *(piece.encode() for piece in pieces)]
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for piece in pieces:
            lengths[piece[0]].add(len(piece))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    @property
    def size(self) -> int:
        """The number of different tokens, END among them."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`; lone surrogates, which UTF-8 lacks, become question marks."""
        tokens: list[int] = []
        place = 0
        while place < len(text):
            for length in self._lengths.get(text[place], ()):
                token = self._tokens.get(text[place : place + length])
                if token is not None:
                    tokens.append(token)
                    place += length
                    break
            else:
                tokens.extend(1 + value for value in text[place].encode(errors="replace"))
                place += 1
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens`; bytes that are no UTF-8 become the replacement character."""
        return b"".join(self._bytes[token] for token in tokens).decode(errors="replace")
