"""Settings that must be in place before anything imports numpy or the CDK."""

import os

import stacks  # noqa: F401  names the Node that importing aws_cdk starts

# The stand-in's matrices are small: with more threads a training takes several times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
