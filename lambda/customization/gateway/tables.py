"""Items in DynamoDB."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, TypedDict, TypeVar

import msgspec

from customization import errors
from customization.gateway.calls import named_errors
from customization.json_types import Json, JsonObject

T = TypeVar("T")
_SMALLEST_EXPONENT = -130

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


class _Placeholders(TypedDict, total=False):
    ExpressionAttributeNames: "dict[str, str]"
    ExpressionAttributeValues: "dict[str, AttributeValueTypeDef]"


class _Expression(_Placeholders, total=False):
    ConditionExpression: str


class Condition(msgspec.Struct, frozen=True):
    """A condition expression with a # for every name and a : for every value, in order."""

    text: str
    names: tuple[str, ...]
    values: tuple[Json, ...] = ()

    def __and__(self, other: "Condition") -> "Condition":
        return self._joined("AND", other)

    def __or__(self, other: "Condition") -> "Condition":
        return self._joined("OR", other)

    def _joined(self, word: str, other: "Condition") -> "Condition":
        text = f"({self.text}) {word} ({other.text})"
        return Condition(text, self.names + other.names, self.values + other.values)

    def expression(self) -> _Expression:
        """Return the members of a request, with placeholders that no other expression uses."""
        numbers = {"#": count(), ":": count()}
        text = re.sub("[#:]", lambda mark: f"{mark[0]}c{next(numbers[mark[0]])}", self.text)
        names = {f"#c{index}": name for index, name in enumerate(self.names)}
        if not self.values:
            return {"ConditionExpression": text, "ExpressionAttributeNames": names}
        values = {f":c{index}": to_stored(value) for index, value in enumerate(self.values)}
        return {
            "ConditionExpression": text,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }


class Attr(msgspec.Struct, frozen=True):
    """An attribute that a condition is about."""

    name: str

    def eq(self, value: Json) -> Condition:
        return Condition("# = :", (self.name,), (value,))

    def ne(self, value: Json) -> Condition:
        return Condition("# <> :", (self.name,), (value,))

    def lt(self, value: Json) -> Condition:
        return Condition("# < :", (self.name,), (value,))

    def lte(self, value: Json) -> Condition:
        return Condition("# <= :", (self.name,), (value,))

    def begins_with(self, value: str) -> Condition:
        return Condition("begins_with(#, :)", (self.name,), (value,))

    def exists(self) -> Condition:
        return Condition("attribute_exists(#)", (self.name,))

    def not_exists(self) -> Condition:
        return Condition("attribute_not_exists(#)", (self.name,))


def to_stored(value: Json) -> "AttributeValueTypeDef":
    """Return `value` as DynamoDB's API takes it; a float goes through its shortest text.

    Numbers nearer to nothing than 1E-130 are none to DynamoDB (Developer Guide, "Naming rules and data types").
    """
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": str(value) if Decimal(value).adjusted() >= _SMALLEST_EXPONENT else "0"}
    if isinstance(value, list):
        return {"L": [to_stored(item) for item in value]}
    return {"M": _item(value)}


def _item(values: JsonObject) -> "dict[str, AttributeValueTypeDef]":
    return {name: to_stored(value) for name, value in values.items()}


def from_stored(stored: "AttributeValueTypeDef") -> Json:
    """Return the JSON that `stored` stands for; raises TypeError for types that the tables do not keep."""
    if "S" in stored:
        return stored["S"]
    if "N" in stored:
        number = Decimal(stored["N"])
        return int(number) if number == number.to_integral_value() else float(number)
    if "BOOL" in stored:
        return stored["BOOL"]
    if "M" in stored:
        return _values(stored["M"])
    if "L" in stored:
        return [from_stored(item) for item in stored["L"]]
    if "NULL" in stored:
        return None
    raise TypeError(f"{', '.join(stored)} is not kept in the tables")


def _values(item: "Mapping[str, AttributeValueTypeDef]") -> JsonObject:
    return {name: from_stored(value) for name, value in item.items()}


def _held(write: Callable[[], object]) -> bool:
    """Return whether the condition of `write` held."""
    try:
        with named_errors():
            write()
    except errors.RequestRejected as error:
        if "ConditionalCheckFailedException" in str(error):
            return False
        raise
    return True


