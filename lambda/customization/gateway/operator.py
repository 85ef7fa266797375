"""AWS as the person sees it who deploys: the stacks, and what stays of them, with that person's credentials."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from customization import errors
from customization.gateway import Gateway
from customization.gateway.bedrock import Bedrock
from customization.gateway.calls import CLIENT_CONFIG, named_errors
from customization.json_types import JsonObject
from customization.settings import Defaults, Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

# In the order in which they are deployed
STACKS = ("Storage", "Pipeline", "Operations")
# Their outputs name what a gateway calls, and whoever operates runs may describe no other (stacks/people.py)
_STACKS_OF_RUNS = ("Storage", "Pipeline")
# Written by `cdk bootstrap`, whose default qualifier this is (AWS CDK guide, bootstrap template)
_BOOTSTRAP_VERSION = "/cdk-bootstrap/hnb659fds/version"
_DELETE_AT_ONCE = 1000  # Amazon S3 API, DeleteObjects
# A function may take 15 minutes (AWS Lambda quotas), and a call that is repeated would run twice
_CALL_CONFIG = Config(connect_timeout=5, read_timeout=910, retries={"total_max_attempts": 1})


@dataclass(frozen=True, kw_only=True)
class DeployedStack:
    name: str
    stack_id: str
    is_protected: bool
    outputs: Mapping[str, str]
    is_being_deleted: bool = False

    @property
    def deployment_id(self) -> str:
        """Return the first block of the UUID that a stack id ends with: that of the storage stack is in every name."""
        return self.stack_id.rpartition("/")[2].partition("-")[0]


@dataclass(frozen=True)
class Caller:
    account: str
    arn: str


@dataclass(frozen=True)
class BucketContent:
    """What all versions of all objects take."""

    size: int
    versions: int


class _UnlessGone:
    """Passes over what is gone already; `codes` are what the service calls that, where it has its own word.

    A class, since mypy takes what follows a block of @contextmanager that returns for unreachable.
    """

    def __init__(self, *codes: str) -> None:
        self._codes = codes

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Raise what boto3 raised inside under the names of `errors`, unless it says that something is gone."""
        if not isinstance(error, Exception):
            return False
        try:
            with named_errors():
                raise error
        except errors.ResourceNotFound:
            return True
        except errors.RequestRejected as refused:
            if any(code in str(refused) for code in self._codes):
                return True
            raise


