"""How long preparing a data set takes, against the least that any program does that checks, hashes and copies records.

The least: one pass over the same file that decodes each line into a typed msgspec Struct, takes a 128-bit hash of it
and writes the line back. Ours: validation, conversion, splits, exact duplicates and the profile, by prepare_dataset,
with the search for similar records, which looks at a sample of 1,000 whatever the size, left out. Both read and write
real files, each in a process of its own, by turns; times are the medians of the processor time, so that other work on
the machine does not count; memory is what the process has at most beyond an interpreter with the same modules.

The texts are sentences in English and Japanese, half of the records each, of 150 to 1,900 characters of prompt and 60
to 900 of completion: about 1.1 kB a record, as in measured data sets. No base model takes so many records, so the
limits on their number are lifted; the file that a model refuses takes less.

`python -m benchmarks.preparation --sizes 20 200` (megabytes).
"""

import argparse
import hashlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "lambda"))

import msgspec  # noqa: E402 - behind the path

from customization.catalogue import FINE_TUNING, BaseModel, load_catalogue  # noqa: E402 - behind the path
from customization.dataset import PreparationRequest, Stage, prepare_dataset  # noqa: E402 - behind the path
from customization.formats import ConversationLine, PromptCompletionLine  # noqa: E402 - behind the path

MOST_TIMES = 3.0
MOST_MEMORY_MB = 100.0
ROUNDS = 5
READ_BYTES = 1 << 18
NOVA, TITAN = "amazon.nova-micro-v1:0:128k", "amazon.titan-text-express-v1:0:8k"
# What is uploaded, and the base model, whose format decides on the conversion
CASES = {
    "prompt/completion, kept": ("pairs", TITAN),
    "prompt/completion to conversation": ("pairs", NOVA),
    "conversation, kept": ("conversations", NOVA),
    "conversation to prompt/completion": ("conversations", TITAN),
}
ENGLISH = (
    "How do I return an order that has not arrived yet?",
    "The parcel left our warehouse on 14 March and should reach you within five working days.",
    "Please keep the receipt: without it we can only offer store credit (see section 4.2).",
    "I tried to reset my password three times, but the link in the mail has expired.",
    'The screen says "connection refused" and closes after a few seconds.',
    "You can change the delivery address in your account until the order is packed.",
    "Our support team answers on weekdays from 9 a.m. to 6 p.m., and we usually reply the same day.",
    "Which documents do I need to open an account for a small company?",
)
JAPANESE = (
    "注文した商品がまだ届きません。発送の状況を教えてください。",
    "お問い合わせいただきありがとうございます。担当者が確認のうえ、2 営業日以内にご連絡いたします。",
    "返品は商品到着後14日以内に限り承っております。未使用の状態でお送りください。",
    "パスワードの再設定メールが届かない場合は、迷惑メールフォルダをご確認ください。",
    "AWS Lambda はサーバーレスのコンピューティングサービスで、コードをイベントに応じて実行します。",
    "会議の議事録を三つの要点にまとめてください。",
    "配送先の変更は、出荷準備が始まるまでマイページからお手続きいただけます。",
    "申し訳ございませんが、その件についてはこちらではお答えできません。",
)


def text_of(source: random.Random, sentences: tuple[str, ...], characters: int) -> str:
    """Return about so many characters of sentences, some on lines of their own."""
    parts: list[str] = []
    while characters > 0:
        part = source.choice(sentences)
        parts.append(part + source.choice((" ", " ", "\n")) if part.isascii() else part)
        characters -= len(part)
    return "".join(parts).strip()


def write_file(path: Path, megabytes: int, kind: str) -> None:
    """Write a file of records, each different from all others."""
    source, written, number = random.Random(5), 0, 0  # noqa: S311 - texts, no secrets
    with path.open("wb") as file:
        while written < megabytes * 1_000_000:
            number += 1
            is_english = number % 2 == 0
            sentences, share = (ENGLISH, 1.0) if is_english else (JAPANESE, 0.4)
            prompt = text_of(source, sentences, int(source.randint(150, 1_900) * share * 0.6)) + f" #{number}"
            completion = text_of(source, sentences, int(source.randint(60, 900) * share * 0.6))
            line = json.dumps(record_of(prompt, completion, kind), ensure_ascii=False).encode() + b"\n"
            written += file.write(line)


def record_of(prompt: str, completion: str, kind: str) -> object:
    if kind == "pairs":
        return {"prompt": prompt, "completion": completion}
    turns = (("user", prompt), ("assistant", completion))
    messages = [{"role": role, "content": [{"text": text}]} for role, text in turns]
    return {"schemaVersion": "bedrock-conversation-2024", "messages": messages}


