"""Who hears of what: every alarm reaches the topic, and the topic reaches the people named in the settings."""

import pytest

from customization.json_types import Json, JsonObject, as_object
from tests.infra.synthesis import at, listed, resources


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
    assert len(alarms) == 5
    for name, properties in alarms.items():
        assert properties["AlarmActions"] == [topic_import(templates["pipeline"])], name
        assert len(str(properties["AlarmDescription"])) > 20


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
