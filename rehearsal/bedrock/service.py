"""The stand-in of Amazon Bedrock: control plane and runtime of one account in one Region, on a virtual clock."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from botocore.model import OperationModel

from customization.catalogue import Catalogue
from customization.money import PriceBook
from rehearsal.bedrock.account import Account
from rehearsal.bedrock.authorization import Authorization, Permission, request_tags
from rehearsal.bedrock.base_models import BaseModels
from rehearsal.bedrock.custom_models import CustomModels, Tags
from rehearsal.bedrock.customization_jobs import CustomizationJobs
from rehearsal.bedrock.errors import ServiceError
from rehearsal.bedrock.faults import Fault, Faults
from rehearsal.bedrock.language_model import LanguageModel
from rehearsal.bedrock.ledger import Charge, Ledger, LedgerEntry
from rehearsal.bedrock.protocol import (
    HttpResponse,
    Request,
    Response,
    error_response,
    find_operation,
    http_error,
    parse_request,
    serialize,
)
from rehearsal.bedrock.runtime import Runtime
from rehearsal.bedrock.serving import Deployments, Throughputs
from rehearsal.bedrock.trainer import Trainer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Handler = Callable[[Request, datetime], Response]
INFERENCE = frozenset({"Converse", "InvokeModel"})


class Clock(Protocol):
    def now(self) -> datetime: ...


class BedrockService:
    """Safe to call from several threads. `close` ends the worker thread that trains.

    `s3_client_for_role` returns a client with the credentials of the customization role, or raises PermissionError when
    Bedrock may not assume it. `pretrained` makes the base model, which all base models of the catalogue share.
    `created` has the ARN of everything that a call has ever created.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        region: str,
        account: str,
        s3_client_for_role: "Callable[[str], S3Client]",
        catalogue: Catalogue,
        prices: PriceBook,
        seed: int = 0,
        model_units: int = 10,
        faults: Iterable[Fault] = (),
        pretrained: Callable[[], LanguageModel] | None = None,
    ) -> None:
        self._clock = clock
        self._account = Account(region, account, seed, model_units)
        self._faults = Faults(faults)
        self._ledger = Ledger(prices, region)
        base_models = BaseModels(self._account, catalogue, self._faults)
        trainer = Trainer(s3_client_for_role, pretrained or (lambda: LanguageModel.pretrained(seed)), seed)
        shared = (self._account, base_models, self._ledger, self._faults)
        self._jobs = CustomizationJobs(
            account=self._account,
            base_models=base_models,
            trainer=trainer,
            ledger=self._ledger,
            faults=self._faults,
            s3_client_for_role=s3_client_for_role,
        )
        self._custom_models = CustomModels(self._account, self._ledger)
        self._throughputs, self._deployments = Throughputs(*shared), Deployments(*shared)
        self._authorization = Authorization(self._account, base_models)
        self._handlers = self._control_plane(base_models, Tags(self._account))
        runtime = Runtime(self._account, base_models, trainer, self._ledger, self._faults)
        self.answers = runtime.answers
        self.created: set[str] = set()
        self._handlers |= {"Converse": runtime.converse, "InvokeModel": runtime.invoke_model}

    def _control_plane(self, base_models: BaseModels, tags: Tags) -> dict[str, Handler]:
        return {
            "CreateModelCustomizationJob": self._jobs.create,
            "GetModelCustomizationJob": self._jobs.get,
            "ListModelCustomizationJobs": self._jobs.list,
            "StopModelCustomizationJob": self._jobs.stop,
            "GetCustomModel": self._custom_models.get,
            "ListCustomModels": self._custom_models.list,
            "DeleteCustomModel": self._custom_models.delete,
            "CreateProvisionedModelThroughput": self._throughputs.create,
            "GetProvisionedModelThroughput": self._throughputs.get,
            "ListProvisionedModelThroughputs": self._throughputs.list,
            "UpdateProvisionedModelThroughput": self._throughputs.update,
            "DeleteProvisionedModelThroughput": self._throughputs.delete,
            "CreateCustomModelDeployment": self._deployments.create,
            "GetCustomModelDeployment": self._deployments.get,
            "ListCustomModelDeployments": self._deployments.list,
            "UpdateCustomModelDeployment": self._deployments.update,
            "DeleteCustomModelDeployment": self._deployments.delete,
            "GetFoundationModel": base_models.get,
            "ListFoundationModels": base_models.list,
            "GetFoundationModelAvailability": base_models.availability,
            "GetInferenceProfile": base_models.get_profile,
            "ListInferenceProfiles": base_models.list_profiles,
            "TagResource": tags.add,
            "UntagResource": tags.remove,
            "ListTagsForResource": tags.list,
        }

    def handle(
        self, method: str, path: str, query_string: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        """Return status, headers and body for one HTTP request; `path` may hold encoded or plain slashes."""
        found = find_operation(method, path)
        name = found[0].name if found else f"{method} {path}"
        if found is None or name not in self._handlers:
            return http_error(
                501, "UnknownOperationException", f"The rehearsal does not know {name} of Amazon Bedrock."
            )
        try:
            return self._answer(*found, query_string, headers, body)
        except ServiceError as error:
            return error_response(found[0], error)

    def _answer(
        self,
        operation: OperationModel,
        labels: Mapping[str, str],
        query_string: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> HttpResponse:
        request = parse_request(operation, labels, query_string, headers, body)
        name = operation.name
        refused = self._faults.strike("refuse", f"{name}/")
        if refused:
            code, _, message = refused.partition("/")[2].partition(": ")
            raise ServiceError(code, message or f"{name} was refused by the fault 'refuse'.")
        response = serialize(operation, self._run(request))
        if self._faults.strike("lose-answer", name) is not None:
            raise ServiceError("InternalServerException", f"The answer of {name} was lost by the fault 'lose-answer'.")
        return response

    def authorization(self, method: str, path: str, query_string: str, body: bytes) -> list[Permission]:
        """Return every (IAM action, resource ARN) that the call needs, `*` where an action has no resource types.

        An unknown or malformed call needs nothing: `handle` refuses it.
        """
        request = self._parsed(method, path, query_string, body)
        if request is None:
            return []
        with self._account.lock:
            self._jobs.settle(self._clock.now())
            return self._authorization.needed(request)

    def request_tags(self, method: str, path: str, query_string: str, body: bytes) -> dict[str, str]:
        """Return the tags that a call asks for, for conditions on aws:RequestTag: those in each of its lists of tags.

        A customization job has two lists, and no source says how both make one condition key.
        """
        request = self._parsed(method, path, query_string, body)
        return {} if request is None else request_tags(request)

    def _parsed(self, method: str, path: str, query_string: str, body: bytes) -> Request | None:
        found = find_operation(method, path)
        if found is None or found[0].name not in self._handlers:
            return None
        try:
            return parse_request(found[0], found[1], query_string, {}, body)
        except ServiceError:
            return None

    def tags(self, resource_arn: str) -> dict[str, str]:
        """Return the tags of a resource, for conditions on aws:ResourceTag; none for an unknown resource."""
        with self._account.lock:
            return dict(self._account.tags.get(resource_arn, {}))

    def ledger(self) -> list[LedgerEntry]:
        """Return everything billed up to now, what still bills included."""
        with self._account.lock:
            now = self._clock.now()
            self._jobs.settle(now)
            return self._ledger.entries(self._running(now))

    def live_resources(self) -> list[str]:
        """Return the ARNs of what can still cost something: jobs under way, throughputs, deployments, custom models."""
        with self._account.lock:
            now = self._clock.now()
            self._jobs.settle(now)
            account = self._account
            jobs = [job.arn for job in account.jobs.values() if job.progress(now).ended is None]
            return [*jobs, *account.throughputs, *account.deployments, *account.models]

    def inject(self, faults: Iterable[Fault]) -> None:
        """Let these faults, and no others, be in effect from now on."""
        self._faults.replace(faults)

    def close(self) -> None:
        """Give up every training that is not done."""
        self._jobs.close()

    def _run(self, request: Request) -> Response:
        handler = self._handlers[request.operation.name]
        with self._account.lock:
            now = self._clock.now()
            self._jobs.settle(now)
            if request.operation.name not in INFERENCE:
                response = handler(request, now)
                if request.operation.name.startswith("Create"):
                    self.created |= {str(value) for name, value in response.values.items() if name.endswith("Arn")}
                return response
        # Answers are computed side by side; what is behind a modelId is looked up under the lock.
        return handler(request, now)

    def _running(self, now: datetime) -> list[Charge]:
        storage = [self._custom_models.storage(model, now) for model in self._account.models.values()]
        hours = [self._throughputs.charge(throughput, now) for throughput in self._account.throughputs.values()]
        return [charge for charge in (*storage, *hours) if charge.quantity > 0]
