"""The type of a JSON value, and the narrowing of what a parser returned to it."""

from typing import TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, "list[Json]", "JsonObject", None]
JsonObject: TypeAlias = dict[str, Json]


def as_object(value: Json, what: str) -> JsonObject:
    """Return `value` when it is a JSON object; raises TypeError naming `what` otherwise."""
    if not isinstance(value, dict):
        raise TypeError(f"{what}: expected an object, found {type(value).__name__}")
    return value


def as_list(value: Json, what: str) -> list[Json]:
    """Return `value` when it is a JSON array; raises TypeError naming `what` otherwise."""
    if not isinstance(value, list):
        raise TypeError(f"{what}: expected an array, found {type(value).__name__}")
    return value


def as_text(value: Json, what: str) -> str:
    """Return `value` when it is a string; raises TypeError naming `what` otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected a string, found {type(value).__name__}")
    return value


def as_int(value: Json, what: str) -> int:
    """Return `value` when it is a whole number; raises TypeError naming `what` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError(f"{what}: expected a whole number, found {value!r}")
    return int(value)
