"""Every script of ``examples/`` that learns: it is short, and ends better than it began."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
LEARNERS = sorted(FOLDER.glob("learn_*.py"))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _libraries(script: Path) -> list[str]:
    """Return what a script imports, by the name of the whole package."""
    nodes = ast.parse(script.read_text(encoding="utf-8")).body
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return [name.partition(".")[0] for name in (*plain, *named)]


@pytest.mark.parametrize("script", LEARNERS, ids=lambda script: script.stem)
def test_script_has_at_most_25_lines(script: Path) -> None:
    """Beside its docstring, imports, blank lines and comments."""
    text = script.read_text(encoding="utf-8")
    nodes = ast.parse(text).body
    nodes += [node.body[0] for node in nodes if isinstance(node, ast.FunctionDef)]
    told = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node)]
    aside = {i for node in told for i in range(node.lineno, (node.end_lineno or 0) + 1)}
    lines = [line for i, line in enumerate(text.splitlines(), 1) if i not in aside and line.strip()]
    assert len([line for line in lines if not line.lstrip().startswith("#")]) <= 25


@pytest.mark.slow
@pytest.mark.parametrize("script", LEARNERS, ids=lambda script: script.stem)
def test_script_ends_better_than_it_began(
    script: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for library in _libraries(script):
        pytest.importorskip(library)
    if script.stem.startswith("learn_rllib"):
        request.getfixturevalue("ray_session")
        monkeypatch.setattr("ray.shutdown", lambda: None)  # other tests go on with it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [script.name])
    told = runpy.run_path(str(script), run_name="__main__")
    assert told["before"] < told["after"]
    assert f"{told['before']:.2f} before, {told['after']:.2f} after" in capsys.readouterr().out
