"""What a scenario file says that only who calls may decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from powergrid.cli import main
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario, pack_env_config

_MASTER = """New Circuit.small basekv=12.47
New Line.l1 bus1=sourcebus bus2=b length=1 units=km R1=0.3 X1=0.4 normamps=100
New Load.a bus1=b kV=12.47 kW=200 kvar=100
New Capacitor.k bus1=b kV=12.47 kvar=100
Set VoltageBases=[12.47]
CalcVoltageBases
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with a feeder of its own and a scenario on it."""
    (tmp_path / "work" / "grids" / "net").mkdir(parents=True)
    (tmp_path / "work" / "grids" / "net" / "Master.dss").write_text(_MASTER)
    return tmp_path / "work"


def write(home: Path, *lines: str, name: str = "mine.yaml") -> Path:
    file = home / name
    file.write_text("\n".join(["feeder: grids/net/Master.dss", *lines]))
    return file


@pytest.mark.parametrize("written", ["true", "yes", "'yes'", "1"])
def test_file_cannot_trust_its_own_feeder_and_the_error_says_who_can(home: Path, written: str) -> None:
    file = write(home, f"trust: {written}")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file)
    (problem,) = caught.value.details
    assert (problem.code, problem.where) == ("not-for-a-file", "trust")
    for remedy in ("--trust", "{'trust': True}", f"POWERGRID_TRUST={home}"):
        assert remedy in problem.remedy


def test_trust_that_the_caller_gives_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(home, "trust: true")
    assert load_scenario(file, {"trust": True}).trust
    assert not load_scenario(file, {"trust": False}).trust
    assert load_scenario({"feeder": str(home / "grids" / "net" / "Master.dss"), "trust": True}).trust
    env = NetworkedGridEnv({"env_name": str(file), "trust": True})
    env.close()
    monkeypatch.setenv("POWERGRID_TRUST", str(home / "grids"))
    with pytest.raises(ScenarioError):
        load_scenario(file)
    monkeypatch.setenv("POWERGRID_TRUST", str(home))
    assert load_scenario(file).trust


def test_trust_on_the_command_line_is_the_callers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(home, "trust: true")
    with pytest.raises(SystemExit) as ended:
        main(["describe", str(file)])
    assert ended.value.code == 1
    assert "ScenarioError" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["describe", str(file), "--trust"])
    assert ended.value.code == 0


@pytest.mark.parametrize("root", [".", "grids", "grids/net", ".."])
def test_model_root_near_the_file_is_the_files_to_name(home: Path, root: str) -> None:
    scenario = load_scenario(write(home, f"model_root: '{root}'"))
    assert Path(str(scenario.model_root)).resolve() == (home / root).resolve()


def test_model_root_far_from_the_file_is_only_the_callers_to_name(home: Path) -> None:
    file = write(home, "model_root: /")
    with pytest.raises(ScenarioError, match=r"model_root: '/' .*--set model_root=/"):
        load_scenario(file)
    assert load_scenario(file, {"model_root": "/"}).model_root == "/"
    for root in ("~", "/tmp", "/etc", "/usr/share"):
        with pytest.raises(ScenarioError, match="model_root"):
            load_scenario(write(home, f"model_root: '{root}'"))


def test_several_problems_come_at_once(home: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(write(home, "trust: true", "model_root: /"))
    assert [problem.where for problem in caught.value.details] == ["trust", "model_root"]


def test_packing_takes_trust_along_only_from_who_packs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(home, "trust: true")
    with pytest.raises(ScenarioError, match="trust"):
        pack_env_config(file)
    monkeypatch.setenv("POWERGRID_TRUST", str(home))
    packed = pack_env_config(file)
    monkeypatch.delenv("POWERGRID_TRUST")  # as on another machine
    env = NetworkedGridEnv(packed)
    env.close()


def test_run_of_somebody_else_does_not_trust_its_feeder(home: Path, tmp_path: Path) -> None:
    from powergrid.scenario.claims import settle_claims

    config = json.loads(json.dumps({"env_name": "ieee13_mg", "scenario": {"trust": True}, "model_root": "/"}))
    with pytest.raises(ScenarioError) as caught:
        settle_claims(tmp_path / "run" / "run.json", config)
    assert {problem.where for problem in caught.value.details} == {"trust", "model_root"}
