"""Objects in S3."""

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_plus

import msgspec

from customization import errors
from customization.gateway.calls import named_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# S3 refuses parts below 5 MiB, except the last (Amazon S3 User Guide, multipart upload limits).
PART_BYTES = 8 * 1024 * 1024
READ_BYTES = 256 * 1024
PIECES_AHEAD = 16

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    key: str
    size: int
    last_modified: datetime
    version_id: str = ""


class ObjectWriter:
    """Collects bytes and sends them in parts while more is collected; memory holds two parts, whatever the size."""

    def __init__(self, client: "S3Client", bucket: str, key: str, content_type: str) -> None:
        self._client = client
        self._bucket, self._key, self._content_type = bucket, key, content_type
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[CompletedPartTypeDef] = []
        self._sender = ThreadPoolExecutor(max_workers=1)  # starts its thread with the first part
        self._sending: Future[CompletedPartTypeDef] | None = None

    def write(self, data: bytes) -> None:
        """Take `data`; sends a part when enough has been collected. Raises what sending the part before raised."""
        self._buffer += data
        if len(self._buffer) >= PART_BYTES:
            self._send_part()

    def _send_part(self) -> None:
        if not self._upload_id:
            created = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._key, ContentType=self._content_type
            )
            self._upload_id = created["UploadId"]
        self._wait()
        self._sending = self._sender.submit(self._upload, len(self._parts) + 1, bytes(self._buffer))
        self._buffer.clear()

    def _upload(self, number: int, body: bytes) -> "CompletedPartTypeDef":
        part = self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=body
        )
        return {"PartNumber": number, "ETag": part["ETag"]}

    def _wait(self) -> None:
        """Wait until the part that is being sent has arrived."""
        sending, self._sending = self._sending, None
        if sending:
            self._parts.append(sending.result())

    def close(self) -> None:
        """Make the object visible; nothing is visible before."""
        if not self._upload_id:
            self._client.put_object(
                Bucket=self._bucket, Key=self._key, Body=bytes(self._buffer), ContentType=self._content_type
            )
            return
        if self._buffer:
            self._send_part()
        self._wait()
        self._sender.shutdown()
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
        )

    def abort(self) -> None:
        """Drop what was sent, also a part that arrives after the end of it: parts of an open upload would be billed.

        One that is complete after all is left alone.
        """
        self._sender.shutdown()
        if not self._upload_id:
            return
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)
        except self._client.exceptions.NoSuchUpload:
            return


def _read_ahead(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what `read` returns until that is empty; a thread of its own reads a few pieces ahead."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = deque(reader.submit(read) for _ in range(PIECES_AHEAD))
        try:
            while piece := ahead.popleft().result():
                ahead.append(reader.submit(read))
                yield piece
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """Raise ArtifactUnreadable where what is decoded inside is not what it should be."""
    try:
        yield
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise errors.ArtifactUnreadable.of("error.artifact", uri=uri, problem=str(error)) from error


class Objects:
    """One bucket."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def uri(self, key: str) -> str:
        """Return the S3 URI of `key`."""
        return f"s3://{self.bucket}/{key}"

    def listed(self, prefix: str) -> list[StoredObject]:
        """Return the newest version of every object under `prefix`, by key."""
        with named_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [
                StoredObject(key=item["Key"], size=item["Size"], last_modified=item["LastModified"])
                for page in pages
                for item in page.get("Contents", [])
            ]

    def open_uploads(self, prefix: str) -> list[str]:
        """Return the keys under `prefix` whose multipart upload is in progress."""
        with named_errors():
            # XML cannot hold every key; botocore asks for encoded ones by itself in the other listings alone
            page = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, EncodingType="url")
            return [unquote_plus(upload["Key"]) for upload in page.get("Uploads", [])]

    def newest(self, key: str) -> StoredObject | None:
        """Return the newest version of `key`, or None where there is none."""
        try:
            with named_errors():
                head = self._client.head_object(Bucket=self.bucket, Key=key)
        except errors.ResourceNotFound:
            return None
        return StoredObject(
            key=key,
            size=head["ContentLength"],
            last_modified=head["LastModified"],
            version_id=head.get("VersionId", ""),
        )

    def read(self, key: str, most: int | None = None) -> bytes:
        """Return the bytes of `key`, or the first `most` of them; raises ResourceNotFound."""
        with named_errors(), closing(self._client.get_object(Bucket=self.bucket, Key=key)["Body"]) as body:
            return body.read(most)

    def read_if_there(self, key: str, most: int | None = None) -> bytes | None:
        """Return the bytes of `key`, or the first `most` of them, or None where there is no such object."""
        try:
            return self.read(key, most)
        except errors.ResourceNotFound:
            return None

    def decoded(self, key: str, type_: type[T]) -> T:
        """Return the JSON document `key`; raises ResourceNotFound, or ArtifactUnreadable where it is another."""
        body = self.read(key)
        with _readable(self.uri(key)):
            return msgspec.json.decode(body, type=type_)

    def decoded_if_there(self, key: str, type_: type[T]) -> T | None:
        """Return what `decoded` returns, or None where there is no such object."""
        try:
            return self.decoded(key, type_)
        except errors.ResourceNotFound:
            return None

    def decoded_lines(self, key: str, type_: type[T], places: range | None = None) -> list[T]:
        """Return the JSON lines `key`, or those at some places: it is read no further than the last of them.

        Raises what `decoded` raises.
        """
        body = b"".join(islice(self.lines(key), places.start, places.stop)) if places else self.read(key)
        with _readable(self.uri(key)):
            return msgspec.json.Decoder(type_).decode_lines(body)

    def chunks(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """Yield the bytes of `key` piece by piece, read ahead while they are used; raises ResourceNotFound."""
        with named_errors():
            body = (
                self._client.get_object(Bucket=self.bucket, Key=key, VersionId=version_id)
                if version_id
                else self._client.get_object(Bucket=self.bucket, Key=key)
            )["Body"]
            with closing(body):
                yield from _read_ahead(partial(body.read, READ_BYTES))

    def lines(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """Yield the lines of `key` with their line feed; memory holds one piece and one line."""
        rest = b""
        for chunk in self.chunks(key, version_id):
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            for piece in pieces:
                yield piece + b"\n"
        if rest:
            yield rest

    def sha256(self, key: str, version_id: str = "") -> str:
        """Return the SHA-256 of the content in hex; the same bytes give the same whatever way they were uploaded.

        S3 has it where the upload brought it for the whole object; a checksum of the checksums of parts is another one.
        """
        with named_errors():
            head = (
                self._client.head_object(Bucket=self.bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED")
                if version_id
                else self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            )
        if head.get("ChecksumType") == "FULL_OBJECT" and "ChecksumSHA256" in head:
            return base64.b64decode(head["ChecksumSHA256"]).hex()
        digest = hashlib.sha256()
        for chunk in self.chunks(key, version_id):
            digest.update(chunk)
        return digest.hexdigest()

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> None:
        """Store `body` under `key`."""
        with named_errors():
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type)

    @contextmanager
    def writer(self, key: str, content_type: str = "application/x-ndjson") -> Iterator[ObjectWriter]:
        """Yield a writer; the object appears only when the block ends without an error."""
        with named_errors():
            writer = ObjectWriter(self._client, self.bucket, key, content_type)
            try:
                yield writer
                writer.close()
            except BaseException:  # KeyboardInterrupt too: the parts of an open upload bill
                writer.abort()
                raise
