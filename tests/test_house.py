"""The house: what stands on the top level, which way its imports run, how long a file may be. Wings: pyproject.toml."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import config
from training.families import Family

ROOT = Path(config.__file__).parent
WINGS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
PRODUCT = [path for folder in (".", *WINGS) for path in sorted((ROOT / folder).glob("*.py"))]
FAMILIES = sorted({kind.MODULE for kind in config.MODELS.values()})
ABOVE_FAMILIES = {"evaluation", "challenge", "deployment"}


def imported(path: Path) -> set[str]:
    """Modules and wings of ours that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names & {*WINGS, *MODULES}


def test_common_stands_below_all():
    assert imported(ROOT / "common.py") == set()


def test_the_settings_stand_on_storage_and_audio():
    assert imported(ROOT / "config.py") <= {"common", "storage", "years", "audio"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_family_knows_neither_another_nor_what_stands_above(name):
    assert not imported(ROOT / f"{name}.py") & {*FAMILIES, *ABOVE_FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_family_has_the_functions_of_one(name):
    module = importlib.import_module(name)
    for function, declared in inspect.getmembers(Family, inspect.isfunction):
        if not function.startswith("_"):
            expected = [one for one in inspect.signature(declared).parameters if one != "self"]
            assert list(inspect.signature(getattr(module, function)).parameters) == expected, function


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_can_be_read_at_a_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, functions) and lines_of(node) > 50]
    assert long == []


def lines_of(node: ast.FunctionDef) -> int:
    """Its docstring counts, its decorators do not."""
    return node.end_lineno - node.lineno + 1
