"""The stack that works: functions, state machine, triggers, topic and the queue of what could not be delivered."""

from typing import TYPE_CHECKING

from aws_cdk import CfnOutput, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks import people
from stacks.code import source_code
from stacks.config import DeploymentConfig
from stacks.functions import FUNCTIONS, Common, TaskFunction, network_policy
from stacks.layers import dependency_layer
from stacks.nag import acknowledge
from stacks.permissions import Grants, function_grants
from stacks.state_machine import CustomizationStateMachine
from stacks.storage import StorageExports, StorageStack
from stacks.triggers import Triggers

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "customization"
METRICS_NAMESPACE = "BedrockModelCustomization"
# These ask whether the execution that owns a run, a folder or a lease still runs
_ASK_FOR_EXECUTIONS = ("poll_uploads", "plan_run", "release_resources", "sweep")


class PipelineStack(Stack):
    """Nothing in here holds data: it can be deleted and deployed again beside the same storage."""

    def __init__(self, scope: Construct, id_: str, *, config: DeploymentConfig, storage: StorageStack) -> None:
        super().__init__(
            scope,
            id_,
            env=Environment(account=config.account, region=config.region),
            description="Bedrock model customization: state machine, functions, triggers and notifications.",
            termination_protection=True,
        )
        exports = storage.exports
        # Imported, so that no construct in here can add a statement to the key policy of the other stack
        self._key = kms.Key.from_key_arn(self, "Key", exports.key_arn)
        self.topic = self._build_topic()
        self.dead_letter_queue = self._build_dead_letter_queue()
        grants = Grants(self, config=config, exports=exports, topic_arn=self.topic.topic_arn)
        task_functions = self._build_functions(config, exports, grants)
        self.functions: Mapping[str, lambda_.Function] = {
            module: task_function.function for module, task_function in task_functions.items()
        }
        machine = CustomizationStateMachine(
            self,
            "Customization",
            functions=self.functions,
            topic=self.topic,
            key=self._key,
            log_retention_days=config.log_retention_days,
        )
        machine.allow_describing_executions([task_functions[module].role for module in _ASK_FOR_EXECUTIONS])
        self.state_machine = machine.state_machine
        # As customization/settings.py names it; a test compares the dimension of the metrics
        self.deployment = f"{config.stage}-{exports.deployment_id}"
        self.rules = Triggers(
            self,
            "Triggers",
            data_bucket_name=exports.data_bucket_name,
            state_machine=self.state_machine,
            sweep=self.functions["sweep"],
            explain_unused_upload=self.functions["explain_unused_upload"],
            dead_letter_queue=self.dead_letter_queue,
        ).rules
        self._build_outputs(config, storage, grants)

    def _build_topic(self) -> sns.Topic:
        topic = sns.Topic(self, "Topic", master_key=self._key, enforce_ssl=True)
        # A topic policy replaces the default one. Roles publish through their own policies, alarms need this
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchAlarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        return topic

    def _build_dead_letter_queue(self) -> sqs.Queue:
        queue = sqs.Queue(
            self,
            "DeadLetterQueue",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self._key,
            enforce_ssl=True,
            retention_period=Duration.days(14),
            removal_policy=RemovalPolicy.DESTROY,
        )
        acknowledge(
            queue,
            "Serverless-SQSRedrivePolicy",
            reason="It is the dead-letter queue itself: the rule looks for queues only, not for event rules.",
            limits="nothing but undelivered events is written to it, and an alarm watches its length.",
        )
        return queue

    def _build_outputs(self, config: DeploymentConfig, storage: StorageStack, grants: Grants) -> None:
        exports, machine = storage.exports, self.state_machine
        people.build_outputs(self, config=config, exports=exports, machine=machine, topic_arn=self.topic.topic_arn)
        sweep = self.functions["sweep"].function_name
        CfnOutput(self, "SweepFunctionName", value=sweep, description="Releases what nobody needs")
        stacks = (storage.stack_name, self.stack_name)
        people.build_policies(
            self, people.people_grants(grants, stack=self, stacks=stacks, exports=exports, machine=machine)
        )

    def _build_functions(
        self, config: DeploymentConfig, exports: StorageExports, grants: Grants
    ) -> dict[str, TaskFunction]:
        common = Common(
            code=source_code(),
            environment=self._environment(config, exports),
            core_layer=dependency_layer(self, "CoreLayer", "core"),
            evaluation_layer=dependency_layer(self, "EvaluationLayer", "evaluation"),
            dead_letter_queue=self.dead_letter_queue,
            key=self._key,
            config=config,
            grants=grants,
            network_policy=network_policy(self, config),
        )
        allowed = function_grants(grants)
        return {
            module: TaskFunction(self, module, spec=spec, grants=allowed[module], common=common)
            for module, spec in FUNCTIONS.items()
        }

    def _environment(self, config: DeploymentConfig, exports: StorageExports) -> dict[str, str]:
        """Return what customization/settings.py reads; a test compares the names."""
        return {
            "DATA_BUCKET": exports.data_bucket_name,
            "ARTIFACT_BUCKET": exports.artifact_bucket_name,
            "RUNS_TABLE": exports.runs_table_name,
            "LEASES_TABLE": exports.leases_table_name,
            "TOPIC_ARN": self.topic.topic_arn,
            "CUSTOMIZATION_ROLE_ARN": exports.customization_role_arn,
            "KEY_ARN": exports.key_arn,
            "STAGE": config.stage,
            "DEPLOYMENT_ID": exports.deployment_id,
            "DEFAULTS": config.request_defaults,
            **({"VPC_CONFIG": config.vpc.model_dump_json(by_alias=True)} if config.vpc else {}),
            "POWERTOOLS_SERVICE_NAME": SERVICE,
            "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE,
            "POWERTOOLS_LOG_LEVEL": "INFO",
            # Importing numpy would start as many threads as there are processors, for sums of a few numbers
            "OPENBLAS_NUM_THREADS": "1",
        }
