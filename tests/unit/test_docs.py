"""The documentation holds: commands are run or listed, JSON is valid for what reads it, links lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it publishes no types

from customization.catalogue import BaseModel
from customization.history import ROW_FILE
from customization.json_types import Json, JsonObject, as_list, as_object
from customization.problems import Problems
from customization.records import RecordReader
from customization.request import parse_request, run_request_schema
from customization.shapes import FORMAT_KEYS
from stacks.config import DeploymentConfig, read_config
from tests.unit.fakes import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "samples") for path in folder.glob("*.md"))
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
# What a command in running text begins with
PROGRAMS = "make|python|pip|npm|npx|cdk|aws|jq|export|pytest|pre-commit|customization-validate"
PROGRAM = re.compile(rf"([A-Z_]+=\S+ )*({PROGRAMS}|\.venv/bin/\w+)( |$)")
HELD = "<!-- commands"
AS_IT_STANDS = "run as it stands"
ELSEWHERE = ("needs an account", "needs a package index", "needs idle cores")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def spans(page: Path) -> list[str]:
    """Return what stands between backticks outside of blocks."""
    return [span.replace("\\|", "|") for span in SPAN.findall(BLOCK.sub("", page.read_text()))]


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page in blocks and in running text, without what a `#` says about them."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = " ".join(re.sub(r"(^|\s)# .*", "", line).split())
            if command:
                yield command
    text = BLOCK.sub("", page.read_text()).partition(HELD)[0]
    yield from (span.replace("\\|", "|") for span in SPAN.findall(text) if PROGRAM.match(span))


def held_commands() -> dict[str, str]:
    table = CONTRIBUTING.read_text().partition(HELD)[2]
    return dict(re.findall(r"^\| `(.+?)` \| (.+?) \|$", table, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_says_what_it_is(page: Path) -> None:
    languages = {language for language, _ in BLOCK.findall(page.read_text())}
    assert languages <= {"sh", "json", "text", "mermaid"}, "sh: commands, json: validated, text: neither"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_in_the_table_of_commands(page: Path) -> None:
    unknown = [command for command in commands(page) if command not in held_commands()]
    assert unknown == [], "add each to the table of commands in CONTRIBUTING.md, with the test that runs it"


def test_every_row_of_the_table_of_commands_is_used_and_names_a_test_that_exists() -> None:
    used = {command for page in PAGES for command in commands(page)}
    held = held_commands()
    assert set(held) <= used, "take the rows out that no page uses any more"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    for command, holder in held.items():
        if holder == "CI":
            assert re.search(rf"run: {re.escape(command)}$", workflow, re.MULTILINE), command
        elif holder not in (AS_IT_STANDS, *ELSEWHERE):
            path, _, test = holder.partition("::")
            assert f"def {test}(" in (ROOT / path).read_text(), holder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder that looks like a clone, with the files that the commands of the documentation name."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name != "rehearsal-out":
            (folder / path.name).symlink_to(path)
    samples = ROOT / "samples" / "support-en"
    shutil.copy(samples / "train.jsonl", folder / "train.jsonl")
    shutil.copy(samples / "test.jsonl", folder / "validation.jsonl")
    (folder / "support.csv").write_text("question,answer\nWhere is it?,On its way.\n")
    (folder / "swept.json").write_text("{}")
    (folder / "message.json").write_text(json.dumps({"Messages": [{"Body": "{}", "MessageAttributes": {}}]}))
    row = {"runId": "support-ja-0123456789", "dataset": "support-ja", "state": "SUCCEEDED"}
    rehearsed = folder / "rehearsal-out" / row["runId"] / ROW_FILE
    rehearsed.parent.mkdir(parents=True)
    rehearsed.write_text(json.dumps({**row, "startedAt": "2026-11-22T09:00:00+00:00"}))
    return folder


@pytest.mark.parametrize("command", [c for c, holder in held_commands().items() if holder == AS_IT_STANDS])
def test_a_command_does_what_the_documentation_says(command: str, clone: Path) -> None:
    if "--out train.jsonl" in command:
        (clone / "train.jsonl").unlink()
    # What the target `install` looks after is there already
    line = command.replace("make ", "make --assume-old=.venv/installed ", 1) if command.startswith("make") else command
    if command.startswith("jq ") and not shutil.which("jq"):
        pytest.skip("jq is not installed: apt-get install jq")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST"))}
    done = subprocess.run(  # noqa: S603  the commands are those of the documentation
        ["bash", "-euo", "pipefail", "-c", line],  # noqa: S607  bash is on the path
        cwd=clone,
        env=environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def extended(clone: Path) -> Path:
    """Return a clone whose catalogue has the entry of docs/adding-a-base-model.md too."""
    (clone / "lambda").unlink()
    shutil.copytree(ROOT / "lambda", clone / "lambda")
    # Python looks for modules beside the file that a link of a script leads to
    (clone / "app.py").unlink()
    shutil.copy(ROOT / "app.py", clone)
    catalogue = clone / "lambda" / "customization" / "data" / "catalogue.json"
    document = json.loads(catalogue.read_bytes())
    (entry,) = blocks(ROOT / "docs" / "adding-a-base-model.md", "json")
    document["models"].append(json.loads(entry))
    catalogue.write_text(json.dumps(document))
    return clone


def run_python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_", "PYTEST"))}
    return subprocess.run(  # noqa: S603  this interpreter and the test's own arguments
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'lambda'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entry_of_the_page_is_all_that_a_base_model_needs_to_have_files_checked_for_it(extended: Path) -> None:
    checked = run_python(extended, "-m", "customization.validate", "train.jsonl", "--model", "example.text-v1:0:32k")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.exhaustive
def test_the_entry_of_the_page_is_all_that_a_base_model_needs_to_be_deployed_and_customized(extended: Path) -> None:
    every_model = run_python(extended, "-m", "pytest", "-q", "tests/unit/test_catalogue.py", "-k", "Example")
    assert every_model.returncode == 0, every_model.stdout
    items = ("training", "baselineAnswers", "customAnswers", "customModelStorage")
    fields = ("baseModelIdentifier=example.text-v1:0:32k", f"acceptUnknownPrices={json.dumps(items)}")
    rehearsed = run_python(
        extended, "-m", "rehearsal", "samples/support-en", *(part for field in fields for part in ("--set", field))
    )
    assert rehearsed.returncode == 0, rehearsed.stdout + rehearsed.stderr
    assert "SUCCEEDED" in rehearsed.stdout.upper()


def fragments(page: Path) -> Iterator[Json]:
    """Yield every JSON value of a page: blocks, their lines where a block has several, and what stands in backticks."""
    for block in blocks(page, "json"):
        try:
            yield json.loads(block)
        except json.JSONDecodeError:
            yield from (json.loads(line) for line in block.splitlines())
    # The examples of fields are held against the schema, below
    for span in [] if page.name == "run-request.md" else spans(page):
        if span.startswith('{"'):
            yield json.loads(span)
        elif re.match(r'"\w+": ', span):
            yield {"dataset": "support-ja", **json.loads(f"{{{span}}}")}


def check_request(value: JsonObject) -> None:
    if value:
        parse_request(value, SETTINGS.defaults)


def check_record(value: JsonObject) -> None:
    problems = Problems()
    assert list(RecordReader("train.jsonl", problems).records([json.dumps(value).encode() + b"\n"]))
    assert problems.of("error") == []


def check_mapping(value: JsonObject) -> None:
    check_request({"dataset": "support-ja", "fieldMapping": value})


def check_base_model(value: JsonObject) -> None:
    sets = json.loads((ROOT / "lambda" / "customization" / "data" / "catalogue.json").read_bytes())
    kinds = {"hyperParameters": "hyperParameterSets", "limits": "limitSets"}
    named = {
        field: {kind: sets[known][name] for kind, name in as_object(value[field], field).items()}
        for field, known in kinds.items()
    }
    msgspec.convert({**value, **named}, BaseModel)


def check_settings(value: JsonObject) -> None:
    read_config(json.loads((ROOT / "cdk.json").read_bytes())["context"] | {"settings": known_settings() | value})


def known_settings() -> JsonObject:
    return as_object(json.loads((ROOT / "cdk.json").read_bytes())["context"]["settings"], "settings")


def check_parameter(value: JsonObject) -> None:
    assert value.keys() == {"arn", "until"}


# By the first key that a value has: what it is, and what it has to satisfy
READERS: dict[str, Callable[[JsonObject], None]] = {
    "customizationRegions": check_base_model,
    "dataset": check_request,
    "prompt": check_record,
    "messages": check_record,
    "input": check_record,
    "arn": check_parameter,
    **dict.fromkeys(known_settings(), check_settings),
}


def reader_of(value: JsonObject) -> Callable[[JsonObject], None] | None:
    if not value:
        return check_request
    if all(target in FORMAT_KEYS for target in value.values()):
        return check_mapping
    return next((reader for key, reader in READERS.items() if key in value), None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_json_is_valid_for_what_reads_it(page: Path) -> None:
    for value in fragments(page):
        found = as_object(value, page.name)
        reader = reader_of(found)
        assert reader, f"tests/unit/test_docs.py knows no reader for {found}: add one to READERS"
        reader(found)


def test_every_example_of_the_schema_is_a_request_that_the_schema_and_the_code_accept() -> None:
    schema = run_request_schema()
    validator = Draft202012Validator(schema)
    places: list[tuple[str, JsonObject]] = [("", as_object(schema["properties"], "properties"))]
    for name, inner in as_object(schema["$defs"], "$defs").items():
        places.append((name.lower(), as_object(as_object(inner, name)["properties"], name)))
    for parent, fields in places:
        for field, described in fields.items():
            for example in as_list(as_object(described, field).get("examples", []), field):
                value: JsonObject = {parent: {field: example}} if parent else {field: example}
                request: JsonObject = {"dataset": "support-ja", **value}
                assert not list(validator.iter_errors(request)), request
                check_request(request)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    text = BLOCK.sub("", page.read_text())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", SPAN.sub("", BLOCK.sub("", page.read_text()))):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_and_module_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = (*spans(page), *commands(page))
    assert {found[1] for span in said if (found := re.match(r"make ([a-z-]+)", span))} <= targets
    for module in (found[1] for span in said if (found := re.search(r"python -m ([\w.]+)", span))):
        assert source_of(module), module


def test_make_alone_lists_the_targets_in_the_order_in_which_a_person_needs_them() -> None:
    order = "format lint types unit infra workflow test test-all bench run validate deploy doctor destroy docs clean"
    made = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607  make is on the path
    said = re.findall(r"^  make ([a-z-]+) +\S", made.stdout, re.MULTILINE)
    assert [target for target in said if target in order.split()] == order.split()


def test_the_changelog_says_of_every_setting_what_a_change_of_it_replaces() -> None:
    table = (ROOT / "CHANGELOG.md").read_text().partition("## What any deploy replaces")[2]
    changed = {name for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in SPAN.findall(row)}
    assert {field.alias for field in DeploymentConfig.model_fields.values()} - changed == set()


def source_of(module: str) -> str:
    """Return the text of what `python -m` runs, empty where there is none."""
    places = (ROOT / folder / module.replace(".", "/") for folder in (".", "lambda"))
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__main__.py"))
    return next((file.read_text() for file in files if file.is_file()), "")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_that_is_named_exists(page: Path) -> None:
    variables = set(re.findall(r"\$[($]([A-Z]+)", (ROOT / "Makefile").read_text()))
    context = {*known_settings(), *re.findall(r"`(\w+)`", (ROOT / "stacks" / "nag.py").read_text())}
    for said in (*spans(page), *commands(page)):
        if said.startswith("make "):
            assert {*re.findall(r" ([A-Z]+)=", said)} <= variables, said
        if module := re.search(r"python -m ([\w.]+)", said):
            options = {*re.findall(r" (--[a-z-]+)", said)} - {"--help"}
            assert options <= {*re.findall(r'"(--[a-z-]+)"', source_of(module[1]))}, said
        if re.match(r"-c |npx cdk ", said):
            assert {*re.findall(r"-c '?(\w+)=", said)} - {"name"} <= context, said


def shape(page: Path) -> dict[str, object]:
    """Return what two languages of a page have in common."""
    text = page.read_text()
    return {
        "headings": [len(marks) for marks, _ in HEADING.findall(BLOCK.sub("", text))],
        "blocks": BLOCK.findall(text),
        "rows": [len(table.splitlines()) for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)],
        "points": len(re.findall(r"^- ", text, re.MULTILINE)),
        "links": sorted(set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.ja.md"}),
        "commands": {span for span in spans(page) if re.match(r"make|python|cdk|\{|\"", span)},
    }


def test_the_readme_is_the_same_in_both_languages() -> None:
    english, japanese = shape(ROOT / "README.md"), shape(ROOT / "README.ja.md")
    for part, content in english.items():
        assert japanese[part] == content, part


def speed(page: Path) -> tuple[list[str], list[list[str]]]:
    """Return when and where the figures of a README were measured, and the figures of each row of their table."""
    section = page.read_text().partition("`make bench`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .*", section, re.MULTILINE)[1:]
    taken = re.findall(r"^\d{4}-\d\d-\d\d, .+, .+, Python [\d.]+:$", section, re.MULTILINE)
    return taken, [re.findall(r"\b\d[\d.,]*", row.split("|", 2)[2]) for row in rows]


def test_both_readmes_quote_the_same_figures_with_date_and_machine() -> None:
    taken, figures = speed(ROOT / "README.md")
    assert (len(taken), len(figures)) == (1, 11)
    assert all(len(row) >= 3 for row in figures)
    assert speed(ROOT / "README.ja.md") == (taken, figures)
