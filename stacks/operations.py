"""What a person watches: the alarms, the dashboard and who is told."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aws_cdk import Duration, Environment, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.config import DeploymentConfig
from stacks.nag import acknowledge
from stacks.pipeline import METRICS_NAMESPACE, SERVICE
from stacks.triggers import SWEEP_PERIOD

if TYPE_CHECKING:
    from stacks.pipeline import PipelineStack

_RUN_PERIOD = Duration.hours(1)
_RUNBOOK = "docs/operations.md"
_OUTCOMES = ("RunsBetter", "RunsWorse", "RunsInconclusive", "RunsNotCompared", "RunsFailed", "RunsStopped")
# The fields of the line that PublishReport writes its metrics in; Logs Insights numbers the values of a list
_LATEST_RUNS = (
    "fields @timestamp, dataset, runId, verdict, baseModelIdentifier, metric",
    "fields BaseModelScore.0 as baseModelScore, CustomModelScore.0 as customModelScore",
    "fields TrainingLoss.0 as trainingLoss, ValidationLoss.0 as validationLoss",
    "fields EstimatedUsd.0 as estimatedUsd, SpentUsd.0 as spentUsd",
    "filter ispresent(spentUsd)",
    "sort @timestamp desc",
    "limit 50",
)


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
        metrics = Metrics(pipeline)
        self._build_run_alarms(pipeline, metrics)
        self._build_sweeper_alarms(pipeline, metrics)
        self._build_event_alarms(pipeline)
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=config.dashboard_name,
            default_interval=Duration.days(30),
            widgets=widgets(pipeline, metrics),
        )

    def _subscribe(self, email: str) -> None:
        protocol = sns.SubscriptionProtocol.EMAIL
        subscription = sns.Subscription(self, email, topic=self._topic, protocol=protocol, endpoint=email)
        acknowledge(
            subscription,
            "Serverless-SNSRedrivePolicy",
            reason="A mail that SNS could not deliver would lie in a queue that nobody reads.",
            limits="SNS repeats the delivery, and what a mail says is in the runs table and the report as well.",
        )

    def _build_run_alarms(self, pipeline: "PipelineStack", metrics: "Metrics") -> None:
        # An alarm each: a sum has no value where one of its metrics has none, as for runs that never time out
        machine = pipeline.state_machine
        self._alarm("RunsFailed", machine.metric_failed(), "A run failed.")
        self._alarm("RunsTimedOut", machine.metric_timed_out(), "A run timed out.")
        self._alarm(
            "LegacyModel",
            metrics.named("LegacyModels", "Maximum", SWEEP_PERIOD),
            "A run or a model in use rests on a base model that AWS will end.",
        )

    def _build_sweeper_alarms(self, pipeline: "PipelineStack", metrics: "Metrics") -> None:
        """Watch what must not bill, and the one function on which the end of every bill rests."""
        sweeper = pipeline.functions["sweep"]
        self._alarm(
            "LeaseOverdue",
            metrics.named("OverdueLeases", "Maximum", SWEEP_PERIOD),
            "Something that bills has outlived its lease, or has none.",
        )
        self._alarm(
            "SweeperErrors",
            sweeper.metric_errors(period=SWEEP_PERIOD),
            "The sweeper fails, so that what bills may live on.",
        )
        self._alarm(
            "SweeperSilent",
            sweeper.metric_invocations(period=SWEEP_PERIOD),
            "The sweeper was not called for an hour, so that what bills may live on. "
            "Right after the first deployment this is so until the first call.",
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            silence=cloudwatch.TreatMissingData.BREACHING,
            periods=4,
        )

    def _build_event_alarms(self, pipeline: "PipelineStack") -> None:
        depth = pipeline.dead_letter_queue.metric_approximate_number_of_messages_visible()
        self._alarm("EventsLost", depth, "Events that nothing could handle lie in the dead-letter queue.")
        for name, rule in pipeline.rules.items():
            failed = cloudwatch.Metric(
                namespace="AWS/Events",
                metric_name="FailedInvocations",
                dimensions_map={"RuleName": rule.rule_name},
                statistic="Sum",
            )
            self._alarm(f"RuleFails{name}", failed, f"The rule {name} could not call its target.", section="RuleFails")

    def _alarm(
        self,
        id_: str,
        metric: cloudwatch.IMetric,
        description: str,
        *,
        section: str = "",
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        silence: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
        periods: int = 1,
    ) -> None:
        """Tell the topic when `metric` is 1 or more; the `section` of the runbook is the alarm's own by default."""
        alarm = cloudwatch.Alarm(
            self,
            id_,
            metric=metric,
            threshold=1,
            comparison_operator=comparison,
            treat_missing_data=silence,
            evaluation_periods=periods,
            alarm_description=f"{description} What to do: {_RUNBOOK}, section {section or id_}.",
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))


