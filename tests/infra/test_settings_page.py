"""docs/settings.md: what it says of settings, acknowledged rules and endpoints is what the code has."""

from pathlib import Path

from customization.gateway.calls import SERVICES
from customization.json_types import JsonObject
from docs.render.settings_page import EXAMPLES, page, read_acknowledged
from stacks.config import DeploymentConfig
from stacks.nag import UNSET
from stacks.network import ENDPOINTS
from tests.infra.synthesis import ROOT

# Names that boto3 gives to services whose endpoints are called otherwise
_ENDPOINTS_OF_CLIENTS = {"stepfunctions": "states", "service-quotas": "servicequotas"}


def test_the_page_is_what_the_code_has(
    templates: dict[str, JsonObject], governed: dict[str, JsonObject], assembly: Path, governed_assembly: Path
) -> None:
    assert templates
    assert governed
    acknowledged = [
        finding
        for folder in (assembly, governed_assembly)
        for finding in read_acknowledged((folder / "validation-report.json").read_bytes())
    ]
    assert (ROOT / "docs" / "settings.md").read_text() == page(acknowledged), "write it anew: make docs"


def test_every_setting_says_what_it_decides_and_what_is_allowed() -> None:
    for name, field in DeploymentConfig.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_every_setting_that_satisfies_a_rule_has_an_example_that_switches_it_on() -> None:
    assert set(UNSET) < set(EXAMPLES)


def test_the_endpoints_are_those_of_the_services_that_functions_call() -> None:
    assert sorted({_ENDPOINTS_OF_CLIENTS.get(name, name) for name in SERVICES}) == list(ENDPOINTS)
