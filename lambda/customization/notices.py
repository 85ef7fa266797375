"""What people are told of a run, by e-mail or whatever listens to the topic.

The wording is in data/texts.json, by code and language. Subjects are in English in every language: Amazon SNS takes
ASCII alone for them.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from string import Template
from typing import TYPE_CHECKING

import msgspec

from customization.gateway.tables import Attr
from customization.json_types import JsonObject
from customization.links import Links, move_command, quoted
from customization.money import plain
from customization.texts import Language, Sentence, one_line, printable, read_language, say, term

if TYPE_CHECKING:
    from customization.comparison import Comparison, Example
    from customization.gateway import Gateway
    from customization.leases import Lease, Release
    from customization.money import Estimate, Item
    from customization.profile import Profile
    from customization.report import ReportData
    from customization.runs import Plan

# Amazon SNS API, Publish: ASCII, no line breaks or control characters, less than 100 characters
LONGEST_SUBJECT = 99
SUBJECTS = {
    "started": "Started: $title",
    "estimated": "Estimate: $title",
    "duplicate": "Already done: $title",
    "better": "Better: $title",
    "worse": "Worse: $title",
    "inconclusive": "Inconclusive: $title",
    "not compared": "Not compared: $title",
    "failed": "Failed at $state: $title",
    "ended": "$status: $title",
    "done": "Done: $title",
    "unused": "No run will use a file you dropped",
    "inUse": "In use: $title",
    "noLongerInUse": "No longer in use: $title",
    "endsSoon": "Ends soon: $title",
    "released": "Released: $title",
}
UNTOLD = "untold"
# Since when somebody publishes what is untold. Publishing takes seconds: one that died is made up for by the sweep that
# the schedule starts next, 15 minutes later.
_TELLING_SINCE = "tellingSince"
_LONGEST_TELLING = timedelta(minutes=10)
# What the machine adds to the error of an execution whose failure could not be told (stacks/state_machine.py)
NOT_TOLD = " (not told)"
_MOST_WARNINGS = 10
_LONGEST_EXCERPT = 300
# One stage of training on some hundred records. Public reports of 2026 have 81 minutes (70B, 189 records) to 3.5 hours
# (8B, 120 records), most of it in the queue; the Bedrock User Guide says several hours.
_HOURS_A_STAGE = (1.5, 4)
_ENDLESS = timedelta(days=1_000)
_TABLES = (".csv", ".tsv")


class Notice(msgspec.Struct, frozen=True):
    """`subject` is what Amazon SNS takes as one, `message` plain text."""

    subject: str
    message: str

    def payload(self) -> JsonObject:
        """Return {subject, message}, as the states that publish expect them."""
        return {"subject": self.subject, "message": self.message}


def tell(gateway: "Gateway", key: str, notice: JsonObject, now: datetime) -> None:
    """Publish the {subject, message} that a row of the table of runs has as `untold`, and strike it out there.

    Whoever writes what is to be told writes both in one step, so that the sweeper tells what somebody else did not. Of
    several that would tell it at once, as the sweeps after several executions were stopped, one does.
    """
    is_untold = Attr(UNTOLD).eq(notice)
    is_free = Attr(_TELLING_SINCE).not_exists() | Attr(_TELLING_SINCE).lt((now - _LONGEST_TELLING).isoformat())
    if not gateway.runs.update(key, {_TELLING_SINCE: now.isoformat()}, condition=is_untold & is_free):
        return
    done: tuple[str, ...] = (_TELLING_SINCE,)
    try:
        gateway.publish(str(notice["subject"]), str(notice["message"]))
        done = (UNTOLD, _TELLING_SINCE)
    finally:
        gateway.runs.update(key, {}, remove=done, condition=is_untold)


class _Words:
    """Puts codes into one language; values are data and stay on their line."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, code: str, **values: str) -> str:
        return self.say(Sentence(code, values))

    def say(self, sentence: Sentence) -> str:
        values = {name: one_line(value) for name, value in sentence.values.items()}
        return say(msgspec.structs.replace(sentence, values=values), self.language)

    def section(self, code: str, lines: Iterable[str]) -> str:
        """Return a headed list, or nothing without lines."""
        listed = [f"- {line}" for line in lines]
        return "\n".join((f"{self(code)}:", *listed)) if listed else ""

    def link(self, code: str, *addresses: str) -> str:
        return "\n".join((f"{self(code)}:", *map(one_line, addresses)))


