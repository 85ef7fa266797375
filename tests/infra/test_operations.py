"""Who hears of what: every alarm reaches the topic, and the topic reaches the people named in the settings."""

import re

import pytest

from customization.json_types import Json, JsonObject, as_object
from tests.infra.metrics import dashboard_widgets, names_in
from tests.infra.synthesis import ROOT, at, listed, resources


@pytest.fixture(scope="module")
def alarms(templates: dict[str, JsonObject]) -> dict[str, JsonObject]:
    found = resources(templates["operations"], "AWS::CloudWatch::Alarm")
    return {name: as_object(alarm["Properties"], name) for name, alarm in found.items()}


def alarm(alarms: dict[str, JsonObject], start: str) -> JsonObject:
    (found,) = (properties for name, properties in alarms.items() if name.startswith(start))
    return found


def topic_import(template: JsonObject) -> Json:
    (topic,) = resources(template, "AWS::SNS::Topic")
    (export,) = (
        at(output, "Export", "Name")
        for output in as_object(template["Outputs"], "Outputs").values()
        if at(output, "Value") == {"Ref": topic} and "Export" in as_object(output, "Outputs")
    )
    return {"Fn::ImportValue": export}


def test_every_alarm_tells_the_topic(templates: dict[str, JsonObject], alarms: dict[str, JsonObject]) -> None:
    for name, properties in alarms.items():
        assert properties["AlarmActions"] == [topic_import(templates["pipeline"])], name


def test_every_alarm_has_a_section_in_the_runbook_and_every_section_an_alarm(alarms: dict[str, JsonObject]) -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text("utf-8")
    sections = set(re.findall(r"^### (\w+)$", runbook.split("## Alarms")[1].split("\n## ")[0], re.MULTILINE))
    named = {
        name: re.findall(r"docs/operations.md, section (\w+)\.$", str(properties["AlarmDescription"]))
        for name, properties in alarms.items()
    }
    assert {section for found in named.values() for section in found} == sections
    assert all(len(found) == 1 and name.startswith(found[0]) for name, found in named.items())


def test_what_bills_past_its_lease_raises_an_alarm_within_one_sweep(
    templates: dict[str, JsonObject], alarms: dict[str, JsonObject]
) -> None:
    watched = alarm(alarms, "LeaseOverdue")
    assert (watched["MetricName"], watched["Statistic"], watched["Threshold"]) == ("OverdueLeases", "Maximum", 1)
    assert (watched["EvaluationPeriods"], watched["ComparisonOperator"]) == (1, "GreaterThanOrEqualToThreshold")
    scheduled = [
        at(rule, "Properties", "ScheduleExpression")
        for rule in resources(templates["pipeline"], "AWS::Events::Rule").values()
        if "ScheduleExpression" in as_object(rule["Properties"], "rule")
    ]
    assert (scheduled, watched["Period"]) == (["rate(15 minutes)"], 15 * 60)


def test_the_use_of_a_legacy_model_raises_an_alarm(alarms: dict[str, JsonObject]) -> None:
    watched = alarm(alarms, "LegacyModel")
    assert (watched["MetricName"], watched["TreatMissingData"]) == ("LegacyModels", "notBreaching")


def test_each_rule_that_cannot_call_its_target_raises_an_alarm(
    templates: dict[str, JsonObject], alarms: dict[str, JsonObject]
) -> None:
    watched = [
        str(at(properties["Dimensions"], 0, "Value", "Fn::ImportValue"))
        for properties in alarms.values()
        if (properties["Namespace"], properties["MetricName"]) == ("AWS/Events", "FailedInvocations")
    ]
    rules = resources(templates["pipeline"], "AWS::Events::Rule")
    assert sorted(
        name.rpartition("ExportsOutputRef")[2][: len(rule)]
        for name, rule in zip(sorted(watched), sorted(rules), strict=True)
    ) == sorted(rules)


def test_every_function_and_the_state_machine_are_traced(templates: dict[str, JsonObject]) -> None:
    functions = resources(templates["pipeline"], "AWS::Lambda::Function")
    modes = {at(function, "Properties", "TracingConfig", "Mode") for function in functions.values()}
    assert modes == {"Active"}
    (machine,) = resources(templates["pipeline"], "AWS::StepFunctions::StateMachine").values()
    assert at(machine, "Properties", "TracingConfiguration", "Enabled") is True


