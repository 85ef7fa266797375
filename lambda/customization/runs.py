"""A run: its plan, its row in the table of runs, and which execution owns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from customization.errors import ArtifactUnreadable, ResourceNotFound, RunSuperseded
from customization.gateway.tables import Attr
from customization.inference import InferenceSettings
from customization.json_types import Json, JsonObject, as_text
from customization.splits import Subset
from customization.texts import Language

if TYPE_CHECKING:
    from customization.gateway import Gateway

RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
# Pre-training, then fine-tuning
MOST_STAGES = 2
# What rows begin with that are no run's: of an execution that waits for a folder, and of one that no run stands for
UPLOADS, UNPLANNED = "uploads#", "unplanned#"
# An attempt that another one has replaced before it was known what it had spent
_REPLACED = "replaced#"
# What an execution leaves that was redriven after its end had been recorded
_OF_AN_END = ("cause", "fix", "error", "failedState", "endedAt", "endedWith", "jobFailure", "spentUsd")
# What ended a shard, and which: the Map that runs the shards tells only that one of them failed
SHARD_ERROR, SHARD_ERROR_OF = "shardError", "shardErrorOf"
# What stays known of the model of an attempt that succeeded, once the run is forced again; how many such attempts
_OF_A_MODEL = (
    *(f"jobName{stage}" for stage in range(MOST_STAGES)),
    *("startedAt", "verdict", "metric", "testDigest", "scores", "keepModel"),
)
_REMEMBERED = 10
# The states of runs that have come to what was asked for
GREEN = (SUCCEEDED, "ESTIMATED")


class PinnedFile(msgspec.Struct, frozen=True, rename="camel"):
    """One version of a file that somebody dropped; `size` in bytes."""

    key: str
    version_id: str
    size: int
    sha256: str


class Stage(msgspec.Struct, frozen=True, rename="camel"):
    """One model customization job; the base of the second stage is the model of the first."""

    customization_type: str
    hyper_parameters: dict[str, str]
    training_id: str


class EvaluationPlan(msgspec.Struct, frozen=True, rename="camel"):
    max_records: int
    minimum_gain: float
    primary_metric: str | None
    compare_with: str | None


class Plan(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Everything that a run was asked to do, resolved and pinned: runs/<runId>/manifest.json."""

    run_id: str
    attempt: int
    execution_arn: str
    started_at: datetime
    action: str
    dataset: str
    name: str
    region: str
    language: Language
    base_model_identifier: str
    stages: tuple[Stage, ...]
    files: dict[str, PinnedFile]
    serving_mode: str
    model_units: int
    keep: bool | float
    promote: str
    keep_model: str
    inference: InferenceSettings
    evaluation: EvaluationPlan
    subset: Subset | None
    field_mapping: dict[str, str]
    strip_role_cues: bool = False
    budget_usd: float
    accept_unknown_prices: tuple[str, ...]
    force: bool
    tags: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """Return where the run's artifacts lie."""
        return f"runs/{self.run_id}/"

    @property
    def training_id(self) -> str:
        """Return the trainingId of the model that the run ends with."""
        return self.stages[-1].training_id


@dataclass(frozen=True, kw_only=True)
class Call:
    """What every Task after PlanRun is called with; `now` comes from the execution: no handler reads a clock."""

    now: datetime
    execution_arn: str
    run_id: str
    attempt: int


def read_call(event: Mapping[str, Json]) -> Call:
    """Return the common part of a Task's payload; raises TypeError or ValueError where it is none."""
    return Call(
        now=datetime.fromisoformat(as_text(event.get("now"), "now")),
        execution_arn=as_text(event.get("executionArn"), "executionArn"),
        run_id=str(event.get("runId") or ""),
        attempt=int(str(event.get("attempt") or 0)),
    )


def last_job_name(row: JsonObject) -> str:
    """Return the name of the last job of the run of `row`, which is its model's too; empty before there is one."""
    names = (row.get(f"jobName{stage}") for stage in reversed(range(MOST_STAGES)))
    return str(next((name for name in names if name), ""))


def former_results(row: JsonObject) -> list[JsonObject]:
    """Return what is known of the models of a run's earlier attempts that succeeded, the earliest first."""
    former = row.get("former")
    return [result for result in former if isinstance(result, dict)] if isinstance(former, list) else []


def _results(row: JsonObject) -> list[Json]:
    results: list[Json] = [*former_results(row)]
    if row["state"] == SUCCEEDED:
        results.append({field: row[field] for field in _OF_A_MODEL if field in row})
    return results[-_REMEMBERED:]


def unplanned(execution_arn: str) -> str:
    """Return the key of the row that stands for an execution without a run: that it is under way, or how it ended."""
    return f"{UNPLANNED}{execution_arn.rsplit(':', 1)[-1]}"


def trace(gateway: "Gateway", execution_arn: str, language: Language | None = None) -> None:
    """Write down that an execution is under way, so that the sweeper hears of its end while no run stands for it."""
    row: JsonObject = {"runId": unplanned(execution_arn), "executionArn": execution_arn, "attempt": 0, "state": RUNNING}
    gateway.runs.put(row | ({"language": language} if language else {}))