def subject(code: str, **values: str) -> str:
    """Return the subject of a kind of notice, whatever stands in the values."""
    text = Template(SUBJECTS[code]).substitute({name: one_line(value) for name, value in values.items()})
    ascii_only = text.encode("ascii", "replace").decode()
    return "".join(character if character.isprintable() else " " for character in ascii_only)[:LONGEST_SUBJECT]


def language_of(gateway: "Gateway", run_id: str) -> Language:
    """Return the language that a run asked for, or the deployment's."""
    row = (gateway.runs.get(run_id) if run_id else None) or {}
    return read_language(row.get("language")) or gateway.settings.defaults.language


def started(
    plan: "Plan",
    profile: "Profile",
    estimate: "Estimate",
    *,
    attempt: int,
    job_hours: tuple[float, float],
    links: Links,
) -> Notice:
    """Tell what has begun: records, warnings, estimated cost and hours; `job_hours` end a job that waits or runs."""
    words = _Words(plan.language)
    start, end = job_hours
    stages = len(plan.stages)
    low, high = (hours * stages for hours in _HOURS_A_STAGE)
    hours = words("notice.hours", low=f"{low:g}", high=f"{high:g}", start=f"{start:g}", end=f"{end:g}")
    first = words(
        "notice.started",
        runId=plan.run_id,
        attempt=str(attempt),
        stages=" + ".join(stage.customization_type for stage in plan.stages),
        model=plan.base_model_identifier,
    )
    return Notice(
        subject("started", title=plan.run_id),
        _message(
            first,
            *_data(words, plan, profile),
            cost_lines(estimate, plan.language),
            f"{words('notice.time')}:\n{hours}",
            words.link("notice.execution", links.execution(plan.execution_arn)),
        ),
    )


def estimated(plan: "Plan", profile: "Profile", estimate: "Estimate", links: Links) -> Notice:
    """Tell what a run would cost."""
    words = _Words(plan.language)
    return Notice(
        subject("estimated", title=plan.run_id),
        _message(
            words("notice.estimated", runId=plan.run_id),
            cost_lines(estimate, plan.language),
            *_data(words, plan, profile),
            words.link("notice.execution", links.execution(plan.execution_arn)),
        ),
    )


def _data(words: _Words, plan: "Plan", profile: "Profile") -> tuple[str, str]:
    files = [
        words("notice.file", file=name, records=f"{file.records:,}", tokens=f"{file.tokens.likely:,}")
        for name, file in profile.prepared.items()
    ]
    warnings = [*plan.warnings, *(problem.text() for problem in profile.warnings)]
    shown = [one_line(warning) for warning in warnings[:_MOST_WARNINGS]]
    if len(warnings) > len(shown):
        shown.append(words("notice.more", count=str(len(warnings) - len(shown))))
    return words.section("notice.data", files), words.section("notice.warnings", shown)


def cost_lines(estimate: "Estimate", language: Language) -> str:
    """Return the estimate for people: every item, what is unknown said so, the sum of what is known."""
    words = _Words(language)
    lines = [_cost_line(item, words) for item in estimate.items]
    total = words("notice.costSum", usd=f"{estimate.known_usd:.2f}")
    warnings = (words.say(warning) for warning in estimate.warnings)
    return "\n".join((words.section("notice.estimatedCost", [*lines, total]), *warnings))


def _cost_line(item: "Item", words: _Words) -> str:
    part = f" ({term('costPart', item.part, words.language)})" if item.part else ""
    values = {
        "item": f"{words(f'costItem.{item.name}')}{part}",
        "quantity": "?" if item.quantity is None else f"{item.quantity:,.6g}",
        "unit": term("unit", item.unit, words.language),
    }
    if item.usd is None or item.usd_per_unit is None:
        return words("notice.costUnknown", **values)
    return words("notice.costItem", **values, usd=f"{item.usd:.4f}", price=plain(item.usd_per_unit))


