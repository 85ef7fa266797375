"""An AWS in this process: what a deployed pipeline needs of it, on virtual time, with IAM enforced."""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

from customization.json_types import JsonObject
from rehearsal.clock import VirtualClock
from rehearsal.embedded.access import Access, AccessDeniedError, Call
from rehearsal.embedded.authorization import Place
from rehearsal.embedded.cloudformation import Recorder
from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.deployment import CodeFolders, Deployer
from rehearsal.embedded.events import Delivery, EventBus
from rehearsal.embedded.faults import Faults, NoFaults
from rehearsal.embedded.front import Application, Front, Notification, Services
from rehearsal.embedded.lambda_runtime import Function, LambdaRuntime, RuntimeSurroundings
from rehearsal.embedded.moto_services import MotoServices, Session, load
from rehearsal.embedded.moto_stacks import create_stack, record_with
from rehearsal.embedded.states.history import Happening, Watcher
from rehearsal.embedded.states.machines import Execution, Machine
from rehearsal.embedded.states_api import StatesApi
from rehearsal.embedded.tasks import MachineTasks
from rehearsal.embedded.workers import start_forker

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

# Of the session that may do everything; whoever calls with it, such as a person with the AWS CLI, is the deployer
DEPLOYER_ACCESS_KEY = "AKIAREHEARSALDEPLOYR"
_CONFIG = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
_PATIENCE = 300.0  # real seconds
_SOURCES = {"bedrock": "model-customization-job/rehearsal"}  # for whose sake a service assumes a role: aws:SourceArn


@cache
def _models() -> botocore.loaders.Loader:
    """Return the loader of service models, shared by all sessions: reading them takes most of a client's making."""
    return botocore.loaders.create_loader()


def preload() -> None:
    """Import what takes long and start the process that forks workers, for example while an app is synthesized."""
    start_forker()
    load()