def is_run(key: str) -> bool:
    """Return whether a row of the table of runs is a run's; other keys have a # and say before it what they are."""
    return "#" not in key


def manifest_key(run_id: str) -> str:
    """Return where the plan of a run is kept."""
    return f"runs/{run_id}/manifest.json"


def save_plan(gateway: "Gateway", plan: Plan) -> None:
    """Keep the plan beside the run's artifacts."""
    gateway.artifacts.put(manifest_key(plan.run_id), msgspec.json.format(msgspec.json.encode(plan), indent=1))


def read_plan(gateway: "Gateway", run_id: str) -> Plan:
    """Return the plan of a run, whoever owns it; raises ResourceNotFound or ArtifactUnreadable."""
    plan = gateway.artifacts.decoded(manifest_key(run_id), Plan)
    if plan.run_id != run_id:
        uri = gateway.artifacts.uri(manifest_key(run_id))
        raise ArtifactUnreadable.of("error.otherPlan", uri=uri, found=repr(plan.run_id))
    return plan


def owned_plan(gateway: "Gateway", call: Call, *, goes_on: bool = True) -> Plan:
    """Return the plan of the run that `call` works for.

    A run whose end has been recorded is RUNNING again where it `goes_on`: somebody has redriven its execution.

    Raises:
        RunSuperseded: another execution, or another attempt, owns the run now.
    """
    row = gateway.runs.get(call.run_id)
    if row is None:
        raise ResourceNotFound.of("error.runGone", runId=call.run_id)
    if row["executionArn"] != call.execution_arn or row["attempt"] != call.attempt:
        raise RunSuperseded.of(
            "error.superseded", runId=call.run_id, execution=str(row["executionArn"]), attempt=str(row["attempt"])
        )
    if goes_on and row.get("state") not in {RUNNING, *GREEN}:
        its_own = Attr("attempt").eq(call.attempt) & Attr("executionArn").eq(call.execution_arn)
        gateway.runs.update(call.run_id, {"state": RUNNING}, remove=_OF_AN_END, condition=its_own)
    return read_plan(gateway, call.run_id)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`attempt` is 0 when the run is a duplicate of `duplicate_of`, a row of the table of runs."""

    attempt: int
    duplicate_of: JsonObject | None


def claim_run(
    gateway: "Gateway", row: JsonObject, execution_arn: str, *, force: bool, asked_at: datetime | None = None
) -> Claim:
    """Make this execution the owner of the run described by `row`, or report which other run it repeats.

    A run is a duplicate only while another execution works on it or, without `force`, once it has succeeded and its
    model has not been lost before the last answer; else it is tried again, and its row remembers as `former` the models
    that it had; what the attempt before has spent is settled afterwards. `force` counts once: an event of before the
    run's start, `asked_at`, has been delivered again.
    """
    run_id = as_text(row["runId"], "runId")
    if gateway.runs.put_new({**row, "executionArn": execution_arn, "attempt": 1, "state": RUNNING}):
        return Claim(attempt=1, duplicate_of=None)
    known = gateway.runs.get(run_id)
    if known is None:
        return claim_run(gateway, row, execution_arn, force=force, asked_at=asked_at)
    attempt = int(str(known["attempt"]))
    if known["executionArn"] == execution_arn:
        return Claim(attempt=attempt, duplicate_of=None)
    is_repeated = asked_at is not None and asked_at <= datetime.fromisoformat(str(known["startedAt"]))
    is_done = known["state"] == SUCCEEDED and not known.get("modelLost")
    if (is_done and (not force or is_repeated)) or _is_running(gateway, known):
        return Claim(attempt=0, duplicate_of=known)
    _remember_unsettled(gateway, known)
    renewed: JsonObject = {**row, "executionArn": execution_arn, "attempt": attempt + 1, "state": RUNNING}
    renewed |= {"former": results} if (results := _results(known)) else {}
    unchanged = Attr("attempt").eq(attempt) & Attr("executionArn").eq(str(known["executionArn"]))
    if gateway.runs.put(renewed, unchanged):
        return Claim(attempt=attempt + 1, duplicate_of=None)
    return claim_run(gateway, row, execution_arn, force=force, asked_at=asked_at)


def _remember_unsettled(gateway: "Gateway", row: JsonObject) -> None:
    """Keep the row of an attempt whose reservation stands beside the run, for the sweeper to record its end and settle.

    Without the data set it is in no list of runs.
    """
    if row.get("usage") and "spentUsd" not in row:
        own = {name: value for name, value in row.items() if name not in {"dataset", "startedAt"}}
        key = f"{_REPLACED}{row['runId']}#{row['attempt']}"
        gateway.runs.put({**own, "runId": key, "replacedOf": row["runId"]})


def _is_running(gateway: "Gateway", row: JsonObject) -> bool:
    return row["state"] == RUNNING and gateway.execution_status(str(row["executionArn"]))[0] == RUNNING


def note(gateway: "Gateway", call: Call, values: JsonObject) -> bool:
    """Write `values` into the run's row and return True, unless another attempt owns it by now."""
    return gateway.runs.update(
        call.run_id, {**values, "updatedAt": call.now.isoformat()}, condition=Attr("attempt").eq(call.attempt)
    )
