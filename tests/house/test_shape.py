"""Sizes and names that keep the house readable."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import tnet_geo

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted((PROJECT / "tnet_geo").rglob("*.py"))
PIPELINES = sorted((PROJECT / "pipelines").glob("*.py"))
ROOMS = sorted(init.parent.name for init in (PROJECT / "tnet_geo").glob("*/__init__.py"))
SAY_NOTHING = {"base", "common", "core", "helpers", "manager", "misc", "utils"}
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("module", [*MODULES, *sorted((PROJECT / "tests").rglob("*.py"))], ids=name_of)
def test_a_module_has_at_most_400_lines(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for_and_its_name_says_something(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert module.stem not in SAY_NOTHING


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_function_has_at_most_40_lines_of_code(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [node.name for node in functions if lines_of_code(node) > 40]


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body and function.end_lineno else 0


@pytest.mark.parametrize("pipeline", PIPELINES, ids=name_of)
def test_a_pipeline_has_no_loops_no_classes_and_under_40_lines(pipeline: Path) -> None:
    text = pipeline.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, (*LOOPS, ast.ClassDef))]


@pytest.mark.parametrize("verb", sorted((PROJECT / "tnet_geo/cli").glob("*.py")), ids=name_of)
def test_a_file_of_verbs_computes_nothing(verb: Path) -> None:
    heavy = {"numpy", "torch", "rasterio", "pyarrow", "cv2"}
    nodes = list(ast.walk(ast.parse(verb.read_text(encoding="utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & heavy


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_names_what_it_offers_completely_and_in_order(room: str) -> None:
    module = importlib.import_module(f"tnet_geo.{room}")
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    # What is imported from below and not offered would be public by accident.
    tree = ast.parse((PROJECT / "tnet_geo" / room / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tnet_geo")
        for alias in node.names
    }
    assert imported <= set(module.__all__)


def test_the_package_hands_on_at_most_ten_names_sorted_and_each_once() -> None:
    assert tnet_geo.__all__ == sorted(set(tnet_geo.__all__))
    assert len(tnet_geo.__all__) <= 10
    assert set(dir(tnet_geo)) == set(tnet_geo.__all__)


@pytest.mark.parametrize("name", tnet_geo.__all__)
def test_a_name_that_is_handed_on_is_there_and_documented(name: str) -> None:
    thing = getattr(tnet_geo, name)
    assert thing == tnet_geo.__version__ or thing.__doc__


def test_a_name_that_is_not_handed_on_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tiles'"):
        tnet_geo.Tiles  # noqa: B018 - the attempt is the test
