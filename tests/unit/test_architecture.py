"""What keeps the code in the shape that the documentation describes."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from customization import errors
from customization.settings import VARIABLES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lambda" / "customization"
LONGEST_FUNCTION = 40
SILENCED = re.compile(r"# (?:noqa: [A-Z0-9, ]*[0-9]|type: ignore\[[^]]*\])(?P<reason>.*)$")
# An action by its commit, with the tag that it had
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+")


def modules(folder: str) -> list[Path]:
    """Return the modules below a folder; those of stacks include the app that builds them."""
    app = [ROOT / "app.py"] if folder == "stacks" else []
    return app + [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]


def imported(path: Path) -> Iterator[str]:
    return names_imported(path, path.read_text())


def names_imported(path: Path, text: str) -> Iterator[str]:
    """Yield what a module imports: modules, and whatever it takes from them by its name, which may be a module too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, (package_of(path, node.level), node.module)))
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def package_of(path: Path, level: int) -> str:
    """Return the package that so many dots stand for in a module, nothing for none of them."""
    folders = path.relative_to(PACKAGE.parent if PACKAGE in path.parents else ROOT).parent.parts
    return ".".join(folders[: len(folders) - level + 1]) if level else ""


def importers(folder: str, *packages: str) -> list[str]:
    """Return the modules of `folder` that import one of `packages`."""
    return [
        str(path.relative_to(ROOT))
        for path in modules(folder)
        if any(name.split(".")[0] in packages or name in packages for name in imported(path))
    ]


def test_stacks_and_functions_do_not_import_each_other_nor_what_uses_them() -> None:
    assert importers("stacks", "customization", "rehearsal", "tests", "samples", "docs", "benchmarks") == []
    assert importers("lambda", "stacks", "rehearsal", "tests", "samples", "docs", "benchmarks", "aws_cdk") == []
    assert importers("rehearsal", "tests", "samples", "docs", "benchmarks") == []
    assert importers("docs", "tests", "samples", "benchmarks") == []
    assert importers("benchmarks", "tests", "samples", "docs") == []
    assert importers("samples", "stacks", "rehearsal", "tests", "docs", "benchmarks") == []


def test_imports_are_seen_however_they_are_written() -> None:
    path = PACKAGE / "gateway" / "made_up.py"
    written = "import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\nfrom .. import handlers\n"
    near = ("customization.gateway", "customization.gateway.e", "customization.gateway.f", "customization.gateway.f.g")
    far = ("customization", "customization.handlers")
    assert list(names_imported(path, written)) == ["a.b", "c", "c.d", *near, *far]


def test_only_the_gateway_calls_aws() -> None:
    outside = [
        path
        for path in importers("lambda", "boto3", "botocore")
        if not path.startswith("lambda/customization/gateway/")
    ]
    assert outside == []


def test_the_domain_does_not_import_the_handlers() -> None:
    inside = [
        str(path.relative_to(ROOT))
        for path in modules("lambda")
        if "handlers" not in path.parts and any(name.startswith("customization.handlers") for name in imported(path))
    ]
    assert inside == []


def test_lambda_is_an_import_root_and_no_package() -> None:
    assert not (ROOT / "lambda" / "__init__.py").exists()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1


FOLDERS = ("lambda", "stacks", "rehearsal", "samples", "docs", "tests", "benchmarks")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_longer_than_forty_lines(folder: str) -> None:
    found = [name for path in modules(folder) for name, lines in functions(path) if lines > LONGEST_FUNCTION]
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_finding_of_a_tool_is_silenced_without_a_reason(folder: str) -> None:
    silent = []
    for path in modules(folder):
        above = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = SILENCED.search(line)
            if found and not found["reason"].strip(" #-") and not above.strip().startswith("#"):
                silent.append(f"{path.relative_to(ROOT)}:{number}")
            above = line
    assert silent == [], "say why, behind the mark or in a comment above it"


def test_every_error_says_whether_it_passes_by_itself() -> None:
    named = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    for error in named:
        assert issubclass(error, errors.PipelineError | errors.TransientError), error
        assert error.__doc__, error


def test_every_handler_is_a_function_of_event_and_context_named_handler() -> None:
    for path in (PACKAGE / "handlers").glob("[a-z]*.py"):
        module = importlib.import_module(f"customization.handlers.{path.stem}")
        assert callable(module.handler), path
        assert module.__doc__, path