def duplicate(plan: "Plan", first: JsonObject, links: Links) -> Notice:
    """Tell that `first`, a row of the table of runs, did or does the same: when it ran and what its verdict was."""
    words = _Words(plan.language)
    run = {"runId": plan.run_id, "started": f"{datetime.fromisoformat(str(first['startedAt'])):%Y-%m-%d %H:%M}"}
    verdict = str(first.get("verdict") or "")
    told = (
        words("notice.firstRan", **run, verdict=words(f"verdict.{verdict}"))
        if verdict
        else words("notice.firstIsRunning", **run)
    )
    report = str(first.get("reportKey") or "")
    promotes = plan.promote == "if-better" and verdict == "better" and not first.get("promoted")
    ready = state_machine_input(plan.dataset, "promote", plan.run_id)
    return Notice(
        subject("duplicate", title=plan.run_id),
        _message(
            words("notice.duplicate"),
            "\n".join(line for line in (told, one_line(str(first.get("reason") or ""))) if line),
            f"{words('notice.promoteFirst')}:\n{ready}" if promotes else "",
            words("notice.force"),
            words.link("notice.report", links.uri(report), links.artifact(report)) if report else "",
            words.link("notice.execution", links.execution(str(first["executionArn"]))),
        ),
    )


def finished(
    data: "ReportData", held: Sequence["Lease"], *, execution_arn: str, key: str, links: Links, kept_short: str = ""
) -> Notice:
    """Tell the verdict with its scores, cost, next step and three examples, and what still bills.

    `held` are the leases of the run, closed ones too, `key` is where the report lies, and `kept_short` the sentence
    about what is kept for a shorter time than was asked for.
    """
    words = _Words(data.language)
    comparison, settlement = data.comparison, data.settlement
    verdict = comparison.verdict if comparison else "not compared"
    findings = [finding for stage in data.stages if stage.metrics for finding in stage.metrics.findings]
    cost = ""
    if settlement:
        cost = words("notice.cost", actual=f"{settlement.actual_usd:.2f}", estimated=f"{settlement.estimated_usd:.2f}")
        if settlement.unknown:
            unknown = ", ".join(words(f"costItem.{name}") for name in settlement.unknown)
            cost = f"{cost} {words('cost.unknown', items=unknown)}"
    return Notice(
        subject(verdict, title=data.run_id),
        _message(
            words.say(comparison.reason) if comparison else "",
            f"{words('report.nextStep')}: {words.say(comparison.next_step)}" if comparison else "",
            "\n".join(f"{words.say(finding.meaning)} {words.say(finding.advice)}" for finding in findings),
            words.section("notice.scores", _scores(words, comparison)) if comparison else "",
            cost,
            "\n".join(filter(None, (still_billing(held, data.language), kept_short))),
            _examples(words, comparison) if comparison else "",
            words.link("notice.report", links.uri(key), links.artifact(key)),
            words.link("notice.execution", links.execution(execution_arn)),
        ),
    )


def _scores(words: _Words, comparison: "Comparison") -> Iterable[str]:
    models = [model for model in comparison.models if model.scores]
    for metric in models[0].scores if models else ():
        values = [
            f"{words(f'side.{model.side}')} {_percent(model.scores[metric].mean)} "
            f"({_percent(model.scores[metric].low)} - {_percent(model.scores[metric].high)})"
            for model in models
            if metric in model.scores
        ]
        decides = comparison.primary is not None and metric == comparison.primary.metric
        name = words(f"metricName.{metric}") + (f" ({words('scores.decides')})" if decides else "")
        yield f"{name}: {', '.join(values)}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _examples(words: _Words, comparison: "Comparison") -> str:
    """Return three examples: what gained most, lost most and changed most, or the next of those that there are."""
    kinds = {"best": comparison.best, "worst": comparison.worst, "mostChanged": comparison.most_changed}
    first = [(kind, examples[0]) for kind, examples in kinds.items() if examples]
    rest = [(kind, example) for kind, examples in kinds.items() for example in examples[1:]]
    told = [_example(words, kind, example) for kind, example in (*first, *rest)[:3]]
    return "\n\n".join((f"{words('notice.examples')}:", *told)) if told else ""


