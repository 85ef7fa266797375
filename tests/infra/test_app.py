"""What `cdk deploy --all` would deploy: the same from any machine, governed as the settings say, or refused clearly."""

import re
from pathlib import Path

from customization.json_types import Json, JsonObject, as_object
from tests.infra.synthesis import ROOT, at, listed, read, resources, run_app, synthesize

WITHOUT_TAGS = {
    "AWS::Backup::BackupSelection",
    "AWS::IAM::ManagedPolicy",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}


def test_the_assembly_is_the_same_without_credentials_network_and_with_another_machines_environment(
    tmp_path: Path, assembly: Path, templates: dict[str, JsonObject]
) -> None:
    elsewhere = synthesize(
        tmp_path / "cdk.out",
        AWS_REGION="eu-west-3",
        AWS_PROFILE="nobody",
        AWS_ACCESS_KEY_ID="",
        CDK_DEFAULT_ACCOUNT="999999999999",
        CDK_DEFAULT_REGION="eu-west-3",
        HTTPS_PROXY="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
        TZ="Asia/Tokyo",
    )
    assert elsewhere == templates
    for name in ("manifest.json", *(path.name for path in assembly.glob("*.assets.json"))):
        assert (tmp_path / "cdk.out" / name).read_bytes() == (assembly / name).read_bytes(), name


def test_the_stacks_of_a_stage_are_named_after_it_and_deployed_in_order_of_their_lifecycle(assembly: Path) -> None:
    stacks = {
        name: artifact
        for name, artifact in as_object(read(assembly / "manifest.json")["artifacts"], "artifacts").items()
        if at(artifact, "type") == "aws:cloudformation:stack"
    }
    assert set(stacks) == {f"Customization-dev-{name}" for name in ("Storage", "Pipeline", "Operations")}
    assert {at(stack, "environment") for stack in stacks.values()} == {"aws://unknown-account/us-east-1"}
    assert "Customization-dev-Storage" in listed(at(stacks["Customization-dev-Pipeline"], "dependencies"))
    assert "Customization-dev-Pipeline" in listed(at(stacks["Customization-dev-Operations"], "dependencies"))
    protected = {name for name, stack in stacks.items() if at(stack, "properties", "terminationProtection") is True}
    assert protected == {"Customization-dev-Storage", "Customization-dev-Pipeline"}


def test_every_role_gets_the_permissions_boundary_and_the_path(governed: dict[str, JsonObject]) -> None:
    account = ":iam::", {"Ref": "AWS::AccountId"}
    boundary = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, *account, ":policy/Guardrails"]]}
    roles = {
        name: role for template in governed.values() for name, role in resources(template, "AWS::IAM::Role").items()
    }
    assert len(roles) > 20
    for name, role in roles.items():
        assert at(role, "Properties", "Path") == "/teams/ml/", name
        assert at(role, "Properties", "PermissionsBoundary") == boundary, name


def test_without_these_settings_no_role_has_a_boundary_or_a_path(templates: dict[str, JsonObject]) -> None:
    for template in templates.values():
        for role in resources(template, "AWS::IAM::Role").values():
            assert not {"Path", "PermissionsBoundary"} & set(as_object(role["Properties"], "Properties"))


def test_every_taggable_resource_gets_the_tags(governed: dict[str, JsonObject]) -> None:
    expected: list[Json] = [{"Key": "cost-center", "Value": "4711"}, {"Key": "team", "Value": "ml"}]
    for template in governed.values():
        for name, resource in resources(template).items():
            if resource["Type"] not in WITHOUT_TAGS:
                properties = as_object(resource["Properties"], name)
                if resource["Type"] == "AWS::Backup::BackupPlan":
                    given = as_object(properties["BackupPlanTags"], name)
                    tags: Json = [{"Key": key, "Value": value} for key, value in given.items()]
                else:
                    tags = properties["Tags"]
                # State machines take a list, others too; none may lose one of ours
                assert [tag for tag in listed(tags) if tag in expected] == expected, name


def test_bad_settings_end_synthesis_with_their_names_and_no_stack_trace(tmp_path: Path) -> None:
    code, problems = run_app(tmp_path / "cdk.out", {"stage": "Prod", "region": "eu-west-1"})
    assert code == 1
    assert re.search(r"^  stage: 'Prod' was given; allowed: ", problems, re.MULTILINE)
    assert re.search(r"^  region: 'eu-west-1' was given; allowed: .*us-east-1, us-west-2 .*$", problems, re.MULTILINE)
    assert "Traceback" not in problems
    assert not list((tmp_path / "cdk.out").glob("*"))


def test_no_stack_brings_a_custom_resource_along(templates: dict[str, JsonObject]) -> None:
    kinds = {str(resource["Type"]) for template in templates.values() for resource in resources(template).values()}
    assert not {kind for kind in kinds if kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"}


def test_the_cdk_cli_is_pinned_exactly_and_its_lock_names_no_download_address() -> None:
    version = at(read(ROOT / "package.json"), "devDependencies", "aws-cdk")
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(version))
    assert at(read(ROOT / "package-lock.json"), "packages", "node_modules/aws-cdk", "version") == version
    assert "://" not in (ROOT / "package-lock.json").read_text()


def test_app_py_stays_a_composition_root() -> None:
    assert len((ROOT / "app.py").read_text().splitlines()) <= 40
