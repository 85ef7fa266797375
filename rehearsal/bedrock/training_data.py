"""Training and validation files, read with the customization role's credentials and checked as the service checks them.

The texts of failures are those of Bedrock's troubleshooting page where it has one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from customization.catalogue import BaseModel, Limits
from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.bedrock.language_model import TrainingText
from rehearsal.bedrock.tokens import count_tokens

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WRITE_CHECK = ".write_access_check_file.temp"


class DataRefusedError(Exception):
    """The job ends as Failed with this failureMessage."""


@dataclass(frozen=True)
class Record:
    """One line: what is trained on, the texts in which reserved words are looked for, and its tokens."""

    texts: tuple[TrainingText, ...]
    prompts: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    characters: int


@dataclass(frozen=True)
class TrainingData:
    """`validation` has one entry for each validator; tokens are those of one pass over the training file."""

    training: tuple[TrainingText, ...]
    validation: tuple[tuple[TrainingText, ...], ...]
    records: int
    tokens: int


@dataclass(frozen=True)
class DataSource:
    """Where a job's files are and by which rules they are checked."""

    base: BaseModel
    customization_type: str
    batch_size: int
    training_uri: str
    validation_uris: tuple[str, ...]
    output_uri: str

    @property
    def limits(self) -> Limits:
        return self.base.limits[self.customization_type]


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_training_data(s3: "S3Client", source: DataSource) -> TrainingData:
    """Return the checked data; raises DataRefusedError as the service's own validation phase would."""
    _check_write_access(s3, source.output_uri)
    training = _read_file(s3, source, source.training_uri)
    validation = [_read_file(s3, source, uri) for uri in source.validation_uris]
    _check_counts(source, len(training), [len(records) for records in validation])
    return TrainingData(
        training=tuple(text for record in training for text in record.texts),
        validation=tuple(tuple(text for record in records for text in record.texts) for records in validation),
        records=len(training),
        tokens=sum(record.input_tokens + record.output_tokens for record in training),
    )


def _check_write_access(s3: "S3Client", uri: str) -> None:
    bucket, prefix = split_uri(uri)
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    try:
        s3.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1)
        s3.put_object(Bucket=bucket, Key=folder + WRITE_CHECK, Body=b"")
    except ClientError as error:
        raise DataRefusedError(write_refused(bucket, f"{folder}.write_access_check_file.tmp")) from error


def write_refused(bucket: str, key: str) -> str:
    """Return the failureMessage for an object that the customization role may not write."""
    return (
        "Amazon S3 perms missing (PutObject): Could not validate PutObject permissions to access S3 bucket: "
        f"{bucket} at key {key}"
    )


def _read_file(s3: "S3Client", source: DataSource, uri: str) -> list[Record]:
    bucket, key = split_uri(uri)
    try:
        s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        raise DataRefusedError(
            f"Could not validate GetObject permissions to access Amazon S3 bucket: {bucket} at key {key}"
        ) from error
    file_name = key.rsplit("/", 1)[-1]
    limits = source.limits
    largest = limits.max_training_bytes if uri == source.training_uri else limits.max_validation_bytes
    if largest is not None and len(content) > largest:
        raise DataRefusedError(
            f"Amazon S3 file {file_name} has {len(content)} bytes, more than the limit of {largest}."
        )
    records = list(_parse(content, file_name, source))
    for record in records:
        _check_size(record, file_name, source)
    return records


def _parse(content: bytes, file_name: str, source: DataSource) -> Iterator[Record]:
    read = _READERS[source.base.training_format[source.customization_type]]
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
        for line in lines:
            yield read(as_object(json.loads(line), "record"), source.base)
    except (ValueError, KeyError, TypeError) as error:
        raise DataRefusedError(
            f"Unable to parse Amazon S3 file: {file_name}. Data files must conform to JSONL format."
        ) from error


def _check_size(record: Record, file_name: str, source: DataSource) -> None:
    limits = source.limits
    total = limits.tokens_per_record(source.batch_size)
    start = (record.prompts[0] if record.prompts else "")[:20]
    if total is not None and record.characters > total * limits.characters_per_token:
        raise DataRefusedError(f"Input size exceeded in file {file_name} for record starting with {start}")
    for side, tokens, what, limit in (
        ("Maximum input token count", record.input_tokens, "limit", limits.max_prompt_tokens or total),
        ("Maximum output token count", record.output_tokens, "limit", limits.max_completion_tokens or total),
        ("Max sum of input and output token length", record.input_tokens + record.output_tokens, "total limit", total),
    ):
        if limit is not None and tokens > limit:
            raise DataRefusedError(f"{side} {tokens} exceeds {what} of {limit}")
    reserved = next((word for word in limits.reserved_words if any(word in text for text in record.prompts)), None)
    if reserved:
        raise DataRefusedError(
            f"Amazon S3 file {file_name} contains the reserved keyword {reserved} in a user or system prompt."
        )


