"""Settings that must be in place before anything imports numpy."""

import os

# The stand-in's matrices are small: with more threads a training takes several times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