class LocalFile:
    """A file on disk, read as the command on a laptop does."""

    name = "train.jsonl"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start."""
        with self._path.open("rb", buffering=0) as file:
            yield from iter(lambda: file.read(READ_BYTES), b"")


class LocalSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, line: bytes) -> None:
        self._file.write(line)


def least(path: Path, kind: str, folder: Path) -> None:
    """Do the least: decode, hash, write."""
    decode = msgspec.json.Decoder(PromptCompletionLine if kind == "pairs" else ConversationLine).decode
    blake2b = hashlib.blake2b  # of the hashes of 128 bits in the standard library the fastest
    digest = b""
    with path.open("rb", buffering=READ_BYTES) as source, (folder / "copy").open("wb", buffering=READ_BYTES) as copy:
        for line in source:
            decode(line)
            digest = blake2b(line, digest_size=16).digest()
            copy.write(line)
    sys.stderr.write(f"{digest.hex()}\n")


def unlimited(model: BaseModel) -> BaseModel:
    """Return the model without limits on the number of records and the size of files."""
    nothing = {"max_training_records": None, "max_total_records": None, "max_training_bytes": None}
    limits = {kind: msgspec.structs.replace(old, **nothing) for kind, old in model.limits.items()}
    return msgspec.structs.replace(model, limits=limits)


def ours(path: Path, identifier: str, folder: Path) -> None:
    """Prepare the data set."""
    model = unlimited(load_catalogue().find(identifier))
    request = PreparationRequest(stages=(Stage(FINE_TUNING, model, 1),), compare_similar=False)

    @contextmanager
    def open_sink(name: str) -> Iterator[LocalSink]:
        with (folder / name).open("wb", buffering=READ_BYTES) as file:
            yield LocalSink(file)

    profile = prepare_dataset(request, {"train": LocalFile(path)}, open_sink)
    sys.stderr.write(f"{profile.prepared['train'].records} {profile.prepared['train'].sha256}\n")


def peak_mb() -> float:
    """Return the most memory that this process has had; getrusage would count what its parent had before it, too."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def run(work: str, path: str, argument: str, folder: str) -> None:
    """Do one of both and print seconds and megabytes beyond the imported modules."""
    load_catalogue()
    before = peak_mb()
    began = time.process_time()
    (least if work == "least" else ours)(Path(path), argument, Path(folder))
    seconds = time.process_time() - began
    memory = peak_mb() - before
    sys.stdout.write(json.dumps([seconds, memory]))


def measured(work: str, path: Path, argument: str, folder: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.preparation", "--run", work, str(path), argument, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603  this module
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A case: MB of the file, medians in seconds, and MB of memory beyond the imported modules."""

    case: str
    size: float
    floor: float
    seconds: float
    memory: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor

    @property
    def is_kept(self) -> bool:
        return self.ratio <= MOST_TIMES and self.memory <= MOST_MEMORY_MB


def compare(megabytes: int, folder: Path, rounds: int) -> Iterator[Compared]:
    """Yield every case, measured by turns with the least."""
    for kind in ("pairs", "conversations"):
        path = folder / f"{kind}.jsonl"
        write_file(path, megabytes, kind)
        for name, (uploaded, identifier) in CASES.items():
            if uploaded != kind:
                continue
            floors, times, memories = [], [], []
            for _ in range(rounds):
                floors.append(measured("least", path, kind, folder)[0])
                seconds, memory = measured("ours", path, identifier, folder)
                times.append(seconds)
                memories.append(memory)
            yield Compared(
                case=name,
                size=path.stat().st_size / 1e6,
                floor=statistics.median(floors),
                seconds=statistics.median(times),
                memory=max(memories),
            )
        path.unlink()


def main() -> int:
    """Print the table; return 1 where time or memory is above what is promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200], help="megabytes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(*arguments.run)
        return 0
    sys.stdout.write(f"{'MB':>7}  {'case':36}{'least':>8}{'ours':>8}{'ratio':>8}{'memory':>9}\n")
    sys.stdout.write(f"{'':45}{'MB/s':>8}{'MB/s':>8}{'':8}{'MB':>9}\n")
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        for one in (one for size in arguments.sizes for one in compare(size, Path(folder), arguments.rounds)):
            kept &= one.is_kept
            speeds = f"{one.size / one.floor:8.0f}{one.size / one.seconds:8.0f}"
            sys.stdout.write(f"{one.size:7.0f}  {one.case:36}{speeds}{one.ratio:8.2f}{one.memory:9.0f}\n")
            sys.stdout.flush()
    sys.stdout.write(f"promised: at most {MOST_TIMES} times the least, at most {MOST_MEMORY_MB:.0f} MB\n")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
