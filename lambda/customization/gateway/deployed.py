"""The gateway of a person at a terminal: the stacks' outputs say what the functions' environment says to them."""

from collections.abc import Mapping

import boto3
from botocore.exceptions import NoRegionError

from customization import errors
from customization.gateway import Gateway
from customization.gateway.calls import CLIENT_CONFIG, named_errors
from customization.settings import Defaults, Settings, chosen_region

_STACKS = ("Storage", "Pipeline")


def connect_deployed(stage: str, region: str | None = None) -> Gateway:
    """Return the gateway to what is deployed for `stage`, with the credentials and the Region of the AWS CLI.

    What no output names is empty in its settings: key and roles belong to the functions.

    Raises:
        ResourceNotFound: nothing is deployed for the stage, or no Region is chosen.
        AccessDenied: the credentials may not look at the stacks.
    """
    # Boto3 reads AWS_DEFAULT_REGION alone, the AWS CLI and Lambda go by AWS_REGION
    session = boto3.Session(region_name=region or chosen_region())
    found: dict[str, str] = {}
    try:
        client = session.client("cloudformation", config=CLIENT_CONFIG)
    except NoRegionError as error:
        raise errors.ResourceNotFound("no Region is chosen; set AWS_REGION, or give --region") from error
    for name in _STACKS:
        stack = f"Customization-{stage}-{name}"
        try:
            with named_errors():
                described = client.describe_stacks(StackName=stack)["Stacks"][0]
        except errors.RequestRejected as error:
            raise errors.ResourceNotFound(
                f"{error}; expected the stack {stack} in {session.region_name}: give --stage and --region, or deploy"
            ) from error
        found |= {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        if name == "Storage":
            # Its first block, as stacks/storage.py has it
            found["DeploymentId"] = described["StackId"].rpartition("/")[2].partition("-")[0]
    return Gateway(settings_of(found, stage, session.region_name))


def settings_of(outputs: Mapping[str, str], stage: str, region: str) -> Settings:
    """Return the settings that the outputs of the stacks and the DeploymentId among them give."""
    return Settings(
        data_bucket=outputs["DataBucketName"],
        artifact_bucket=outputs["ArtifactBucketName"],
        runs_table=outputs["RunsTableName"],
        leases_table=outputs.get("LeasesTableName", ""),
        topic_arn=outputs.get("TopicArn", ""),
        customization_role_arn="",
        key_arn="",
        stage=stage,
        deployment_id=outputs["DeploymentId"],
        region=region,
        defaults=Defaults(
            base_model_identifier="",
            budget_usd=0,
            monthly_budget_usd=0,
            settle_seconds=0,
            job_start_hours=0,
            job_end_hours=0,
            language="en",
        ),
    )
