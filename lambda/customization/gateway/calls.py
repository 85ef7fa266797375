"""Clients, and the names under which their errors reach Retry and Catch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as ConnectionFailed
from botocore.loaders import JSONFileLoader, Loader
from botocore.session import Session

from customization import errors
from customization.json_types import Json

SERVICES = ("bedrock", "bedrock-runtime", "dynamodb", "s3", "service-quotas", "sns", "ssm", "stepfunctions")
CONNECT_SECONDS, READ_SECONDS = 5, 120
CLIENT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
)
# The client would wait two minutes four times; BedrockRuntime asks again itself, and only what fails soon
ASKING_CONFIG = CLIENT_CONFIG.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))

_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_UNAVAILABLE = {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "ModelErrorException",
    "ModelTimeoutException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
# Of credentials that have expired, or that AWS does not know; S3, JSON and query services have each their own words
_NOT_SIGNED_IN = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
# What botocore raises before it asks AWS at all
_WITHOUT_CREDENTIALS = (
    CredentialRetrievalError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_SIGN_IN = "give the AWS CLI credentials (aws configure, or aws sso login) and run this again"
_NAMED: dict[str, type[Exception]] = {
    "404": errors.ResourceNotFound,
    "403": errors.AccessDenied,
    "AccessDenied": errors.AccessDenied,
    "AccessDeniedException": errors.AccessDenied,
    "AuthorizationError": errors.AccessDenied,
    "ConflictException": errors.Conflict,
    "ExecutionDoesNotExist": errors.ResourceNotFound,
    "ModelNotReadyException": errors.ModelNotReady,
    "NoSuchKey": errors.ResourceNotFound,
    "NoSuchVersion": errors.ResourceNotFound,
    "ParameterNotFound": errors.ResourceNotFound,
    "ResourceInUseException": errors.Conflict,
    "ResourceNotFoundException": errors.ResourceNotFound,
    "ServiceQuotaExceededException": errors.QuotaUnavailable,
    "UnauthorizedOperation": errors.AccessDenied,
}


class _QuickFiles(JSONFileLoader):
    def _load_file(self, full_path: str, open_method: Callable[[str, str], IO[bytes]]) -> Json:
        if not Path(full_path).is_file():
            return None
        with open_method(full_path, "rb") as file:
            content: Json = msgspec.json.decode(file.read())
        return content


class _QuickLoader(Loader):
    """Reads botocore's descriptions of services; half of a cold start would else go into it.

    Botocore lists its folders of all services and fills an OrderedDict from Python code for each object in a file.
    """

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002  botocore's interface
        return list(SERVICES)


def new_session(region: str) -> Session:
    """Return a session whose clients are made quickly, of SERVICES alone; it is botocore's, boto3 takes longer."""
    session = Session()
    session.set_config_variable("region", region)
    session.register_component("data_loader", _QuickLoader(file_loader=_QuickFiles()))
    return session


def named_error(error: ClientError) -> Exception:
    """Return `error` under its name in `errors`: what AWS refused without a better name is RequestRejected."""
    code = error.response.get("Error", {}).get("Code", "")
    text = f"{error.operation_name}: {error.response.get('Error', {}).get('Message') or code}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED:
        return errors.Throttled(text)
    if code in _NAMED:
        return _NAMED[code](text)
    if code in _NOT_SIGNED_IN:
        return errors.RequestRejected(f"{text} ({code}); {_SIGN_IN}")
    if code in _UNAVAILABLE or status >= 500:  # noqa: PLR2004 - HTTP server errors
        return errors.ServiceUnavailable(text)
    return errors.RequestRejected(f"{text} ({code})")


@contextmanager
def named_errors() -> Iterator[None]:
    """Raise what boto3 raises inside under the names of `errors`."""
    try:
        yield
    except ClientError as error:
        raise named_error(error) from error
    except (ConnectionFailed, HTTPClientError, IncompleteReadError) as error:
        raise errors.ServiceUnavailable(str(error)) from error
    except _WITHOUT_CREDENTIALS as error:
        raise errors.RequestRejected(f"{error}; {_SIGN_IN}") from error
    except BotoCoreError as error:
        raise errors.RequestRejected(str(error)) from error
