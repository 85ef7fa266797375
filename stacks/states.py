"""The states of the pipeline: what each one does, is sent and keeps. `state_machine` wires them.

JSONata throughout. What a later state needs is a variable, assigned where it is born.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from stacks.functions import FUNCTIONS

# What passes by itself: the TransientErrors of customization.errors and what Lambda reports of its own service
TRANSIENT_ERRORS = (
    "Throttled",
    "ServiceUnavailable",
    "ModelNotReady",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.TooManyRequestsException",
)
# The function was stopped half-way; what it had finished is stored, but the same work may well end the same way
CRASHES = ("Sandbox.Timedout", "Runtime.ExitError")

# Longer than the function may take, so that the function's own end is what the state machine sees
_TIMEOUT_MARGIN_S = 60
# A test compares it with customization.evaluation, which cuts the shards to it
SHARDS_AT_ONCE = 4
_LONGEST_PAUSE = Duration.minutes(2)
_QUOTA_POLL = Duration.minutes(5)
LONGEST_QUOTA_WAIT = Duration.days(5)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A Task state that calls a function. `module` defaults to the state's name in snake_case.

    `sends` maps the payload's fields to JSONata, besides `now`, `executionArn` and, once it is planned, the run.
    `keeps` are fields of the answer that become variables of the same name.
    """

    name: str
    does: str
    module: str = ""
    sends: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[str, ...] = ()
    knows_run: bool = True
    waits_for_quota: bool = False

    @property
    def handler_module(self) -> str:
        return self.module or "".join(f"_{c.lower()}" if c.isupper() else c for c in self.name).lstrip("_")


TASKS = (
    Task(
        name="PollUploads",
        does="Has the dropped folder settled? A start from the console passes at once.",
        sends={"input": "$input", "startedAt": "$startedAt"},
        keeps=("status", "waitSeconds"),
        knows_run=False,
    ),
    Task(
        name="PlanRun",
        does="Reads the request, pins the versions of the files, computes the ids and claims the run.",
        sends={"input": "$input"},
        keeps=(
            *("outcome", "runId", "attempt", "dataset", "action", "data", "language", "stages", "servingMode"),
            *("subject", "message"),
        ),
        knows_run=False,
    ),
    Task(
        name="ReleaseRun",
        does="Releases what is kept for a data set.",
        module="release_resources",
        sends={"dataset": "$dataset"},
    ),
    Task(
        name="ChangeModelInUse",
        does="Puts the model of an earlier run in use, or rolls back to the one that was in use before.",
        sends={"action": "$action", "dataset": "$dataset", "data": "$data", "language": "$language"},
        keeps=("status", "waitSeconds", "modelArn", "subject", "message"),
    ),
    Task(
        name="CheckPreconditions",
        does="Can this account, Region and base model do what the run asks?",
        keeps=("baselineAvailable", "modelInUse"),
    ),
    Task(
        name="PrepareDataset",
        does="Validates, converts, splits and profiles the data, and estimates tokens and cost.",
        keeps=("testShards", "estimatedUsd", "subject", "message"),
    ),
    Task(
        name="IsWithinBudget",
        does="Reserves the estimate in the month's budget, or raises BudgetExceeded.",
        keeps=("subject", "message"),
    ),
    Task(
        name="CreateCustomizationJob",
        does="Starts the job of this stage, or adopts the one that exists.",
        sends={"stage": "$stage"},
        keeps=("jobArn", "status", "waitSeconds"),
        waits_for_quota=True,
    ),
    Task(
        name="PollCustomizationJob",
        does="Looks at the job; its answer says how long to wait for the next look.",
        sends={"stage": "$stage", "jobArn": "$jobArn"},
        keeps=("status", "waitSeconds"),
    ),
    Task(
        name="CollectTrainingMetrics",
        does="Reads Bedrock's training and validation losses and names the custom model.",
        sends={"stage": "$stage", "jobArn": "$jobArn"},
        keeps=("modelArn",),
    ),
    Task(
        name="CreateModelDeployment",
        does="Serves the custom model by on-demand deployment; the lease is written first.",
        sends={"modelArn": "$modelArn", "enteredAt": "$states.context.State.EnteredTime"},
        keeps=("servingArn", "status", "waitSeconds"),
        waits_for_quota=True,
    ),
    Task(
        name="PollModelDeployment",
        does="Does the deployment answer yet?",
        sends={"servingArn": "$servingArn"},
        keeps=("status", "waitSeconds"),
    ),
    Task(
        name="CreateProvisionedThroughput",
        does="Serves the custom model by model units; the lease is written first.",
        sends={"modelArn": "$modelArn", "enteredAt": "$states.context.State.EnteredTime"},
        keeps=("servingArn", "status", "waitSeconds"),
        waits_for_quota=True,
    ),
    Task(
        name="PollProvisionedThroughput",
        does="Are the model units in service yet?",
        sends={"servingArn": "$servingArn"},
        keeps=("status", "waitSeconds"),
    ),
    Task(
        name="ReleaseServing",
        does="Ends what bills by the hour at once after the last answer, unless the request keeps it.",
    ),
    Task(
        name="CompareModels",
        does="Scores base, custom model and the model in use on the same records.",
        keeps=("verdict", "promote"),
    ),
    Task(
        name="PromoteModel",
        does="Point of no return: the custom model becomes the model in use of its data set.",
        sends={"servingArn": "$servingArn", "modelArn": "$modelArn"},
        keeps=("status", "waitSeconds"),
    ),
    Task(name="ReleaseModel", does="Deletes a custom model that is not worth its storage."),
    Task(
        name="PublishReport",
        does="Writes the report, the run's row and the page of its data set.",
        keeps=("reportUri", "subject", "message"),
    ),
    Task(
        name="RecordFailure",
        does="Turns the error into a cause and a fix, and records both.",
        sends={"error": "$error", "cause": "$cause", "failedState": "$failedState", "language": "$language"},
        keeps=("error", "cause", "fix", "subject", "message"),
    ),
    Task(
        name="ReleaseResources",
        does="Ends whatever bills and is not promoted, and adds to the notice what it ended and what still bills.",
        sends={"message": "$message"},
        keeps=("message",),
    ),
)

