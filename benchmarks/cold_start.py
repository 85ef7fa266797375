"""How long a function's cold start takes, against boto3 alone with the clients that its handler uses.

A pipeline is rehearsed, and the first call of every function is made again in fresh processes, each with the
function's environment, its role's credentials and no packages but those of its layers, by turns with bare ones:

- the function: its module is imported and its handler called with the event of that call;
- bare: boto3 is imported, a client made of every service that the handler calls, and each sends one request, the
  handler's first to that service.

What a second call takes is the work itself, not the start, and is taken off on both sides. Times are the medians of
the processor time, so that other work on the machine does not count. As in Lambda no module has bytecode beside it,
since layers and functions are deployed without; `--bytecode` measures with it.

`python -m benchmarks.cold_start`.
"""

import argparse
import compileall
import importlib.metadata
import json
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cold_process import Answer, Order
from customization.json_types import Json, JsonObject
from customization.money import ITEM_NAMES
from rehearsal.embedded.faults import TaskCall
from rehearsal.embedded.lambda_runtime import Function
from rehearsal.run import Rehearsal, Setting
from rehearsal.synthesis import ROOT, synthesize

MOST = 1.3
ROUNDS = 5
_PROGRAM = Path(__file__).with_name("cold_process.py")
_MODEL = "amazon.nova-micro-v1:0:128k"
_PATIENCE = 600.0  # real seconds
# No layer has them: no function imports them
_OF_THE_BARE_SIDE = ("boto3", "s3transfer")


def link_layers(folder: Path, names: Sequence[str]) -> None:
    """Link what the layers lock, and the bare side's boto3, from the packages of this interpreter into `folder`."""
    locks = "\n".join((ROOT / "lambda" / "layers" / f"{name}.txt").read_text() for name in names)
    for package in (*re.findall(r"^([a-z0-9.-]+)==", locks, re.MULTILINE), *_OF_THE_BARE_SIDE):
        found = importlib.metadata.distribution(package)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))


@dataclass(frozen=True)
class ColdStart:
    """Medians in seconds of the processor; `imported` and `made` are the parts before the first call."""

    function: str
    imported: float
    cold: float
    warm: float
    made: float
    bare: float
    clients: tuple[str, ...]

    @property
    def ratio(self) -> float:
        return self.cold / self.bare


