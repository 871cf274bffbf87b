from __future__ import annotations

import json
import pickle
import shutil
import stat
from pathlib import Path

import pytest

from powergrid.errors import PowerGridError
from powergrid.training import RunResult, load_policy, resume
from powergrid.training.runs.checkpoints import FOLDER_VARIABLE, KEY_FILE, is_ours, sign

CLAIMS = {"env": "a:b", "env_config": {"x": (1, 2), "where": Path("here")}}


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "state"))
    folder = tmp_path / "checkpoint"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.pkl").write_bytes(b"one")
    (folder / "inner" / "b.pkl").write_bytes(b"two")
    assert sign(folder, CLAIMS)
    return folder


def test_signed_checkpoint_is_ours_wherever_it_lies(checkpoint: Path, tmp_path: Path) -> None:
    assert is_ours(checkpoint, json.loads(json.dumps(CLAIMS, default=str)))
    checkpoint.rename(tmp_path / "elsewhere")
    assert is_ours(tmp_path / "elsewhere", CLAIMS)


@pytest.mark.parametrize("change", ["content", "name", "new file", "missing file", "link", "no signature", "claims"])
def test_changed_checkpoint_is_not_ours(checkpoint: Path, change: str) -> None:
    first = checkpoint / "a.pkl"
    if change == "content":
        first.write_bytes(b"0ne")
    elif change == "name":
        first.rename(checkpoint / "c.pkl")
    elif change == "new file":
        (checkpoint / "inner" / "c.pkl").write_bytes(b"")
    elif change == "missing file":
        first.unlink()
    elif change == "link":
        shutil.move(first, checkpoint.parent / "a.pkl")
        first.symlink_to(checkpoint.parent / "a.pkl")
    elif change == "no signature":
        (checkpoint / "signature.json").unlink()
    assert not is_ours(checkpoint, {**CLAIMS, "env": "os:system"} if change == "claims" else CLAIMS)


def test_key_is_readable_by_its_owner_alone_and_stays(checkpoint: Path, tmp_path: Path) -> None:
    key = tmp_path / "state" / KEY_FILE
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sign(checkpoint)
    assert key.read_bytes() == before
    assert [file.name for file in key.parent.iterdir()] == [KEY_FILE]


def test_checkpoint_is_written_where_no_key_can_be_kept(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "/proc/nowhere")
    assert not sign(checkpoint)
    assert not is_ours(checkpoint)


def test_resume_of_a_run_from_elsewhere_needs_trust_and_runs_none_of_its_code_before(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    evil = tmp_path / "evil_module.py"
    evil.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "env": "evil_module:Env"}))
    with pytest.raises(PowerGridError, match=r"--trust-checkpoint.*powergrid\.load_policy"):
        resume(run, iterations=4)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(PowerGridError, match="cannot be imported"):
        resume(run, iterations=4, trust=True)
    assert (tmp_path / "ran").exists()


def test_resume_of_an_unsigned_run_goes_on_with_trust_and_signs(trained: RunResult, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    for signature in run.rglob("signature.json"):
        signature.unlink()
    with pytest.raises(PowerGridError, match="not written by this user"):
        resume(run, iterations=4)
    assert load_policy(run)
    assert resume(run, iterations=4, trust=True).iterations == 4
    assert resume(run, iterations=5).iterations == 5


def test_resume_of_a_damaged_checkpoint_is_a_typed_error(ray_session: None, tmp_path: Path) -> None:
    run = shutil.copytree(Path(__file__).parent / "data" / "run_010", tmp_path / "run")
    (weights,) = run.glob("checkpoints/*/learner_group/learner/rl_module/*/module_state.pkl")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PowerGridError, match="cannot be resumed from"):
        resume(run, iterations=2, trust=True)
    state = pickle.loads(whole)
    first = next(iter(state))
    state[first] = state[first] * float("nan")
    weights.write_bytes(pickle.dumps(state))
    with pytest.raises(PowerGridError, match="are not finite"):
        resume(run, iterations=2, trust=True)
