"""What the idle cost counts is what the templates make and what the sweeper does without any run."""

from customization import metrics
from customization.idle_cost import QUANTITIES, SWEEPER_GB, SWEEPS
from customization.json_types import Json, JsonObject
from customization.sweeper import Swept
from tests.infra.machine import function_modules
from tests.infra.synthesis import at, resources

# What bills by the month as soon as it is there, by the item of its price; what bills by its use is named in idle.py
BY_THE_MONTH = {"key": "AWS::KMS::Key", "dashboard": "AWS::CloudWatch::Dashboard", "alarm": "AWS::CloudWatch::Alarm"}
# Free, or billed by use, which there is none of without runs
WITHOUT_IDLE_COST = {
    "AWS::CDK::Metadata",
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::StepFunctions::StateMachine",
    "AWS::KMS::Alias",
}


def counted(item: str) -> float:
    return sum(quantity.amount for quantity in QUANTITIES if quantity.item == item)


def kinds(templates: dict[str, JsonObject]) -> list[Json]:
    return [resource["Type"] for template in templates.values() for resource in resources(template).values()]


def test_what_bills_by_the_month_is_counted_as_often_as_the_templates_have_it(templates: dict[str, JsonObject]) -> None:
    found = kinds(templates)
    assert {item: counted(item) for item in BY_THE_MONTH} == {
        item: found.count(kind) for item, kind in BY_THE_MONTH.items()
    }


def test_no_other_kind_of_resource_bills_while_nobody_uses_it(templates: dict[str, JsonObject]) -> None:
    assert {str(kind) for kind in kinds(templates)} - set(BY_THE_MONTH.values()) - WITHOUT_IDLE_COST == set()


def test_the_sweeper_is_called_as_often_and_is_as_large_as_the_idle_cost_says(templates: dict[str, JsonObject]) -> None:
    pipeline = templates["pipeline"]
    scheduled = [
        at(rule, "Properties", "ScheduleExpression")
        for rule in resources(pipeline, "AWS::Events::Rule").values()
        if "ScheduleExpression" in str(rule)
    ]
    assert scheduled == ["rate(15 minutes)"]
    assert SWEEPS * 15 == 365 / 12 * 24 * 60
    [sweep] = [name for name, module in function_modules(pipeline).items() if module == "sweep"]
    assert at(resources(pipeline)[sweep], "Properties", "MemorySize") == SWEEPER_GB * 1024


def test_the_metrics_of_a_sweep_that_finds_nothing_are_counted() -> None:
    nothing = Swept(runs=(), released=(), refused=(), live=(), overdue=(), lifecycles=())
    assert counted("customMetric") == len(metrics.of_sweep(nothing))
