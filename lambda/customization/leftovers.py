"""What stays of a deployment when its stacks are gone: found by tag and name, priced, and removed on request."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from customization.errors import PipelineError, TransientError
from customization.leases import JOB, SERVING
from customization.money import PriceItem, load_prices

if TYPE_CHECKING:
    from customization.gateway.operator import Operator

# stacks/storage.py puts it on everything that it keeps: `<stage>-<deployment id>`
TAG = "customization-deployment"
KEY_DAYS = 7  # the shortest wait that AWS KMS allows (ScheduleKeyDeletion)
_DEPLOYMENT_ID = "[0-9a-f]{8}"
_GIGABYTE = 1024**3
_KINDS = {"s3": "bucket", "dynamodb": "table", "kms": "key"}


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that stays; `monthly_usd` is None where no source gives a price for the Region.

    What is not certain bears the name of a deployment or its tag, but not both: it is told and left.
    """

    kind: str
    name: str
    detail: str = ""
    monthly_usd: float | None = None
    bills_by_hour: bool = False
    is_certain: bool = True


def find(operator: "Operator", stage: str, today: date) -> list[Leftover]:
    """Return what stays of every deployment of a stage, in the order in which it can be removed."""
    held = dict(_tagged(operator, stage))
    own = list(_of_bedrock(operator, stage, today))
    deployments = {value.removeprefix(f"{stage}-") for value in held.values()} | {owner for owner, _ in own}
    found = [leftover for _, leftover in own]
    for deployment in sorted(deployments):
        names = operator.parameters(f"/{stage}/{deployment}/")
        found += [Leftover(kind="parameter", name=name, monthly_usd=0.0) for name in names]
    described = [_described(operator, arn, today) for arn in held]
    order = [*dict.fromkeys(_REMOVERS)]
    return sorted(found + [item for item in described if item], key=lambda item: order.index(item.kind))


def _tagged(operator: "Operator", stage: str) -> Iterator[tuple[str, str]]:
    own = re.compile(f"{re.escape(stage)}-{_DEPLOYMENT_ID}")
    for arn, value in operator.tagged(TAG).items():
        if own.fullmatch(value) and arn.split(":")[2] in _KINDS:
            yield arn, value


def _of_bedrock(operator: "Operator", stage: str, today: date) -> Iterator[tuple[str, Leftover]]:
    """Yield what Bedrock keeps under this stage's names and tags, each with its deployment id.

    What serves a model is told by one of the two.
    """
    bedrock = operator.bedrock
    own = re.compile(f"{re.escape(stage)}-({_DEPLOYMENT_ID})-.*")
    listed = [(job.name, job.arn, JOB) for job in bedrock.jobs_in_progress()]
    listed += [(served.name, served.arn, served.mode) for served in bedrock.all_served()]
    listed += [(name, arn, "custom model") for name, arn in bedrock.model_arns().items()]
    for name, arn, kind in listed:
        matched, tags = own.fullmatch(name), bedrock.tags(arn)
        named = matched[1] if matched else ""
        tagged = tags.get("deployment", "") if tags.get("stage") == stage else ""
        is_certain = bool(named) and named == tagged
        # What serves a model can be renamed, and tags be taken away
        has_one = re.fullmatch(_DEPLOYMENT_ID, tagged) or (named and "deployment" not in tags)
        if not is_certain and (kind not in SERVING or not has_one):
            continue
        stays = kind == "custom model"
        usd = price(operator.region, today, "storage") if stays else None
        leftover = Leftover(kind=kind, name=name, detail=arn, monthly_usd=usd, bills_by_hour=not stays)
        yield tagged or named, msgspec.structs.replace(leftover, is_certain=is_certain)


def price(region: str, today: date, *items: PriceItem) -> float | None:
    """Return the sum of the prices of `items` in USD a unit, or None where one of them is not known."""
    rows = [load_prices().find("*", item, region, today) for item in items]
    return None if None in rows else sum(row.usd for row in rows if row)


