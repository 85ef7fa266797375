"""Likely personal data in texts: e-mail addresses, telephone numbers, payment cards and Japanese My Numbers.

What is found is named by its kind alone and never quoted.
"""

import re
import unicodedata
from collections.abc import Iterator

EMAIL, PHONE, CARD, MY_NUMBER = "personal_email", "personal_phone", "personal_card", "personal_my_number"

_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
_LOCAL_PART = re.compile(r"[A-Za-z0-9._%+-]{0,63}[A-Za-z0-9_%+-]$")
# Kept for documentation (RFC 2606, RFC 6761), so nobody's
_NOBODYS = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org|jp|co\.jp)|example|test|invalid|localhost)$", re.IGNORECASE)

# Bytes as they look to a search for numbers: every digit is 0, what parts groups of digits is a hyphen.
_LOOKS = bytes.maketrans(b"123456789 .()", b"0" * 9 + b"-" * 4)
_LOOKS_OF_NUMBERS = (b"00-0000", b"000-000-0", b"00000000")
_LONGEST_GROUP = b"0000"  # that all numbers have which are looked for, but for those that begin with +
_WIDE_ZERO = "\uff10".encode()

_NUMBER = re.compile(r"(?<![A-Za-z0-9_.,/-])\+?\(?\d(?:[ .()-]{0,2}\d){7,18}(?![A-Za-z0-9_/])")
_DASH = re.compile(r"(?<=\d)[\u2010-\u2015\u2212\u30fc](?=\d)")  # as Japanese writers put them between digits
_GROUPED_PHONE = re.compile(
    r"0\d{1,4}[-. ]\d{1,4}[-. ]\d{3,4}|\(0\d{1,4}\) ?\d{1,4}[-. ]\d{3,4}|0\d{1,4}\(\d{1,4}\)\d{3,4}"
    r"|\(?[2-9]\d\d\)?[-. ]{1,2}\d{3}[-. ]\d{4}"
)
_MOBILE_PHONE = re.compile(r"0[5789]0\d{8}")
_GROUPED_MY_NUMBER = re.compile(r"\d{4}([ -])\d{4}\1\d{4}")
_ABOUT_MY_NUMBER = re.compile(r"マイナンバー|個人番号|my ?number", re.IGNORECASE)
_CARD = re.compile(r"(?:\d{4}[ -]?){3}\d{1,7}|\d{4}[ -]?\d{6}[ -]?\d{5}")
_JAPANESE_PHONE_DIGITS = (10, 11)
_INTERNATIONAL_PHONE_DIGITS = range(9, 16)
_MY_NUMBER_DIGITS = 12
_CARD_DIGITS = range(14, 20)


def may_have_numbers(content: bytes) -> bool:
    """Tell, fast, whether the UTF-8 text may hold a number that `kinds_in` finds."""
    looks = content.translate(_LOOKS)
    if _LONGEST_GROUP in looks and any(look in looks for look in _LOOKS_OF_NUMBERS):
        return True
    return b"+" in content or (_WIDE_ZERO in content)


def kinds_in(text: str, *, numbers: bool = True) -> Iterator[str]:
    """Yield the kinds of likely personal data in the text, each once; without `numbers` only e-mail addresses."""
    if "@" in text and _has_email(text):
        yield EMAIL
    if numbers and may_have_numbers(text.encode()):
        yield from sorted(_kinds_of_numbers(text))


def _has_email(text: str) -> bool:
    place = text.find("@")
    while place >= 0:
        domain = _DOMAIN.match(text, place + 1)
        if domain and _LOCAL_PART.search(text[max(0, place - 64) : place]) and not _NOBODYS.search(domain[0]):
            return True
        place = text.find("@", place + 1)
    return False


def _kinds_of_numbers(text: str) -> set[str]:
    plain = text if text.isascii() else _DASH.sub("-", unicodedata.normalize("NFKC", text))
    about_my_number = bool(_ABOUT_MY_NUMBER.search(plain))
    kinds = {_kind_of(number[0], about_my_number=about_my_number) for number in _NUMBER.finditer(plain)}
    return {kind for kind in kinds if kind}


def _kind_of(number: str, *, about_my_number: bool) -> str:
    digits = "".join(filter(str.isdigit, number))
    if len(digits) in _CARD_DIGITS and digits[0] in "23456" and _CARD.fullmatch(number) and _passes_luhn(digits):
        return CARD
    grouped = _GROUPED_MY_NUMBER.fullmatch(number) is not None
    if len(digits) == _MY_NUMBER_DIGITS and (grouped or (about_my_number and number == digits)):
        return MY_NUMBER if _passes_my_number(digits) else ""
    if number.startswith("+"):
        return PHONE if len(digits) in _INTERNATIONAL_PHONE_DIGITS else ""
    if len(digits) in _JAPANESE_PHONE_DIGITS and (_GROUPED_PHONE.fullmatch(number) or _MOBILE_PHONE.fullmatch(number)):
        return PHONE
    return ""


def _passes_luhn(digits: str) -> bool:
    """Tell whether the last digit is the check digit of ISO/IEC 7812; not so of one digit repeated."""
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0 and len(set(digits)) > 1  # noqa: PLR2004 - two digits


def _passes_my_number(digits: str) -> bool:
    """Tell whether the last digit is the check digit that Japan's ordinance on My Numbers (2014, No. 85) lays down."""
    places = enumerate(reversed(digits[:-1]), 1)
    rest = sum(int(digit) * (place + 1 if place <= 6 else place - 5) for place, digit in places) % 11  # noqa: PLR2004 - the ordinance's
    return int(digits[-1]) == (0 if rest <= 1 else 11 - rest) and len(set(digits)) > 1
