"""Names of Ray and RLlib that are not documented: each is listed with why, is still there, and no other one is used."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import ray

import powergrid.training
from powergrid.training.rllib import PRIVATE_NAMES, RAY_VERSION

TRAINING = Path(powergrid.training.__file__).parent
LISTED = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined_in(tree: ast.AST) -> set[str]:
    """Return the private names that a file gives to something itself."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return {name for name in found if is_private(name)}


def sources_of(owner: str) -> list[str]:
    """Return the source of a function, or of a class and of all that it derives from."""
    module, _, name = owner.rpartition(".")
    thing = getattr(import_module(module), name)
    kinds = inspect.getmro(thing) if inspect.isclass(thing) else [thing]
    return [textwrap.dedent(inspect.getsource(each)) for each in kinds if each.__module__.startswith("ray")]


def names_in(tree: ast.AST) -> set[str]:
    """Return the private names that a piece of source reads, sets, defines, passes or imports from Ray."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.keyword):
            found.add(node.arg or "")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray"):
            found |= {alias.name for alias in node.names}
    return {name for name in found if is_private(name)}


def overridden(module: Any) -> set[str]:
    """Return the private names that classes derived from RLlib's share with what they derive from."""
    shared: set[str] = set()
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            bases = [each for each in inspect.getmro(kind) if each.__module__.startswith("ray")]
            theirs = [defined_in(ast.parse(textwrap.dedent(inspect.getsource(each)))) for each in bases]
            shared |= names_in(ast.parse(inspect.getsource(kind))) & set().union(*theirs)
    return shared


@pytest.mark.parametrize(("owner", "name"), LISTED, ids=[f"{o.rsplit('.', 1)[-1]}.{n}" for o, n in LISTED])
def test_private_name_is_still_there(owner: str, name: str) -> None:
    assert any(re.search(rf"\b{name}\b", source) for source in sources_of(owner))


def test_private_names_are_few_and_of_the_installed_ray() -> None:
    assert len(LISTED) <= 15
    assert ray.__version__.startswith(RAY_VERSION)
    assert all(why for names in PRIVATE_NAMES.values() for why in names.values())


def test_no_other_private_name_is_used() -> None:
    listed = {name for _, name in LISTED}
    used: dict[str, set[str]] = {}
    for file in sorted(TRAINING.rglob("*.py")):
        tree = ast.parse(file.read_text())
        passed = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and is_private(node.arg or "")}
        foreign = names_in(tree) - defined_in(tree) | passed
        module = ["powergrid", "training", *file.relative_to(TRAINING).with_suffix("").parts]
        if "rllib" in module:
            foreign |= overridden(import_module(".".join(module).removesuffix(".__init__")))
        for name in foreign:
            used.setdefault(name, set()).add(file.name)
    assert {name: files for name, files in used.items() if name not in listed} == {}
    assert listed == set(used)
