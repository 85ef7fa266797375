"""What an organization asks of every resource: tags, and for roles a permissions boundary and a path."""

import jsii
from aws_cdk import App, AspectPriority, Aspects, Aws, IAspect, Tags
from aws_cdk import aws_iam as iam
from constructs import IConstruct

from stacks.config import DeploymentConfig


def govern(app: App, config: DeploymentConfig) -> None:
    """Put the tags of `config` on every taggable resource of `app`, its boundary and path on every role."""
    for key, value in config.tags.items():
        Tags.of(app).add(key, value)
    if config.permissions_boundary is not None:
        arn = config.permissions_boundary
        if not arn.startswith("arn:"):
            arn = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:policy/{arn}"
        boundary = iam.ManagedPolicy.from_managed_policy_arn(app, "PermissionsBoundary", arn)
        iam.PermissionsBoundary.of(app).apply(boundary)
    if config.role_path != "/":
        Aspects.of(app).add(_RolePath(config.role_path), priority=AspectPriority.MUTATING)


@jsii.implements(IAspect)
class _RolePath:
    def __init__(self, path: str) -> None:
        self._path = path

    def visit(self, node: IConstruct) -> None:
        if isinstance(node, iam.CfnRole):
            node.path = self._path
