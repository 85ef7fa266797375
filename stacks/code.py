"""The code of the functions: the package, with the templates of its pages compiled, which is cached."""

import atexit
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aws_cdk import aws_lambda as lambda_

_ROOT = Path(__file__).parent.parent
_PACKAGE = _ROOT / "lambda" / "customization"
_CACHE = _ROOT / ".cache" / "pages"


class PagesNotCompiledError(Exception):
    """The templates of the pages could not be compiled; the message is what Jinja said."""


def source_code() -> lambda_.Code:
    """Return the one asset of all functions; raises PagesNotCompiledError for a template with a mistake."""
    folder = Path(tempfile.mkdtemp(prefix="code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the CDK reads it when the first function is made
    package = folder / _PACKAGE.name
    shutil.copytree(_PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copytree(compile_pages(), package / "templates" / "compiled", ignore=shutil.ignore_patterns("__pycache__"))
    return lambda_.Code.from_asset(str(folder))


def compile_pages(*, package: Path = _PACKAGE, cache: Path = _CACHE) -> Path:
    """Return the folder of the compiled templates, from `cache` where the same ones were compiled before.

    The same templates give the same bytes. Raises PagesNotCompiledError.
    """
    digest = hashlib.sha256(importlib.metadata.version("jinja2").encode())
    for path in (package / "pages.py", *sorted((package / "templates").iterdir())):
        digest.update(path.name.encode() + path.read_bytes())
    compiled = cache / digest.hexdigest()[:16]
    if not compiled.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unfinished = Path(scratch) / "compiled"
            _compile(package, unfinished)
            if not compiled.exists():  # another synthesis may have been faster
                unfinished.replace(compiled)
    return compiled


def _compile(package: Path, folder: Path) -> None:
    # Stacks import nothing of the functions, so the package compiles its templates itself
    done = subprocess.run(  # noqa: S603  this interpreter and this project
        [sys.executable, "-m", f"{package.name}.pages", str(folder)],
        env=os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PagesNotCompiledError(done.stderr.strip())
