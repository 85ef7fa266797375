"""What ends a failed run: all that bills is released, and then its report is written."""

from typing import TYPE_CHECKING, NamedTuple

from customization import notices
from customization.history import RunSummary, read_run
from customization.json_types import JsonObject
from customization.releasing import release_all, release_dataset
from customization.runs import Call

if TYPE_CHECKING:
    from customization.gateway import Gateway


class Released(NamedTuple):
    """What a function answers; `run` is the failed one, once it is settled, and `problem` why it has no report."""

    answer: JsonObject
    run: RunSummary | None = None
    problem: str = ""


def release(gateway: "Gateway", call: Call, *, dataset: str, message: str) -> Released:
    """Do as `release_dataset` where a data set is named, else as `release_all`, and write the report of the failed run.

    Whatever prevents the report must not prevent the rest of the failure path.
    """
    if dataset:
        return Released(release_dataset(gateway, dataset, call.now))
    answer = release_all(gateway, call, message)
    if not call.run_id:
        return Released(answer)
    run: RunSummary | None = None
    problem = ""
    try:
        run = read_run(gateway, call.run_id)
        # The modules that draw are loaded after the release, which must not depend on them
        from customization.publishing import publish_failure  # noqa: PLC0415  as said above

        report = publish_failure(gateway, call)
        answer["message"] = notices.with_report(gateway, call.run_id, str(answer["message"]), report)
    except Exception as error:  # noqa: BLE001  as said above
        problem = f"{type(error).__name__}: {error}"
    return Released(answer, run, problem)