def _example(words: _Words, kind: str, example: "Example") -> str:
    lines = [
        f"{words(f'examples.{kind}')}: {one_line(example.prompt, _LONGEST_EXCERPT)}",
        f"  {words('examples.reference')}: {one_line(example.reference, _LONGEST_EXCERPT)}",
    ]
    for side, answer in example.answers.items():
        score = f" ({_percent(example.scores[side])})" if side in example.scores else ""
        given = one_line(answer, _LONGEST_EXCERPT) or words("examples.noAnswer")
        lines.append(f"  {words(f'side.{side}')}{score}: {given}")
    return "\n".join(lines)


def still_billing(held: Sequence["Lease"], language: Language) -> str:
    """Return what of these leases goes on billing, and until when."""
    words = _Words(language)
    lines = [_resource(words, lease) for lease in held if lease.state == "OPEN"]
    return words.section("notice.stillBills", lines) or words("notice.nothingBills")


def is_endless(lease: "Lease") -> bool:
    """Return whether a resource stays until somebody releases it."""
    return (lease.keep_until or lease.hard_end) - lease.opened_at > _ENDLESS


def _resource(words: _Words, lease: "Lease") -> str:
    values = {"kind": words(f"resourceKind.{lease.kind}"), "name": lease.bedrock_name}
    if lease.kind == "job":
        return words("notice.resource", **values)
    if lease.kind == "model":
        price = words("price.storage")
    elif lease.hourly_usd is None:
        price = words("price.unknown")
    else:
        price = words("price.hourly", usd=f"{lease.hourly_usd:g}") if lease.hourly_usd else words("price.tokens")
    until = lease.keep_until or lease.hard_end
    if is_endless(lease):
        return words("notice.resourceEndless", **values, price=price)
    return words("notice.resourceUntil", **values, price=price, until=f"{until:%Y-%m-%d %H:%M}")


def failed(*, title: str, state: str, error: str, cause: str, fix: str, language: Language, link: str) -> Notice:
    """Tell why a run failed and what to do; `title` is empty where there was no run."""
    words = _Words(language)
    return Notice(
        subject("failed", state=state, title=title or "a request that started no run"),
        _message(
            words("notice.failed", title=title or words("notice.noRun"), state=state, error=error),
            # A cause may be a list of problems, one a line
            f"{words('notice.cause')}: {printable(cause)}",
            f"{words('notice.whatToDo')}: {printable(fix)}",
            words.link("notice.execution", link),
        ),
    )


def after_release(message: str, released: Sequence["Release"], held: Sequence["Lease"], language: Language) -> str:
    """Return the message of a failure with what was released, and what of the run still bills."""
    words = _Words(language)
    return _message(
        message, words.section("notice.released", _outcomes(words, released)), still_billing(held, language)
    )


def with_report(gateway: "Gateway", run_id: str, message: str, key: str) -> str:
    """Return the message with the place of the report, where there is one."""
    if not key:
        return message
    links = Links.of(gateway.settings)
    told = _Words(language_of(gateway, run_id)).link("notice.report", links.uri(key), links.artifact(key))
    return _message(message, told)


def _outcomes(words: _Words, released: Sequence["Release"]) -> list[str]:
    return [
        words(
            "notice.releaseLine",
            kind=words(f"resourceKind.{item.kind}"),
            name=item.resource_name.removesuffix("/model"),
            outcome=words(f"outcome.{item.outcome}"),
        )
        for item in released
    ]


def ended(*, run_id: str, status: str, cause: str, fix: str, language: Language, link: str) -> Notice:
    """Tell of an execution that ended without its own failure handling, `run_id` empty where it started no run.

    `status` is that of Step Functions.
    """
    words = _Words(language)
    return Notice(
        subject("ended", status=status.capitalize().replace("_", " "), title=run_id or "a request that started no run"),
        _message(
            words("notice.ended", title=run_id or words("notice.noRun")),
            f"{words('notice.cause')}: {printable(cause)}",
            f"{words('notice.whatToDo')}: {printable(fix)}",
            words("notice.beingReleased"),
            words.link("notice.execution", link),
        ),
    )


