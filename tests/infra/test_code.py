"""The code of the functions: the package, with its pages compiled."""

import shutil
from pathlib import Path

import pytest

from stacks.code import PagesNotCompiledError, compile_pages
from tests.infra.synthesis import ROOT

PACKAGE = ROOT / "lambda" / "customization"


def test_compiled_pages_have_the_same_bytes_whoever_compiles_them_and_are_compiled_once(tmp_path: Path) -> None:
    first, second = (compile_pages(cache=tmp_path / name) for name in ("first", "second"))
    content = {path.name: path.read_bytes() for path in first.iterdir()}
    assert len(content) == len(list((PACKAGE / "templates").iterdir()))
    assert content == {path.name: path.read_bytes() for path in second.iterdir()}
    (first / "mark").touch()
    assert (compile_pages(cache=tmp_path / "first") / "mark").exists()


def test_a_template_with_a_mistake_is_refused_with_its_name_and_line(tmp_path: Path) -> None:
    package = tmp_path / "customization"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "templates" / "data.html.j2").open("a") as template:
        template.write("{% if %}")
    with pytest.raises(PagesNotCompiledError, match=r'data\.html\.j2", line \d+'):
        compile_pages(package=package, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