def test_the_dashboard_shows_runs_time_money_quality_and_what_goes_wrong(templates: dict[str, JsonObject]) -> None:
    shown = {str(name) for widget in dashboard_widgets(templates["operations"]) for name in names_in(widget)}
    assert {"RunsBetter", "RunsFailed", "RunsStopped", "MinutesOfTraining"} <= shown
    assert {"LiveResources", "LiveUsdPerHour", "EstimatedUsd", "SpentUsd"} <= shown
    assert {"TrainingLoss", "ValidationLoss", "BaseModelScore", "CustomModelScore"} <= shown
    assert {"Throttles", "ExecutionThrottled", "SweeperActions", "OverdueLeases"} <= shown


def test_the_dashboard_lists_the_latest_runs_from_the_log_of_the_function_that_reports(
    templates: dict[str, JsonObject],
) -> None:
    (table,) = (widget for widget in dashboard_widgets(templates["operations"]) if widget["type"] == "log")
    source = str(at(table, "properties", "query")).partition(" | ")[0]
    assert "PublishReportLogs" in source


def test_alarms_may_publish_to_the_encrypted_topic(templates: dict[str, JsonObject]) -> None:
    (policy,) = resources(templates["pipeline"], "AWS::SNS::TopicPolicy").values()
    allowed = [
        (at(statement, "Principal"), at(statement, "Action"))
        for statement in listed(at(policy, "Properties", "PolicyDocument", "Statement"))
        if at(statement, "Effect") == "Allow"
    ]
    assert ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish") in allowed


def test_a_run_that_failed_or_timed_out_raises_an_alarm(alarms: dict[str, JsonObject]) -> None:
    # A sum of both would have no value, and so raise no alarm, where one of them was never reported
    for name, metric in (("RunsFailed", "ExecutionsFailed"), ("RunsTimedOut", "ExecutionsTimedOut")):
        watched = alarm(alarms, name)
        assert (watched["Namespace"], watched["MetricName"], watched["Statistic"]) == ("AWS/States", metric, "Sum")


def test_a_sweeper_that_fails_or_is_not_called_raises_an_alarm(alarms: dict[str, JsonObject]) -> None:
    failing, silent = alarm(alarms, "SweeperErrors"), alarm(alarms, "SweeperSilent")
    assert (failing["MetricName"], failing["ComparisonOperator"]) == ("Errors", "GreaterThanOrEqualToThreshold")
    assert (silent["MetricName"], silent["ComparisonOperator"]) == ("Invocations", "LessThanThreshold")
    assert silent["TreatMissingData"] == "breaching"
    for properties in (failing, silent):
        assert "Sweep" in str(at(properties["Dimensions"], 0, "Value"))


def test_an_event_in_the_dead_letter_queue_raises_an_alarm(alarms: dict[str, JsonObject]) -> None:
    properties = alarm(alarms, "EventsLost")
    assert (properties["MetricName"], properties["Threshold"]) == ("ApproximateNumberOfMessagesVisible", 1)


def test_everybody_named_in_the_settings_is_subscribed(governed: dict[str, JsonObject]) -> None:
    subscribed = {
        at(subscription, "Properties", "Endpoint"): at(subscription, "Properties", "TopicArn")
        for subscription in resources(governed["operations"], "AWS::SNS::Subscription").values()
    }
    topic = topic_import(governed["pipeline"])
    assert subscribed == {"team@example.com": topic, "oncall@example.com": topic}


def test_nobody_is_subscribed_by_default(templates: dict[str, JsonObject]) -> None:
    assert resources(templates["operations"], "AWS::SNS::Subscription") == {}


def test_dashboards_of_two_stages_or_regions_do_not_share_a_name(
    templates: dict[str, JsonObject], governed: dict[str, JsonObject]
) -> None:
    names = [
        at(dashboard, "Properties", "DashboardName")
        for template in (templates, governed)
        for dashboard in resources(template["operations"], "AWS::CloudWatch::Dashboard").values()
    ]
    assert names == ["Customization-dev-us-east-1", "Customization-prod1-us-west-2"]
