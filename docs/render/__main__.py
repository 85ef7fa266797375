"""`python -m docs.render` synthesizes the app and writes every rendered part of docs/ anew; `make docs` calls it."""

import sys
import tempfile
from pathlib import Path

from docs.render.all import ROOT, rendered
from rehearsal.synthesis import synthesize

with tempfile.TemporaryDirectory() as folder:
    pages = rendered(synthesize(Path(folder) / "cdk.out", {}))
for path, text in pages.items():
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)} is written anew\n")
