"""What a person asks of a deployment from a terminal: `python -m customization.commands runs|ask DATASET`."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from customization.catalogue import BaseModel, load_catalogue
from customization.cdk_settings import add_place
from customization.errors import PipelineError, ResourceNotFound, TransientError
from customization.evaluation import BASE, IN_USE, Prediction, asker
from customization.formats import TestRecord, Turn
from customization.gateway.operator import Operator
from customization.history import ROW_FILE, describe_runs, read_history, summarize
from customization.inference import InferenceSettings
from customization.model_in_use import ModelInUse, read_in_use, serving_of
from customization.runs import read_plan
from customization.texts import printable

if TYPE_CHECKING:
    from customization.gateway import Gateway
    from customization.json_types import JsonObject

DONE, FAILED = 0, 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m customization.commands",
        description="Look at what a deployment has done. Credentials are those of the AWS CLI.",
        epilog="exit codes: 0 done, 1 AWS refused or nothing was found, 2 wrong use",
    )
    add_place(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser(
        "runs", help="all runs of a data set, newest first, with what differed and what came out"
    )
    runs.add_argument("dataset")
    runs.add_argument("--from", dest="folder", type=Path, help="the output folder of rehearsals, instead of AWS")
    ask = commands.add_parser("ask", help="ask the base model and the model in use the same, side by side")
    ask.add_argument("dataset")
    ask.add_argument("prompt")
    return parser


def tell_runs(gateway: "Gateway", dataset: str) -> str:
    """Return the runs of a data set as text; raises ResourceNotFound where there is none."""
    runs = read_history(gateway, dataset)
    if not runs:
        raise ResourceNotFound(f"no run of {dataset} is known; expected the name of a folder under incoming/")
    return describe_runs(runs, gateway.artifacts.uri)


def tell_rehearsed_runs(folder: Path, dataset: str) -> str:
    """Return the rehearsed runs of a data set as text; raises ResourceNotFound where there is none."""
    rows: list[JsonObject] = [json.loads(path.read_bytes()) for path in sorted(folder.glob(f"*/{ROW_FILE}"))]
    runs = summarize(row for row in rows if row.get("dataset") == dataset)
    if not runs:
        raise ResourceNotFound(f"{folder} has no rehearsed run of {dataset}; rehearse it with make run")
    return describe_runs(runs, lambda key: str(folder / key.removeprefix("runs/")))


def ask_both(gateway: "Gateway", dataset: str, prompt: str) -> str:
    """Return what the base model and the model in use answer, asked as the run asked whose model is in use.

    Raises:
        ResourceNotFound: no model is in use for the data set.
    """
    in_use = read_in_use(gateway, dataset)
    if in_use is None:
        raise ResourceNotFound(
            f'no model is in use for {dataset}; put one in use: start the state machine with {{"dataset": "{dataset}", '
            '"action": "promote", "data": "<runId>"}'
        )
    model = load_catalogue().find(in_use.base_model_identifier)
    inference = read_plan(gateway, in_use.promoted_run_id).inference
    served = serving_of(gateway, in_use)
    record = TestRecord("prompt", (Turn("user", prompt),), "")
    base = _ask(gateway, model, model.inference_model_id, BASE, record, inference)
    told = [f"Base model {model.inference_model_id}", *_answer_lines(base), ""]
    told.append(f"Model in use of run {in_use.promoted_run_id}")
    if served is None:
        told += _not_served(in_use)
    else:
        told += _answer_lines(_ask(gateway, model, served.arn, IN_USE, record, inference))
    return "\n".join(told)


def _ask(  # noqa: PLR0917  a question has this many parts
    gateway: "Gateway", model: BaseModel, model_id: str, side: str, record: TestRecord, inference: InferenceSettings
) -> Prediction:
    ask = asker(
        model=model,
        model_id=model_id,
        side=side,
        inference=inference,
        send=lambda call: gateway.runtime.ask(call.operation, call.parameters),
        timer=time.perf_counter,
    )
    return ask(record)


def _answer_lines(answer: Prediction) -> Iterable[str]:
    yield from (f"  {line}" for line in (answer.error or answer.text).splitlines() or [""])
    if not answer.error:
        tokens = f"{answer.input_tokens} -> {answer.output_tokens} tokens, " if answer.output_tokens is not None else ""
        yield f"  ({tokens}{answer.latency_ms / 1000:.1f} s, {answer.stop_reason})"


def _not_served(in_use: ModelInUse) -> list[str]:
    return [
        f"  is not served: nothing answers for {in_use.model_arn}.",
        '  Start the run again with "force": true and "serving": {"keep": 24}, or create a deployment for that ARN.',
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "runs" and options.folder is not None:
            told = tell_rehearsed_runs(options.folder, options.dataset)
        else:
            gateway = Operator(options.region).connect(options.stage)
            if options.command == "runs":
                told = tell_runs(gateway, options.dataset)
            else:
                told = ask_both(gateway, options.dataset, options.prompt)
    except (PipelineError, TransientError) as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        return FAILED
    sys.stdout.write(f"{printable(told)}\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
