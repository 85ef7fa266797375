"""`python -m rehearsal`: a whole run of the pipeline on this machine, without AWS and without Docker."""

import argparse
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from customization.catalogue import load_catalogue
from customization.cdk_settings import read_chosen
from customization.errors import InvalidRunRequest
from customization.history import ROW_FILE
from customization.json_types import Json, JsonObject
from customization.uploads import DATA_FILES, INCOMING, REQUEST_FILE, Drop, dataset_of
from rehearsal.bedrock.faults import FAULTS, Fault, parse_fault
from rehearsal.embedded.aws import DEPLOYER_ACCESS_KEY, preload
from rehearsal.progress import Progress
from rehearsal.run import Rehearsal, Setting
from rehearsal.synthesis import ROOT, SynthesisError, synthesize

SUCCEEDED, FAILED, WRONG_USE, NOT_BETTER = 0, 1, 2, 3
DEFAULT_DATA = ROOT / "samples" / "support-ja"
FILES = (*DATA_FILES, REQUEST_FILE)


class WrongUseError(Exception):
    """The command line asks for something that cannot be rehearsed; the message says what and what to do."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to rehearse."""

    dataset: str
    files: dict[str, bytes]
    setting: Setting
    out: Path
    keep_serving: bool
    require_better: bool


def _parser() -> argparse.ArgumentParser:
    faults = "\n".join(f"  {name:24} {kind.does}" for name, kind in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Rehearse a run: the app is synthesized and deployed into an AWS inside this process, the data are dropped
            into its bucket, and the real state machine and functions run in virtual time. Bedrock is a stand-in that
            trains a small language model on your records. Nothing leaves this machine and nothing is billed."""),
        epilog=f"faults (--fault NAME, NAME:TIMES or NAME:TIMES=VALUE):\n{faults}\n\n"
        "exit codes: 0 the run succeeded whatever the verdict, 1 it failed, 2 wrong use, 3 not --require better",
    )
    parser.add_argument(
        "data",
        nargs="?",
        type=Path,
        default=DEFAULT_DATA,
        help="folder with train.jsonl, pretrain.jsonl, "
        "validation.jsonl, test.jsonl and run.json, as they would lie in S3 (default: samples/support-ja)",
    )
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="a field of the run request over run.json, such as hyperParameters.epochCount=3",
    )
    parser.add_argument("--date", help="the day to rehearse, such as 2025-01-18 (default: today)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the stand-in (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("rehearsal-out"), help="folder for reports and logs")
    parser.add_argument("--fault", metavar="NAME", action="append", default=[], help="inject a fault (see below)")
    parser.add_argument(
        "--keep-serving",
        action="store_true",
        help="leave the AWS up afterwards, so that the aws CLI can be pointed at it",
    )
    parser.add_argument("--require", choices=["better"], help="exit with 3 unless the verdict is better")
    return parser


def _read_files(folder: Path) -> dict[str, bytes]:
    """Return what a run reads of the folder, by name."""
    if not folder.is_dir():
        raise WrongUseError(f"{folder} is no folder; expected one that holds train.jsonl or pretrain.jsonl")
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    if not {"train.jsonl", "pretrain.jsonl"} & files.keys():
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise WrongUseError(
            f"{folder} holds {found}; expected train.jsonl or pretrain.jsonl, and perhaps {', '.join(FILES[2:])}"
        )
    return files


def _unused(folder: Path) -> list[str]:
    """Return the names of the files in the folder that no run reads, without hidden ones."""
    names = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    return sorted(names - set(FILES))


def _with_fields(document: JsonObject, fields: Sequence[str]) -> JsonObject:
    """Return the run request with `fields` laid over it, each `path.to.field=JSON or text`."""
    result: JsonObject = json.loads(json.dumps(document))
    for text in fields:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise WrongUseError(f"--set {text}: expected FIELD=VALUE, such as hyperParameters.epochCount=3")
        *parents, name = path.split(".")
        place = result
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise WrongUseError(f"--set {text}: {parent} is no object in the run request")
            place = inner
        place[name] = _json_or_text(value)
    return result


def _json_or_text(value: str) -> Json:
    try:
        parsed: Json = json.loads(value)
    except ValueError:
        return value
    return parsed


def _region_and_model(request: JsonObject) -> tuple[str, str]:
    """Return where the requested base model can be customized; an unknown one is for the pipeline to refuse."""
    catalogue = load_catalogue()
    try:
        default = read_chosen(ROOT / "cdk.json")
    except ValueError as error:
        raise WrongUseError(str(error)) from error
    identifier = str(request.get("baseModelIdentifier") or default.base_model_identifier)
    try:
        model = catalogue.find(identifier)
    except InvalidRunRequest:
        return default.region, default.base_model_identifier
    if not model.supported_types or default.region in model.customization_regions:
        return default.region, default.base_model_identifier
    return model.customization_regions[0], identifier


def _request_in(files: dict[str, bytes], fields: Sequence[str]) -> JsonObject:
    """Return the run request of the folder with `fields` laid over it.

    One that cannot be read is for the pipeline to refuse, which is not to be hidden by fields.
    """
    problem = ""
    request: Json = {}
    try:
        request = json.loads(files.get(REQUEST_FILE, b"{}"))
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if isinstance(request, dict) and not problem:
        return _with_fields(request, fields)
    if fields:
        problem = problem or "it holds no JSON object"
        raise WrongUseError(f"--set {fields[0]}: {REQUEST_FILE} cannot take it: {problem}; mend or remove it")
    return {}


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUseError(
            f"--out {out}: {error.strerror}; expected a folder, or a path where one can be made"
        ) from error


def _date(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        return datetime.fromisoformat(text).replace(hour=9, tzinfo=UTC)
    except ValueError as error:
        raise WrongUseError(f"--date {text}: expected a day such as 2025-01-18") from error


def _faults(texts: Sequence[str]) -> list[Fault]:
    try:
        return [parse_fault(text) for text in texts]
    except ValueError as error:
        raise WrongUseError(str(error)) from error


def _read_order(arguments: argparse.Namespace, logs: Path, progress: Progress) -> Order:
    files = _read_files(arguments.data)
    if unused := _unused(arguments.data):
        progress.say(f"not used: {', '.join(unused)}; a run reads {', '.join(FILES)}")
    request = _request_in(files, arguments.fields)
    if arguments.fields:
        files[REQUEST_FILE] = json.dumps(request).encode()
    date, faults = _date(arguments.date), _faults(arguments.fault)
    region, model = _region_and_model(request)
    progress.say(f"synthesizing the app for {region}")
    with ThreadPoolExecutor(max_workers=1) as synthesis:
        assembly = synthesis.submit(synthesize, logs / "cdk.out", {"region": region, "baseModelIdentifier": model})
        preload()
    return Order(
        dataset=arguments.data.resolve().name,
        files=files,
        setting=Setting(
            assembly=assembly.result(),
            region=region,
            date=date,
            log_dir=logs / "logs",
            seed=arguments.seed,
            bedrock_faults=faults,
        ),
        out=arguments.out,
        keep_serving=arguments.keep_serving,
        require_better=arguments.require == "better",
    )


def main() -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args()
    progress = Progress(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        try:
            _make_folder(arguments.out)
            order = _read_order(arguments, Path(scratch), progress)
        except (WrongUseError, SynthesisError) as error:
            sys.stderr.write(f"{error}\n")
            return WRONG_USE
        return _rehearse(order, progress)


def _rehearse(order: Order, progress: Progress) -> int:
    progress.say("deploying its templates into the embedded AWS")
    with Rehearsal(order.setting) as rehearsal:
        rehearsal.aws.watch(progress.watch)
        progress.say(
            f"dropping {', '.join(order.files)} into s3://{rehearsal.outputs['DataBucketName']}/incoming/{order.dataset}/"
        )
        rehearsal.drop(order.dataset, order.files)
        rehearsal.finish()
        code = _finish(order, rehearsal, progress)
        if order.keep_serving:
            _keep_serving(rehearsal)
    return code


def _finish(order: Order, rehearsal: Rehearsal, progress: Progress) -> int:
    """Copy what the run wrote, tell how it ended and return the exit code."""
    executions = rehearsal.described_executions()
    planned = rehearsal.runs()
    row = planned[-1] if planned else {}
    run_id = str(row.get("runId") or order.dataset)
    folder = order.out / run_id
    for key in rehearsal.artifact_keys(f"runs/{run_id}/"):
        target = folder / key.removeprefix(f"runs/{run_id}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(rehearsal.artifact(key))
    if row:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ROW_FILE).write_text(json.dumps(row, ensure_ascii=False, indent=1), encoding="utf-8")
    for problem in rehearsal.aws.problems:
        progress.say(f"problem in the rehearsal: {problem}")
    if row.get("state") not in {"SUCCEEDED", "ESTIMATED"}:
        failed = next((row for row in reversed(rehearsal.rows()) if row.get("cause")), {})
        progress.failed(failed, executions[-1].get("cause") if executions else None)
        if not _names_data_set(order.dataset):
            progress.say(f"In this rehearsal the data set is named by your folder: rename {order.dataset} instead.")
        return FAILED
    progress.succeeded(row, rehearsal, folder)
    return NOT_BETTER if order.require_better and row.get("verdict") != "better" else SUCCEEDED


def _names_data_set(folder: str) -> bool:
    try:
        dataset_of(Drop(bucket="", key=f"{INCOMING}{folder}/{REQUEST_FILE}"))
    except InvalidRunRequest:
        return False
    return True


def _keep_serving(rehearsal: Rehearsal) -> None:
    sys.stdout.write(
        f"\nThe embedded AWS answers at {rehearsal.aws.endpoint_url} until you press Ctrl-C. Try:\n"
        f"  export AWS_ENDPOINT_URL={rehearsal.aws.endpoint_url} AWS_ACCESS_KEY_ID={DEPLOYER_ACCESS_KEY} "
        f"AWS_SECRET_ACCESS_KEY=none AWS_REGION={rehearsal.aws.place.region}\n"
        f"  aws s3 ls s3://{rehearsal.outputs['ArtifactBucketName']}/runs/ --recursive\n"
    )
    sys.stdout.flush()
    try:
        while True:
            rehearsal.aws.wait_until_idle()
            time.sleep(1)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main())
