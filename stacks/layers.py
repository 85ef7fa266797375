"""The dependency layers: wheels for arm64 from a hash-locked file, zipped at synthesis without Docker, and cached."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from aws_cdk import aws_lambda as lambda_
from constructs import Construct

_ROOT = Path(__file__).parent.parent
_LOCKS = _ROOT / "lambda" / "layers"
_CACHE = _ROOT / ".cache" / "layers"
_PLATFORM = ("--python-platform", "aarch64-manylinux_2_28", "--python-version", "3.14", "--only-binary", ":all:")
# Scripts name the interpreter that installed them, and RECORD holds the hashes of those scripts
_LEFT_OUT = re.compile(r"^bin/|^\.lock$|__pycache__/|\.dist-info/RECORD$")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class LayerBuildError(Exception):
    """A dependency layer could not be built; the message says what to do."""


def dependency_layer(scope: Construct, id_: str, name: str) -> lambda_.LayerVersion:
    """Return the layer of what lambda/layers/<name>.txt locks; raises LayerBuildError when a first build fails."""
    archive = build_layer(name)
    return lambda_.LayerVersion(
        scope,
        id_,
        description=f"Dependencies locked in lambda/layers/{name}.txt",
        code=lambda_.Code.from_asset(str(archive), asset_hash=archive.stem),
        compatible_architectures=[lambda_.Architecture.ARM_64],
        compatible_runtimes=[lambda_.Runtime.PYTHON_3_14],
    )


def build_layer(name: str, *, locks: Path = _LOCKS, cache: Path = _CACHE) -> Path:
    """Return the zip file of the layer `name`, from `cache` when the same lock was built before.

    The same lock gives the same bytes. Raises LayerBuildError when uv is missing or cannot install the wheels.
    """
    lock = locks / f"{name}.txt"
    rules = " ".join((*_PLATFORM, _LEFT_OUT.pattern)).encode()
    archive = cache / f"{name}-{hashlib.sha256(rules + lock.read_bytes()).hexdigest()[:16]}.zip"
    if not archive.exists():
        uv = _find_uv(name)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            packages, unfinished = Path(folder) / "packages", Path(folder) / archive.name
            _install([*uv, "pip", "install", "--python", sys.executable, "--target", str(packages)], lock)
            _zip(packages, unfinished)
            unfinished.replace(archive)
    return archive


def _find_uv(name: str) -> list[str]:
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    if (path := shutil.which("uv")) is not None:
        return [path]
    raise LayerBuildError(
        f"The dependency layer {name} has to be built, which takes uv, and uv is not installed. "
        "Run `make install`, or `pip install uv` in this environment, and synthesize again."
    )


def _install(command: list[str], lock: Path) -> None:
    options = (*_PLATFORM, "--require-hashes", "--link-mode", "copy", "--quiet", "--requirement", str(lock))
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603  constants and paths of this module
    if done.returncode != 0:
        raise LayerBuildError(
            f"The wheels that {lock.name} locks could not be installed (uv ended with {done.returncode}). A first "
            f"build needs the package registry; later ones are read from the cache.\n{done.stderr.strip()}"
        )


def _zip(folder: Path, archive: Path) -> None:
    """Write the files of `folder` under python/, where Lambda looks for them; no byte tells of this machine."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(archive, "w") as output:
        for name in sorted(files):
            if not _LEFT_OUT.search(name):
                entry = zipfile.ZipInfo(f"python/{name}", _EPOCH)
                entry.external_attr = 0o644 << 16
                # A tenth larger than with the usual level, in a third of the time
                output.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=1)
