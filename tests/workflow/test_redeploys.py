"""A redeploy while a run trains: the run goes on with the definition and the versions that it began with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from customization.json_types import JsonObject, as_object
from tests.workflow.pipeline import Pipeline

if TYPE_CHECKING:
    from rehearsal.embedded.states.machines import Execution

pytestmark = pytest.mark.exhaustive

# The answer of the poll gets another field: each side fits only its own other side
_OLD_ANSWER, _NEW_ANSWER = '"status": job.status,\n', '"jobStatus": job.status,\n'


def redeploy_with_another_contract(pipeline: Pipeline, folder: Path) -> None:
    """Do what an update of the stack does, without synthesizing an app with another contract.

    The code of each function is replaced and published as another version, the old version is retained, and the machine
    gets a definition that names the new versions.
    """
    deployed = pipeline.aws.deployed
    functions = dict(deployed.functions)
    [root] = {function.root for function in functions.values()}
    shutil.copytree(root / "customization", folder / "customization")
    module = folder / "customization" / "training.py"
    written = module.read_text()
    assert written.count(_OLD_ANSWER) == 1
    module.write_text(written.replace(_OLD_ANSWER, _NEW_ANSWER))
    for arn, function in functions.items():
        if function.version == "$LATEST":
            deployed.functions[arn] = replace(function, root=folder)
            published = replace(function, root=folder, version="2", arn=f"{arn}:2")
            deployed.functions[published.arn] = published
    [machine] = deployed.machines.values()
    text = json.dumps(machine.definition)
    for arn in (arn for arn, function in functions.items() if function.version == "1"):
        text = text.replace(f'"{arn}"', f'"{arn[:-1]}2"')
    definition: JsonObject = json.loads(text)
    poll = as_object(as_object(definition["States"], "States")["PollCustomizationJob"], "state")
    assign = as_object(poll["Assign"], "Assign")
    assign["status"] = str(assign["status"]).replace("Payload.status", "Payload.jobStatus")
    deployed.machines[machine.arn] = replace(machine, definition=definition)


def versions_called(execution: "Execution") -> set[str]:
    """Return the versions of the functions that the execution has called itself."""
    called = [
        as_object(json.loads(str(event["details"][1]["parameters"])), "parameters")
        for event in execution.history.events
        if event["type"] == "TaskScheduled" and event["details"] is not None
    ]
    return {str(call["FunctionName"]).rpartition(":")[2] for call in called if "FunctionName" in call}


@pytest.mark.parametrize("state", ["WaitForCustomizationJob", "WaitForModelDeployment"])
def test_a_run_ends_right_though_the_contract_of_its_handlers_has_changed_meanwhile(
    pipeline: Pipeline, tmp_path: Path, state: str
) -> None:
    before = dict(pipeline.aws.deployed.functions), dict(pipeline.aws.deployed.machines)
    try:
        old = pipeline.interrupt(
            state, pipeline.folder(), lambda _: redeploy_with_another_contract(pipeline, tmp_path / "code")
        )
        assert old.outcome.status == "SUCCEEDED", old.outcome.cause
        assert versions_called(old) == {"1"}
        new = pipeline.ask(pipeline.request(force=True))
        assert new.outcome.status == "SUCCEEDED", new.outcome.cause
        assert versions_called(new) == {"2"}
        assert len(pipeline.jobs()) == 2
        pipeline.pass_time(hours=1)
        assert pipeline.what_bills() == []
    finally:
        pipeline.aws.deployed.functions.clear()
        pipeline.aws.deployed.functions.update(before[0])
        pipeline.aws.deployed.machines.update(before[1])
