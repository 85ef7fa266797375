"""The integrations of the state machine: lambda:invoke and sns:publish, with the machine's own role."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, ParamValidationError

from customization.json_types import Json, JsonObject, as_object, as_text
from rehearsal.clock import VirtualClock
from rehearsal.embedded.access import Access, AccessDeniedError
from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.faults import PUBLISH, Faults, FunctionFault, Hang, TaskCall, Twice
from rehearsal.embedded.lambda_runtime import LambdaRuntime, ThrottledError
from rehearsal.embedded.moto_services import Session
from rehearsal.embedded.policies import Demand
from rehearsal.embedded.states.errors import StateError, runtime_error
from rehearsal.embedded.states.machines import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_sns import SNSClient

# Longer than any publishing state waits
_HANGS_SECONDS = 3_600.0
_OK: JsonObject = {"SdkHttpMetadata": {"HttpStatusCode": 200}}


class MachineTasks:
    """What a machine does outside itself."""

    def __init__(
        self,
        machine: Machine,
        *,
        access: Access,
        deployed: Deployed,
        runtime: LambdaRuntime,
        faults: Faults,
        clock: VirtualClock,
        sns: "Callable[[Session], SNSClient]",
    ) -> None:
        self._machine = machine
        self._access = access
        self._deployed = deployed
        self._runtime = runtime
        self._faults = faults
        self._clock = clock
        self._sns = sns
        self._integrations: dict[str, Callable[[JsonObject, str], Json]] = {
            "arn:aws:states:::lambda:invoke": self._invoke,
            "arn:aws:states:::sns:publish": self._publish,
        }

    def run(self, resource: str, arguments: Json, state: str) -> Json:
        """Return the integration's result; raises StateError with the names that Step Functions gives."""
        return self._integrations[resource](as_object(arguments, "Arguments"), state)

    def check_child_executions_allowed(self) -> None:
        """Raise StateError States.Permissions unless the role may start executions of its own machine."""
        try:
            self._access.require(self._session(), [Demand("states:StartExecution", self._machine.arn)])
        except AccessDeniedError as error:
            raise StateError("States.Permissions", str(error)) from error

    def _session(self) -> Session:
        return self._access.session(self._machine.role_arn, self._machine.name[:64], "states", self._machine.arn)

    def _invoke(self, arguments: JsonObject, state: str) -> Json:
        unknown = arguments.keys() - {"FunctionName", "Payload"}
        if unknown:
            raise runtime_error(f"lambda:invoke: the rehearsal does not support {', '.join(sorted(unknown))}")
        name = as_text(arguments["FunctionName"], "FunctionName")
        arn = name if name.startswith("arn:") else self._deployed.place.arn("lambda", f"function:{name}")
        try:
            self._access.require(self._session(), [Demand("lambda:InvokeFunction", arn)])
        except AccessDeniedError as error:
            details = "(Service: AWSLambda; Status Code: 403; Error Code: AccessDeniedException)"
            raise StateError("Lambda.AWSLambdaException", f"{error} {details}") from error
        function = self._deployed.function(arn)
        if function is None:
            raise StateError("Lambda.ResourceNotFoundException", f"Function not found: {arn}")
        try:
            answer = self._runtime.invoke(function, arguments.get("Payload", {}), state)
        except ThrottledError as error:
            raise StateError("Lambda.TooManyRequestsException", str(error)) from error
        payload: Json = json.loads(answer.payload)
        if answer.failed:
            raise StateError(str(as_object(payload, "error")["errorType"]), answer.payload)
        return {"ExecutedVersion": function.version, "Payload": payload, "StatusCode": 200, **_OK}

    def _publish(self, arguments: JsonObject, state: str) -> Json:
        call = TaskCall(PUBLISH, arguments, state)
        try:
            self._faults.before_call(call)
            answer = self._publish_once(arguments)
            self._faults.after_call(call)
        except Twice as fault:
            return self._publish_twice(arguments, fault)
        except Hang:
            self._clock.sleep(_HANGS_SECONDS)
            raise StateError("States.TaskFailed", "no answer came") from None
        except FunctionFault as fault:
            raise StateError(f"SNS.{fault.error_type}", str(fault)) from fault
        return answer

    def _publish_twice(self, arguments: JsonObject, fault: Twice) -> JsonObject:
        meet = fault.meeting()

        def publish() -> JsonObject:
            meet()
            return self._publish_once(arguments)

        with ThreadPoolExecutor(1) as other:
            first = other.submit(publish)
            answer = publish()
            first.result()
        return answer

    def _publish_once(self, arguments: JsonObject) -> JsonObject:
        message = arguments["Message"]
        texts = {name: str(value) for name, value in arguments.items() if name != "Message"}
        unknown = texts.keys() - {"TopicArn", "Subject"}
        if unknown:
            raise runtime_error(f"sns:publish: the rehearsal does not support {', '.join(sorted(unknown))}")
        text = message if isinstance(message, str) else json.dumps(message)
        try:
            client = self._sns(self._session())
            if "Subject" in texts:
                sent = client.publish(TopicArn=texts["TopicArn"], Message=text, Subject=texts["Subject"])
            else:
                sent = client.publish(TopicArn=texts["TopicArn"], Message=text)
        except ClientError as error:
            code = str(error.response["Error"]["Code"]).removesuffix("Exception")
            raise StateError(f"SNS.{code}Exception", str(error)) from error
        except ParamValidationError as error:
            raise runtime_error(str(error)) from error
        return {"MessageId": sent["MessageId"], **_OK}
