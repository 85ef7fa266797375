"""The API of Step Functions, as far as people, tests and functions call it."""

import json
import re
import threading
import uuid
from collections.abc import Callable
from datetime import datetime

from customization.json_types import Json, JsonObject
from rehearsal.clock import VirtualClock
from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.requests import HttpAnswer, HttpRequest, json_error
from rehearsal.embedded.states.expressions import LIMIT_BYTES, encode
from rehearsal.embedded.states.flow import Tasks
from rehearsal.embedded.states.history import Watcher
from rehearsal.embedded.states.machines import Execution, Machine

_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")  # StartExecution, parameter name


class StatesError(Exception):
    """What the API answers instead of a result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StatesApi:
    """Starts executions and answers about them; `tasks_of` gives a machine the right to act."""

    def __init__(
        self,
        *,
        clock: VirtualClock,
        deployed: Deployed,
        tasks_of: Callable[[Machine], Tasks],
        watch: Watcher,
        on_change: Callable[[Execution], None],
    ) -> None:
        self._clock = clock
        self._deployed = deployed
        self._tasks_of = tasks_of
        self._watch = watch
        self._on_change = on_change
        self._starting = threading.Lock()
        self.executions: dict[str, Execution] = {}
        self._operations: dict[str, Callable[[JsonObject], JsonObject]] = {
            "StartExecution": self._start_execution,
            "StopExecution": self._stop_execution,
            "RedriveExecution": self._redrive_execution,
            "DescribeExecution": self._describe_execution,
            "ListExecutions": self._list_executions,
            "GetExecutionHistory": self._get_execution_history,
            "ListStateMachines": self._list_state_machines,
            "DescribeStateMachine": self._describe_state_machine,
        }

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer a JSON request; an operation that is not built is refused by name."""
        operation = self._operations.get(request.operation)
        if operation is None:
            return json_error(
                400, "UnknownOperationException", f"the rehearsal does not answer states:{request.operation}"
            )
        try:
            answer = operation(request.json)
        except StatesError as error:
            return json_error(400, error.code, str(error))
        return HttpAnswer(200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answer).encode())

    def start(self, machine_arn: str, name: str | None, text: str) -> Execution:
        """Start an execution with JSON text as input, or return the one that runs under the same name and input.

        Raises StatesError with the code that StartExecution answers.
        """
        machine = self._machine(machine_arn)
        name = name or str(uuid.uuid4())
        if not _NAME.fullmatch(name):
            raise StatesError("InvalidName", f"Invalid Name: '{name}'")
        value = _input(text)
        arn = f"{machine.arn.replace(':stateMachine:', ':execution:')}:{name}"
        with self._starting:
            known = self.executions.get(arn)
            if known is not None:
                if known.outcome.status == "RUNNING" and known.input == value:
                    return known
                raise StatesError("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
            tasks = self._tasks_of(machine)
            execution = Execution(arn, machine, value, self._clock, tasks, self._watch, self._on_change)
            self.executions[arn] = execution
        execution.start()
        return execution

    def _machine(self, arn: str) -> Machine:
        found = self._deployed.machines.get(arn)
        if found is None:
            raise StatesError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        return found

    def _execution(self, parameters: JsonObject) -> Execution:
        arn = str(parameters["executionArn"])
        found = self.executions.get(arn)
        if found is None:
            raise StatesError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        return found

    def _start_execution(self, parameters: JsonObject) -> JsonObject:
        name = parameters.get("name")
        text = str(parameters.get("input", "{}"))
        execution = self.start(str(parameters["stateMachineArn"]), None if name is None else str(name), text)
        return {"executionArn": execution.arn, "startDate": execution.started.timestamp()}

    def _stop_execution(self, parameters: JsonObject) -> JsonObject:
        execution = self._execution(parameters)
        error, cause = parameters.get("error"), parameters.get("cause")
        execution.stop(None if error is None else str(error), None if cause is None else str(cause))
        return {"stopDate": _seconds(execution.outcome.stopped)}

    def _redrive_execution(self, parameters: JsonObject) -> JsonObject:
        execution = self._execution(parameters)
        with self._starting:
            obstacle = execution.redrive_obstacle()
            if obstacle is not None:
                raise StatesError("ExecutionNotRedrivable", obstacle)
            execution.redrive()
        return {"redriveDate": _seconds(execution.redriven[-1])}

    def _describe_execution(self, parameters: JsonObject) -> JsonObject:
        execution = self._execution(parameters)
        outcome = execution.outcome
        answer: JsonObject = {
            **_listed(execution),
            "input": encode(execution.input),
            "inputDetails": {"included": True},
            "output": outcome.output,
            "error": outcome.error,
            "cause": outcome.cause,
            "redriveCount": len(execution.redriven),
            "redriveDate": _seconds(execution.redriven[-1] if execution.redriven else None),
            "redriveStatus": "NOT_REDRIVABLE" if execution.redrive_obstacle() else "REDRIVABLE",
            "redriveStatusReason": execution.redrive_obstacle(),
        }
        return {name: value for name, value in answer.items() if value is not None}

    def _list_executions(self, parameters: JsonObject) -> JsonObject:
        machine = self._machine(str(parameters["stateMachineArn"]))
        wanted = parameters.get("statusFilter")
        found = [
            _listed(execution)
            for execution in reversed(self.executions.values())
            if execution.machine.arn == machine.arn and wanted in (None, execution.outcome.status)
        ]
        return _page("executions", found, parameters, 100)

    def _get_execution_history(self, parameters: JsonObject) -> JsonObject:
        events = list(self._execution(parameters).history.events)
        if parameters.get("reverseOrder"):
            events.reverse()
        written: list[JsonObject] = []
        for event in events:
            item: JsonObject = {
                "timestamp": event["timestamp"].timestamp(),
                "type": event["type"],
                "id": event["id"],
                "previousEventId": event["previousEventId"],
            }
            if event["details"] is not None:
                item[event["details"][0]] = event["details"][1]
            written.append(item)
        return _page("events", written, parameters, 1000)

    def _list_state_machines(self, parameters: JsonObject) -> JsonObject:
        machines: list[JsonObject] = [
            {"stateMachineArn": machine.arn, "name": machine.name, "type": "STANDARD", "creationDate": 0}
            for machine in self._deployed.machines.values()
        ]
        return _page("stateMachines", machines, parameters, 100)

    def _describe_state_machine(self, parameters: JsonObject) -> JsonObject:
        machine = self._machine(str(parameters["stateMachineArn"]))
        return {
            "stateMachineArn": machine.arn,
            "name": machine.name,
            "status": "ACTIVE",
            "type": "STANDARD",
            "definition": encode(machine.definition),
            "roleArn": machine.role_arn,
            "creationDate": 0,
        }


def _input(text: str) -> Json:
    if len(text.encode()) > LIMIT_BYTES:
        raise StatesError("InvalidExecutionInput", f"Execution input is larger than {LIMIT_BYTES} bytes")
    try:
        value: Json = json.loads(text)
    except ValueError as error:
        raise StatesError("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'") from error
    return value


def _listed(execution: Execution) -> JsonObject:
    item: JsonObject = {
        "executionArn": execution.arn,
        "stateMachineArn": execution.machine.arn,
        "name": execution.name,
        "status": execution.outcome.status,
        "startDate": execution.started.timestamp(),
        "stopDate": _seconds(execution.outcome.stopped),
    }
    return {name: value for name, value in item.items() if value is not None}


def _page(name: str, items: list[JsonObject], parameters: JsonObject, most: int) -> JsonObject:
    start, size = int(str(parameters.get("nextToken", 0))), int(str(parameters.get("maxResults", most))) or most
    page: JsonObject = {name: [*items[start : start + size]]}
    if start + size < len(items):
        page["nextToken"] = str(start + size)
    return page


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
