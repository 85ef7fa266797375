"""Assemblies that all workers share, and pipelines that the tests of a module share."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Protocol

import pytest

from rehearsal.bedrock.faults import parse_fault
from rehearsal.run import Setting
from rehearsal.synthesis import synthesize
from tests.workflow.pipeline import FunctionFaults, Pipeline

pytest.register_assert_rewrite(
    "tests.workflow.checks", "tests.workflow.paths_of_models", "tests.workflow.paths_of_runs"
)

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
        assembly: Path | None = None,
        faults: Sequence[str] = (),
    ) -> AbstractContextManager[Pipeline]:
        """Return a pipeline that is deployed at 9:00 on that day; there is one at a time in a process."""


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
        assembly: Path | None = None,
        faults: Sequence[str] = (),
    ) -> Iterator[Pipeline]:
        function_faults = FunctionFaults()
        setting = Setting(
            assembly=assembly or assemble(region),
            region=region,
            date=datetime.combine(day, time(9), UTC),
            log_dir=tmp_path_factory.mktemp("logs"),
            bedrock_faults=[parse_fault(fault) for fault in faults],
            function_faults=function_faults,
        )
        with Pipeline(setting, function_faults) as pipeline:
            yield pipeline

    return deploy


@pytest.fixture(scope="module")
def deployed(deploy: Deploy) -> Iterator[Pipeline]:
    """Return the pipeline that a module's tests share; a module that rehearses another day has a fixture of its own."""
    with deploy() as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(deployed: Pipeline) -> Iterator[Pipeline]:
    """Return the module's pipeline, without what earlier tests have done; the emulator must have had no problem."""
    deployed.forget()
    yield deployed
    assert deployed.aws.problems == []
