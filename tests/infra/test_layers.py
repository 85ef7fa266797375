"""The dependency layers: the same bytes from the same lock, built once, and with all that the functions import."""

import ast
import importlib.util
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from customization.json_types import JsonObject
from stacks import layers
from stacks.layers import LayerBuildError, build_layer
from tests.infra.synthesis import ROOT, at, listed, resources

LOCKS = ROOT / "lambda" / "layers"
NAMES = ("core", "evaluation")
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)
# Stands in for uv: installs two modules, a script and what an installer leaves behind
INSTALLER = """
import pathlib, sys
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
lock = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text()
if "broken" in lock:
    sys.exit("no wheel of broken for aarch64")
for name in ("b.py", "a/__init__.py", "a/__pycache__/x.pyc", "bin/tool", ".lock", "a-1.dist-info/RECORD"):
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lock + name)
with (pathlib.Path(__file__).parent / "calls").open("a") as calls:
    calls.write("called\\n")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "installer.py").write_text(INSTALLER)
    (tmp_path / "tried.txt").write_text("a==1 --hash=sha256:00")
    monkeypatch.setattr(layers, "_find_uv", lambda _: [sys.executable, str(tmp_path / "installer.py")])
    return tmp_path


def test_a_layer_holds_modules_under_python_and_nothing_that_differs_between_machines(folder: Path) -> None:
    with zipfile.ZipFile(build_layer("tried", locks=folder, cache=folder / "cache")) as archive:
        assert archive.namelist() == ["python/a/__init__.py", "python/b.py"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_same_lock_gives_the_same_bytes(folder: Path) -> None:
    first, second = (build_layer("tried", locks=folder, cache=folder / name) for name in ("one", "two"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_a_layer_is_built_once_and_again_only_when_its_lock_changes(folder: Path) -> None:
    built = [build_layer("tried", locks=folder, cache=folder / "cache") for _ in range(3)]
    (folder / "tried.txt").write_text("a==2 --hash=sha256:00")
    built.append(build_layer("tried", locks=folder, cache=folder / "cache"))
    assert (folder / "calls").read_text().count("called") == 2
    assert len(set(built)) == 2
    assert sorted((folder / "cache").iterdir()) == sorted(set(built))


def test_a_failed_build_tells_what_uv_said_and_leaves_nothing_in_the_cache(folder: Path) -> None:
    (folder / "tried.txt").write_text("broken==1")
    with pytest.raises(LayerBuildError, match=r"(?s)tried.txt.*no wheel of broken for aarch64"):
        build_layer("tried", locks=folder, cache=folder / "cache")
    assert list((folder / "cache").iterdir()) == []


def test_without_uv_a_first_build_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tried.txt").write_text("a==1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LayerBuildError, match=r"uv is not installed\. Run `make install`, or `pip install uv`"):
        build_layer("tried", locks=tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_pins_everything_by_hash_with_the_versions_that_the_tests_run_with(name: str) -> None:
    lock = (LOCKS / f"{name}.txt").read_text()
    pins = dict(PIN.findall(lock))
    wanted = [line for line in (LOCKS / f"{name}.in").read_text().splitlines() if not line.startswith("#")]
    assert set(wanted) <= set(pins)
    tested: dict[str, set[str]] = {}
    for package, version in PIN.findall((ROOT / "requirements.txt").read_text()):
        tested.setdefault(package, set()).add(version)
    assert {package: version for package, version in pins.items() if version not in tested[package]} == {}
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z])", lock))
    assert "://" not in lock


def test_no_package_is_in_two_layers_with_two_versions() -> None:
    core, evaluation = (dict(PIN.findall((LOCKS / f"{name}.txt").read_text())) for name in NAMES)
    assert {name for name in core.keys() & evaluation.keys() if core[name] != evaluation[name]} == set()


@pytest.fixture(scope="module")
def archives(assembly: Path, templates: dict[str, JsonObject]) -> dict[str, zipfile.ZipFile]:
    """Return the layers of the assembly by the logical id of their layer."""
    folder = {}
    for id_, layer in resources(templates["pipeline"], "AWS::Lambda::LayerVersion").items():
        digest = str(at(layer, "Properties", "Content", "S3Key")).partition(".")[0]
        folder[id_] = zipfile.ZipFile(assembly / f"asset.{digest}.zip")
    return folder


def test_the_layers_and_the_code_stay_below_what_lambda_unpacks(archives: dict[str, zipfile.ZipFile]) -> None:
    # 250 MB unzipped, all layers included: Lambda quotas, "Deployment package (.zip file archive) size"
    size = sum(entry.file_size for archive in archives.values() for entry in archive.infolist())
    assert size < 240e6


def test_compiled_modules_are_for_the_functions_runtime_and_processor(archives: dict[str, zipfile.ZipFile]) -> None:
    compiled = {
        entry.rpartition("/")[2]
        for archive in archives.values()
        for entry in archive.namelist()
        if re.search(r"\.cpython-\d+.*\.so$", entry)
    }
    assert compiled
    assert {name for name in compiled if "cpython-314-aarch64-linux-gnu" not in name} == set()


def test_every_function_finds_what_it_imports_in_its_layers(
    templates: dict[str, JsonObject], archives: dict[str, zipfile.ZipFile]
) -> None:
    provided = {id_: {_module(entry) for entry in archive.namelist()} for id_, archive in archives.items()}
    functions = resources(templates["pipeline"], "AWS::Lambda::Function")
    assert functions
    for name, function in functions.items():
        attached = [str(at(layer, "Ref")) for layer in listed(at(function, "Properties", "Layers"))]
        available = set().union(*(provided[id_] for id_ in attached))
        handler = str(at(function, "Properties", "Handler")).rpartition(".")[0]
        assert third_party_imports(handler) - available == set(), name


def third_party_imports(module: str) -> set[str]:
    """Return the packages that `module` and what it imports of the project need beside the standard library."""
    seen, waiting, found = {module}, [module], set()
    while waiting:
        for imported in _imports(waiting.pop()):
            root = imported.partition(".")[0]
            if root != "customization":
                found.add(root)
            elif _source(imported) and imported not in seen:
                seen.add(imported)
                waiting.append(imported)
    return found - set(sys.stdlib_module_names)


def _imports(module: str) -> Iterator[str]:
    source = _source(module)
    assert source is not None, module
    waiting: list[ast.AST] = [ast.parse(source.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _source(module: str) -> Path | None:
    path = ROOT / "lambda" / Path(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)


def _module(entry: str) -> str:
    return entry.split("/")[1].partition(".")[0]