class Operator:
    """Calls AWS with the credentials of the AWS CLI; raises RequestRejected where their profile is not there."""

    def __init__(self, region: str) -> None:
        self.region = region
        with named_errors():
            self._session = boto3.Session(region_name=region)
            self.bedrock = Bedrock(self._session.client("bedrock", config=CLIENT_CONFIG))

    def stacks(self, stage: str, names: Sequence[str] = STACKS) -> list[DeployedStack]:
        """Return those stacks of a stage that exist, in the order in which they are deployed."""
        found = (self._stack(f"Customization-{stage}-{name}") for name in names)
        return [stack for stack in found if stack is not None]

    def connect(self, stage: str) -> Gateway:
        """Return the gateway to what is deployed as `stage`; raises as `gateway` does."""
        return self.gateway(stage, self.stacks(stage, _STACKS_OF_RUNS))

    def gateway(self, stage: str, stacks: Sequence[DeployedStack]) -> Gateway:
        """Return the gateway to a deployment, from the outputs of those of its stacks that are there.

        Raises:
            ResourceNotFound: the storage stack is not among them.
        """
        storage = next((stack for stack in stacks if stack.name.endswith("-Storage")), None)
        if storage is None:
            raise errors.ResourceNotFound(
                f"nothing is deployed as {stage} in {self.region}: give --stage and --region, or deploy"
            )
        outputs = {name: value for stack in stacks for name, value in stack.outputs.items()}
        return Gateway(_settings_of(outputs, storage.deployment_id, stage, self.region))

    def _stack(self, name: str) -> DeployedStack | None:
        client = self._session.client("cloudformation", config=CLIENT_CONFIG)
        try:
            with named_errors():
                described = client.describe_stacks(StackName=name)["Stacks"][0]
        except errors.RequestRejected as error:
            if "does not exist" in str(error):
                return None
            raise
        if described["StackStatus"] == "DELETE_COMPLETE":
            return None
        return DeployedStack(
            name=name,
            stack_id=described["StackId"],
            is_protected=bool(described.get("EnableTerminationProtection")),
            outputs={output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])},
            is_being_deleted=described["StackStatus"].startswith("DELETE_"),
        )

    def lift_protection(self, stack: DeployedStack) -> None:
        """Let a stack be deleted; the next deployment protects it again."""
        client = self._session.client("cloudformation", config=CLIENT_CONFIG)
        with named_errors():
            client.update_termination_protection(StackName=stack.name, EnableTerminationProtection=False)

    def disable_rules(self, target: str) -> list[str]:
        """Disable the enabled rules of EventBridge that have a target, by its ARN, and return their names."""
        client = self._session.client("events", config=CLIENT_CONFIG)
        with named_errors():
            names = self._rules(target, "ENABLED")
            for name in names:
                client.disable_rule(Name=name)
        return names

    def enable_rules(self, target: str) -> list[str]:
        """Enable the disabled rules of EventBridge that have a target, by its ARN, and return their names."""
        client = self._session.client("events", config=CLIENT_CONFIG)
        with named_errors():
            names = self._rules(target, "DISABLED")
            for name in names:
                client.enable_rule(Name=name)
        return names

    def _rules(self, target: str, state: str) -> list[str]:
        client = self._session.client("events", config=CLIENT_CONFIG)
        # A target has at most five rules here, and a page has a hundred
        names = client.list_rule_names_by_target(TargetArn=target)["RuleNames"]
        return [name for name in names if client.describe_rule(Name=name)["State"] == state]

    def detach_policy(self, arn: str) -> list[str]:
        """Detach a managed policy from whoever has it, since it cannot be deleted before, and return their names."""
        client = self._session.client("iam", config=CLIENT_CONFIG)
        names: list[str] = []
        with _UnlessGone("NoSuchEntity"):
            for page in client.get_paginator("list_entities_for_policy").paginate(PolicyArn=arn):
                for role in page["PolicyRoles"]:
                    client.detach_role_policy(RoleName=role["RoleName"], PolicyArn=arn)
                    names.append(f"role {role['RoleName']}")
                for user in page["PolicyUsers"]:
                    client.detach_user_policy(UserName=user["UserName"], PolicyArn=arn)
                    names.append(f"user {user['UserName']}")
                for group in page["PolicyGroups"]:
                    client.detach_group_policy(GroupName=group["GroupName"], PolicyArn=arn)
                    names.append(f"group {group['GroupName']}")
        return names

    def running_executions(self, state_machine: str) -> list[str]:
        """Return the ARNs of the executions that run; none where the state machine is gone."""
        client = self._session.client("stepfunctions", config=CLIENT_CONFIG)
        with _UnlessGone("StateMachineDoesNotExist"):
            pages = client.get_paginator("list_executions").paginate(
                stateMachineArn=state_machine, statusFilter="RUNNING"
            )
            return [execution["executionArn"] for page in pages for execution in page["executions"]]
        return []

    def stop_execution(self, arn: str, cause: str) -> None:
        """Stop an execution; one that has ended is left as it is."""
        client = self._session.client("stepfunctions", config=CLIENT_CONFIG)
        with _UnlessGone():
            client.stop_execution(executionArn=arn, error="Stopped", cause=cause)

    def call(self, function: str, payload: JsonObject) -> str:
        """Call a function and return its error message, or an empty text where it succeeded."""
        client = self._session.client("lambda", config=_CALL_CONFIG)
        with named_errors():
            answer = client.invoke(FunctionName=function, Payload=json.dumps(payload).encode())
        said = answer["Payload"].read()
        return str(json.loads(said).get("errorMessage", "")) if answer.get("FunctionError") else ""

    def tagged(self, tag: str) -> dict[str, str]:
        """Return the ARNs of what bears a tag, each with the tag's value; what was deleted lately may be among them."""
        client = self._session.client("resourcegroupstaggingapi", config=CLIENT_CONFIG)
        with named_errors():
            pages = client.get_paginator("get_resources").paginate(TagFilters=[{"Key": tag}])
            return {
                resource["ResourceARN"]: {item["Key"]: item["Value"] for item in resource["Tags"]}[tag]
                for page in pages
                for resource in page["ResourceTagMappingList"]
            }

    def bucket_content(self, bucket: str) -> BucketContent | None:
        """Return what a bucket holds, or None where it is gone."""
        size = versions = 0
        with _UnlessGone("NoSuchBucket"):
            for page in self._versions(bucket):
                size += sum(size for _, size in page)
                versions += len(page)
            return BucketContent(size, versions)
        return None

    def _versions(self, bucket: str) -> Iterator[list[tuple[tuple[str, str], int]]]:
        """Yield pages of ((key, version id), bytes) of every version and every delete marker."""
        client = self._session.client("s3", config=CLIENT_CONFIG)
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            versions = [((item["Key"], item["VersionId"]), item["Size"]) for item in page.get("Versions", [])]
            yield versions + [((item["Key"], item["VersionId"]), 0) for item in page.get("DeleteMarkers", [])]

    def delete_bucket(self, bucket: str) -> None:
        """Delete every version and every upload under way, then the bucket; raises RequestRejected naming a refusal."""
        client = self._session.client("s3", config=CLIENT_CONFIG)
        with _UnlessGone("NoSuchBucket"):
            for page in self._versions(bucket):
                for start in range(0, len(page), _DELETE_AT_ONCE):
                    some = page[start : start + _DELETE_AT_ONCE]
                    keys: list[ObjectIdentifierTypeDef] = [
                        {"Key": key, "VersionId": version} for (key, version), _ in some
                    ]
                    refused = client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get(
                        "Errors"
                    )
                    if refused:
                        raise errors.RequestRejected(f"{bucket}/{refused[0]['Key']}: {refused[0]['Message']}")
            for uploads in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
                for item in uploads.get("Uploads", []):
                    client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])
            client.delete_bucket(Bucket=bucket)

    def table_bytes(self, table: str) -> int | None:
        """Return what a table takes, as DynamoDB counts it every six hours, or None where it is gone."""
        client = self._session.client("dynamodb", config=CLIENT_CONFIG)
        with _UnlessGone():
            return client.describe_table(TableName=table)["Table"]["TableSizeBytes"]
        return None

    def delete_table(self, table: str) -> None:
        """Delete a table, although it is protected."""
        client = self._session.client("dynamodb", config=CLIENT_CONFIG)
        with _UnlessGone():
            client.update_table(TableName=table, DeletionProtectionEnabled=False)
            client.delete_table(TableName=table)

    def key_is_kept(self, key: str) -> bool:
        """Return whether a key is there and no deletion of it is scheduled."""
        client = self._session.client("kms", config=CLIENT_CONFIG)
        with _UnlessGone("NotFoundException"):
            return str(client.describe_key(KeyId=_key_id(key))["KeyMetadata"]["KeyState"]) != "PendingDeletion"
        return False

    def schedule_key_deletion(self, key: str, days: int) -> datetime:
        """Schedule the deletion of a key, in 7 to 30 days (AWS KMS API), and return when it comes."""
        client = self._session.client("kms", config=CLIENT_CONFIG)
        with named_errors():
            deleted: datetime = client.schedule_key_deletion(KeyId=_key_id(key), PendingWindowInDays=days)[
                "DeletionDate"
            ]
        return deleted

    def parameters(self, path: str) -> list[str]:
        """Return the names of all parameters below a path."""
        client = self._session.client("ssm", config=CLIENT_CONFIG)
        with named_errors():
            pages = client.get_paginator("get_parameters_by_path").paginate(Path=path, Recursive=True)
            return [parameter["Name"] for page in pages for parameter in page["Parameters"]]

    def delete_parameter(self, name: str) -> None:
        """Remove a parameter; one that is gone is fine."""
        client = self._session.client("ssm", config=CLIENT_CONFIG)
        with _UnlessGone():
            client.delete_parameter(Name=name)

    def caller(self) -> Caller:
        """Return whose credentials these are; raises RequestRejected where there are none or they have expired."""
        client = self._session.client("sts", config=CLIENT_CONFIG)
        with named_errors():
            answer = client.get_caller_identity()
        return Caller(answer["Account"], answer["Arn"])

    def bootstrap_version(self) -> int | None:
        """Return the version of the CDK's bootstrap stack, or None where the Region has none."""
        client = self._session.client("ssm", config=CLIENT_CONFIG)
        with _UnlessGone():
            return int(client.get_parameter(Name=_BOOTSTRAP_VERSION)["Parameter"]["Value"])
        return None

    def bedrock_quotas(self) -> dict[str, float]:
        """Return the quotas of Bedrock in this account and Region by their names."""
        client = self._session.client("service-quotas", config=CLIENT_CONFIG)
        with named_errors():
            pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="bedrock")
            return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}

    def unreserved_concurrency(self) -> int:
        """Return how many functions may run at once that have no concurrency of their own."""
        client = self._session.client("lambda", config=CLIENT_CONFIG)
        with named_errors():
            return int(client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"])

    def subscriptions(self, topic: str) -> dict[str, bool]:
        """Return who is subscribed to a topic, each with whether that is confirmed."""
        client = self._session.client("sns", config=CLIENT_CONFIG)
        with named_errors():
            pages = client.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
            return {
                item["Endpoint"]: item["SubscriptionArn"].startswith("arn:")
                for page in pages
                for item in page["Subscriptions"]
            }


def _settings_of(outputs: Mapping[str, str], deployment_id: str, stage: str, region: str) -> Settings:
    """Return what the functions' environment says to them; what no output names is theirs alone, and empty."""
    return Settings(
        data_bucket=outputs["DataBucketName"],
        artifact_bucket=outputs["ArtifactBucketName"],
        runs_table=outputs["RunsTableName"],
        leases_table=outputs.get("LeasesTableName", ""),
        topic_arn=outputs.get("TopicArn", ""),
        customization_role_arn="",
        key_arn="",
        stage=stage,
        deployment_id=deployment_id,
        region=region,
        defaults=Defaults(
            base_model_identifier="",
            budget_usd=0,
            monthly_budget_usd=0,
            settle_seconds=0,
            job_start_hours=0,
            job_end_hours=0,
            language="en",
        ),
    )


def _key_id(arn: str) -> str:
    return arn.rpartition("/")[2]
