"""Every script of ``examples/`` that learns: it is short, and ends better than it began."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
LEARNERS = sorted(FOLDER.glob("learn_*.py"))
#: Scripts that read with Ray Data, which may end the process in which Ray is shut down.
IN_PROCESSES_OF_THEIR_OWN = {"learn_rllib_bc"}


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
@pytest.mark.parametrize(
    "script", [each for each in LEARNERS if each.stem not in IN_PROCESSES_OF_THEIR_OWN], ids=lambda script: script.stem
)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(IN_PROCESSES_OF_THEIR_OWN))
def test_script_ends_better_in_a_process_of_its_own(name: str, tmp_path: Path, ray_folder: str) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("minari")
    started = f"address='local', num_cpus=2, include_dashboard=False, _temp_dir={ray_folder!r}"
    code = f"import ray, runpy; ray.init({started}); runpy.run_path({str(FOLDER / name)!r} + '.py')"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "TMPDIR": ray_folder}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = re.search(r"test day: (\S+) before, (\S+) after", ended.stdout)
    assert told is not None, ended.stdout[-2000:]
    assert float(told[1]) < float(told[2])
