"""Items in DynamoDB."""

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from boto3.dynamodb.conditions import Attr, ConditionBase, Key

from customization import errors
from customization.gateway.calls import named_errors
from customization.json_types import Json, JsonObject

__all__ = ["Attr", "Items", "number"]

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table as TableResource

_SMALLEST_EXPONENT = -130

Stored: TypeAlias = "bool | str | Decimal | list[Stored] | dict[str, Stored] | None"


def number(value: float) -> Decimal:
    """Return `value` as conditions need it; a float goes through its shortest text.

    Numbers nearer to nothing than 1E-130 are none to DynamoDB (Developer Guide, "Naming rules and data types").
    """
    exact = Decimal(str(value))
    return exact if exact.adjusted() >= _SMALLEST_EXPONENT else Decimal(0)


def _to_stored(value: Json) -> "Stored":
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return [_to_stored(item) for item in value]
    return {name: _to_stored(item) for name, item in value.items()}


def _from_stored(value: object) -> Json:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_from_stored(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _from_stored(item) for name, item in value.items()}
    if value is None or isinstance(value, bool | str):
        return value
    raise TypeError(f"{type(value).__name__} is not kept in the tables")


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


class Items:
    """One table with one key attribute."""

    def __init__(self, table: "TableResource", key: str) -> None:
        self._table = table
        self._key = key
        self._always = Attr(key).exists() | Attr(key).not_exists()

    def get(self, key: str) -> JsonObject | None:
        """Return the item as it is now, or None."""
        with named_errors():
            item = self._table.get_item(Key={self._key: key}, ConsistentRead=True).get("Item")
        return {name: _from_stored(value) for name, value in item.items()} if item else None

    def put(self, item: JsonObject, condition: ConditionBase | None = None) -> bool:
        """Store `item` whole; returns False where `condition` does not hold."""
        stored = {name: _to_stored(value) for name, value in item.items()}
        return _held(lambda: self._table.put_item(Item=stored, ConditionExpression=condition or self._always))

    def put_new(self, item: JsonObject) -> bool:
        """Store `item` unless its key is taken; returns whether it was stored."""
        return self.put(item, Attr(self._key).not_exists())

    def update(
        self,
        key: str,
        values: JsonObject,
        *,
        add: dict[str, float] | None = None,
        condition: ConditionBase | None = None,
    ) -> bool:
        """Set `values` and add the numbers of `add`; returns False where `condition` does not hold."""
        changed: JsonObject = {**values, **(add or {})}
        sets = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
        adds = ", ".join(f"#{index} :{index}" for index in range(len(values), len(changed)))
        return _held(
            lambda: self._table.update_item(
                Key={self._key: key},
                UpdateExpression=" ".join(
                    part for part in (f"SET {sets}" if sets else "", f"ADD {adds}" if adds else "") if part
                ),
                ExpressionAttributeNames={f"#{index}": name for index, name in enumerate(changed)},
                ExpressionAttributeValues={
                    f":{index}": _to_stored(value) for index, value in enumerate(changed.values())
                },
                ConditionExpression=condition or self._always,
            )
        )

    def delete(self, key: str, condition: ConditionBase | None = None) -> bool:
        """Remove the item; returns False where `condition` does not hold."""
        return _held(
            lambda: self._table.delete_item(Key={self._key: key}, ConditionExpression=condition or self._always)
        )

    def scan(self, condition: ConditionBase) -> list[JsonObject]:
        """Return every item for which `condition` holds."""
        found: list[JsonObject] = []
        with named_errors():
            page = self._table.scan(FilterExpression=condition, ConsistentRead=True)
            while True:
                found += [{name: _from_stored(value) for name, value in item.items()} for item in page["Items"]]
                if not page.get("LastEvaluatedKey"):
                    return found
                page = self._table.scan(
                    FilterExpression=condition, ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"]
                )

    def query(self, index: str, attribute: str, value: str) -> list[JsonObject]:
        """Return the items of `index` whose `attribute` is `value`, newest first."""
        found: list[JsonObject] = []
        asked = Key(attribute).eq(value)
        with named_errors():
            page = self._table.query(IndexName=index, KeyConditionExpression=asked, ScanIndexForward=False)
            while True:
                found += [{name: _from_stored(item) for name, item in row.items()} for row in page["Items"]]
                if not page.get("LastEvaluatedKey"):
                    return found
                page = self._table.query(
                    IndexName=index,
                    KeyConditionExpression=asked,
                    ScanIndexForward=False,
                    ExclusiveStartKey=page["LastEvaluatedKey"],
                )
