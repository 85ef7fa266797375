"""The state machine: the states of `stacks.states`, wired from top to bottom."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from stacks.functions import encrypted_log_group
from stacks.nag import acknowledge_wildcards
from stacks.states import (
    CHOICES,
    EVALUATION_INPUT,
    EVALUATIONS,
    NOTICES,
    SUCCEEDS,
    TASKS,
    WAITS,
    build_evaluation,
    build_initialization,
    build_notice,
    build_task,
    expression,
    expressions,
)

# Two stages of at most 96 hours (jobEndHours), three waits of 5 days for a quota and the evaluations fit
_LONGEST_RUN = Duration.days(28)
_ALL = ["States.ALL"]
# States.Timeout has no cause, and that of a function is JSON with a stack trace: its message is the sentence in it
_MESSAGE = r'$match($c, /"errorMessage": ?("(?:[^\\"]|\\.)*")/).groups[0]'
_CAUSE = (
    "($c := $exists($states.errorOutput.Cause) ? $states.errorOutput.Cause : ''; "
    f"$m := $substring($c, 0, 1) = '{{' ? {_MESSAGE}; $exists($m) ? $parse($m) : $c)"
)

# Step Functions guide, "Using CloudWatch Logs to log execution history" and "Trace Step Functions request data"
_DELIVER_LOGS = (
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
)
_TRACE = (
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
)

Step = sfn.TaskStateBase | sfn.DistributedMap | sfn.Pass | sfn.Wait


class Graph:
    """The states by name, and the three ways in which one leads to another."""

    def __init__(self, scope: Construct, functions: Mapping[str, lambda_.Function], topic: sns.ITopic) -> None:
        self.tasks: dict[str, sfn.TaskStateBase] = {task.name: build_task(scope, task, functions) for task in TASKS}
        self.notices: dict[str, sfn.TaskStateBase] = {name: build_notice(scope, name, topic) for name in NOTICES}
        self.maps = {name: build_evaluation(scope, name, functions) for name in EVALUATIONS}
        self.choices = {name: _build_choice(scope, name) for name in CHOICES}
        self._steps: dict[str, Step] = {
            "InitializeRun": build_initialization(scope),
            "UnexpectedStatus": _build_unexpected_status(scope),
            **self.tasks,
            **self.notices,
            **self.maps,
            **{name: _build_wait(scope, name) for name in WAITS},
        }
        self._ends: dict[str, sfn.State] = {
            "RunFailed": _build_failure(scope),
            **{name: _build_success(scope, name) for name in SUCCEEDS},
        }

    @property
    def start(self) -> sfn.IChainable:
        return self._steps["InitializeRun"]

    def sequence(self, *names: str) -> None:
        """Let each state be followed by the next one named."""
        for name, following in pairwise(names):
            self._steps[name].next(self.state(following))

    def choose(self, choice: str, branches: Mapping[str, str], *, otherwise: str = "UnexpectedStatus") -> None:
        """Let the first condition of `branches` that holds decide."""
        for condition, name in branches.items():
            outputs = expressions(EVALUATION_INPUT) if name in self.maps else None
            self.choices[choice].when(sfn.Condition.jsonata(expression(condition)), self.state(name), outputs=outputs)
        self.choices[choice].otherwise(self.state(otherwise))

    def catch(self, name: str, handler: str, **assign: str) -> None:
        """Let every error that can be caught in the state `name` lead to `handler`."""
        self._catching(name).add_catch(self.state(handler), errors=_ALL, assign=expressions(assign) or None)

    def state(self, name: str) -> sfn.State:
        return self._steps.get(name) or self.choices.get(name) or self._ends[name]

    def _catching(self, name: str) -> sfn.TaskStateBase | sfn.DistributedMap:
        return self.tasks.get(name) or self.notices.get(name) or self.maps[name]


def wire(graph: Graph) -> None:
    """Connect the states; the run that everybody hopes for reads from top to bottom."""
    graph.sequence("InitializeRun", "PollUploads", "AreUploadsComplete")
    uploads = {"complete": "PlanRun", "waiting": "WaitForUploads", "joined": "JoinedWaitingRun"}
    graph.choose("AreUploadsComplete", _by_value("$status", uploads))
    graph.sequence("PlanRun", "WhatIsPlanned")
    graph.choose(
        "WhatIsPlanned",
        {
            "$outcome = 'planned' and $action in ['run', 'estimate']": "CheckPreconditions",
            "$outcome = 'planned' and $action in ['promote', 'rollback']": "ChangeModelInUse",
            "$outcome = 'planned' and $action = 'release'": "ReleaseRun",
            "$outcome = 'duplicate'": "NotifyDuplicate",
        },
    )
    graph.sequence("CheckPreconditions", "PrepareDataset", "IsEstimateOnly")
    graph.choose("IsEstimateOnly", _by_value("$action", {"run": "IsWithinBudget", "estimate": "NotifyEstimate"}))
    graph.sequence("IsWithinBudget", "NotifyStart", "IsBaselineNeeded")
    is_needed = "$testShards > 0 and $baselineAvailable"
    graph.choose("IsBaselineNeeded", {is_needed: "EvaluateBaseline"}, otherwise="IsModelInUseAsked")
    graph.sequence("EvaluateBaseline", "IsModelInUseAsked")
    is_asked = "$testShards > 0 and $exists($modelInUse.servingArn)"
    graph.choose("IsModelInUseAsked", {is_asked: "EvaluateModelInUse"}, otherwise="CreateCustomizationJob")
    graph.sequence("EvaluateModelInUse", "CreateCustomizationJob")
    _wire_training(graph)
    _wire_serving(graph)
    _wire_result(graph)

    graph.sequence("WaitForUploads", "PollUploads")
    graph.sequence("NotifyDuplicate", "DuplicateRun")
    graph.sequence("NotifyEstimate", "EstimateReady")
    graph.sequence("ChangeModelInUse", "IsModelInUseChanged")
    changed = {"Active": "NotifyModelInUse", "Updating": "WaitForModelInUse"}
    graph.choose("IsModelInUseChanged", _by_value("$status", changed))
    graph.sequence("WaitForModelInUse", "ChangeModelInUse")
    graph.sequence("NotifyModelInUse", "ModelInUseChanged")
    graph.sequence("ReleaseRun", "RunReleased")
    graph.sequence("UnexpectedStatus", "RecordFailure", "ReleaseResources", "NotifyFailure", "RunFailed")
    _wire_failures(graph)


def _wire_training(graph: Graph) -> None:
    graph.sequence("CreateCustomizationJob", "PollCustomizationJob", "IsCustomizationJobFinished")
    graph.choose(
        "IsCustomizationJobFinished",
        {
            "$status = 'Completed'": "CollectTrainingMetrics",
            "$status in ['InProgress', 'Stopping']": "WaitForCustomizationJob",
        },
    )
    graph.sequence("WaitForCustomizationJob", "PollCustomizationJob")
    graph.sequence("CollectTrainingMetrics", "HasAnotherStage")
    graph.choices["HasAnotherStage"].when(
        sfn.Condition.jsonata(expression("$stage + 1 < $stages")),
        graph.state("CreateCustomizationJob"),
        assign={"stage": expression("$stage + 1")},
    ).otherwise(graph.state("IsServingNeeded"))


def _wire_serving(graph: Graph) -> None:
    modes = {
        "on-demand": "CreateModelDeployment",
        "provisioned": "CreateProvisionedThroughput",
        "none": "CompareModels",
    }
    graph.choose("IsServingNeeded", _by_value("$servingMode", modes))
    graph.sequence("CreateModelDeployment", "PollModelDeployment", "IsModelDeploymentActive")
    deployment = {"Active": "EvaluateCustomModel", "Creating": "WaitForModelDeployment"}
    graph.choose("IsModelDeploymentActive", _by_value("$status", deployment))
    graph.sequence("WaitForModelDeployment", "PollModelDeployment")
    graph.sequence("CreateProvisionedThroughput", "PollProvisionedThroughput", "IsProvisionedThroughputInService")
    throughput = {"InService": "EvaluateCustomModel", "Creating": "WaitForProvisionedThroughput"}
    graph.choose("IsProvisionedThroughputInService", _by_value("$status", throughput))
    graph.sequence("WaitForProvisionedThroughput", "PollProvisionedThroughput")


def _wire_result(graph: Graph) -> None:
    """Let nothing stand between the last answer and the release of what bills by the hour."""
    graph.sequence("EvaluateCustomModel", "ReleaseServing", "CompareModels", "ShouldPromote")
    graph.choose("ShouldPromote", {"$promote": "PromoteModel"}, otherwise="ReleaseModel")
    graph.sequence("PromoteModel", "IsModelPromoted")
    graph.choose("IsModelPromoted", _by_value("$status", {"Active": "ReleaseModel", "Updating": "WaitForPromotion"}))
    graph.sequence("WaitForPromotion", "PromoteModel")
    graph.sequence("ReleaseModel", "PublishReport", "NotifySuccess", "RunSucceeded")


def _wire_failures(graph: Graph) -> None:
    """Lead every error forward and never back, so that failure handling cannot loop."""
    own_way = ("RecordFailure", "ReleaseResources", "EvaluateModelInUse")
    for name in (name for name in (*graph.tasks, *graph.maps) if name not in own_way):
        graph.catch(
            name,
            "RecordFailure",
            error="$states.errorOutput.Error",
            cause=_CAUSE,
            failedState="$states.context.State.Name",
        )
    graph.catch(
        "RecordFailure",
        "ReleaseResources",
        subject="$substring('Failed: ' & $runId, 0, 99)",
        message=f"$failedState & ' ended with ' & $error & ': ' & $cause & "
        f"'\\n\\nThe failure could not be recorded: ' & ({_CAUSE}) & '\\n\\n' & $states.context.Execution.Id",
    )
    graph.catch("ReleaseResources", "NotifyFailure")
    # The sweeper tells a failure whose execution ends with another error than the recorded one
    graph.catch("NotifyFailure", "RunFailed", error="$error & ' (not told)'")
    # The custom model is still compared with its base: the report says that the model in use has not answered
    graph.catch("EvaluateModelInUse", "CreateCustomizationJob")
    # A notice that does not arrive undoes nothing: the result is stored
    graph.catch("NotifyStart", "IsBaselineNeeded")
    graph.catch("NotifyDuplicate", "DuplicateRun")
    graph.catch("NotifyModelInUse", "ModelInUseChanged")
    graph.catch("NotifyEstimate", "EstimateReady")
    graph.catch("NotifySuccess", "RunSucceeded")


def _by_value(variable: str, branches: Mapping[str, str]) -> dict[str, str]:
    return {f"{variable} = '{value}'": name for value, name in branches.items()}


def _build_choice(scope: Construct, name: str) -> sfn.Choice:
    comment, decided_by = CHOICES[name]
    # Step Functions assigns these only when no condition holds
    unexpected = {"failedState": "$states.context.State.Name", "cause": f"'No branch for ' & $string({decided_by})"}
    return sfn.Choice.jsonata(scope, name, comment=comment, assign=expressions(unexpected) if decided_by else None)


def _build_unexpected_status(scope: Construct) -> sfn.Pass:
    return sfn.Pass.jsonata(
        scope,
        "UnexpectedStatus",
        comment="A status that no branch knows ends the run instead of being waited for.",
        assign={"error": "UnexpectedStatus"},
    )


def _build_wait(scope: Construct, name: str) -> sfn.Wait:
    return sfn.Wait.jsonata(scope, name, comment=WAITS[name], time=sfn.WaitTime.seconds(expression("$waitSeconds")))


def _build_success(scope: Construct, name: str) -> sfn.Succeed:
    comment, outputs = SUCCEEDS[name]
    return sfn.Succeed.jsonata(scope, name, comment=comment, outputs=expressions(outputs))


def _build_failure(scope: Construct) -> sfn.Fail:
    return sfn.Fail.jsonata(
        scope,
        "RunFailed",
        comment="The cause is recorded and told, and nothing bills that was not promoted.",
        error=expression("$error"),
        cause=expression("$cause"),
    )


class CustomizationStateMachine(Construct):
    """The machine with its role and its log group.

    The log has every event but not the data of requests and answers: those stay readable for 90 days in the execution's
    history, to those who may see it, while logs are kept longer and are read by more people.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        functions: Mapping[str, lambda_.Function],
        topic: sns.ITopic,
        key: kms.IKey,
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id_)
        self._functions = functions
        graph = Graph(self, functions, topic)
        wire(graph)
        log_group = encrypted_log_group(self, "Logs", key=key, retention_days=log_retention_days)
        self._role = self._build_role(topic, key)
        self.state_machine = sfn.StateMachine(
            self,
            "StateMachine",
            comment="Customizes an Amazon Bedrock model and measures it against its base model.",
            definition_body=sfn.DefinitionBody.from_chainable(graph.start),
            query_language=sfn.QueryLanguage.JSONATA,
            # CDK would add statements of its own for every state
            role=self._role.without_policy_updates(),
            timeout=_LONGEST_RUN,
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=log_group, level=sfn.LogLevel.ALL, include_execution_data=False),
        )
        self._allow_map_runs()

    def _build_role(self, topic: sns.ITopic, key: kms.IKey) -> iam.Role:
        stack = Stack.of(self)
        executions = stack.format_arn(service="states", resource="*", arn_format=ArnFormat.NO_RESOURCE_NAME)
        trust = {"StringEquals": {"aws:SourceAccount": stack.account}, "ArnLike": {"aws:SourceArn": executions}}
        via_topic = {"StringEquals": {"kms:ViaService": f"sns.{stack.region}.amazonaws.com"}}
        # Every version: a run under way goes on with those it began with
        versions = [f"{self._functions[name].function_arn}:*" for name in sorted({t.handler_module for t in TASKS})]
        versions.append(f"{self._functions['evaluate_shard'].function_arn}:*")
        invoke = iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=versions)
        watch = iam.PolicyStatement(actions=[*_DELIVER_LOGS, *_TRACE], resources=["*"])
        publish = iam.PolicyStatement(actions=["sns:Publish"], resources=[topic.topic_arn])
        encrypt = iam.PolicyStatement(
            actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key.key_arn], conditions=via_topic
        )
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("states.amazonaws.com", conditions=trust))
        # Inside the role: the machine waits for it, since without delivery of logs it cannot be created
        policy = iam.ManagedPolicy(role, "Permissions", roles=[role], statements=[invoke, publish, encrypt, watch])
        acknowledge_wildcards(
            policy,
            [invoke],
            reason="A run under way calls the versions of the functions that it began with, after a redeploy too.",
            limits="the functions of this state machine.",
        )
        acknowledge_wildcards(
            policy,
            [watch],
            reason="Delivery of logs and traces has no resource type in IAM.",
            limits="these actions neither read nor change what the pipeline works on.",
        )
        return role

    def _allow_map_runs(self) -> None:
        """Let the machine start and follow the children of its distributed maps."""
        statements = [
            # Resources as in the Step Functions guide, "IAM policies for Distributed Map"
            iam.PolicyStatement(actions=["states:StartExecution"], resources=[self.state_machine.state_machine_arn]),
            iam.PolicyStatement(
                actions=["states:DescribeExecution", "states:StopExecution"], resources=[self._execution_arns(":*")]
            ),
            iam.PolicyStatement(actions=["states:RedriveExecution"], resources=[self._execution_arns("/*:*")]),
        ]
        # CDK's own goes nowhere, since the role takes no additions, but the rule packs would look at it
        self.state_machine.node.try_remove_child("DistributedMapPolicy")
        # A policy of its own: inside the role it would close a circle of machine and role
        policy = iam.ManagedPolicy(self, "MapRunPermissions", roles=[self._role], statements=statements)
        acknowledge_wildcards(
            policy,
            statements,
            reason="The children of a distributed map are named when it runs.",
            limits="the map runs of this state machine.",
        )

    def allow_describing_executions(self, roles: Sequence[iam.IRole]) -> None:
        """Let functions ask whether the execution that owns a run or a lease still runs.

        It may be one of a machine that a deleted stack had beside the same tables: CloudFormation names machines after
        their logical id, which stays, and which the machines of other stages have too.
        """
        machine = self.state_machine.node.default_child
        former = f"{Stack.of(self).get_logical_id(cast('sfn.CfnStateMachine', machine))}-*:*"
        statement = iam.PolicyStatement(
            actions=["states:DescribeExecution"], resources=[self._execution_arns(":*"), self._arns_like(former)]
        )
        # The machine names the functions, so their own roles cannot name the machine
        policy = iam.ManagedPolicy(self, "ExecutionPermissions", roles=list(roles), statements=[statement])
        acknowledge_wildcards(
            policy,
            [statement],
            reason="Executions are named when they start.",
            limits="reading the executions of this state machine, of those it replaced and of those of other stages.",
        )

    def _execution_arns(self, pattern: str) -> str:
        # The construct's own state_machine_name cuts it out of the ARN
        name = cast("sfn.CfnStateMachine", self.state_machine.node.default_child).attr_name
        return self._arns_like(f"{name}{pattern}")

    def _arns_like(self, pattern: str) -> str:
        return Stack.of(self).format_arn(
            service="states",
            resource="execution",
            resource_name=pattern,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
