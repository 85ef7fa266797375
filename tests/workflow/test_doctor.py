"""The doctor in an account before and after the first deployment."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.client import BaseClient

from customization import doctor
from customization.json_types import JsonObject, as_list, as_object
from rehearsal.run import Rehearsal, Setting
from tests.workflow.conftest import Assemble

NOVEMBER = datetime(2026, 11, 22, 9, tzinfo=UTC)
ARGUMENTS = ["--stage", "dev", "--region", "us-east-1", "--model", "amazon.nova-micro-v1:0:128k"]


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the operations that are called, in order, as IAM names them."""
    called: list[str] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]  # the one place that all calls go through

    def record(client: BaseClient, operation: str, parameters: JsonObject) -> object:
        called.append(f"{client.meta.service_model.signing_name}:{operation}")
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    return called


def test_a_new_account_misses_the_bootstrap_and_a_deployed_one_nothing_but_people(
    assemble: Assemble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operations: list[str],
) -> None:
    setting = Setting(assembly=None, region="us-east-1", date=NOVEMBER, log_dir=tmp_path)
    with Rehearsal(setting) as rehearsal:
        monkeypatch.setenv("AWS_ENDPOINT_URL", rehearsal.aws.endpoint_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREHEARSALDEPLOYR")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        assert doctor.main(ARGUMENTS, NOVEMBER.date()) == doctor.MISSES
        said = capsys.readouterr().out
        assert "&& npx cdk bootstrap aws://123456789012/us-east-1" in said
        assert said.endswith("1 missing, 0 to look at\n"), said

        rehearsal.aws.deploy(assemble("us-east-1"))
        operations.clear()
        assert doctor.main(ARGUMENTS, NOVEMBER.date()) == doctor.DONE
        assert "nobody is subscribed" in capsys.readouterr().out
        changing = [name for name in operations if not name.partition(":")[2].startswith(("Get", "List", "Describe"))]
        assert (changing, rehearsal.aws.problems) == ([], [])
        asked = {name for name in operations if name.startswith(("bedrock:", "servicequotas:"))}
        assert asked == set(doctor.ACTIONS)


def test_the_bootstrap_stack_must_be_as_new_as_the_templates_ask(assemble: Assemble) -> None:
    text = (assemble("us-east-1") / "Customization-dev-Storage.template.json").read_text()
    rules = as_object(as_object(json.loads(text), "template")["Rules"], "Rules")
    refused = str(as_list(as_object(rules["CheckBootstrapVersion"], "rule")["Assertions"], "Assertions")[0])
    assert f"'{doctor.BOOTSTRAP_VERSION - 1}'" in refused
    assert f"'{doctor.BOOTSTRAP_VERSION}'" not in refused
