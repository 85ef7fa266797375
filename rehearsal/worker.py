"""Runs one Lambda function's handler in a process of its own, the way the Lambda runtime would.

`worker.py fork FD` imports the libraries once and forks a worker for every channel sent over the socket FD;
`worker.py serve` is one worker that talks over its standard input and output, for systems without a safe fork.
A channel carries lines of JSON: the function's settings, then one line a request and one line an answer.
"""

import array
import gc
import importlib
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from http import HTTPStatus
from io import BufferedIOBase
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel

Json: TypeAlias = Union[bool, int, float, str, "list[Json]", "dict[str, Json]", None]
# What botocore makes of an answer: the answer itself, and what was read from it
_Answered: TypeAlias = "tuple[AWSResponse, dict[str, object]]"

_LIBRARIES = (
    "boto3.session",
    "botocore.auth",
    "botocore.endpoint",
    "botocore.httpsession",
    "botocore.retries.standard",
    "s3transfer",
    "msgspec",
    "pydantic",
    "aws_lambda_powertools",
)
_CLIENTS = ("s3", "dynamodb", "bedrock", "bedrock-runtime", "sns", "ssm", "stepfunctions")
# What the operations that change nothing begin with; an answer of a model costs money, but nobody else can see it
_READS = ("BatchGet", "Converse", "Describe", "Get", "Head", "Invoke", "List", "Query", "Scan")
_LARGEST_ANSWER = 6_291_556  # bytes; Lambda quotas: invocation payload of a synchronous response
_INITIAL_PATH = list(sys.path)


class Context:
    """The context object that Lambda passes to a handler."""

    def __init__(self, request: dict[str, Json]) -> None:
        self.aws_request_id = str(request["requestId"])
        self.invoked_function_arn = str(request["functionArn"])
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        self._deadline = time.monotonic() + float(str(request["timeoutSeconds"]))

    def get_remaining_time_in_millis(self) -> int:
        """Return the real milliseconds until the function's timeout."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


class _LoadError(Exception):
    def __init__(self, error_type: str, message: str, stack: list[str]) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stack = stack


class _Worker:
    def __init__(self, reader: BufferedIOBase, writer: BufferedIOBase) -> None:
        self._reader = reader
        self._writer = writer
        self._settings: dict[str, Json] = json.loads(reader.readline())
        self._handler: Callable[[Json, Context], Json] | None = None

    def serve(self) -> None:
        """Become the function, then answer requests until the channel is closed."""
        self._become_the_function()
        self._send({"pid": os.getpid()})
        for line in self._reader:
            began = time.process_time()
            answer = self._answer(json.loads(line))
            self._send({**answer, "processorSeconds": time.process_time() - began})

    def _become_the_function(self) -> None:
        environment = self._settings["environment"]
        if not isinstance(environment, dict):
            raise TypeError("environment: expected an object")
        os.environ.clear()
        os.environ.update({name: str(value) for name, value in environment.items()})
        root = str(self._settings["root"])
        os.chdir(root)
        sys.path[:] = [root, *_INITIAL_PATH]
        log = os.open(str(self._settings["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        random.seed()

    def _send(self, answer: dict[str, Json]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._writer.write(json.dumps(answer).encode() + b"\n")
        self._writer.flush()

    def _answer(self, request: dict[str, Json]) -> dict[str, Json]:
        context = Context(request)
        try:
            if self._handler is None:
                self._handler = _load(str(self._settings["handler"]))
            with self._breaking(request["breaks"]):
                result = self._handler(json.loads(str(request["payload"])), context)
        except _LoadError as error:
            return _error(context, error.error_type, str(error), error.stack)
        except Exception as error:  # noqa: BLE001  whatever a handler raises is reported to the caller
            return _error(context, type(error).__name__, str(error), _stack(error.__traceback__))
        return _result(context, result)

    def _breaking(self, how: Json) -> AbstractContextManager[None]:
        """Return what lets the handler break as a request says, if it says so."""
        if not isinstance(how, dict):
            return nullcontext()
        if "meets" in how:
            return self._meeting()
        return _dying_after(int(str(how["diesAfter"])), of_changes=bool(how["ofChanges"]))

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Keep the first call that changes something, or else the handler's end, until another has come as far."""
        lock, has_met = threading.Lock(), False

        def meet() -> None:
            nonlocal has_met
            with lock:
                if not has_met:
                    has_met = True
                    self._send({"meets": True})
                    self._reader.readline()

        def call(operation: str, send: Callable[[], _Answered]) -> _Answered:
            if _changes(operation):
                meet()
            return send()

        with _calling_through(call):
            try:
                yield
            finally:
                meet()