def done(*, run_id: str, language: Language, link: str) -> Notice:
    """Tell of a run that has its result, and whose execution was ended before it told it."""
    words = _Words(language)
    told = words("notice.done", runId=run_id)
    return Notice(subject("done", title=run_id), _message(told, words.link("notice.execution", link)))


def unused(*, bucket: str, key: str, better_key: str, names: Sequence[str], language: Language) -> Notice:
    """Tell that no run will use an object, and the command that mends it: `better_key` is where it would be used."""
    words = _Words(language)
    mend = move_command(bucket, key, better_key)
    mended = f"{words('notice.move')}\n{mend}"
    if key.lower().endswith(_TABLES):
        convert = (
            f"PYTHONPATH=lambda python -m customization.tabular {quoted(key.rpartition('/')[2])} --out train.jsonl"
        )
        upload = f"aws s3 cp train.jsonl s3://{bucket}/{better_key}"
        mended = f"{words('notice.table')}\n{convert}\n{upload}"
    return Notice(
        subject("unused"),
        _message(
            words("notice.unused", uri=f"s3://{bucket}/{key}"),
            words("notice.expectedNames", names=", ".join(names)),
            mended,
        ),
    )


def in_use(
    *,
    run_id: str,
    dataset: str,
    parameter: str,
    value: JsonObject,
    lines: Sequence[Sentence],
    language: Language,
    link: str,
) -> Notice:
    """Tell which model is in use from now on; `value` is the parameter's {arn, until}, `lines` follow."""
    words = _Words(language)
    first = words("notice.inUse", runId=run_id, dataset=dataset, parameter=parameter, arn=str(value["arn"]))
    served = words("notice.servedUntil", until=str(value["until"])) if value["until"] else words("notice.notServed")
    return Notice(
        subject("inUse", title=run_id),
        _message(first, served, *(words.say(line) for line in lines), words.link("notice.execution", link)),
    )


def state_machine_input(dataset: str, action: str, data: str = "") -> str:
    """Return the request that does `action`, as it is typed into the console."""
    return json.dumps({"dataset": dataset, "action": action, **({"data": data} if data else {})})


def withdrawn(
    *,
    run_id: str,
    dataset: str,
    kind: str,
    name: str,
    is_gone: bool,
    previous_arn: str,
    parameter: str,
    language: Language,
) -> Notice:
    """Tell that what is in use goes, or was found gone, and what is in use instead: an empty `previous_arn` is nothing.

    `kind` is that of a lease, `name` the one in Bedrock.
    """
    words = _Words(language)
    instead = (
        words("notice.previousInUse", arn=previous_arn)
        if previous_arn
        else words("notice.noneInUse", parameter=parameter)
    )
    code = "notice.isGone" if is_gone else "notice.goes"
    goes = words(code, kind=words(f"resourceKind.{kind}"), name=name, dataset=dataset)
    return Notice(subject("noLongerInUse", title=run_id), _message(goes, instead))


def ends_soon(*, run_id: str, lease: "Lease", until: datetime, parameter: str, language: Language) -> Notice:
    """Tell, before it happens, that what is in use will be released."""
    words = _Words(language)
    ends = words(
        "notice.endsSoon",
        kind=words(f"resourceKind.{lease.kind}"),
        name=lease.bedrock_name,
        dataset=lease.dataset,
        until=f"{until:%Y-%m-%d %H:%M}",
    )
    then = words("notice.thenPrevious", parameter=parameter)
    return Notice(subject("endsSoon", title=run_id), _message(ends, then, words("notice.keepLonger")))


def released(*, dataset: str, outcomes: Sequence["Release"], language: Language) -> Notice:
    """Tell what was released for a data set because somebody asked for it."""
    words = _Words(language)
    first = words("notice.releasedOnRequest" if outcomes else "notice.nothingToRelease", dataset=dataset)
    return Notice(
        subject("released", title=dataset),
        _message(first, words.section("notice.released", _outcomes(words, outcomes))),
    )


def _message(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
