"""Every HTTP request to the embedded AWS comes through here: routed, authorized, answered, and turned into events."""

import json
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Protocol
from xml.sax.saxutils import escape

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request

from customization.json_types import Json, JsonObject, as_list, as_object
from rehearsal.clock import VirtualClock
from rehearsal.embedded.access import Access, AccessDeniedError
from rehearsal.embedded.authorization import Place, UnknownActionError, demands, function_of
from rehearsal.embedded.deployed import Deployed
from rehearsal.embedded.events import EventBus
from rehearsal.embedded.lambda_runtime import LambdaRuntime, ThrottledError
from rehearsal.embedded.moto_services import MotoServices, Session
from rehearsal.embedded.policies import Demand
from rehearsal.embedded.requests import HttpAnswer, HttpRequest, json_error
from rehearsal.embedded.s3_events import ObjectsCreated, UploadTimes
from rehearsal.embedded.states_api import StatesApi
from rehearsal.embedded.supported import SUPPORTED
from rehearsal.embedded.template_check import UnsupportedTemplateError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MOTO_SERVICES = as_list(SUPPORTED["motoServices"], "motoServices")
_POLL_SECONDS = 0.05  # how soon the server notices that it is to stop
_CONCURRENCY = 1000  # AWS Lambda quotas, concurrent executions
_QUERY_SERVICES = ("sns", "sts", "iam", "cloudformation")