# Each with what decides it, which the failure names when no branch fits; a choice between two ways always has one
CHOICES = {
    "AreUploadsComplete": ("Is the folder complete, still filling, or waited for by another execution?", "$status"),
    "WhatIsPlanned": (
        "Is there something to run, or only something to say, to put in use or to release?",
        "{'outcome': $outcome, 'action': $action}",
    ),
    "IsEstimateOnly": ("Was only the estimate asked for?", "$action"),
    "IsBaselineNeeded": ("Are there test records, and does the base model answer?", ""),
    "IsModelInUseAsked": ("Are there test records, and is another model in use that answers now?", ""),
    "IsCustomizationJobFinished": ("Did the job complete? Failed and Stopped are raised by the poll.", "$status"),
    "HasAnotherStage": ("Does fine-tuning follow the pre-training?", ""),
    "IsServingNeeded": ("By which way is the custom model asked?", "$servingMode"),
    "IsModelDeploymentActive": ("Does the deployment answer? A failed one is raised by the poll.", "$status"),
    "IsProvisionedThroughputInService": ("Do the model units answer? Failed ones are raised by the poll.", "$status"),
    "ShouldPromote": ("Was promotion asked for, and is the custom model better?", ""),
    "IsModelPromoted": ("Does the deployment of the model in use serve the custom model yet?", "$status"),
    "IsModelInUseChanged": ("Does the deployment of the model in use serve the other model yet?", "$status"),
}

WAITS = {
    "WaitForUploads": "Lets the folder settle.",
    "WaitForCustomizationJob": "1 minute at first, 20 at most: a job takes hours, and an execution has 25,000 events.",
    "WaitForModelDeployment": "A deployment takes minutes.",
    "WaitForProvisionedThroughput": "Model units take minutes.",
    "WaitForPromotion": "A deployment takes minutes to serve another model.",
    "WaitForModelInUse": "A deployment takes minutes to serve another model.",
}

