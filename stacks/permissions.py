"""What each function may do: one row a function, nothing granted that its handler does not call.

The resource types of Bedrock's actions come from the Service Authorization Reference. Bedrock makes the ids of its
resources, so their ARNs end with a wildcard, and whatever takes something away is bound to the tag of this deployment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import asked_base_models
from stacks.nag import acknowledge_wildcards

if TYPE_CHECKING:
    from stacks.config import DeploymentConfig
    from stacks.storage import StorageExports

Conditions = Mapping[str, Mapping[str, str | list[str]]]

# What serves custom models, with the word of its operations
_SERVED = {"custom-model-deployment": "CustomModelDeployment", "provisioned-model": "ProvisionedModelThroughput"}
_LISTS = (
    "bedrock:ListModelCustomizationJobs",
    "bedrock:ListCustomModelDeployments",
    "bedrock:ListProvisionedModelThroughputs",
)
# What a run leaves for people to read
REPORTS = ("runs/*/report.html", "runs/*/report.json", "datasets/*/index.html", "datasets/*/runs.csv")
# What ids of inference profiles begin with
AREAS = {"us", "eu", "apac", "global"}
# Custom models, their deployments, and model units of custom models without commitment (AWS General Reference, Bedrock
# quotas)
_QUOTAS = ("L-CB5B847D", "L-1EF80F3E", "L-BE77399C")
# What a service does with the key of what is encrypted in the name of its caller, by the service's own guide: who puts
# a table to use decrypts its table key, for writing too, and a multipart upload decrypts as well as encrypts
_READ, _WRITE = frozenset({"Decrypt"}), frozenset({"Decrypt", "GenerateDataKey"})
_KEY_USES = {
    "s3:GetObject": _READ,
    "s3:GetObjectVersion": _READ,
    "s3:PutObject": _WRITE,
    "dynamodb": _READ,
    "sns": _WRITE,
    "sqs": _WRITE,
}


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One statement of a policy. `reason` and `limits` are required where a resource holds a wildcard."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Conditions = field(default_factory=dict)
    reason: str = ""
    limits: str = ""

    def statement(self) -> iam.PolicyStatement:
        return iam.PolicyStatement(
            actions=list(self.actions),
            resources=list(self.resources),
            conditions={operator: dict(keys) for operator, keys in self.conditions.items()},
        )


def managed_policy(
    scope: Construct, id_: str, grants: Sequence[Grant], *, roles: Sequence[iam.IRole] = (), description: str = ""
) -> iam.ManagedPolicy:
    """Return a policy of `grants`, attached to `roles`, with their reasons for what the rule packs find.

    Inside a role, as its `scope`, whatever waits for the role waits for the policy too. IAM takes 6,144 characters.
    """
    statements = [grant.statement() for grant in grants]
    policy = iam.ManagedPolicy(scope, id_, roles=list(roles), statements=statements, description=description or None)
    for grant, statement in zip(grants, statements, strict=True):
        if grant.reason:
            acknowledge_wildcards(policy, [statement], reason=grant.reason, limits=grant.limits)
    return policy


class Grants:
    """The vocabulary of the table below."""

    def __init__(self, stack: Stack, *, config: "DeploymentConfig", exports: "StorageExports", topic_arn: str) -> None:
        self._stack = stack
        self._stage = config.stage
        self._asked = asked_base_models(config.region)
        self._exports = exports
        self._topic_arn = topic_arn

    def read_data(self, name: str = "") -> Grant:
        """Read the newest version of what lies below incoming/."""
        return self._objects(self._exports.data_bucket_arn, ("s3:GetObject",), (f"incoming/*{name}",))

    def read_pinned_data(self) -> Grant:
        """Read the versions that a plan has pinned."""
        return self._objects(self._exports.data_bucket_arn, ("s3:GetObjectVersion",), ("incoming/*",))

    def list_data(self) -> Grant:
        return _list(self._exports.data_bucket_arn, ("incoming/*",))

    def list_uploads(self) -> Grant:
        """List multipart uploads; IAM has no condition on their prefix."""
        return Grant(actions=("s3:ListBucketMultipartUploads",), resources=(self._exports.data_bucket_arn,))

    def read(self, *keys: str) -> Grant:
        return self._objects(self._exports.artifact_bucket_arn, ("s3:GetObject",), keys)

    def write(self, *keys: str) -> Grant:
        return self._objects(self._exports.artifact_bucket_arn, ("s3:PutObject",), keys)

    def abort_writing(self, *keys: str) -> Grant:
        """Drop the parts of a large file whose writing failed; nobody could see them, and they would be billed."""
        return self._objects(self._exports.artifact_bucket_arn, ("s3:AbortMultipartUpload",), keys)

    def list_artifacts(self, *prefixes: str) -> Grant:
        return _list(self._exports.artifact_bucket_arn, prefixes)

    def runs(self, *operations: str) -> Grant:
        return Grant(
            actions=tuple(f"dynamodb:{operation}" for operation in operations),
            resources=(self._exports.runs_table_arn,),
        )

    def query_runs(self) -> Grant:
        """Read all runs of a data set by the table's index."""
        return Grant(actions=("dynamodb:Query",), resources=(f"{self._exports.runs_table_arn}/index/byDataset",))

    def leases(self, *operations: str) -> Grant:
        return Grant(
            actions=tuple(f"dynamodb:{operation}" for operation in operations),
            resources=(self._exports.leases_table_arn,),
        )

    def plan(self) -> tuple[Grant, ...]:
        """Read what PlanRun decided, and whether this execution still owns the run."""
        return (self.read("runs/*/manifest.json"), self.runs("GetItem"))

    def publish(self) -> Grant:
        return Grant(actions=("sns:Publish",), resources=(self._topic_arn,))

    def bedrock(self, *operations: str, on: tuple[str, ...], only_own: bool = False) -> Grant:
        """Call Bedrock with any of `on`, kinds of resources; with `only_own` only where this deployment's tag is."""
        own = {"StringEquals": {"aws:ResourceTag/deployment": self._exports.deployment_id}}
        return Grant(
            actions=tuple(f"bedrock:{operation}" for operation in operations),
            resources=tuple(self._bedrock_arn(kind) for kind in on),
            conditions=own if only_own else {},
            # Of base models AWS does not document whether these calls look at ids with the context's length or without
            reason="Bedrock makes the ids of its resources, and a run request chooses the base model.",
            limits="the actions listed, one account and, for what serves, asks or ends, the tag of this deployment.",
        )

    def ask_models(self) -> tuple[Grant, ...]:
        """Ask our own models and the base models of the catalogue."""
        arns = tuple(arn for asked in self._asked for arn in self._arns_of_base_model(asked))
        return (
            replace(self.bedrock("InvokeModel", on=("foundation-model",)), resources=arns),
            self.bedrock("InvokeModel", on=tuple(_SERVED), only_own=True),
        )

    def ask_served_models(self) -> tuple[Grant, ...]:
        """Ask what this deployment serves, streamed or not, and read which model is in use for a data set."""
        return (
            self.bedrock("InvokeModel", "InvokeModelWithResponseStream", on=tuple(_SERVED), only_own=True),
            self.model_parameters("GetParameter"),
            self.key("Decrypt", via=("bedrock",)),
        )

    def look_at_served(self, *kinds: str) -> tuple[Grant, ...]:
        return tuple(self.bedrock(f"Get{_SERVED[kind]}", on=(kind,)) for kind in kinds)

    def read_tags(self, *kinds: str) -> Grant:
        return self.bedrock("ListTagsForResource", on=kinds)

    def tag_new(self, *kinds: str) -> Grant:
        """Put tags on what is being made: this deployment's, and never on what bears another deployment's.

        Whoever could tag anything could make it deletable, since deletes go by that tag. What is new and what bears no
        tag at all are the same to IAM, since Bedrock has no condition key for the call that creates.
        """
        own = self._exports.deployment_id
        conditions = {
            "StringEquals": {"aws:RequestTag/deployment": own},
            "StringEqualsIfExists": {"aws:ResourceTag/deployment": own},
        }
        return replace(self.bedrock("TagResource", on=kinds), conditions=conditions)

    def release_served(self, *kinds: str) -> tuple[Grant, ...]:
        deletes = (self.bedrock(f"Delete{_SERVED[kind]}", on=(kind,), only_own=True) for kind in kinds)
        return (*self.look_at_served(*kinds), *deletes)

    def release_models(self) -> tuple[Grant, ...]:
        return (
            self.bedrock("GetCustomModel", on=("custom-model",)),
            self.bedrock("DeleteCustomModel", on=("custom-model",), only_own=True),
        )

    def swap_models(self) -> tuple[Grant, ...]:
        """Let a deployment of ours serve another of our models; whoever serves an encrypted model decrypts it."""
        served = ("custom-model", "custom-model-deployment")
        return (
            self.bedrock("UpdateCustomModelDeployment", on=served, only_own=True),
            self.key("Decrypt", via=("bedrock",)),
        )

    def stop_jobs(self) -> tuple[Grant, ...]:
        return (
            self.bedrock("GetModelCustomizationJob", on=("model-customization-job",)),
            self.bedrock("StopModelCustomizationJob", on=("model-customization-job",), only_own=True),
        )

    def unscoped(self, *actions: str) -> Grant:
        """Allow actions for which IAM knows no resource."""
        return Grant(
            actions=actions,
            resources=("*",),
            reason="These actions have no resource type in IAM.",
            limits="they list or look up, or send traces, and change nothing.",
        )

    def read_quotas(self) -> Grant:
        quotas = (
            self._stack.format_arn(service="servicequotas", resource="bedrock", resource_name=code) for code in _QUOTAS
        )
        return Grant(actions=("servicequotas:GetServiceQuota",), resources=tuple(quotas))

    def model_parameters(self, *operations: str) -> Grant:
        path = f"{self._stage}/{self._exports.deployment_id}/datasets/*"
        return Grant(
            actions=tuple(f"ssm:{operation}" for operation in operations),
            resources=(self._stack.format_arn(service="ssm", resource="parameter", resource_name=path),),
            reason="Each data set has its own parameter, named when it is first dropped.",
            limits="the path of this stage and deployment.",
        )

    def pass_customization_role(self) -> Grant:
        return Grant(
            actions=("iam:PassRole",),
            resources=(self._exports.customization_role_arn,),
            conditions={"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
        )

    def key(self, *operations: str, via: tuple[str, ...]) -> Grant:
        """Use the key through the services `via` alone."""
        services = [f"{service}.{self._stack.region}.amazonaws.com" for service in via]
        return Grant(
            actions=tuple(f"kms:{operation}" for operation in operations),
            resources=(self._exports.key_arn,),
            conditions={"StringEquals": {"kms:ViaService": services}},
        )

    def key_for(self, grants: tuple[Grant, ...]) -> tuple[Grant, ...]:
        """Use the key for whatever encrypted resources `grants` reach, in a statement for each way of using it."""
        uses: dict[str, frozenset[str]] = {}
        for action in (action for grant in grants for action in grant.actions):
            service = action.partition(":")[0]
            use = _KEY_USES.get(action) or _KEY_USES.get(service) or frozenset()
            uses[service] = uses.get(service, frozenset()) | use
        ways = {way: tuple(service for service in uses if uses[service] == way) for way in (_READ, _WRITE)}
        return tuple(self.key(*sorted(way), via=via) for way, via in ways.items() if via)

    def _objects(self, bucket_arn: str, actions: tuple[str, ...], keys: "list[str] | tuple[str, ...]") -> Grant:
        return Grant(
            actions=actions,
            resources=tuple(f"{bucket_arn}/{key}" for key in keys),
            reason="Data sets and runs name their own folders, after this policy is deployed.",
            limits="one bucket, and the files listed by their place in a folder.",
        )

    def _bedrock_arn(self, kind: str, name: str = "*") -> str:
        owner = "" if kind == "foundation-model" else None
        return self._stack.format_arn(service="bedrock", account=owner, resource=kind, resource_name=name)

    def _arns_of_base_model(self, asked: str) -> tuple[str, ...]:
        """Return what has to be allowed to ask by an id; a profile passes the call to the model of another Region."""
        area, _, model = asked.partition(".")
        if area not in AREAS:
            return (self._bedrock_arn("foundation-model", asked),)
        elsewhere = f"arn:{self._stack.partition}:bedrock:*::foundation-model/{model}"
        return (self._bedrock_arn("inference-profile", asked), elsewhere)


def _list(bucket_arn: str, prefixes: tuple[str, ...]) -> Grant:
    """List below `prefixes`. A read has none, and S3 answers 404 instead of 403 to those who may list."""
    return Grant(
        actions=("s3:ListBucket",),
        resources=(bucket_arn,),
        conditions={"StringLikeIfExists": {"s3:prefix": list(prefixes)}},
    )


def function_grants(g: Grants) -> dict[str, tuple[Grant, ...]]:
    """Return what each function may do, by the module of its handler.

    states:DescribeExecution is added later: it names the state machine, and that names the functions.
    """
    return _intake(g) | _preparation(g) | _training(g) | _serving(g) | _evaluation(g) | _promotion(g) | _ending(g)


def _intake(g: Grants) -> dict[str, tuple[Grant, ...]]:
    return {
        "poll_uploads": (
            g.list_data(),
            g.list_uploads(),
            g.read_data("/run.json"),
            g.runs("GetItem", "PutItem", "DeleteItem"),
        ),
        "plan_run": (
            g.list_data(),
            g.read_data(),
            g.read_pinned_data(),
            g.list_artifacts("runs/*"),
            g.read("runs/*/manifest.json"),
            g.write("runs/*/manifest.json"),
            g.runs("GetItem", "PutItem", "DeleteItem"),
        ),
        "explain_unused_upload": (g.runs("PutItem"), g.publish()),
    }


def _preparation(g: Grants) -> dict[str, tuple[Grant, ...]]:
    return {
        "check_preconditions": (
            *g.plan(),
            g.bedrock("GetFoundationModel", on=("foundation-model",)),
            g.bedrock("GetModelCustomizationJob", on=("model-customization-job",)),
            g.bedrock("GetCustomModel", on=("custom-model",)),
            *g.look_at_served(*_SERVED),
            g.read_tags("model-customization-job", *_SERVED),
            g.unscoped(*_LISTS, "bedrock:ListCustomModels", "bedrock:GetFoundationModelAvailability"),
            g.read_quotas(),
            g.runs("UpdateItem"),
        ),
        "prepare_dataset": (
            *g.plan(),
            g.list_data(),
            g.read_pinned_data(),
            g.write("runs/*/data/*", "runs/*/estimate.json"),
            g.abort_writing("runs/*/data/*"),
            g.runs("UpdateItem"),
            # The report of a run that is only estimated
            g.list_artifacts("runs/*"),
            g.read("runs/*/data/profile.json", "runs/*/estimate.json", "runs/*/training-metrics-*.json"),
            g.write(*REPORTS),
            g.query_runs(),
        ),
        "is_within_budget": (
            *g.plan(),
            g.read("runs/*/estimate.json", "runs/*/data/profile.json"),
            g.runs("UpdateItem"),
        ),
    }


def _training(g: Grants) -> dict[str, tuple[Grant, ...]]:
    job, model = ("model-customization-job",), ("custom-model",)
    return {
        "create_customization_job": (
            *g.plan(),
            g.read("runs/*/data/files.json"),
            g.bedrock("CreateModelCustomizationJob", on=("foundation-model", *model, *job)),
            g.tag_new(*model, *job),
            g.bedrock("GetModelCustomizationJob", on=job),
            g.read_tags(*job),
            g.bedrock("GetCustomModel", on=model),
            g.pass_customization_role(),
            # Bedrock guide, "Encryption of custom models": whoever creates the job lets Bedrock use the model's key
            g.key("Decrypt", "GenerateDataKey", "DescribeKey", "CreateGrant", via=("bedrock",)),
            g.runs("UpdateItem", "Scan"),
            g.leases("GetItem", "PutItem"),
        ),
        "poll_customization_job": (*g.plan(), *g.stop_jobs(), g.runs("UpdateItem")),
        "collect_training_metrics": (
            *g.plan(),
            g.bedrock("GetModelCustomizationJob", on=job),
            g.list_artifacts("runs/*"),
            g.read("runs/*/bedrock/*"),
            g.write("runs/*/training-metrics-*.json"),
            g.runs("UpdateItem"),
            g.leases("Scan", "UpdateItem"),
        ),
    }


def _serving(g: Grants) -> dict[str, tuple[Grant, ...]]:
    model, deployment, throughput = ("custom-model",), ("custom-model-deployment",), ("provisioned-model",)
    # Bedrock guide, "Encryption of custom models": who serves or asks an encrypted model decrypts it
    decrypt_model = g.key("Decrypt", via=("bedrock",))
    return {
        "create_model_deployment": (
            *g.plan(),
            g.bedrock("CreateCustomModelDeployment", on=model, only_own=True),
            g.tag_new(*deployment),
            *g.release_served(*deployment),
            decrypt_model,
            g.runs("UpdateItem", "Scan"),
            g.leases("GetItem", "PutItem"),
        ),
        "poll_model_deployment": (*g.plan(), *g.look_at_served(*deployment)),
        "create_provisioned_throughput": (
            *g.plan(),
            g.bedrock("CreateProvisionedModelThroughput", on=model, only_own=True),
            # Asked for beside the custom model; Amazon's models bear no tag of ours
            g.bedrock("CreateProvisionedModelThroughput", on=("foundation-model",)),
            g.tag_new(*throughput),
            *g.release_served(*throughput),
            decrypt_model,
            g.runs("UpdateItem", "Scan"),
            g.leases("GetItem", "PutItem"),
        ),
        "poll_provisioned_throughput": (*g.plan(), *g.look_at_served(*throughput)),
    }


def _evaluation(g: Grants) -> dict[str, tuple[Grant, ...]]:
    test_records = ("runs/*/data/test.jsonl", "runs/*/data/profile.json")
    return {
        "evaluate_shard": (
            *g.plan(),
            g.read(*test_records, "answers/*"),
            g.list_artifacts("answers/*"),
            g.write("answers/*"),
            *g.ask_models(),
            *g.look_at_served(*_SERVED),
            g.key("Decrypt", via=("bedrock",)),
            g.runs("UpdateItem"),
        ),
        "compare_models": (
            *g.plan(),
            g.read(*test_records, "runs/*/training-metrics-*.json", "runs/*/evaluation/*", "answers/*"),
            g.list_artifacts("runs/*", "answers/*"),
            g.write("runs/*/evaluation/*"),
            g.runs("UpdateItem"),
            g.query_runs(),
        ),
        "publish_report": (
            *g.plan(),
            g.read(*test_records, "runs/*/estimate.json", "runs/*/training-metrics-*.json", "runs/*/evaluation/*"),
            g.list_artifacts("runs/*"),
            g.write(*REPORTS),
            g.bedrock("GetModelCustomizationJob", on=("model-customization-job",)),
            *g.look_at_served(*_SERVED),
            g.runs("UpdateItem"),
            g.query_runs(),
            g.leases("Scan"),
        ),
    }


def _promotion(g: Grants) -> dict[str, tuple[Grant, ...]]:
    return {
        "promote_model": (
            *g.plan(),
            *g.swap_models(),
            # The deployment of the run's own goes once that of the model in use serves its model
            *g.release_served(*_SERVED),
            g.read_tags(*_SERVED),
            g.model_parameters("PutParameter"),
            g.runs("PutItem", "UpdateItem"),
            g.leases("Scan", "UpdateItem"),
        ),
        "change_model_in_use": (
            *g.plan(),
            *g.swap_models(),
            g.bedrock("GetCustomModel", on=("custom-model",)),
            *g.look_at_served(*_SERVED),
            g.model_parameters("PutParameter"),
            g.runs("PutItem", "UpdateItem"),
            g.leases("UpdateItem"),
        ),
    }


def _ending(g: Grants) -> dict[str, tuple[Grant, ...]]:
    leases = g.leases("Scan", "UpdateItem")
    served = (*g.release_served(*_SERVED), g.read_tags(*_SERVED))
    everything = (*served, *g.stop_jobs(), *g.release_models(), leases)
    # Whoever releases what is promoted restores the model before it, or removes the parameter, and says so
    withdraw = (g.model_parameters("GetParameter", "PutParameter", "DeleteParameter"), g.publish())
    return {
        "release_serving": (*g.plan(), *served, leases, g.runs("UpdateItem")),
        "release_model": (*g.plan(), *g.release_models(), leases, g.runs("Scan", "UpdateItem")),
        "release_resources": (
            *everything,
            *withdraw,
            g.runs("GetItem", "Scan", "PutItem", "UpdateItem", "DeleteItem"),
            # The report of a run that failed is written once it is known what was released
            g.read("runs/*/manifest.json", "runs/*/data/profile.json", "runs/*/estimate.json"),
            g.read("runs/*/training-metrics-*.json"),
            g.list_artifacts("runs/*"),
            g.write(*REPORTS),
            g.query_runs(),
        ),
        "record_failure": (g.runs("GetItem", "PutItem", "UpdateItem"),),
        "sweep": (
            *everything,
            *withdraw,
            *g.swap_models(),
            g.unscoped(*_LISTS, "bedrock:ListCustomModels"),
            g.runs("GetItem", "Scan", "PutItem", "UpdateItem", "DeleteItem"),
        ),
    }