def _changes(operation: str) -> bool:
    return not operation.startswith(_READS)


@contextmanager
def _dying_after(calls: int, *, of_changes: bool) -> Iterator[None]:
    """Let this process die once so many of its calls to AWS are answered, before anybody reads the answer.

    With `of_changes` only those count that have changed something. It dies at the latest when the handler has ended.
    """
    answered = itertools.count(1)

    def call(operation: str, send: Callable[[], _Answered]) -> _Answered:
        response = send()
        is_counted = not of_changes or (_changes(operation) and response[0].status_code < HTTPStatus.MULTIPLE_CHOICES)
        if is_counted and next(answered) >= calls:
            os._exit(1)
        return response

    try:
        with _calling_through(call):
            yield
    finally:
        os._exit(1)


@contextmanager
def _calling_through(call: Callable[[str, Callable[[], _Answered]], _Answered]) -> Iterator[None]:
    """Let `call`, given an operation's name and what sends it, answer in the place of AWS."""
    from botocore.endpoint import Endpoint  # noqa: PLC0415  a handler that calls AWS has imported it

    make_request = Endpoint.make_request

    def make(self: Endpoint, operation_model: "OperationModel", request_dict: dict[str, object]) -> _Answered:
        return call(operation_model.name, lambda: make_request(self, operation_model, request_dict))

    setattr(Endpoint, "make_request", make)  # noqa: B010  mypy minds assigning to a method
    try:
        yield
    finally:
        setattr(Endpoint, "make_request", make_request)  # noqa: B010  as above


def _load(handler: str) -> Callable[[Json, Context], Json]:
    module_name, _, function_name = handler.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        raise _LoadError("Runtime.ImportModuleError", message, _stack(error.__traceback__)) from error
    found: Callable[[Json, Context], Json] | None = getattr(module, function_name, None)
    if found is None:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise _LoadError("Runtime.HandlerNotFound", message, [])
    return found


def _result(context: Context, result: Json) -> dict[str, Json]:
    try:
        text = json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        return _error(context, "Runtime.MarshalError", f"Unable to marshal response: {error}", [])
    if len(text.encode()) > _LARGEST_ANSWER:
        message = f"Response payload size exceeded maximum allowed payload size ({_LARGEST_ANSWER} bytes)."
        return _error(context, "Function.ResponseSizeTooLarge", message, [])
    return {"result": text}


def _error(context: Context, error_type: str, message: str, stack: list[str]) -> dict[str, Json]:
    print(f"[ERROR] {error_type}: {message}", *stack, sep="\n", file=sys.stderr)  # noqa: T201  the function's log
    return {
        "error": {
            "errorMessage": message,
            "errorType": error_type,
            "requestId": context.aws_request_id,
            "stackTrace": list(stack),
        },
    }


def _stack(found: TracebackType | None) -> list[str]:
    """Return the frames of the handler's own code, without this file's."""
    frames = traceback.extract_tb(found)
    return traceback.format_list([frame for frame in frames if frame.filename != __file__])


def _serve_standard_streams() -> None:
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _Worker(reader, writer).serve()


def _serve_forked(channel: int) -> None:
    with socket.socket(fileno=channel) as connection:
        stream = connection.makefile("rwb")
        _Worker(stream, stream).serve()


def _read_service_models() -> None:
    """Read the models of the services that functions call once, before any fork: most of a cold start is this."""
    import boto3  # noqa: PLC0415  only the process that forks needs it
    from botocore import loaders  # noqa: PLC0415  as above
    from botocore import session as core  # noqa: PLC0415  as above

    setattr(core, "create_loader", cache(loaders.create_loader))  # noqa: B010  sessions share what has been read
    session = boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name="us-east-1")  # noqa: S106  no key at all
    for name in _CLIENTS:
        session.client(name)  # type: ignore[call-overload]  # the overloads want literals


def _fork_for_each(parent: socket.socket) -> None:
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    _read_service_models()
    gc.collect()
    gc.freeze()
    while True:
        data, ancillary, _, _ = parent.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
        if not data:
            return
        channel = array.array("i", ancillary[0][2])[0]
        if os.fork() == 0:
            parent.close()
            with suppress(BrokenPipeError, ConnectionResetError):
                _serve_forked(channel)
            os._exit(0)
        os.close(channel)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def main(arguments: list[str]) -> None:
    """Run as the module's description says."""
    if arguments[0] == "serve":
        _serve_standard_streams()
    else:
        _fork_for_each(socket.socket(fileno=int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