SUCCEEDS = {
    "JoinedWaitingRun": ("Another execution waits for the same folder and will use this file too.", {}),
    "DuplicateRun": ("This run is already done or under way.", {"runId": "$runId"}),
    "RunReleased": ("What the run kept is released.", {"runId": "$runId"}),
    "ModelInUseChanged": (
        "The parameter of the data set names this model.",
        {"dataset": "$dataset", "modelArn": "$modelArn"},
    ),
    "EstimateReady": ("Nothing was spent.", {"runId": "$runId", "estimatedUsd": "$estimatedUsd"}),
    "RunSucceeded": (
        "The run is done, whatever its verdict.",
        {"runId": "$runId", "verdict": "$verdict", "reportUri": "$reportUri"},
    ),
}

NOTICES = {
    "NotifyDuplicate": "Points to the run that does the same.",
    "NotifyModelInUse": "Tells which model is in use now, and how to undo that.",
    "NotifyEstimate": "Tells what the run would cost.",
    "NotifyStart": "Tells what has begun and what it may cost.",
    "NotifySuccess": "Tells the verdict and where the report lies.",
    "NotifyFailure": "Tells the cause, the fix and what was released.",
}


def expression(jsonata: str) -> str:
    return f"{{% {jsonata} %}}"


def expressions(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: expression(jsonata) for name, jsonata in fields.items()}


def build_initialization(scope: Construct) -> sfn.Pass:
    """Build the first state. Whatever failure handling reads has a value from here on, however early the failure."""
    empty = ("runId", "language", "servingArn", "error", "cause", "fix", "failedState", "subject", "message")
    return sfn.Pass.jsonata(
        scope,
        "InitializeRun",
        comment="Gives every variable that failure handling reads a value.",
        assign={
            "input": expression("$states.input"),
            "startedAt": expression("$states.context.Execution.StartTime"),
            "attempt": 0,
            "stage": 0,
            **dict.fromkeys(empty, ""),
        },
    )


def build_task(scope: Construct, task: Task, functions: Mapping[str, lambda_.Function]) -> tasks.LambdaInvoke:
    run = {"runId": "$runId", "attempt": "$attempt"} if task.knows_run else {}
    # EnteredTime is that of the first attempt: after hours of waiting a lease reckoned from it would be over at once
    own_time = {"now": "$now()"} if task.waits_for_quota else {}
    sends = {"executionArn": "$states.context.Execution.Id", **run, **task.sends, **own_time}
    state = _build_invocation(
        scope, task, functions, sends, {name: f"$states.result.Payload.{name}" for name in task.keeps}
    )
    if task.waits_for_quota:
        # Others' jobs or model units have to end first, and a line may be long: 5 days. An attempt is 3 of the 25,000
        # events of an execution, and the next in line moves up within so many minutes.
        state.add_retry(
            errors=["QuotaUnavailable"],
            interval=_QUOTA_POLL,
            backoff_rate=1,
            max_attempts=round(LONGEST_QUOTA_WAIT.to_seconds() / _QUOTA_POLL.to_seconds()),
        )
    return state


def _build_invocation(
    scope: Construct,
    task: Task,
    functions: Mapping[str, lambda_.Function],
    sends: Mapping[str, str],
    assign: Mapping[str, str],
) -> tasks.LambdaInvoke:
    timeout = Duration.seconds(FUNCTIONS[task.handler_module].timeout_s + _TIMEOUT_MARGIN_S)
    state = tasks.LambdaInvoke.jsonata(
        scope,
        task.name,
        comment=task.does,
        lambda_function=functions[task.handler_module].current_version,
        payload=sfn.TaskInput.from_object(
            {"now": expression("$states.context.State.EnteredTime"), **expressions(sends)}
        ),
        retry_on_service_exceptions=False,  # it has neither jitter nor Lambda.TooManyRequestsException
        task_timeout=sfn.Timeout.duration(timeout),
        assign=expressions(assign) or None,
        outputs=expression("$states.result.Payload"),
    )
    _retry(state, TRANSIENT_ERRORS, interval_s=2, attempts=8)
    _retry(state, CRASHES, interval_s=10, attempts=2)
    return state


