"""One fresh process of `benchmarks.cold_start`: a function's handler, or the bare boto3 clients that it is measured by.

It reads its order from standard input and answers on standard output, both pickled by these two modules, and imports
nothing of the libraries before its time is taken. Times are seconds of the processor, of all threads.
"""

import importlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Union

if TYPE_CHECKING:
    from customization.json_types import Json

Value: TypeAlias = Union[str, bytes, int, float, bool, "list[Value]", "Mapping[str, Value]", None]
# Service, method of its client, arguments
Request: TypeAlias = tuple[str, str, Mapping[str, Value]]


class Order(TypedDict):
    """With a `handler` its `event` is what it is called with; else the clients of `requests` each send theirs."""

    path: list[str]
    handler: str
    event: "Json"
    requests: list[Request]
    record: bool


class Answer(TypedDict):
    """`loaded` once the module is imported or the clients are made, `first` once the first call is answered.

    `again` is a second call's time; `requests` has the first request to each service, where it was recorded.
    """

    loaded: float
    first: float
    again: float
    requests: list[Request]


class _Context:
    """What handlers and their logger read of Lambda's context object."""

    aws_request_id = "00000000-0000-4000-8000-000000000000"
    function_name = memory_limit_in_mb = invoked_function_arn = "measured"


def _handler(order: Order) -> Callable[[], None]:
    handler = importlib.import_module(order["handler"]).handler

    def call() -> None:
        try:
            handler(order["event"], _Context())
        except Exception as error:  # noqa: BLE001  a refusal is an answer, too
            sys.stderr.write(f"{type(error).__name__}: {error}\n")

    return call


def _clients(order: Order) -> Callable[[], None]:
    import boto3  # noqa: PLC0415  its import is what is measured

    clients = {service: boto3.client(service) for service, _, _ in order["requests"]}  # type: ignore[call-overload]  # the overloads want literals

    def call() -> None:
        for service, method, arguments in order["requests"]:
            client = clients[service]
            try:
                answer = getattr(client, method)(**arguments)
            except client.exceptions.ClientError as error:
                sys.stderr.write(f"{error}\n")
                continue
            if "Body" in answer:
                answer["Body"].read()

    return call


def _record(call: Callable[[], None]) -> list[Request]:
    """Return the first request of `call` to each service."""
    from botocore.client import BaseClient  # noqa: PLC0415  only here; a handler has imported it by now

    send = getattr(BaseClient, "_make_api_call")  # noqa: B009  mypy minds what is private
    first: dict[str, Request] = {}

    def send_and_record(self: BaseClient, operation: str, arguments: Mapping[str, Value]) -> object:
        service = self.meta.service_model.service_name
        method = next(name for name, of in self.meta.method_to_api_mapping.items() if of == operation)
        first.setdefault(service, (service, method, dict(arguments)))
        return send(self, operation, arguments)

    setattr(BaseClient, "_make_api_call", send_and_record)  # noqa: B010  as above
    call()
    return list(first.values())


def _measure(order: Order) -> Answer:
    began = time.process_time()
    call = (_handler if order["handler"] else _clients)(order)
    loaded = time.process_time()
    if order["record"]:
        return {"loaded": 0, "first": 0, "again": 0, "requests": _record(call)}
    call()
    first = time.process_time()
    call()
    again = time.process_time()
    return {"loaded": loaded - began, "first": first - began, "again": again - first, "requests": []}


def main() -> None:
    """Measure what the order on standard input says."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a handler logs to standard output
    order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301  written by benchmarks.cold_start
    sys.path[:0] = order["path"]
    pickle.dump(_measure(order), answers)
    answers.close()


if __name__ == "__main__":
    main()
