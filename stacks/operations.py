"""What a person watches: the alarms, the dashboard and who is told."""

from typing import TYPE_CHECKING

from aws_cdk import Duration, Environment, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.config import DeploymentConfig
from stacks.nag import acknowledge

if TYPE_CHECKING:
    from stacks.pipeline import PipelineStack

_SWEEP_PERIOD = Duration.minutes(15)


class OperationsStack(Stack):
    """Alarms and e-mail subscriptions of the pipeline's topic, and one dashboard."""

    def __init__(self, scope: Construct, id_: str, *, config: DeploymentConfig, pipeline: "PipelineStack") -> None:
        super().__init__(
            scope,
            id_,
            env=Environment(account=config.account, region=config.region),
            description="Bedrock model customization: alarms, dashboard and subscriptions",
        )
        self._topic: sns.ITopic = pipeline.topic
        for email in dict.fromkeys(config.notification_emails):
            self._subscribe(email)
        self._build_run_alarms(pipeline)
        self._build_sweeper_alarms(pipeline)
        self._build_queue_alarm(pipeline)
        self._build_dashboard(config, pipeline)

    def _subscribe(self, email: str) -> None:
        protocol = sns.SubscriptionProtocol.EMAIL
        subscription = sns.Subscription(self, email, topic=self._topic, protocol=protocol, endpoint=email)
        acknowledge(
            subscription,
            "Serverless-SNSRedrivePolicy",
            reason="A mail that SNS could not deliver would lie in a queue that nobody reads.",
            limits="SNS repeats the delivery, and what a mail says is in the runs table and the report as well.",
        )

    def _build_run_alarms(self, pipeline: "PipelineStack") -> None:
        # An alarm each: a sum has no value where one of its metrics has none, as for runs that never time out
        machine = pipeline.state_machine
        self._alarm("RunsFailed", machine.metric_failed(), "A run failed: see its notification or the execution.")
        self._alarm(
            "RunsTimedOut", machine.metric_timed_out(), "A run timed out: see its notification or the execution."
        )

    def _build_sweeper_alarms(self, pipeline: "PipelineStack") -> None:
        """Watch the one function on which the end of every bill rests: that it works, and that it is called at all."""
        sweeper = pipeline.functions["sweep"]
        self._alarm(
            "SweeperErrors",
            sweeper.metric_errors(period=_SWEEP_PERIOD),
            "The sweeper fails, so resources that bill may live on: read its log.",
        )
        self._alarm(
            "SweeperSilent",
            sweeper.metric_invocations(period=_SWEEP_PERIOD),
            "The sweeper was not called for an hour, so resources that bill may live on: is its schedule enabled? "
            "Right after the first deployment this is so until the first call.",
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            silence=cloudwatch.TreatMissingData.BREACHING,
            periods=4,
        )

    def _build_queue_alarm(self, pipeline: "PipelineStack") -> None:
        depth = pipeline.dead_letter_queue.metric_approximate_number_of_messages_visible()
        self._alarm("EventsLost", depth, "Events that nothing could handle lie in the dead-letter queue.")

    def _alarm(
        self,
        id_: str,
        metric: cloudwatch.IMetric,
        description: str,
        *,
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        silence: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
        periods: int = 1,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            id_,
            metric=metric,
            threshold=1,
            comparison_operator=comparison,
            treat_missing_data=silence,
            evaluation_periods=periods,
            alarm_description=description,
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))

    def _build_dashboard(self, config: DeploymentConfig, pipeline: "PipelineStack") -> None:
        machine = pipeline.state_machine
        # A search finds the functions by their stack's name; a metric each would make an export each
        errors = cloudwatch.MathExpression(
            expression=f"SEARCH('{{AWS/Lambda,FunctionName}} MetricName=\"Errors\" {pipeline.stack_name}', 'Sum', 300)",
            using_metrics={},
            label="",
        )
        ended = [
            machine.metric_succeeded(),
            machine.metric_failed(),
            machine.metric_timed_out(),
            machine.metric_aborted(),
        ]
        # Dashboards of all Regions of an account share their names
        name = f"Customization-{config.stage}-{config.region}"
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=name)
        dashboard.add_widgets(
            cloudwatch.GraphWidget(title="Runs started", left=[machine.metric_started()], width=12),
            cloudwatch.GraphWidget(title="Runs ended", left=ended, width=12),
            cloudwatch.GraphWidget(title="Errors of functions", left=[errors], width=12),
            cloudwatch.GraphWidget(
                title="Events lost",
                left=[pipeline.dead_letter_queue.metric_approximate_number_of_messages_visible()],
                width=12,
            ),
        )
