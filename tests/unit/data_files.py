"""Data files in memory, and prepare_dataset called with them."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
import pytest

from customization.catalogue import BaseModel, load_catalogue
from customization.dataset import PreparationRequest, Stage, prepare_dataset
from customization.files import Sink
from customization.json_types import Json, JsonObject, as_object
from customization.problems import InvalidDataset, Problem
from customization.profile import Profile
from customization.splits import Subset
from customization.texts import Language

NOVA_MICRO = "amazon.nova-micro-v1:0:128k"
TITAN_EXPRESS = "amazon.titan-text-express-v1:0:8k"
LLAMA_3_3 = "meta.llama3-3-70b-instruct-v1:0:128k"
CLAUDE_3_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0:200k"
COMMAND = "cohere.command-text-v14:7:4k"
FINE_TUNING = "FINE_TUNING"
CONTINUED_PRE_TRAINING = "CONTINUED_PRE_TRAINING"

Content = bytes | list[JsonObject]


class MemoryFile:
    def __init__(self, name: str, content: Content) -> None:
        self.name = name
        self.content = content if isinstance(content, bytes) else json_lines(content)
        self.size = len(self.content)

    def chunks(self) -> Iterator[bytes]:
        return (self.content[start : start + 1000] for start in range(0, self.size, 1000))


class Lines:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


class Prepared:
    """The outcome of prepare_dataset: its profile, and by the name of the sink what was written."""

    def __init__(self) -> None:
        self.sinks: dict[str, Lines] = {}
        self._profile: Profile | None = None

    @property
    def profile(self) -> Profile:
        assert self._profile is not None
        return self._profile

    def run(self, request: PreparationRequest, files: Mapping[str, Content]) -> "Prepared":
        sources = {name: MemoryFile(f"{name}.jsonl", content) for name, content in files.items()}
        self._profile = prepare_dataset(request, sources, self.open)
        return self

    @contextmanager
    def open(self, name: str) -> Iterator[Sink]:
        assert name not in self.sinks, f"{name} is opened twice"
        lines = Lines()
        yield lines
        self.sinks[name] = lines

    def content(self, name: str) -> bytes:
        return b"".join(self.sinks[name].lines) if name in self.sinks else b""

    def records(self, name: str) -> list[JsonObject]:
        return [as_object(json.loads(line), name) for line in self.content(name).splitlines()]

    def codes(self) -> set[str]:
        return {problem.code for problem in (*self.profile.warnings, *self.profile.notes)}


def json_lines(records: Iterable[JsonObject]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def pair(number: int) -> JsonObject:
    return {"prompt": f"How do I return order {number}?", "completion": f"Send order {number} back within 14 days."}


def pairs(count: int, start: int = 0) -> list[JsonObject]:
    return [pair(number) for number in range(start, start + count)]


def varied(count: int) -> list[JsonObject]:
    """Return records of which nothing is said: none nearly repeats another one, their words occur again and again."""
    choose = random.Random(count)  # noqa: S311 - made-up records need no secrecy
    words = ["".join(choose.choices("abcdefghijklmnop", k=5)) for _ in range(100)]
    texts = [" ".join(choose.choices(words, k=12)) for _ in range(2 * count)]
    return [{"prompt": prompt, "completion": answer} for prompt, answer in zip(texts[::2], texts[1::2], strict=True)]


def texts_of(count: int) -> list[JsonObject]:
    return [{"input": f"Paragraph {number} of the manual."} for number in range(count)]


def conversation(*texts: str, system: str = "") -> JsonObject:
    messages: list[Json] = [
        {"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)
    ]
    return {"system": system, "messages": messages} if system else {"messages": messages}


def with_limits(identifier: str, **limits: int) -> BaseModel:
    model = model_of(identifier)
    changed = {kind: msgspec.structs.replace(old, **limits) for kind, old in model.limits.items()}
    return msgspec.structs.replace(model, limits=changed)


def codes(problems: list[Problem]) -> list[str]:
    return [problem.code for problem in problems]


def model_of(identifier: str) -> BaseModel:
    return load_catalogue().find(identifier)


def prepare(
    files: Mapping[str, Content],
    model: str | BaseModel = NOVA_MICRO,
    types: tuple[str, ...] = (FINE_TUNING,),
    *,
    batch_size: int | None = 1,
    field_mapping: dict[str, str] | None = None,
    strip_role_cues: bool = False,
    subset: Subset | None = None,
    system: str = "",
    max_test_records: int = 500,
    split_seed: int = 0,
    language: Language = "en",
) -> Prepared:
    base_model = model_of(model) if isinstance(model, str) else model
    request = PreparationRequest(
        stages=tuple(Stage(kind, base_model, batch_size) for kind in types),
        subset=subset,
        field_mapping=field_mapping or {},
        strip_role_cues=strip_role_cues,
        system=system,
        max_test_records=max_test_records,
        split_seed=split_seed,
        language=language,
    )
    return Prepared().run(request, files)


def problems_of(
    files: Mapping[str, Content],
    model: str | BaseModel = NOVA_MICRO,
    types: tuple[str, ...] = (FINE_TUNING,),
    *,
    batch_size: int | None = 1,
    strip_role_cues: bool = False,
) -> list[Problem]:
    """Return the errors for which the files are refused; fails when they are accepted."""
    with pytest.raises(InvalidDataset) as refused:
        prepare(files, model, types, batch_size=batch_size, strip_role_cues=strip_role_cues)
    return [problem for problem in refused.value.problems if problem.severity == "error"]