@dataclass
class Meter:
    """Measures every function when it is called for the first time; hooks of the rehearsal."""

    layer: Path
    rounds: int
    bytecode: bool
    only: frozenset[str]
    tell: Callable[[ColdStart], None]
    rehearsal: Rehearsal | None = None
    measured: dict[str, ColdStart] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before_call(self, call: TaskCall, /) -> None:
        """Measure the function, unless it has been."""
        functions = self.rehearsal.aws.deployed.functions.values() if self.rehearsal else ()
        function = next((function for function in functions if function.label == call.function), None)
        if function is None or (self.only and call.function not in self.only):
            return
        with self.lock:
            found = None if call.function in self.measured else self._measure(function, call.payload)
            if found:
                self.measured[call.function] = found
                self.tell(found)

    def after_call(self, call: TaskCall, /) -> None:
        """Nothing is to be done."""

    def _measure(self, function: Function, event: Json) -> ColdStart | None:
        """Return the figures, or None where this event makes the handler ask nothing of AWS."""
        order = Order(
            path=[str(function.root), str(self.layer)],
            handler=function.handler.rpartition(".")[0],
            event=event,
            requests=[],
            record=False,
        )
        if self.bytecode:
            compileall.compile_dir(function.root, quiet=1)
        requests = self._run(function, {**order, "record": True})["requests"]
        if not requests:
            return None
        bare: Order = {**order, "handler": "", "requests": requests}
        floors, ours = [], []
        for _ in range(self.rounds):
            floors.append(self._run(function, bare))
            ours.append(self._run(function, order))
        return ColdStart(
            function=function.label,
            imported=statistics.median(each["loaded"] for each in ours),
            cold=statistics.median(each["first"] - each["again"] for each in ours),
            warm=statistics.median(each["again"] for each in ours),
            made=statistics.median(each["loaded"] for each in floors),
            bare=statistics.median(each["first"] - each["again"] for each in floors),
            clients=tuple(service for service, _, _ in requests),
        )

    def _run(self, function: Function, order: Order) -> Answer:
        if self.rehearsal is None:
            raise RuntimeError("a rehearsal is measured once it has begun")
        # -S and -I: no packages but those of the path that the order gives, as in Lambda
        command = [sys.executable, "-I", "-S", "-B"]
        command += [] if self.bytecode else ["-X", f"pycache_prefix={self.layer}/none"]
        done = subprocess.run(  # noqa: S603  this interpreter, a program of this package
            [*command, str(_PROGRAM)],
            input=pickle.dumps(order),
            env=self.rehearsal.aws.environment(function),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        answer: Answer = pickle.loads(done.stdout)  # noqa: S301  written by cold_process
        return answer


def rehearse_every_function(rehearsal: Rehearsal) -> None:
    """Drive the pipeline through every one of its functions."""
    sample = ROOT / "samples" / "support-ja"
    few: JsonObject = {"acceptUnknownPrices": [*ITEM_NAMES], "evaluation": {"maxRecords": 40}}
    files = {name: (sample / name).read_bytes() for name in ("train.jsonl", "test.jsonl")}
    rehearsal.drop("measured", {**files, "run.json": json.dumps({**few, "promote": "if-better"}).encode()})
    rehearsal.drop("misplaced", {"letters.csv": b"a,b\n"})
    rehearsal.aws.wait_until_idle(_PATIENCE)
    first: JsonObject = {"dataset": "measured", **few}
    requests: list[JsonObject] = [
        {**first, "serving": {"mode": "provisioned"}},
        {**first, "budgetUsd": 0.000001, "hyperParameters": {"epochCount": 1}},
        {"dataset": "measured", "action": "promote", "data": rehearsal.runs()[0]["runId"]},
    ]
    for request in requests:
        rehearsal.start(request)
        rehearsal.aws.wait_until_idle(_PATIENCE)


def measure(
    rounds: int, tell: Callable[[ColdStart], None], only: Sequence[str] = (), *, bytecode: bool = False
) -> dict[str, ColdStart]:
    """Return the cold start of every function, by the name of its handler; `tell` gets each once it is known.

    Raises RuntimeError naming the functions that there is no figure of.
    """
    with tempfile.TemporaryDirectory(prefix="cold-start-") as scratch:
        layer = Path(scratch) / "layer"
        layer.mkdir()
        link_layers(layer, ("core", "evaluation"))
        meter = Meter(layer, rounds, bytecode, frozenset(only), tell)
        setting = Setting(
            assembly=synthesize(Path(scratch) / "cdk.out", {"region": "us-east-1", "baseModelIdentifier": _MODEL}),
            region="us-east-1",
            date=datetime.now(UTC),
            log_dir=Path(scratch) / "logs",
            function_faults=meter,
        )
        with Rehearsal(setting) as rehearsal:
            meter.rehearsal = rehearsal
            rehearse_every_function(rehearsal)
            for problem in rehearsal.aws.problems:
                sys.stderr.write(f"{problem}\n")
            called_for = frozenset(only) or {each.label for each in rehearsal.aws.deployed.functions.values()}
        if missed := sorted(called_for - meter.measured.keys()):
            raise RuntimeError(f"not measured, since no run called them or they asked nothing: {', '.join(missed)}")
        return meter.measured


def main() -> int:
    """Print a line a function; return 1 where one is above what is promised."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("functions", nargs="*", help="names of handlers (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--bytecode", action="store_true", help="leave the modules their bytecode")
    arguments = parser.parse_args()
    sys.stdout.write(
        f"{'ms of the processor':32}{'import':>8}{'cold':>8}{'warm':>8}{'made':>8}{'bare':>8}{'ratio':>7}\n"
    )

    def tell(one: ColdStart) -> None:
        figures = "".join(f"{value * 1000:8.0f}" for value in (one.imported, one.cold, one.warm, one.made, one.bare))
        sys.stdout.write(f"{one.function:32}{figures}{one.ratio:7.2f}  {', '.join(one.clients)}\n")
        sys.stdout.flush()

    found = measure(arguments.rounds, tell, arguments.functions, bytecode=arguments.bytecode)
    sys.stdout.write(f"promised: at most {MOST} times the bare clients\n")
    return int(any(one.ratio > MOST for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
