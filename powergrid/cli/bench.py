"""The command that runs the benchmarks of a source checkout; they are not part of the installed package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import powergrid
from powergrid.cli.options import out
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown

_NO_BENCHMARKS = frozenset({"__init__", "common"})


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Benchmarks by name; all if none is given.")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Say what there is to run, and run nothing.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One scenario and few rounds of each: shows that they run.")
    ] = False,
) -> None:
    """Run benchmarks of a source checkout, each in a process of its own.

    Exit status: 0 all ran, 1 one failed. Options of one alone: python -m benchmarks.NAME --help.
    """
    folder = find_benchmarks()
    known = {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem not in _NO_BENCHMARKS}
    problems = [describe_unknown("benchmark", name, known) for name in names or () if name not in known]
    if problems:
        raise ScenarioError("powergrid bench", problems)
    chosen = list(names or known)
    if list_only:
        for name in chosen:
            out.print(f"{name:10s} {_summary(known[name])}", highlight=False, soft_wrap=True, markup=False)
        return
    failed = []
    for name in chosen:
        out.print(f"== {name}", highlight=False, markup=False)
        # In a process of its own: engines, caches in memory and threads of one would show in the next one's figures.
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
        if subprocess.run(command, cwd=folder.parent, check=False).returncode:
            failed.append(name)
    if failed:
        raise PowerGridError(f"benchmarks that failed: {', '.join(failed)}")


def find_benchmarks() -> Path:
    """Find the folder of the benchmarks, which lies beside the package in a source checkout.

    Raises:
        PowerGridError: the package is not that of a checkout.
    """
    folder = Path(powergrid.__file__).resolve().parents[1] / "benchmarks"
    # An installed package may lie beside any other's folder of that name.
    if not (folder / "common.py").is_file():
        raise PowerGridError(
            f"no benchmarks in {folder}: they come with the source, not with the installed package; in a checkout run "
            "pip install -e . and powergrid bench"
        )
    return folder


def _summary(file: Path) -> str:
    """Return the first line of a benchmark's docstring."""
    # Read, not imported: some import Ray and torch, which takes seconds.
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
