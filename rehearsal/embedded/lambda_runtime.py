"""Calls functions in their workers and answers in Lambda's own shapes."""

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from customization.json_types import Json, JsonObject, as_text
from rehearsal.clock import VirtualClock
from rehearsal.embedded.faults import Faults, FunctionFault, Hang, Kill, Nonsense, TaskCall, Throttle, Twice
from rehearsal.embedded.states.expressions import timestamp
from rehearsal.embedded.workers import Worker, WorkerDiedError, WorkerSettings

# The shortest interval that a retry waits, short of jitter
_RETRIED_AFTER = timedelta(seconds=2)


@dataclass(frozen=True)
class Function:
    """A version of a Lambda function; `label` is its handler's module name."""

    name: str
    version: str
    arn: str
    runtime: str
    handler: str
    root: Path
    environment: tuple[tuple[str, str], ...]
    role_arn: str
    timeout_seconds: int
    memory_mb: int
    log_group: str

    @property
    def label(self) -> str:
        return self.handler.split(".")[-2]


@dataclass(frozen=True)
class Answer:
    """What Invoke answers: JSON text, and whether it describes an error of the function."""

    payload: str
    failed: bool


class ThrottledError(Exception):
    """Lambda did not take the call."""


@dataclass(frozen=True)
class RuntimeSurroundings:
    """What the runtime needs from the embedded AWS.

    `credentials` returns the AWS variables of a session of the function's role; `log` gets what a call has written.
    """

    clock: VirtualClock
    faults: Faults
    log_dir: Path
    credentials: Callable[[Function], dict[str, str]]
    log: Callable[[Function, str], None]


class LambdaRuntime:
    """Keeps the workers of all functions: warm ones are used again, concurrent calls get further ones.

    `processor_seconds` has what each answered call took, without the imports of libraries, which workers share.
    """

    def __init__(self, around: RuntimeSurroundings) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._idle: dict[Function, list[Worker]] = {}
        self.processor_seconds: list[tuple[Function, float]] = []
        self._started: dict[str, int] = {}

    def invoke(self, function: Function, payload: Json, state: str = "") -> Answer:
        """Return the function's answer; the calling thread must hold the clock. Raises ThrottledError."""
        call = TaskCall(function.label, payload, state)
        request_id = str(uuid.uuid4())
        try:
            answer = self._work(function, call, request_id)
            if not answer.failed:
                self._around.faults.after_call(call)
        except Throttle as fault:
            raise ThrottledError(str(fault)) from fault
        except Hang:
            self._around.clock.sleep(function.timeout_seconds)
            return _timed_out(function, request_id)
        except Nonsense as fault:
            return Answer(fault.answer, failed=False)
        except Kill:
            return _exited(request_id)
        except FunctionFault as fault:
            return _failed(fault.error_type, str(fault), request_id)
        return answer

    def _work(self, function: Function, call: TaskCall, request_id: str) -> Answer:
        try:
            self._around.faults.before_call(call)
        except Twice as fault:
            return self._work_twice(function, call, request_id, fault)
        except Kill as fault:
            if not fault.is_midway:
                raise
            return self._die_midway(function, call, request_id, fault)
        return self._run(function, call.payload, request_id)

    def _work_twice(self, function: Function, call: TaskCall, request_id: str, fault: Twice) -> Answer:
        meet = fault.meeting()
        with ThreadPoolExecutor(1) as other:
            first = other.submit(self._run, function, call.payload, str(uuid.uuid4()), {"meets": True}, meet)
            answer = self._run(function, self._retried(call.payload), request_id, {"meets": True}, meet)
            first.result()
        return answer

    def _die_midway(self, function: Function, call: TaskCall, request_id: str, fault: Kill) -> Answer:
        breaks: JsonObject = {"diesAfter": fault.calls or fault.changes, "ofChanges": fault.calls is None}
        answer = self._run(function, call.payload, request_id, breaks)
        fault.deaths += answer == _exited(request_id)
        return answer

    def _retried(self, payload: Json) -> Json:
        """Return the payload of a retry: the `now` beside an `enteredAt` is read anew for each attempt."""
        if not isinstance(payload, dict) or "enteredAt" not in payload:
            return payload
        return {**payload, "now": timestamp(self._around.clock.now() + _RETRIED_AFTER)}

    def stop(self) -> None:
        """End every idle worker."""
        with self._lock:
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
        for worker in workers:
            worker.close()

    def _run(
        self,
        function: Function,
        payload: Json,
        request_id: str,
        breaks: JsonObject | None = None,
        meet: Callable[[], None] = lambda: None,
    ) -> Answer:
        worker = self._take(function)
        request: JsonObject = {
            "requestId": request_id,
            "functionArn": function.arn,
            "timeoutSeconds": function.timeout_seconds,
            "payload": json.dumps(payload),
            "breaks": breaks,
        }
        try:
            answer = worker.call(request, function.timeout_seconds, meet)
        except TimeoutError:
            return self._lost(function, worker, _timed_out(function, request_id))
        except WorkerDiedError:
            return self._lost(function, worker, _exited(request_id))
        self._around.log(function, worker.new_log_text())
        with self._lock:
            self.processor_seconds.append((function, float(str(answer["processorSeconds"]))))
            self._idle.setdefault(function, []).append(worker)
        if "error" in answer:
            return Answer(json.dumps(answer["error"], ensure_ascii=False), failed=True)
        return Answer(as_text(answer["result"], "result"), failed=False)

    def _lost(self, function: Function, worker: Worker, answer: Answer) -> Answer:
        self._around.log(function, worker.new_log_text())
        worker.close()
        return answer

    def _take(self, function: Function) -> Worker:
        with self._lock:
            if idle := self._idle.get(function):
                return idle.pop()
            number = self._started.get(function.arn, 0) + 1
            self._started[function.arn] = number
        suffix = "" if number == 1 else f"-{number}"
        log = self._around.log_dir / f"{function.label}{suffix}.log"
        return Worker(WorkerSettings(self.environment(function), function.root, function.handler, log))

    def environment(self, function: Function) -> dict[str, str]:
        """Return all variables of a process of the function, its role's credentials among them."""
        return {
            **dict(function.environment),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": f"rehearsal/[{function.version}]",
            "LAMBDA_TASK_ROOT": str(function.root),
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TZ": ":UTC",
            **self._around.credentials(function),
        }


def _failed(error_type: str, message: str, request_id: str) -> Answer:
    error: JsonObject = {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": []}
    return Answer(json.dumps(error, ensure_ascii=False), failed=True)


def _timed_out(function: Function, request_id: str) -> Answer:
    message = f"RequestId: {request_id} Error: Task timed out after {function.timeout_seconds:.2f} seconds"
    return Answer(json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": message}), failed=True)


def _exited(request_id: str) -> Answer:
    message = f"RequestId: {request_id} Error: Runtime exited without providing a reason"
    return Answer(json.dumps({"errorType": "Runtime.ExitError", "errorMessage": message}), failed=True)
