"""Names of single permissions that no deployment changes: who, action, resource, for keys the service; what runs spare.

tests/workflow/permissions.py gives these names to what is deployed, tests/infra/policy_lines.py to the templates.
"""

import json
import re
from collections.abc import Iterable, Mapping

from docs.render.missed_by import LIST

MACHINE, RULE, CUSTOMIZATION_ROLE = "the state machine", "the rule", "the customization role"
EVERY_FUNCTION = "every function"
PEOPLE = ("DataContributor", "ReportReader", "RunOperator", "InvokeServedModel")

# What no act of a rehearsal needs, with the reason; tests/infra/test_people.py holds each of them in a table
_CHILDREN = "children of maps have no ARN in the rehearsal, and it does not list them"
_STREAMS = "the stand-in of Bedrock does not stream"
UNSEEN_OF_PEOPLE = {
    "DataContributor: kms:Decrypt key via s3": "S3 itself decrypts the parts of a large upload",
    "RunOperator: states:ListMapRuns execution:machine:*": _CHILDREN,
    "RunOperator: states:DescribeMapRun mapRun:machine/*": _CHILDREN,
    "RunOperator: states:ListExecutions mapRun:machine/*": _CHILDREN,
    "RunOperator: states:DescribeExecution execution:machine/*:*": _CHILDREN,
    "RunOperator: states:GetExecutionHistory execution:machine/*:*": _CHILDREN,
    "InvokeServedModel: bedrock:InvokeModel provisioned-model/*": "the model in use is served on demand",
    "InvokeServedModel: bedrock:InvokeModelWithResponseStream provisioned-model/*": _STREAMS,
    "InvokeServedModel: bedrock:InvokeModelWithResponseStream custom-model-deployment/*": _STREAMS,
}

# What no call of a rehearsal needs, with the reason; tests/infra/test_permission_tables.py says which test watches it
UNSEEN = {
    **{re.escape(name): reason for name, reason in UNSEEN_OF_PEOPLE.items()},
    r"\w+: (logs:(CreateLogStream|PutLogEvents) its own log"
    r"|xray:(PutTraceSegments|PutTelemetryRecords) \*)": "Lambda itself delivers logs and traces",
    rf"{MACHINE}: (logs:\w+|xray:\w+) \*": "Step Functions itself delivers logs and traces",
    rf"{MACHINE}: states:(Describe|Stop|Redrive)Execution .*": "Step Functions itself follows the children of its maps",
    r"\w+: states:DescribeExecution .*-\*:\*": "the machines of stacks that were deleted; those of other "
    "stages fit too, since CloudFormation names a machine by its logical id, which all stages have alike",
    rf"{CUSTOMIZATION_ROLE}: kms:\w+ key via bedrock": "Bedrock itself encrypts the model that a job makes",
    rf"{CUSTOMIZATION_ROLE}: s3:GetObject artifacts/runs/\*/bedrock/\*": "Bedrock's guide asks for it; the stand-in "
    "does not read what it has written",
    r"evaluate_shard: bedrock:InvokeModel us-east-1::foundation-model/(?!amazon\.nova-micro-v1:0).*": "one base model "
    "is asked as the next; tests/workflow/test_models.py runs with others",
    r"create_provisioned_throughput: bedrock:CreateProvisionedModelThroughput us-east-1::foundation-model/\*": "the "
    "Service Authorization Reference requires it beside the custom model, and does not say when it is looked at",
}
# What a setting alone brings, with the reason why no run uses it; the tables of the settings watch all of it
UNSEEN_OF_SETTINGS = {
    rf"{EVERY_FUNCTION}: ec2:\w+ .*": "the embedded Lambda has no network to attach a function to",
    rf"{CUSTOMIZATION_ROLE}: ec2:\w+ .*": "the stand-in of Bedrock makes no interfaces in a network",
    r"BackupRole: (dynamodb|backup|kms):\w+ .*": "the embedded AWS has no AWS Backup",
    r"ReplicationRole: (s3|kms):\w+ .*": "the embedded S3 replicates nothing",
}
# What is done without, by design
SPARED = {
    r"check_preconditions: servicequotas:GetServiceQuota bedrock/L-\w+": "a quota that cannot be read is not "
    "checked beforehand: Bedrock refuses what is above it"
}


def is_taken_away_by_runs(name: str) -> bool:
    """Return whether tests/workflow takes the permission away and expects that a run, or what people do, misses it."""
    return not any(re.fullmatch(pattern, name) for pattern in (*UNSEEN, *SPARED))


def by_permission(missed_by: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return what misses each permission of one holder."""
    return {permission: what for what, permissions in missed_by.items() for permission in permissions}


def note(part: str, who: str, missed: Mapping[str, str]) -> str:
    """Return what to write into the list, then `make docs`, where the tests find something else than it says."""
    grouped = {what: sorted(name for name in missed if missed[name] == what) for what in sorted({*missed.values()})}
    return f"write into {LIST.name}, {part}: {json.dumps({who: grouped})}"