# What a handler may call of the domain besides its one call: what reads the payload or the run that it is about, and
# what says which numbers go into the log
READERS = {"read_call", "owned_plan", "read_drop", "read_language", "read_served", "read_run", "facts_of_run"}
CONTRACT = ("errors", "gateway", "handlers", "json_types", "metrics")


def domain_calls(text: str) -> list[str]:
    """Return the calls of functions and classes of the domain in a handler's module, by the names they have there."""
    tree = ast.parse(text)
    domain = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "customization"
        for name in node.names
        if (f"{node.module}.{name.name}".split(".")[1] not in CONTRACT) and name.name not in READERS
    }
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    roots = [call.value if isinstance(call, ast.Attribute) else call for call in called]
    return [root.id for root in roots if isinstance(root, ast.Name) and root.id in domain]


@pytest.mark.parametrize("path", sorted((PACKAGE / "handlers").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_handler_calls_the_domain_once(path: Path) -> None:
    assert len(domain_calls(path.read_text())) == 1


def test_calls_of_the_domain_are_seen_however_they_are_written() -> None:
    written = """
from customization import metrics, notices
from customization.runs import read_call
from customization.sweeper import sweep as clean
def handler(event, gateway):
    from customization.publishing import publish_report
    publish_report(gateway, read_call(event), metrics.of_run(clean(gateway)))
    return notices.tell(gateway)
"""
    assert sorted(domain_calls(written)) == ["clean", "notices", "publish_report"]


def test_every_data_file_says_where_it_comes_from_and_of_when() -> None:
    for path in (PACKAGE / "data").glob("*.json"):
        if path.name in {"texts.json", "problems.json"}:
            continue
        text = path.read_text()
        assert "source" in text, path
        assert '"asOf"' in text or '"date"' in text, path
        json.loads(text)


def test_no_variable_of_the_environment_is_read_outside_the_settings() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in modules("lambda")
        if path.name != "settings.py" and ("os.environ" in path.read_text() or "getenv" in path.read_text())
    }
    assert readers == set()
    assert len(set(VARIABLES)) == len(VARIABLES)


def test_no_file_of_the_repository_is_larger_than_a_megabyte_or_names_a_download_address() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607  git is on the path
    for name in listed.stdout.split():
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size < 1_000_000, name
    for lock in ("package-lock.json", "requirements.txt", "lambda/layers/core.txt", "lambda/layers/evaluation.txt"):
        assert "http" not in (ROOT / lock).read_text(), lock


def test_no_layer_holds_the_boto3_that_only_commands_of_a_terminal_import() -> None:
    for name in ("core", "evaluation"):
        lock = (ROOT / "lambda" / "layers" / f"{name}.txt").read_text()
        assert not re.search("^(boto3|s3transfer)==", lock, re.MULTILINE), name


def test_ci_pins_every_action_by_commit_and_calls_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        assert [used for used in re.findall(r"uses: (.*)", text) if not PINNED.fullmatch(used)] == []
        commands = re.findall(r"run: (.*)", text)
        assert commands
        assert {command.partition(" ")[0] for command in commands} == {"make"}
        assert {command.partition(" ")[2] for command in commands} <= targets


def test_hooks_of_a_commit_are_local_and_call_targets_that_exist() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    entries = re.findall(r"entry: make (.*)", text)
    assert entries
    assert set(entries) <= targets


def test_a_function_imports_only_what_its_work_needs() -> None:
    needs = {
        "boto3": set[str](),
        "customization.dataset": {"prepare_dataset"},
        "jinja2": {"publish_report"},
        "numpy": set[str](),
        "pydantic": {"plan_run"},
    }
    heavy = set().union(*needs.values())
    handlers = {path.stem for path in (PACKAGE / "handlers").glob("[a-z]*.py")}
    for imports in [handlers - heavy, *({handler} for handler in heavy)]:
        lines = [*(f"import customization.handlers.{name}" for name in sorted(imports)), "import sys"]
        program = "\n".join([*lines, "print(*sys.modules)"])
        done = subprocess.run(  # noqa: S603  this interpreter, these modules
            [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
        )
        expected = {name for name, users in needs.items() if users & imports}
        assert needs.keys() & set(done.stdout.split()) == expected, imports
