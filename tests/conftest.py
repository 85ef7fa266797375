"""Settings that must be in place before anything imports numpy or the CDK, and the order of tests."""

import os

import pytest

import stacks  # noqa: F401  names the Node that importing aws_cdk starts

# The stand-in's matrices are small: with more threads a training takes several times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: at the end one worker would work at it while the other has nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("minutes") is None)