def _described(operator: "Operator", arn: str, today: date) -> Leftover | None:
    """Return a tagged resource with its size and price, or None where it is gone."""
    service, name = arn.split(":")[2], arn.rpartition("/" if ":dynamodb:" in arn else ":")[2]
    if service == "s3":
        content = operator.bucket_content(name)
        if content is None:
            return None
        detail = f"{_size(content.size)} in {content.versions:,} versions of objects"
        return _stored(name, "bucket", detail, content.size, price(operator.region, today, "objectStorage"))
    if service == "dynamodb":
        size = operator.table_bytes(name)
        if size is None:
            return None
        each = price(operator.region, today, "tableStorage", "tableBackup")
        return _stored(name, "table", f"{_size(size)}, with its backups of the last 35 days", size, each)
    if not operator.key_is_kept(arn):
        return None
    return Leftover(kind="key", name=arn, monthly_usd=price(operator.region, today, "key"))


def _stored(name: str, kind: str, detail: str, size: int, each: float | None) -> Leftover:
    usd = 0.0 if not size else None if each is None else each * size / _GIGABYTE
    return Leftover(kind=kind, name=name, detail=detail, monthly_usd=usd)


def _size(size: int) -> str:
    for unit, bytes_ in (("GB", _GIGABYTE), ("MB", 1024**2), ("KB", 1024)):
        if size >= bytes_:
            return f"{size / bytes_:,.1f} {unit}"
    return f"{size} bytes"


def describe(found: list[Leftover]) -> list[str]:
    """Return a line for each leftover and one for the sum of what is known."""
    lines = [f"  {item.kind:13} {item.name}  {_cost(item)}{_in_brackets(item)}" for item in found]
    known = sum(item.monthly_usd for item in found if item.monthly_usd is not None)
    unknown = sum(1 for item in found if item.monthly_usd is None)
    rest = f", without {unknown} whose price is unknown" if unknown else ""
    return [*lines, f"  together {known:.2f} USD a month{rest}, by the dated prices of data/prices.json"]


def _cost(item: Leftover) -> str:
    if item.bills_by_hour:
        return "BILLS WHILE IT EXISTS"
    return "price unknown" if item.monthly_usd is None else f"{item.monthly_usd:.2f} USD a month"


def _in_brackets(item: Leftover) -> str:
    return f" ({item.detail})" if item.detail and not item.detail.startswith("arn:") else ""


def remove(operator: "Operator", item: Leftover) -> str:
    """Remove a leftover and return what became of it; what AWS refuses is told and left for the next time."""
    if not item.is_certain:
        return f"{REFUSED}: it bears the name or the tag alone; if it is yours, delete it in the Bedrock console"
    try:
        return _REMOVERS[item.kind](operator, item)
    except (PipelineError, TransientError) as error:
        return f"{REFUSED}: {error}"


REFUSED = "refused"


def _stop_job(operator: "Operator", item: Leftover) -> str:
    operator.bedrock.stop_job(item.detail)
    return "stopping"


def _stop_serving(operator: "Operator", item: Leftover) -> str:
    operator.bedrock.stop_serving(item.kind, item.detail)
    return "deleted"


def _delete_model(operator: "Operator", item: Leftover) -> str:
    operator.bedrock.delete_model(item.detail)
    return "deleted"


def _delete_parameter(operator: "Operator", item: Leftover) -> str:
    operator.delete_parameter(item.name)
    return "deleted"


def _delete_bucket(operator: "Operator", item: Leftover) -> str:
    operator.delete_bucket(item.name)
    return "deleted"


def _delete_table(operator: "Operator", item: Leftover) -> str:
    operator.delete_table(item.name)
    return "deleted"


def _schedule_key(operator: "Operator", item: Leftover) -> str:
    when = operator.schedule_key_deletion(item.name, KEY_DAYS)
    return f"will be deleted on {when:%Y-%m-%d}, costs nothing until then, and can be kept in the KMS console"


# In the order of removal: what serves a model goes before the model, the key after what it has encrypted
_REMOVERS: dict[str, Callable[["Operator", Leftover], str]] = {
    JOB: _stop_job,
    "on-demand": _stop_serving,
    "provisioned": _stop_serving,
    "custom model": _delete_model,
    "parameter": _delete_parameter,
    "table": _delete_table,
    "bucket": _delete_bucket,
    "key": _schedule_key,
}