class Metrics:
    """The metrics that the functions write into their logs, and those of AWS that only a search finds."""

    def __init__(self, pipeline: "PipelineStack") -> None:
        self._dimensions = {"service": SERVICE, "deployment": pipeline.deployment}

    def named(self, name: str, statistic: str, period: Duration = _RUN_PERIOD) -> cloudwatch.Metric:
        """Return one of the deployment's own metrics; a test compares it with what the functions write."""
        return cloudwatch.Metric(
            namespace=METRICS_NAMESPACE,
            metric_name=name,
            dimensions_map=self._dimensions,
            statistic=statistic,
            period=period,
        )

    def summed(self, *names: str) -> list[cloudwatch.IMetric]:
        return [self.named(name, "Sum") for name in names]

    def averaged(self, *names: str) -> list[cloudwatch.IMetric]:
        return [self.named(name, "Average") for name in names]

    def highest(self, *names: str) -> list[cloudwatch.IMetric]:
        return [self.named(name, "Maximum", SWEEP_PERIOD) for name in names]


def _search(schema: str, metric: str, words: str = "") -> cloudwatch.MathExpression:
    """Return every metric of that name: one each would take an export of the other stack each."""
    expression = f"SEARCH('{{{schema}}} MetricName=\"{metric}\" {words}', 'Sum', 3600)"
    return cloudwatch.MathExpression(expression=expression, using_metrics={}, label="")


def widgets(pipeline: "PipelineStack", metrics: Metrics) -> list[list[cloudwatch.IWidget]]:
    """Return the rows of the dashboard: runs and their time, money, quality, what goes wrong, the latest runs."""
    machine, own = pipeline.state_machine, pipeline.stack_name
    time = metrics.averaged("MinutesBeforeTraining", "MinutesOfTraining", "MinutesOfServing")
    live, hourly = (
        metrics.highest("LiveResources", "UnpricedResources", "StoredModels"),
        metrics.highest("LiveUsdPerHour"),
    )
    deeds, overdue = metrics.summed("SweeperActions", "RunsStopped"), metrics.highest("OverdueLeases")
    throttles = [
        *metrics.summed("Throttles"),
        machine.metric_throttled(),
        _search("AWS/Lambda,FunctionName", "Throttles", own),
        _search("AWS/Bedrock,ModelId", "InvocationThrottles"),
    ]
    lost = pipeline.dead_letter_queue.metric_approximate_number_of_messages_visible()
    ended = [machine.metric_failed(), machine.metric_timed_out(), machine.metric_aborted(), lost]
    errors = [_search("AWS/Lambda,FunctionName", "Errors", own)]
    return [
        [
            _graph("Runs by outcome", metrics.summed(*_OUTCOMES), is_stacked=True),
            _graph("Where the minutes of a run go", time, is_stacked=True),
        ],
        [
            _graph("What bills now, and its price an hour (right)", live, hourly),
            _graph("Estimated and spent, USD", metrics.summed("EstimatedUsd", "SpentUsd")),
        ],
        [
            _graph("Loss", metrics.averaged("TrainingLoss", "ValidationLoss")),
            _graph("Score of the primary metric", metrics.averaged("BaseModelScore", "CustomModelScore")),
        ],
        [_graph("Throttles", throttles), _graph("What the sweeper did, and what is overdue (right)", deeds, overdue)],
        [_graph("Executions that did not succeed, and events lost", ended), _graph("Errors of functions", errors)],
        [_latest_runs(pipeline)],
    ]


def _graph(
    title: str,
    left: Sequence[cloudwatch.IMetric],
    right: Sequence[cloudwatch.IMetric] = (),
    *,
    is_stacked: bool = False,
) -> cloudwatch.GraphWidget:
    # Lists, since jsii takes no tuples
    return cloudwatch.GraphWidget(title=title, left=[*left], right=[*right], stacked=is_stacked, width=12, height=6)


def _latest_runs(pipeline: "PipelineStack") -> cloudwatch.LogQueryWidget:
    log_group = pipeline.functions["publish_report"].log_group.log_group_name
    return cloudwatch.LogQueryWidget(
        title="Latest runs", log_group_names=[log_group], query_lines=[*_LATEST_RUNS], width=24, height=8
    )
