"""Where the console shows things, and commands to paste, as notices and pages name them."""

import string
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from customization.settings import Settings

_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


class Links(msgspec.Struct, frozen=True):
    """Where the console shows things; `account_arn` is any ARN of the account, for its partition."""

    region: str
    bucket: str
    account_arn: str

    @classmethod
    def of(cls, settings: "Settings") -> "Links":
        return cls(settings.region, settings.artifact_bucket, settings.topic_arn)

    @property
    def _console(self) -> str:
        partition = self.account_arn.split(":")[1]
        return f"https://{self.region}.{_CONSOLES.get(partition, 'console.aws.amazon.com')}"

    def execution(self, arn: str) -> str:
        return f"{self._console}/states/home?region={self.region}#/v2/executions/details/{arn}"

    def artifact(self, key: str) -> str:
        return f"{self._console}/s3/object/{self.bucket}?region={self.region}&prefix={quote(key, safe='')}"

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


def move_command(bucket: str, key: str, better_key: str) -> str:
    """Return the command that moves an object to where a run uses it, safe to paste whatever the key holds."""
    return f"aws s3 mv {quoted(f's3://{bucket}/{key}')} s3://{bucket}/{better_key}"


def quoted(text: str) -> str:
    """Return `text` for a shell on one line, in quotes even where shlex.quote would leave a plain word bare."""
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    kept = set(string.ascii_letters + string.digits)
    octets = "".join(chr(octet) if chr(octet) in kept else f"\\{octet:03o}" for octet in text.encode())
    return f"$'{octets}'"