class Application(Protocol):
    """A service that somebody else stands in for, such as Bedrock; chosen by the signing name of a request."""

    def handle(
        self,
        method: str,
        path: str,
        query_string: str,
        headers: Mapping[str, str],
        body: bytes,
        /,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the answer."""

    def authorization(self, method: str, path: str, query_string: str, body: bytes, /) -> Iterable[tuple[str, str]]:
        """Return the actions and resource ARNs that the call needs; an unknown path needs nothing."""

    def tags(self, resource_arn: str, /) -> Mapping[str, str]:
        """Return the tags of a resource, for conditions on aws:ResourceTag; none for an unknown resource."""

    def request_tags(self, method: str, path: str, query_string: str, body: bytes, /) -> Mapping[str, str]:
        """Return the tags that a call puts on what it makes, for conditions on aws:RequestTag."""


@dataclass(frozen=True)
class Notification:
    """A message that was published to a topic."""

    at: datetime
    topic_arn: str
    subject: str
    message: str
    role_arn: str


@dataclass(frozen=True)
class Services:
    """What the front sends requests to."""

    clock: VirtualClock
    place: Place
    moto: MotoServices
    deployed: Deployed
    access: Access
    states: StatesApi
    runtime: LambdaRuntime
    events: EventBus
    applications: Mapping[str, Application]
    problem: Callable[[str], None]


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, which halves the time of a call

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002  the interface of werkzeug
        """Write nothing: calls are recorded by Access."""


class Front:
    """A WSGI application and its server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.notifications: list[Notification] = []
        self._created = ObjectsCreated(services.moto, services.deployed, services.events)
        self._uploads = UploadTimes(services.clock)
        self._server: BaseWSGIServer | None = None
        self._own: dict[str, Callable[[HttpRequest], HttpAnswer | None]] = {
            "cloudformation": self._protect_stack,
            "events": self._events,
            "lambda": self._invoke,
            "states": services.states.handle,
        }

    def serve(self, port: int) -> int:
        """Answer on localhost from a thread of its own; returns the port, a free one for 0."""
        self._server = make_server("localhost", port, self, threaded=True, request_handler=_QuietHandler)
        serve = partial(self._server.serve_forever, poll_interval=_POLL_SECONDS)
        threading.Thread(target=serve, name="embedded AWS", daemon=True).start()
        return self._server.server_port

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with self._services.clock.hold():
            answer = self._answer(environ)
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "Unknown"
        start_response(f"{answer.status} {phrase}", list(answer.headers.items()))
        return [answer.body]

    def _answer(self, environ: "WSGIEnvironment") -> HttpAnswer:
        request = _read(environ)
        session = self._services.access.session_of(request.access_key)
        try:
            if session is not None:
                self._services.access.require(session, self._demands(request))
            answer = self._dispatch(request, environ)
            if session is not None:
                self._hide_missing_object(request, session, answer)
            self._after(request, session, answer)
        except AccessDeniedError as error:
            return _denied(request, str(error))
        except UnknownActionError as error:
            self._services.problem(str(error))
            return _error(request, 501, "NotImplemented", str(error))
        except UnsupportedTemplateError as error:
            return _error(request, 400, "ValidationError", str(error))
        except Exception as error:  # noqa: BLE001  whatever fails here is a fault of the emulator that people must see
            self._services.problem(f"{request.service} {request.operation or request.path}: {traceback.format_exc()}")
            return _error(request, 500, "InternalFailure", f"the rehearsal itself failed: {error}")
        return answer

    def _demands(self, request: HttpRequest) -> list[Demand]:
        application = self._services.applications.get(request.service)
        if application is None:
            return demands(request, self._services.place)
        call = (request.method, request.path, request.query_string, request.body)
        asked = {f"aws:RequestTag/{key}": value for key, value in application.request_tags(*call).items()}
        return [
            Demand(action, arn, asked | self._context(request.service, application, arn))
            for action, arn in application.authorization(*call)
        ]

    def _context(self, service: str, application: Application, arn: str) -> dict[str, str]:
        return {
            "iam:PassedToService": f"{service}.amazonaws.com",
            "kms:ViaService": f"{service}.{self._services.place.region}.amazonaws.com",
            **{f"aws:ResourceTag/{key}": value for key, value in application.tags(arn).items()},
        }

    def _dispatch(self, request: HttpRequest, environ: "WSGIEnvironment") -> HttpAnswer:
        application = self._services.applications.get(request.service)
        if application is not None:
            return HttpAnswer(
                *application.handle(request.method, request.path, request.query_string, request.headers, request.body)
            )
        own = self._own.get(request.service)
        answer = None if own is None else own(request)
        if answer is not None:
            return answer
        if request.service in _MOTO_SERVICES:
            return self._uploads.put_into(self._services.moto.answer(environ), request)
        raise UnknownActionError(f"the rehearsal has no service {request.service}")

    def _protect_stack(self, request: HttpRequest) -> HttpAnswer | None:
        """Do for CloudFormation what moto does not: set termination protection, and respect it."""
        moto, name = self._services.moto, request.form.get("StackName", "")
        if request.operation == "DeleteStack" and moto.is_protected(name):
            reason = "cannot be deleted while TerminationProtection is enabled"
            return _error(request, 400, "ValidationError", f"Stack [{name}] {reason}")
        if request.operation != "UpdateTerminationProtection":
            return None
        stack_id = moto.protect_stack(name, enabled=request.form["EnableTerminationProtection"] == "true")
        result = f"<UpdateTerminationProtectionResult><StackId>{stack_id}</StackId></UpdateTerminationProtectionResult>"
        body = f"<UpdateTerminationProtectionResponse>{result}</UpdateTerminationProtectionResponse>"
        return HttpAnswer(200, {"Content-Type": "text/xml"}, body.encode())

    def _invoke(self, request: HttpRequest) -> HttpAnswer:
        if request.method == "GET" and request.path.rstrip("/").endswith("/account-settings"):
            limits = {"ConcurrentExecutions": _CONCURRENCY, "UnreservedConcurrentExecutions": _CONCURRENCY}
            return HttpAnswer(200, {"Content-Type": "application/json"}, json.dumps({"AccountLimit": limits}).encode())
        name = function_of(request)
        if name is None:
            raise UnknownActionError("of Lambda the rehearsal answers Invoke and GetAccountSettings only")
        function = self._services.deployed.function(name)
        if function is None:
            return json_error(404, "ResourceNotFoundException", f"Function not found: {name}")
        payload = json.loads(request.body or b"{}")
        if request.headers.get("x-amz-invocation-type") == "Event":
            self._services.clock.spawn(lambda: self._services.events.call_later(function, payload), name)
            return HttpAnswer(202, {}, b"")
        try:
            answer = self._services.runtime.invoke(function, payload)
        except ThrottledError as error:
            return json_error(429, "TooManyRequestsException", str(error))
        headers = {"Content-Type": "application/json", "X-Amz-Executed-Version": function.version}
        if answer.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return HttpAnswer(200, headers, answer.payload.encode())

    def _events(self, request: HttpRequest) -> HttpAnswer:
        rules, parameters = self._services.events, request.json
        match request.operation:
            case "PutEvents":
                answer = self._put_events(request)
            case "ListRuleNamesByTarget":
                answer = {"RuleNames": list[Json](rules.names_of_rules(str(parameters["TargetArn"])))}
            case "DescribeRule":
                name = str(parameters["Name"])
                answer = {"Name": name, "State": "ENABLED" if rules.is_enabled(name) else "DISABLED"}
            case "EnableRule" | "DisableRule":
                rules.switch(str(parameters["Name"]), enabled=request.operation == "EnableRule")
                answer = {}
            case _:
                raise UnknownActionError(f"of EventBridge the rehearsal does not answer {request.operation}")
        return HttpAnswer(200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(answer).encode())

    def _put_events(self, request: HttpRequest) -> JsonObject:
        results: list[JsonObject] = []
        for item in as_list(request.json["Entries"], "Entries"):
            entry = as_object(item, "Entries")
            detail = as_object(json.loads(str(entry["Detail"])), "Detail")
            resources = [str(resource) for resource in as_list(entry.get("Resources", []), "Resources")]
            event = self._services.events.event(str(entry["Source"]), str(entry["DetailType"]), resources, detail)
            self._services.events.publish(event)
            results.append({"EventId": event["id"]})
        return {"FailedEntryCount": 0, "Entries": list[Json](results)}

    def _hide_missing_object(self, request: HttpRequest, session: Session, answer: HttpAnswer) -> None:
        """S3 tells only those who may list a bucket that an object is missing; others are denied."""
        bucket, key = request.bucket_and_key if request.service == "s3" else ("", "")
        if key and answer.status == HTTPStatus.NOT_FOUND and request.method in ("GET", "HEAD"):
            self._services.access.require(session, [Demand("s3:ListBucket", f"arn:aws:s3:::{bucket}")])

    def _after(self, request: HttpRequest, session: Session | None, answer: HttpAnswer) -> None:
        if answer.status != HTTPStatus.OK:
            return
        if request.service == "s3":
            self._created.tell(request, answer)
        elif request.service == "sns" and request.operation == "Publish":
            form = request.form
            role = "" if session is None else session.role_arn
            now = self._services.clock.now()
            subject = form.get("Subject", "")
            self.notifications.append(Notification(now, form["TopicArn"], subject, form["Message"], role))


def _read(environ: "WSGIEnvironment") -> HttpRequest:
    """Read a request whole, and leave its body readable for moto."""
    wsgi = Request(environ)
    body = wsgi.get_data(cache=False)
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    path, _, query = str(environ.get("REQUEST_URI", wsgi.path)).partition("?")
    return HttpRequest(
        method=wsgi.method,
        path=path,
        query_string=query,
        headers={name.lower(): value for name, value in wsgi.headers.items()},
        body=body,
    )


def _error(request: HttpRequest, status: int, code: str, message: str) -> HttpAnswer:
    """Return an error in the protocol of the request's service."""
    text = escape(message)
    if request.service == "s3":
        body = "" if request.method == "HEAD" else f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        return HttpAnswer(status, {"Content-Type": "application/xml"}, body.encode())
    if request.service in _QUERY_SERVICES:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
        return HttpAnswer(status, {"Content-Type": "text/xml"}, f"<ErrorResponse>{error}</ErrorResponse>".encode())
    return json_error(status, code, message)


def _denied(request: HttpRequest, message: str) -> HttpAnswer:
    if request.service == "s3" or request.service in _QUERY_SERVICES:
        return _error(request, 403, "AuthorizationError" if request.service == "sns" else "AccessDenied", message)
    return json_error(400 if "x-amz-target" in request.headers else 403, "AccessDeniedException", message)
