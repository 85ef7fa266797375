"""What AWS says reaches Retry and Catch under the names of `errors`."""

import pytest
from botocore.exceptions import (
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from hypothesis import given
from hypothesis import strategies as st

from customization import errors
from customization.gateway.calls import named_error, named_errors
from customization.gateway.objects import PART_BYTES, READ_BYTES
from customization.gateway.tables import Attr, from_stored, to_stored
from tests.unit.fakes import GatewayInMemory


def refused(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "because"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]  # the members that are read
        "CreateThing",
    )


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        ("ThrottlingException", 429, errors.Throttled),
        ("SlowDown", 503, errors.Throttled),
        ("ThrottledException", 400, errors.Throttled),
        ("InternalServerException", 500, errors.ServiceUnavailable),
        ("SomethingNew", 502, errors.ServiceUnavailable),
        ("ModelNotReadyException", 429, errors.ModelNotReady),
        ("ModelTimeoutException", 408, errors.ServiceUnavailable),
        ("ServiceQuotaExceededException", 400, errors.QuotaUnavailable),
        ("AccessDeniedException", 403, errors.AccessDenied),
        ("ResourceNotFoundException", 404, errors.ResourceNotFound),
        ("NoSuchKey", 404, errors.ResourceNotFound),
        ("ConflictException", 400, errors.Conflict),
        ("ValidationException", 400, errors.RequestRejected),
        ("TooManyTagsException", 400, errors.RequestRejected),
    ],
)
def test_every_refusal_has_a_name_and_keeps_its_words(code: str, status: int, name: type[Exception]) -> None:
    error = named_error(refused(code, status))
    assert type(error) is name
    assert "CreateThing: because" in str(error)


def test_only_what_passes_by_itself_is_transient() -> None:
    with pytest.raises(errors.TransientError), named_errors():
        raise refused("ThrottlingException")
    with pytest.raises(errors.PipelineError), named_errors():
        raise refused("ServiceQuotaExceededException")


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        ProfileNotFound(profile="ours"),
        TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
        UnauthorizedSSOTokenError(),
        refused("ExpiredToken", 403),
        refused("ExpiredTokenException"),
        refused("InvalidAccessKeyId", 403),
        refused("InvalidClientTokenId", 403),
        refused("SignatureDoesNotMatch", 403),
        refused("UnrecognizedClientException"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whoever_is_not_signed_in_is_told_how(error: Exception) -> None:
    with pytest.raises(errors.RequestRejected) as caught, named_errors():
        raise error
    assert str(caught.value).endswith(
        "; give the AWS CLI credentials (aws configure, or aws sso login) and run this again"
    )


def test_a_read_that_breaks_off_half_way_is_tried_again() -> None:
    with pytest.raises(errors.ServiceUnavailable), named_errors():
        raise IncompleteReadError(actual_bytes=3, expected_bytes=5)


def test_an_object_larger_than_a_part_is_written_whole(gateway: GatewayInMemory) -> None:
    line = b"x" * 1023 + b"\n"
    with gateway.artifacts.writer("big") as writer:
        for _ in range(2 * PART_BYTES // 1024 + 5):
            writer.write(line)
    assert gateway.artifacts.read("big") == line * (2 * PART_BYTES // 1024 + 5)


@pytest.mark.parametrize("parts", [0, 2])
def test_a_write_that_breaks_off_leaves_no_object_and_no_upload(gateway: GatewayInMemory, parts: int) -> None:
    def break_off() -> None:
        with gateway.artifacts.writer("half") as writer:
            writer.write(b"x" * (parts * PART_BYTES))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        break_off()
    assert gateway.artifacts.read_if_there("half") is None
    assert gateway.artifacts.open_uploads("half") == []


def test_an_object_whose_last_part_is_refused_leaves_no_object_and_no_upload(
    gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off() -> None:
        with gateway.artifacts.writer("half") as writer:
            writer.write(b"x" * PART_BYTES)
            monkeypatch.setattr(gateway.artifacts._client, "upload_part", refuse)
            writer.write(b"x")

    def refuse(**_: object) -> None:
        raise refused("InternalError")

    with pytest.raises(errors.ServiceUnavailable):
        break_off()
    assert gateway.artifacts.read_if_there("half") is None
    assert gateway.artifacts.open_uploads("half") == []


def test_an_object_that_is_complete_though_the_answer_was_lost_stays(
    gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = gateway.artifacts._client.complete_multipart_upload

    def lose_answer(**asked: object) -> None:
        complete(**asked)  # type: ignore[arg-type]  # handed on as it came
        raise refused("InternalError")

    def write() -> None:
        with gateway.artifacts.writer("whole") as writer:
            monkeypatch.setattr(gateway.artifacts._client, "complete_multipart_upload", lose_answer)
            writer.write(b"x" * PART_BYTES)

    with pytest.raises(errors.ServiceUnavailable):
        write()
    assert len(gateway.artifacts.read("whole")) == PART_BYTES


@given(value=st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5))
def test_what_is_stored_comes_back(value: object) -> None:
    assert from_stored(to_stored(value)) == value  # type: ignore[arg-type]  # JSON by construction


def test_a_condition_that_does_not_hold_is_an_answer_and_no_error(gateway: GatewayInMemory) -> None:
    assert gateway.runs.put_new({"runId": "a", "n": 1.5})
    assert not gateway.runs.put_new({"runId": "a"})
    assert not gateway.runs.update("a", {"n": 2}, condition=Attr("n").eq(7))
    assert gateway.runs.update("a", {}, add={"n": 1})
    assert gateway.runs.get("a") == {"runId": "a", "n": 2.5}


def test_a_large_object_is_read_whole_or_in_part(gateway: GatewayInMemory) -> None:
    content = bytes(range(256)) * (40 * READ_BYTES // 256) + b"end"
    gateway.artifacts.put("large", content)
    assert b"".join(gateway.artifacts.chunks("large")) == content
    first = next(gateway.artifacts.chunks("large"))
    assert content.startswith(first)


def test_a_part_that_cannot_be_sent_ends_the_write_without_an_object(
    gateway: GatewayInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_request: object) -> None:
        raise refused("SlowDown", 503)

    def write_parts() -> None:
        with gateway.artifacts.writer("big") as writer:
            monkeypatch.setattr(writer._client, "upload_part", refuse)
            for _ in range(3):
                writer.write(b"x" * PART_BYTES)

    with pytest.raises(errors.Throttled):
        write_parts()
    assert gateway.artifacts.read_if_there("big") is None
    assert gateway.artifacts.open_uploads("big") == []
