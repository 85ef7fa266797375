"""How long synthesis takes with both rule packs on and the layers cached, against an app with one bucket.

Each app is synthesized in a process of its own, alternately, and the medians are set side by side:
`python -m benchmarks.synth`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 5
MOST = 2.3
ONE_BUCKET = """
import stacks
from aws_cdk import App, Stack
from aws_cdk import aws_s3 as s3
app = App()
s3.Bucket(Stack(app, "One"), "Bucket")
app.synth()
"""


def seconds(command: Sequence[str]) -> float:
    """Return the wall time of one synthesis."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        environment = os.environ | {"CDK_OUTDIR": folder}
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True)  # noqa: S603  this project
        return time.perf_counter() - began


def measure(rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the medians in seconds of the app with one bucket and of this app."""
    seconds(["app.py"])
    pairs = [(seconds(["-c", ONE_BUCKET]), seconds(["app.py"])) for _ in range(rounds)]
    floor, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    return floor, ours


def main() -> int:
    """Print both medians and their ratio; return 1 when the ratio is above what is promised."""
    floor, ours = measure()
    ratio = ours / floor
    sys.stdout.write(f"one bucket {floor:.2f} s, this app {ours:.2f} s: {ratio:.2f} x (at most {MOST} x)\n")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