def _check_counts(source: DataSource, training: int, validation: Sequence[int]) -> None:
    limits = source.limits
    counts: list[tuple[str, int, int | None, int | None]] = [
        ("training records", training, limits.min_training_records, limits.max_training_records),
        (
            "training and validation records",
            training + sum(validation),
            limits.min_total_records,
            limits.max_total_records,
        ),
    ]
    counts += [
        ("validation records", count, limits.min_validation_records, limits.max_validation_records)
        for count in validation
    ]
    for what, count, least, most in counts:
        if least is not None and count < least:
            raise DataRefusedError(f"The number of {what} is {count}, fewer than the minimum of {least}.")
        if most is not None and count > most:
            raise DataRefusedError(f"The number of {what} is {count}, more than the maximum of {most}.")


def _record(pairs: Iterable[tuple[str, str]], prompts: Iterable[str], input_tokens: int) -> Record:
    texts = tuple(TrainingText(prompt=prompt, completion=completion) for prompt, completion in pairs)
    prompts = tuple(prompts)
    answers = [text.completion for text in texts]
    return Record(
        texts=texts,
        prompts=prompts,
        input_tokens=input_tokens,
        output_tokens=sum(count_tokens(answer) for answer in answers),
        characters=sum(map(len, prompts)) + sum(map(len, answers)),
    )


def _read_pair(entry: JsonObject, _: BaseModel) -> Record:
    prompt, completion = _text(entry["prompt"]), _text(entry["completion"])
    return _record([(prompt, completion)], [prompt], count_tokens(prompt))


def _read_input(entry: JsonObject, _: BaseModel) -> Record:
    return _record([("", _text(entry["input"]))], [], 0)


def _read_conversation(entry: JsonObject, base: BaseModel) -> Record:
    if base.provider != "Amazon" and entry["schemaVersion"] != "bedrock-conversation-2024":
        raise ValueError("schemaVersion")
    _text(entry["schemaVersion"])
    system = as_list(entry.get("system", []), "system")
    if len(system) > 1 and base.provider == "Meta":
        raise ValueError("system")
    return _conversation(_text_blocks(system) if system else "", entry["messages"], _text_blocks)


def _read_claude(entry: JsonObject, _: BaseModel) -> Record:
    system = _text(entry["system"]) if "system" in entry else ""
    return _conversation(system, entry["messages"], _text)


def _conversation(system: str, messages: Json, read_content: Callable[[Json], str]) -> Record:
    turns: list[tuple[str, str]] = []
    for message in as_list(messages, "messages"):
        entry = as_object(message, "message")
        turns.append((_text(entry["role"]), read_content(entry["content"])))
    roles = [role for role, _ in turns]
    if len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise ValueError("roles alternate, the first is user and the last assistant")
    pairs = [
        (render_prompt(system, turns[:number]), text)
        for number, (role, text) in enumerate(turns)
        if role == "assistant"
    ]
    prompts = [text for role, text in turns if role == "user"]
    prompts += [system] if system else []
    return _record(pairs, prompts, sum(map(count_tokens, prompts)))


def render_prompt(system: str, turns: Sequence[tuple[str, str]]) -> str:
    """Return what the model is given for a conversation, in training and in inference alike."""
    return "\n".join([system, *(text for _, text in turns)] if system else [text for _, text in turns])


def _text(value: Json) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError("expected a text")
    return value


def _text_blocks(value: Json) -> str:
    blocks = as_list(value, "content")
    if not blocks:
        raise ValueError("expected at least one block")
    return "\n".join(_text(as_object(block, "block")["text"]) for block in blocks)


_READERS: dict[str, Callable[[JsonObject, BaseModel], Record]] = {
    "prompt_completion": _read_pair,
    "input_only": _read_input,
    "bedrock-conversation-2024": _read_conversation,
    "claude_messages": _read_claude,
}
