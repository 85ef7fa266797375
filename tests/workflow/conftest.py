"""Assemblies that all workers share, and rehearsals that every test closes."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Protocol

import pytest

from rehearsal.bedrock.faults import parse_fault
from rehearsal.embedded.faults import Faults
from rehearsal.run import Setting
from rehearsal.synthesis import synthesize
from tests.workflow.pipeline import Pipeline

pytest.register_assert_rewrite("tests.workflow.checks")

TODAY = date(2026, 11, 22)
# A base model that can be customized in the Region, as the settings demand.
MODELS = {"us-east-1": "amazon.nova-micro-v1:0:128k", "us-west-2": "meta.llama3-1-8b-instruct-v1:0:128k"}

Assemble = Callable[[str], Path]


class Deploy(Protocol):
    def __call__(
        self,
        day: date = TODAY,
        region: str = "us-east-1",
        *,
        faults: Sequence[str] = (),
        function_faults: Faults | None = None,
        assembly: Path | None = None,
    ) -> AbstractContextManager[Pipeline]:
        """Return a pipeline that is deployed at 9:00 on that day; afterwards the emulator must have had no problem."""


class Rehearse(Protocol):
    def __call__(
        self,
        day: date = TODAY,
        region: str = "us-east-1",
        *,
        faults: Sequence[str] = (),
        function_faults: Faults | None = None,
        assembly: Path | None = None,
    ) -> Pipeline:
        """Return what Deploy opens; the test's end closes it."""


@pytest.fixture(scope="session")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Assemble:
    """Return a function that synthesizes the app for a Region, once for all workers of this session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def assemble(region: str) -> Path:
        folder = shared / f"assembly-{region}"
        with (shared / f"{region}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "manifest.json").exists():
                synthesize(folder, {"region": region, "baseModelIdentifier": MODELS[region]})
        return folder

    return assemble


@pytest.fixture(scope="session")
def deploy(assemble: Assemble, tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    @contextmanager
    def deploy(
        day: date = TODAY,
        region: str = "us-east-1",
        *,
        faults: Sequence[str] = (),
        function_faults: Faults | None = None,
        assembly: Path | None = None,
    ) -> Iterator[Pipeline]:
        setting = Setting(
            assembly=assembly or assemble(region),
            region=region,
            date=datetime.combine(day, time(9), UTC),
            log_dir=tmp_path_factory.mktemp("logs"),
            bedrock_faults=[parse_fault(fault) for fault in faults],
            function_faults=function_faults,
        )
        with Pipeline(setting) as pipeline:
            yield pipeline
        assert pipeline.aws.problems == []

    return deploy


@pytest.fixture
def rehearse(deploy: Deploy) -> Iterator[Rehearse]:
    with ExitStack() as opened:

        def rehearse(
            day: date = TODAY,
            region: str = "us-east-1",
            *,
            faults: Sequence[str] = (),
            function_faults: Faults | None = None,
            assembly: Path | None = None,
        ) -> Pipeline:
            return opened.enter_context(
                deploy(day, region, faults=faults, function_faults=function_faults, assembly=assembly)
            )

        yield rehearse
