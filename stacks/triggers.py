"""What starts the state machine and the two functions beside it."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

# EventBridge's `*` matches `/` too, so a file that lies too deep starts the machine too, which says why it is refused
TRIGGER_KEYS = ("incoming/*/train.jsonl", "incoming/*/pretrain.jsonl", "incoming/*/run.json")
SWEEP_PERIOD = Duration.minutes(15)
# These ends skip every Catch, or may have
_DEAD_ENDS = ["ABORTED", "TIMED_OUT", "FAILED"]


class Triggers(Construct):
    """The rules. What EventBridge cannot deliver within a day, and what a function fails on, goes to the queue."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        data_bucket_name: str,
        state_machine: sfn.StateMachine,
        sweep: lambda_.IFunction,
        explain_unused_upload: lambda_.IFunction,
        dead_letter_queue: sqs.IQueue,
    ) -> None:
        super().__init__(scope, id_)
        self._bucket_name = data_bucket_name
        self._queue = dead_letter_queue
        self.rules: dict[str, events.Rule] = {}
        self._start_runs(state_machine)
        self._add_rule(
            "ExplainUnusedUpload",
            "Tells people about files that no run will use",
            self._objects_created({"prefix": "incoming/"}),
            explain_unused_upload,
        )
        self._add_rule(
            "SweepAfterDeadExecution",
            "Releases what an execution left that ended without its own failure handling",
            events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"status": _DEAD_ENDS, "stateMachineArn": [state_machine.state_machine_arn]},
            ),
            sweep,
        )
        self.rules["SweepRegularly"] = events.Rule(
            self,
            "SweepRegularly",
            description="Releases what nobody needs: status changes are delivered with best effort only",
            schedule=events.Schedule.rate(SWEEP_PERIOD),
            targets=[targets.LambdaFunction(sweep, dead_letter_queue=self._queue)],
        )

    def _start_runs(self, state_machine: sfn.StateMachine) -> None:
        stack = Stack.of(self)
        # EventBridge guide, "Using IAM policy conditions": it is the rule that sends, which is named after its role
        rules = stack.format_arn(service="events", resource="rule", resource_name="*")
        trust = {"StringEquals": {"aws:SourceAccount": stack.account}, "ArnLike": {"aws:SourceArn": rules}}
        role = iam.Role(
            self,
            "StartRole",
            description="Lets the rule start executions",
            assumed_by=iam.ServicePrincipal("events.amazonaws.com", conditions=trust),
        )
        start = iam.PolicyStatement(actions=["states:StartExecution"], resources=[state_machine.state_machine_arn])
        iam.ManagedPolicy(role, "Permissions", roles=[role], statements=[start])
        self.rules["StartRun"] = events.Rule(
            self,
            "StartRun",
            description="Starts a run when a training file or a run request is dropped",
            event_pattern=self._objects_created(*({"wildcard": key} for key in TRIGGER_KEYS)),
            targets=[
                # CDK would add the statement to a policy inside the role
                targets.SfnStateMachine(
                    state_machine, role=role.without_policy_updates(), dead_letter_queue=self._queue
                )
            ],
        )

    def _add_rule(self, id_: str, description: str, pattern: events.EventPattern, function: lambda_.IFunction) -> None:
        self.rules[id_] = events.Rule(
            self,
            id_,
            description=description,
            event_pattern=pattern,
            targets=[targets.LambdaFunction(function, dead_letter_queue=self._queue)],
        )

    def _objects_created(self, *keys: dict[str, str]) -> events.EventPattern:
        return events.EventPattern(
            source=["aws.s3"],
            detail_type=["Object Created"],
            detail={"bucket": {"name": [self._bucket_name]}, "object": {"key": list(keys)}},
        )
