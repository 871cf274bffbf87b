"""Every script of ``examples/`` that learns: it is short, and ends better than it began."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
LEARNERS = sorted(FOLDER.glob("learn_*.py"))
#: Libraries that CI does not install, by script.
BY_HAND = {"learn_benchmarl": "benchmarl"}


@pytest.mark.parametrize("script", LEARNERS, ids=lambda script: script.stem)
def test_script_has_at_most_25_lines(script: Path) -> None:
    """Without its docstring, blank lines and comments."""
    text = script.read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0].end_lineno or 0
    lines = [line for line in text.splitlines()[docstring:] if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 25


@pytest.mark.slow
@pytest.mark.parametrize("script", LEARNERS, ids=lambda script: script.stem)
def test_script_ends_better_than_it_began(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem in BY_HAND:
        pytest.importorskip(BY_HAND[script.stem])
    monkeypatch.chdir(tmp_path)
    told = runpy.run_path(str(script), run_name="__main__")
    assert told["before"] < told["after"] < 0.0
    assert f"{told['before']:.2f} before, {told['after']:.2f} after" in capsys.readouterr().out