class EmbeddedAws:
    """Runs what was deployed; a context manager. There is one at a time in a process, because moto's state is global.

    `applications` stand in for services by their signing names, such as bedrock. `log_dir` gets a file a function.
    What went wrong in the emulator or in a delivery, and was nobody's answer, is in `problems`.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        region: str,
        applications: Mapping[str, Application],
        log_dir: Path,
        faults: Faults | None = None,
        port: int = 0,
    ) -> None:
        start_forker()
        self.clock = clock
        self.problems: list[str] = []
        clock.on_error = lambda name, error: self.problems.append(f"{name}: {''.join(format_exception(error))}")
        self._watchers: list[Watcher] = []
        self._port = port
        self._moto = MotoServices(clock, region)
        self._code = CodeFolders(self._moto.read_object)
        self.place = Place(self._moto.account, region)
        self.deployed = Deployed(self.place, self._find_code)
        self._access = Access(self._moto, self.deployed)
        log_dir.mkdir(parents=True, exist_ok=True)
        self._faults = faults or NoFaults()
        around = RuntimeSurroundings(clock, self._faults, log_dir, self._credentials, self._log)
        self._runtime = LambdaRuntime(around)
        self._states = StatesApi(
            clock=clock, deployed=self.deployed, tasks_of=self._tasks, watch=self._watch, on_change=self._changed
        )
        self._events = EventBus(clock, self.deployed, self._delivery())
        self.deployed.on_rule = self._events.add
        self._front = Front(self._services(applications))
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Answer at `endpoint_url`, also for the AWS CLI and the CDK CLI (AWS_ENDPOINT_URL)."""
        self.endpoint_url = f"http://localhost:{self._front.serve(self._port)}"
        record_with(Recorder(self.deployed, self._moto))
        return self

    def stop(self) -> None:
        """Stop time, the workers and the server; what was stored is gone."""
        self.clock.stop()
        self._runtime.stop()
        self._front.close()
        record_with(None)
        self._moto.close()
        self._code.clean_up()

    def session(self, credentials: Session | None = None) -> boto3.Session:
        """Return a session of the deployer, who may do everything, or of a role; its clients call this AWS."""
        core = botocore.session.Session()
        core.register_component("data_loader", _models())
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=DEPLOYER_ACCESS_KEY if credentials is None else credentials.access_key,
            aws_secret_access_key="none" if credentials is None else credentials.secret_key,
            aws_session_token=None if credentials is None else credentials.token,
            region_name=self.place.region,
        )
        client = partial(session.client, endpoint_url=self.endpoint_url, config=_CONFIG)
        session.client = client  # type: ignore[method-assign]  # keeps boto3's overloads for callers
        return session

    def session_of_role(self, role_arn: str, service: str) -> boto3.Session:
        """Return a session of a role that an AWS service assumes, such as bedrock for a customization job.

        Raises PermissionError unless the role is there and its trust policy lets the service assume it.
        """
        source = self.place.arn(service, _SOURCES.get(service, "*"))
        try:
            credentials = self._access.session(role_arn, service, service, source)
        except (AccessDeniedError, LookupError) as error:
            raise PermissionError(str(error)) from error
        return self.session(credentials)

    def session_of_person(self, policy_arn: str) -> boto3.Session:
        """Return a session of somebody who may do what a managed policy allows, and nothing else.

        Raises PermissionError unless there is such a policy.
        """
        try:
            role_arn = self._moto.role_of_people(policy_arn)
            return self.session(self._access.session_of_person(role_arn, "person"))
        except (AccessDeniedError, LookupError) as error:
            raise PermissionError(str(error)) from error

    def deploy(self, assembly: Path) -> dict[str, dict[str, str]]:
        """Deploy a cloud assembly and return the outputs of each stack.

        Raises UnsupportedTemplateError or UnsupportedDefinitionError for what would be dropped silently.
        """
        create = partial(create_stack, account=self.place.account, region=self.place.region)
        with self.clock.hold():
            self._moto.bootstrap()
            return Deployer(self.place, self._code, create).deploy(assembly)

    def environment(self, function: Function) -> dict[str, str]:
        """Return all variables of a process of a deployed function, its role's credentials among them."""
        return self._runtime.environment(function)

    def publish(self, event: JsonObject) -> None:
        """Deliver an event, such as one that was delivered before: EventBridge may deliver any event twice."""
        with self.clock.hold():
            self._events.publish(event)

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with everything that happens from now on, in the thread where it happens."""
        self._watchers.append(watcher)

    @property
    def calls(self) -> list[Call]:
        """Return every permission that a role's session has needed, in order."""
        return list(self._access.calls)

    @property
    def processor_seconds(self) -> list[tuple[Function, float]]:
        """Return what each answered call of a function took of the processor, without the imports of libraries."""
        return list(self._runtime.processor_seconds)

    @property
    def notifications(self) -> list[Notification]:
        """Return every message that was published, in order."""
        return list(self._front.notifications)

    def executions(self) -> list[Execution]:
        """Return the executions in the order of their start."""
        return list(self._states.executions.values())

    def wait_for_execution(self, arn: str, real_seconds: float = _PATIENCE) -> Execution:
        """Return an execution once it has ended; raises TimeoutError after `real_seconds`, and LookupError."""
        execution = self._states.executions.get(arn)
        if execution is None:
            raise LookupError(f"there is no execution {arn}")
        if not execution.ended.wait(real_seconds):
            raise TimeoutError(f"{arn} has not ended after {real_seconds:.0f} real seconds; time: {self.clock.now()}")
        return execution

    def wait_until_idle(self, real_seconds: float = _PATIENCE) -> None:
        """Return once nothing runs and nothing waits; raises ClockError as the clock does."""
        self.clock.wait_until_idle(real_seconds)

    def _services(self, applications: Mapping[str, Application]) -> Services:
        return Services(
            clock=self.clock,
            place=self.place,
            moto=self._moto,
            deployed=self.deployed,
            access=self._access,
            states=self._states,
            runtime=self._runtime,
            events=self._events,
            applications=applications,
            problem=self.problems.append,
        )

    def _delivery(self) -> Delivery:
        return Delivery(
            access=self._access,
            runtime=self._runtime,
            states=self._states,
            send_message=self._send_message,
            watch=self._watch,
            problem=self.problems.append,
        )

    def _watch(self, happening: Happening) -> None:
        for watcher in self._watchers:
            watcher(happening)

    def _changed(self, execution: Execution) -> None:
        detail = execution.status_change()
        kind = "Step Functions Execution Status Change"
        self._events.publish(self._events.event("aws.states", kind, [execution.arn], detail))

    def _tasks(self, machine: Machine) -> MachineTasks:
        return MachineTasks(
            machine,
            access=self._access,
            deployed=self.deployed,
            runtime=self._runtime,
            faults=self._faults,
            clock=self.clock,
            sns=self._sns_client,
        )

    def _sns_client(self, credentials: Session) -> "SNSClient":
        return self.session(credentials).client("sns")

    def _send_message(self, queue_arn: str, text: str, attributes: Mapping[str, str]) -> None:
        queues = self.session().client("sqs")
        url = queues.get_queue_url(QueueName=queue_arn.rsplit(":", 1)[-1])["QueueUrl"]
        told: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
        queues.send_message(QueueUrl=url, MessageBody=text, MessageAttributes=told)

    def _find_code(self, bucket: str, key: str) -> Path:
        return self._code.find(bucket, key)

    def _credentials(self, function: Function) -> dict[str, str]:
        session = self._access.session(function.role_arn, function.name, "lambda", function.arn)
        return {
            "AWS_ACCESS_KEY_ID": session.access_key,
            "AWS_SECRET_ACCESS_KEY": session.secret_key,
            "AWS_SESSION_TOKEN": session.token,
            "AWS_REGION": self.place.region,
            "AWS_DEFAULT_REGION": self.place.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }

    def _log(self, function: Function, text: str) -> None:
        if text:
            self._watch(Happening(self.clock.now(), "log", function.label, "", {"text": text}))