def _expression(condition: Condition | None) -> _Expression:
    return condition.expression() if condition else {}


class Items:
    """One table with one key attribute."""

    def __init__(self, client: "DynamoDBClient", table: str, key: str) -> None:
        self._client = client
        self._table = table
        self._key = key

    def get(self, key: str) -> JsonObject | None:
        """Return the item as it is now, or None."""
        with named_errors():
            answer = self._client.get_item(TableName=self._table, Key={self._key: {"S": key}}, ConsistentRead=True)
        return _values(answer["Item"]) if answer.get("Item") else None

    def decoded(self, item: JsonObject, kind: type[T]) -> T:
        """Return an item of this table as what it stands for; raises ArtifactUnreadable where it is damaged."""
        try:
            return msgspec.convert(item, kind)
        except msgspec.ValidationError as error:
            row = f"{self._key} {item.get(self._key)}"
            raise errors.ArtifactUnreadable.of("error.row", table=self._table, row=row, problem=str(error)) from error

    def put(self, item: JsonObject, condition: Condition | None = None) -> bool:
        """Store `item` whole; returns False where `condition` does not hold."""
        expression = _expression(condition)
        return _held(lambda: self._client.put_item(TableName=self._table, Item=_item(item), **expression))

    def put_new(self, item: JsonObject) -> bool:
        """Store `item` unless its key is taken; returns whether it was stored."""
        return self.put(item, Attr(self._key).not_exists())

    def update(
        self,
        key: str,
        values: JsonObject,
        *,
        add: dict[str, float] | None = None,
        remove: tuple[str, ...] = (),
        condition: Condition | None = None,
    ) -> bool:
        """Set `values`, add the numbers of `add` and remove what `remove` names; returns False if not `condition`."""
        changed: JsonObject = {**values, **(add or {})}
        sets = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
        adds = ", ".join(f"#{index} :{index}" for index in range(len(values), len(changed)))
        removes = ", ".join(f"#{index}" for index in range(len(changed), len(changed) + len(remove)))
        parts = {"SET": sets, "ADD": adds, "REMOVE": removes}
        expression = _expression(condition)
        expression["ExpressionAttributeNames"] = {
            **expression.get("ExpressionAttributeNames", {}),
            **{f"#{index}": name for index, name in enumerate((*changed, *remove))},
        }
        new = {f":{index}": to_stored(value) for index, value in enumerate(changed.values())}
        if new:
            expression["ExpressionAttributeValues"] = {**expression.get("ExpressionAttributeValues", {}), **new}
        return _held(
            lambda: self._client.update_item(
                TableName=self._table,
                Key={self._key: {"S": key}},
                UpdateExpression=" ".join(f"{verb} {part}" for verb, part in parts.items() if part),
                **expression,
            )
        )

    def delete(self, key: str, condition: Condition | None = None) -> bool:
        """Remove the item; returns False where `condition` does not hold."""
        return _held(
            lambda: self._client.delete_item(
                TableName=self._table, Key={self._key: {"S": key}}, **_expression(condition)
            )
        )

    def scan(self, condition: Condition) -> list[JsonObject]:
        """Return every item for which `condition` holds."""
        expression = condition.expression()
        used: _Placeholders = {"ExpressionAttributeNames": expression["ExpressionAttributeNames"]}
        if "ExpressionAttributeValues" in expression:
            used["ExpressionAttributeValues"] = expression["ExpressionAttributeValues"]
        text = expression["ConditionExpression"]
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table, FilterExpression=text, ConsistentRead=True, **used
        )
        with named_errors():
            return [_values(item) for page in pages for item in page["Items"]]

    def query(self, index: str, attribute: str, value: str) -> list[JsonObject]:
        """Return the items of `index` whose `attribute` is `value`, newest first."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=index,
            KeyConditionExpression="#key = :key",
            ExpressionAttributeNames={"#key": attribute},
            ExpressionAttributeValues={":key": {"S": value}},
            ScanIndexForward=False,
        )
        with named_errors():
            return [_values(item) for page in pages for item in page["Items"]]