def _retry(
    state: sfn.TaskStateBase,
    errors: tuple[str, ...],
    *,
    interval_s: int,
    attempts: int,
    max_delay: Duration = _LONGEST_PAUSE,
) -> None:
    state.add_retry(
        errors=list(errors),
        interval=Duration.seconds(interval_s),
        backoff_rate=2,
        max_attempts=attempts,
        max_delay=max_delay,
        jitter_strategy=sfn.JitterType.FULL,
    )


# A distributed map "cannot currently reference variables in outer scopes" (Step Functions Developer Guide, variables):
# the choice before it hands them over as its input.
EVALUATION_INPUT = {
    "executionArn": "$states.context.Execution.Id",
    "runId": "$runId",
    "attempt": "$attempt",
    "testShards": "$testShards",
    "servingArn": "$servingArn",
    "modelInUse": "$modelInUse",
}


# The side of the comparison that each distributed map asks
EVALUATIONS = {"EvaluateBaseline": "base", "EvaluateModelInUse": "inUse", "EvaluateCustomModel": "custom"}


def shard_of(evaluation: str) -> str:
    """Return the name of the Task that a distributed map runs for each shard."""
    return f"{evaluation}Shard"


def build_evaluation(scope: Construct, name: str, functions: Mapping[str, lambda_.Function]) -> sfn.DistributedMap:
    """Build the map that asks one model every shard of the test records. One shard that fails fails it."""
    side = EVALUATIONS[name]
    shard = Task(
        name=shard_of(name),
        does="Asks the model what it has not answered yet of a shard, and stores the answers as they come.",
        module="evaluate_shard",
    )
    given = {field: expression(f"$states.input.{field}") for field in EVALUATION_INPUT if field != "testShards"}
    evaluation = sfn.DistributedMap.jsonata(
        scope,
        name,
        comment=f"Asks the {side} model all test records, in shards.",
        items=sfn.ProvideItems.jsonata(expression("[0..$states.input.testShards-1]")),
        item_selector={**given, "side": side, "shard": expression("$states.context.Map.Item.Value")},
        max_concurrency=SHARDS_AT_ONCE,
        map_execution_type=sfn.StateMachineType.STANDARD,
        # An array constructor, since the sum of a path that finds nothing is nothing at all
        outputs=expressions(
            {total: f"$sum([$states.result.{total}])" for total in ("answered", "failed")},
        ),
    )
    sends = {name: f"$states.input.{name}" for name in (*given, "side", "shard")}
    asking = _build_invocation(scope, shard, functions, sends, {})
    # What was answered is stored, and the next call asks the rest: a day of slow or throttled answers
    _retry(asking, ("EvaluationUnfinished",), interval_s=1, attempts=99)
    evaluation.item_processor(asking)
    return evaluation


def build_notice(scope: Construct, name: str, topic: sns.ITopic) -> tasks.SnsPublish:
    state = tasks.SnsPublish.jsonata(
        scope,
        name,
        comment=NOTICES[name],
        topic=topic,
        subject=expression("$subject"),
        message=sfn.TaskInput.from_text(expression("$message")),
        task_timeout=sfn.Timeout.duration(Duration.seconds(30)),
    )
    # For about an hour, since nobody else tells of a success; that a run starts holds it up for seconds only.
    # Publishing has no list of transient errors, and a notice that comes twice does no harm: 80 events at most.
    attempts = 3 if name == "NotifyStart" else 20
    _retry(state, ("States.ALL",), interval_s=2, attempts=attempts, max_delay=Duration.minutes(10))
    return state
