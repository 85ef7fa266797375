"""The one place that calls AWS; what it raises are the names of `errors`."""

from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

from customization import errors
from customization.gateway.bedrock import Bedrock
from customization.gateway.calls import ASKING_CONFIG, CLIENT_CONFIG, named_errors, new_session
from customization.gateway.objects import Objects
from customization.gateway.tables import Items
from customization.settings import Settings, current_settings

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.config import Config
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_stepfunctions import SFNClient

    from customization.gateway.runtime import BedrockRuntime


class ExecutionEnd(NamedTuple):
    """The status of a Step Functions execution, and what it failed with: empty where it has not failed."""

    status: str
    error: str = ""
    cause: str = ""


class Gateway:
    """AWS as this deployment sees it. Clients are made when first used: a handler pays for what it needs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session = new_session(settings.region)

    def _client(self, service: str, config: "Config" = CLIENT_CONFIG) -> "BaseClient":
        return self._session.create_client(service, config=config)

    @cached_property
    def _s3(self) -> "S3Client":
        return cast("S3Client", self._client("s3"))

    @cached_property
    def _dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))

    @cached_property
    def data(self) -> Objects:
        """Return the bucket that people write to."""
        return Objects(self._s3, self.settings.data_bucket)

    @cached_property
    def artifacts(self) -> Objects:
        """Return the bucket that runs write to."""
        return Objects(self._s3, self.settings.artifact_bucket)

    @cached_property
    def runs(self) -> Items:
        """Return the table of runs."""
        return Items(self._dynamodb, self.settings.runs_table, "runId")

    @cached_property
    def leases(self) -> Items:
        """Return the table of leases."""
        return Items(self._dynamodb, self.settings.leases_table, "resourceName")

    @cached_property
    def bedrock(self) -> Bedrock:
        """Return Bedrock's control plane."""
        return Bedrock(cast("BedrockClient", self._client("bedrock")))

    @cached_property
    def runtime(self) -> "BedrockRuntime":
        """Return Bedrock's runtime."""
        # Few functions ask models; the others start without it
        from customization.gateway.runtime import BedrockRuntime  # noqa: PLC0415  as said above

        return BedrockRuntime(cast("BedrockRuntimeClient", self._client("bedrock-runtime", ASKING_CONFIG)))

    @cached_property
    def _sns(self) -> "SNSClient":
        return cast("SNSClient", self._client("sns"))

    @cached_property
    def _ssm(self) -> "SSMClient":
        return cast("SSMClient", self._client("ssm"))

    @cached_property
    def _states(self) -> "SFNClient":
        return cast("SFNClient", self._client("stepfunctions"))

    def publish(self, subject: str, message: str) -> None:
        """Send a notification; `subject` is ASCII of at most 99 characters (Amazon SNS API, Publish)."""
        with named_errors():
            self._sns.publish(TopicArn=self.settings.topic_arn, Subject=subject, Message=message)

    def execution_status(self, arn: str) -> ExecutionEnd:
        """Return how a Step Functions execution stands, with status "GONE" where none is known."""
        try:
            with named_errors():
                answer = self._states.describe_execution(executionArn=arn)
        except errors.ResourceNotFound:
            return ExecutionEnd("GONE")
        return ExecutionEnd(answer["status"], answer.get("error", ""), answer.get("cause", ""))

    def bedrock_quota(self, code: str) -> int | None:
        """Return a quota of Bedrock in this account and Region, or None where it cannot be read."""
        client = cast("ServiceQuotasClient", self._client("service-quotas"))
        try:
            with named_errors():
                return int(client.get_service_quota(ServiceCode="bedrock", QuotaCode=code)["Quota"]["Value"])
        except (errors.ResourceNotFound, errors.AccessDenied, errors.RequestRejected):
            return None

    def put_parameter(self, name: str, value: str) -> None:
        """Write a parameter, new or not."""
        with named_errors():
            self._ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)

    def parameter(self, name: str) -> str | None:
        """Return a parameter's value, or None."""
        try:
            with named_errors():
                return self._ssm.get_parameter(Name=name)["Parameter"]["Value"]
        except errors.ResourceNotFound:
            return None

    def delete_parameter(self, name: str) -> None:
        """Remove a parameter; one that is gone is fine."""
        try:
            with named_errors():
                self._ssm.delete_parameter(Name=name)
        except errors.ResourceNotFound:
            return


@cache
def connect() -> Gateway:
    """Return the gateway of this process, made from its environment."""
    return Gateway(current_settings())
