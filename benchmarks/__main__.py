"""All figures in one table, each a ratio against a floor or a peer that is measured in the same run.

`make bench`, or `python -m benchmarks`. What each floor is stands in docs/benchmarks.md. The last part runs `make run`
in a new clone with an empty home, which downloads all packages; `--no-fresh-clone` leaves it out. The exit code is 1
where a figure is above its bar.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import cold_start, evaluation, preparation, run_cost, synth
from rehearsal.synthesis import ROOT

PREPARED_MB = 20
COLD_ROUNDS = 3
# Wall time on two idle cores
MOST_RUN_SECONDS = 15
MOST_INSTALLED_SECONDS = 25
MOST_FRESH_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the table; `ratio` is ours over the floor, `most` what is promised, None where nothing is."""

    what: str
    ours: str
    floor: str
    ratio: float
    most: float | None = None

    @property
    def is_kept(self) -> bool:
        return self.most is None or self.ratio <= self.most

    def line(self) -> str:
        """Return the line as Markdown; a broken promise is bold."""
        ratio = f"{self.ratio:.2f}" if self.is_kept else f"**{self.ratio:.2f}**"
        cells = (self.what, self.ours, self.floor, ratio, "" if self.most is None else f"{self.most:g}")
        return f"| {' | '.join(cells)} |"


def _synthesis() -> Iterator[Figure]:
    floor, ours = synth.measure()
    yield Figure(
        what="synthesis", ours=f"{ours:.2f} s", floor=f"one bucket {floor:.2f} s", ratio=ours / floor, most=synth.MOST
    )


def _cold_starts() -> Iterator[Figure]:
    for one in cold_start.measure(COLD_ROUNDS, _progress_of_cold_starts).values():
        yield Figure(
            what=f"cold start {one.function}",
            ours=f"{one.cold * 1000:.0f} ms",
            floor=f"boto3 {', '.join(one.clients)} {one.bare * 1000:.0f} ms",
            ratio=one.ratio,
            most=cold_start.MOST,
        )


def _progress_of_cold_starts(one: cold_start.ColdStart) -> None:
    _say(f"  {one.function} {one.ratio:.2f}")


def _preparation() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        for one in preparation.compare(PREPARED_MB, Path(folder), preparation.ROUNDS):
            yield Figure(
                what=f"preparation, {one.case}",
                ours=f"{one.size / one.seconds:.0f} MB/s",
                floor=f"decode, hash, copy {one.size / one.floor:.0f} MB/s",
                ratio=one.ratio,
                most=preparation.MOST_TIMES,
            )
            yield Figure(
                what=f"memory of preparation, {one.case}",
                ours=f"{one.memory:.0f} MB",
                floor=f"bar {preparation.MOST_MEMORY_MB:.0f} MB",
                ratio=one.memory / preparation.MOST_MEMORY_MB,
                most=1,
            )


def _evaluation() -> Iterator[Figure]:
    for spread in evaluation.SPREADS:
        one = evaluation.compare(evaluation.Service(spread=spread), evaluation.MANY_RECORDS)
        what = f"evaluation, {one.records:,} answers, spread {spread}"
        taken = f"{one.taken:,.0f} virtual s"
        yield Figure(what=what, ours=taken, floor=f"ideal {one.ideal:,.0f} s", ratio=one.ratio, most=evaluation.BAR)
        yield Figure(what=what, ours=taken, floor=f"one after the other {one.loop:,.0f} s", ratio=one.taken / one.loop)


def _rehearsal() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        ours, synthesis = _rehearsed(Path(folder))
    yield Figure(
        what="rehearsal of samples/support-ja",
        ours=f"{ours:.1f} s",
        floor=f"its start and synthesis {synthesis:.1f} s",
        ratio=ours / synthesis,
    )
    yield _within("rehearsal, from deployment to report", ours - synthesis, MOST_RUN_SECONDS)


def _rehearsed(folder: Path) -> tuple[float, float]:
    """Return the seconds of a rehearsal, and those that it took to start and to synthesize what it deploys."""
    synthesis, began = 0.0, time.perf_counter()
    command = [sys.executable, "-m", "rehearsal", "--out", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:  # noqa: S603  this project's
        for line in run.stdout or ():
            if line.startswith("deploying"):
                synthesis = time.perf_counter() - began
    if run.returncode or not synthesis:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}")
    return time.perf_counter() - began, synthesis


def _run() -> Iterator[Figure]:
    run = run_cost.measure()
    usd = sum(run_cost.cost(run, "us-east-1", datetime.now(UTC).date()).values())
    yield Figure(
        what="history of a run",
        ours=f"{run.history_events} events",
        floor=f"bar {run_cost.MOST_EVENTS:,}",
        ratio=run.history_events / run_cost.MOST_EVENTS,
        most=1,
    )
    yield Figure(
        what=f"functions of a run, {len(run.calls)} calls",
        ours=f"{run.billed_milliseconds:,.0f} ms",
        floor=f"their cold starts {run.starting_milliseconds:,.0f} ms",
        ratio=run.billed_milliseconds / run.starting_milliseconds,
    )
    yield Figure(
        what="AWS cost of a run beside Bedrock",
        ours=f"{usd:.4f} USD",
        floor=f"bar {run_cost.MOST_USD} USD",
        ratio=usd / run_cost.MOST_USD,
        most=1,
    )


def _fresh_clone() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        _say("  an installed one")
        installed = _seconds(["make", "run"], ROOT)
        _say("  a new one")
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        began = time.perf_counter()
        _seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        _seconds(["make", "run"], clone, {**_without_caches(), "HOME": str(home)})
        fresh = time.perf_counter() - began
    yield _within("make run, installed", installed, MOST_INSTALLED_SECONDS)
    yield _within("make run in a fresh clone", fresh, MOST_FRESH_SECONDS)


def _within(what: str, seconds: float, most: float) -> Figure:
    """Return a time that is promised as such, beside its bar."""
    return Figure(what=what, ours=f"{seconds:.1f} s", floor=f"bar {most:g} s", ratio=seconds / most, most=1)


def _without_caches() -> dict[str, str]:
    """Return this environment without what leads to packages, settings or caches that are here already."""
    ours = ("XDG_", "VIRTUAL_ENV", "PYTHON", "MAKE", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours) and "CACHE" not in name}
    folders = [folder for folder in kept["PATH"].split(os.pathsep) if not Path(folder).is_relative_to(ROOT)]
    return {**kept, "PATH": os.pathsep.join(folders)}


def _seconds(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  this project's
    return time.perf_counter() - began


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _machine() -> str:
    described = Path("/proc/cpuinfo")  # which Linux has
    lines = described.read_text().splitlines() if described.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {name}, {platform.system()}, Python {platform.python_version()}"


def main() -> int:
    """Measure everything, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--no-fresh-clone", action="store_true", help="leave out what downloads")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "synthesis": _synthesis,
        "preparation": _preparation,
        "evaluation": _evaluation,
        "rehearsal": _rehearsal,
        "a run": _run,
        "cold starts": _cold_starts,
        **({} if arguments.no_fresh_clone else {"a fresh clone": _fresh_clone}),
    }
    figures: list[Figure] = []
    for name, measure in parts.items():
        _say(f"measuring {name}")
        figures += measure()
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}\n\n")
    sys.stdout.write("| what | here | floor or peer | ratio | at most |\n|---|---:|---:|---:|---:|\n")
    sys.stdout.writelines(f"{figure.line()}\n" for figure in figures)
    return int(not all(figure.is_kept for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
