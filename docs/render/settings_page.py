"""Writes docs/settings.md: every setting, and every rule of the packs that is acknowledged instead of kept.

`make docs` synthesizes the app with all packs and writes the page from the settings' own texts and the report.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from docs.render.pages import table
from stacks.config import DeploymentConfig
from stacks.nag import UNSET
from stacks.network import ENDPOINTS

_APP = Path(__file__).parents[2] / "app.py"
_INTRODUCTION = """\
# Settings

What can be set for a deployment, with defaults and what is allowed. `make docs` writes this page; a test holds it
against the code. The settings lie in `cdk.json` under
`context.settings`. `-c name=value` overrides one of them for one command, with lists and maps as JSON:
`npx cdk deploy --all -c stage=prod -c 'notificationEmails=["team@example.com"]'`.
A value that is not allowed ends the synthesis with the setting's name.
"""
_SWITCHED_ON = f"""\
## A network of your own

With `vpc` the functions and the customization jobs are attached to your subnets and security groups. Subnets without
a way to the internet need these endpoints, and security groups that let HTTPS out to them:
{", ".join(ENDPOINTS)}.
Customization jobs need that of S3 too. Bedrock recommends a subnet in each Availability Zone.

## Copies

With `backupVault` AWS Backup copies both tables into your vault every day and keeps each copy for 35 days. The key of
the vault encrypts them, and they stay when this deployment goes. With `replication` S3 copies what is written from then
on; what is deleted here stays there. Give each deployment a bucket of its own: their folders have the same names.

## The key

One customer managed key encrypts the buckets, tables, logs, messages and every custom model. No setting is needed.
"""
_RULES = """\
## Rules that are acknowledged

Every synthesis checks the packs AwsSolutions and Serverless of cdk-nag, and ends where a rule is broken that is not in
this table. `-c nist80053r5=true` checks NIST 800-53 R5 as well. A rule with a setting is kept once that is switched on.
"""


# One value of each setting that brings statements or acknowledgments of its own along
EXAMPLES = {
    "notificationEmails": '["team@example.com", "oncall@example.com"]',
    "reservedConcurrency": "5",
    "vpc": '{"subnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"], '
    '"securityGroupIds": ["sg-0123456789abcdef0"]}',
    "backupVault": "Default",
    "replication": '{"bucketArn": "arn:aws:s3:::copies-of-dev", '
    '"keyArn": "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"}',
}


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Acknowledged(_Model):
    """A finding of a rule that was acknowledged."""

    rule_name: str
    reason: str


class _PackReport(_Model):
    suppressed_violations: list[Acknowledged] = []


class _Report(_Model):
    plugin_reports: list[_PackReport]


def read_acknowledged(report: bytes) -> list[Acknowledged]:
    """Return the findings that a validation report lists as acknowledged."""
    packs = _Report.model_validate_json(report).plugin_reports
    return [finding for pack in packs for finding in pack.suppressed_violations]


def page(acknowledged: Iterable[Acknowledged]) -> str:
    """Return docs/settings.md."""
    return "\n".join([_INTRODUCTION, _settings(), "", _SWITCHED_ON, _RULES, _rules(acknowledged), ""])


def _settings() -> str:
    rows = []
    for name, field in DeploymentConfig.model_fields.items():
        default = json.dumps(field.default, ensure_ascii=False)
        rows.append([f"`{field.alias or name}`", f"`{default}`", f"{field.title}", f"{field.description}"])
    return table(["setting", "default", "what it decides", "allowed"], rows)


def _rules(acknowledged: Iterable[Acknowledged]) -> str:
    settings = {unset.rule: f"`{setting}`" for setting, unset in UNSET.items()}
    found = {(finding.rule_name.partition("[")[0], finding.reason) for finding in acknowledged}
    rows = []
    for rule, text in sorted(found):
        reason, _, limits = text.partition(" Limited by: ")
        rows.append([rule, settings.get(rule, ""), reason, limits])
    return table(["rule", "setting", "why it is not kept", "what limits the harm"], rows)


def main() -> None:
    """Synthesize the app as cdk.json has it and with everything switched on, ask all packs, and print the page."""
    acknowledged: list[Acknowledged] = []
    for settings in ({}, EXAMPLES):
        with tempfile.TemporaryDirectory() as folder:
            context = json.dumps({"nist80053r5": "true", **settings})
            environment = {**os.environ, "CDK_CONTEXT_JSON": context, "CDK_OUTDIR": folder}
            subprocess.run([sys.executable, str(_APP)], env=environment, check=True)  # noqa: S603  this app
            acknowledged += read_acknowledged((Path(folder) / "validation-report.json").read_bytes())
    sys.stdout.write(page(acknowledged))


if __name__ == "__main__":
    main()
