"""Every command looks at the deployment that the cdk.json of the clone chooses, as `cdk deploy` does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from customization import commands, doctor, teardown
from customization.cdk_settings import Chosen, read_chosen
from customization.gateway.operator import STACKS, DeployedStack, Operator

PROD = '{"app": "x", "context": {"settings": {"stage": "prod", "region": "us-west-2"}}}'
COMMANDS: list[tuple[Callable[[list[str]], int], list[str]]] = [
    (commands.main, ["runs", "support"]),
    (commands.main, ["ask", "support", "May I?"]),
    (teardown.main, ["left"]),
    (doctor.main, []),
]
NAMES = ["runs", "ask", "left", "doctor"]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the stages and Regions that commands look at, where nothing is deployed."""
    found: list[tuple[str, str]] = []

    def stacks(operator: Operator, stage: str, names: tuple[str, ...] = STACKS) -> list[DeployedStack]:
        assert set(names) <= set(STACKS)
        found.append((stage, operator.region))
        return []

    monkeypatch.setattr(Operator, "stacks", stacks)
    return found


def test_without_a_cdk_json_the_defaults_of_the_deployment_are_chosen(tmp_path: Path) -> None:
    assert read_chosen(tmp_path / "cdk.json") == Chosen()
    (tmp_path / "cdk.json").write_text(PROD)
    assert read_chosen(tmp_path / "cdk.json") == Chosen(stage="prod", region="us-west-2")


@pytest.mark.parametrize(("main", "arguments"), COMMANDS[:3], ids=NAMES[:3])
def test_a_command_looks_at_the_stage_and_region_of_cdk_json(
    main: Callable[[list[str]], int],
    arguments: list[str],
    looked_at: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cdk.json").write_text(PROD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("customization.leftovers.find", lambda *_: [])
    main(arguments)
    main(["--stage", "test", "--region", "us-east-1", *arguments])
    assert looked_at == [("prod", "us-west-2"), ("test", "us-east-1")]


def test_nothing_deployed_is_told_with_the_place_that_was_looked_at(
    looked_at: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["--stage", "prod", "runs", "support"]) == commands.FAILED
    assert looked_at == [("prod", "us-east-1")]
    assert capsys.readouterr().err.startswith("nothing is deployed as prod in us-east-1: give --stage")


def test_who_operates_runs_looks_at_no_stack_beside_those_that_the_policy_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, ...]] = []

    def stacks(_: Operator, stage: str, names: tuple[str, ...] = STACKS) -> list[DeployedStack]:
        assert stage
        asked.append(names)
        return []

    monkeypatch.setattr(Operator, "stacks", stacks)
    assert commands.main(["runs", "support"]) == commands.FAILED
    assert asked == [("Storage", "Pipeline")]


@pytest.mark.parametrize("text", [b'{"context": {"settings": {"stage": 5}}}', b'{"context": ', b'"\xff"'])
@pytest.mark.parametrize(("main", "arguments"), COMMANDS, ids=NAMES)
def test_a_cdk_json_that_cannot_be_read_is_wrong_use_in_a_sentence(
    main: Callable[[list[str]], int],
    arguments: list[str],
    text: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cdk.json").write_bytes(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error: cdk.json: " in capsys.readouterr().err
