from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import powergrid
from powergrid.cli import main, parse_overrides
from powergrid.errors import ScenarioError


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return int(raised.value.code or 0)


def test_version_is_shown_without_importing_ray_or_torch() -> None:
    code = (
        "import sys\n"
        "from powergrid.cli import main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "assert not {'ray', 'torch', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"powergrid {powergrid.__version__}"


def test_overrides_become_nested_keys_with_yaml_values() -> None:
    given = ["rewards.voltage=2", "mode=centralized", "rewards.cost=[1, 2.5]", "lr=1e-4", "seed=null", "note=a=b"]
    assert parse_overrides(given) == {
        "rewards": {"voltage": 2, "cost": [1, 2.5]},
        "mode": "centralized",
        "lr": 1e-4,
        "seed": None,
        "note": "a=b",
    }


def test_wrong_overrides_are_told_all_at_once() -> None:
    with pytest.raises(ScenarioError) as raised:
        parse_overrides(["voltage", "a=1", "a.b=2", "c=[1", ".d=1"])
    assert len(raised.value.problems) == 4
    assert "'voltage' is not KEY=VALUE, for example reward.scale=0.001" in str(raised.value)
    assert "'a.b=2' goes below a key that another item gave a value" in str(raised.value)


def test_library_error_is_one_block_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "ieee13_mg", "--setting", "learning_rat=1", "--setting", "gamma=3") == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("ScenarioError: training settings has 2 problems\n")
    assert "unknown setting 'learning_rat'" in shown.err
    assert "Traceback" not in shown.err + shown.out


def test_library_error_with_debug_is_raised() -> None:
    with pytest.raises(ScenarioError):
        main(["train", "ieee13_mg", "--debug", "--setting", "gamma=3"])


@pytest.mark.parametrize("arguments", [["train"], ["train", "ieee13_mg", "--resume", "runs/x"], ["trian"]])
def test_wrong_use_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*arguments) == 2
    assert "Usage: powergrid" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "list", "describe"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(command, "--help") == 0
    assert f"powergrid {command}" in capsys.readouterr().out


def test_resume_of_a_missing_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "--resume", "no/such/run") == 1
    assert "no such run or checkpoint" in capsys.readouterr().err


def test_list_names_scenarios_and_feeders(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("list") == 0
    shown = capsys.readouterr().out
    assert "ieee13_mg" in shown
    assert "ieee13" in shown.split("feeders:")[1]
    assert "Two solar-rich microgrids" in shown
    assert "IEEE 34-node test feeder: 24.9 kV" in shown


def test_describe_shows_every_action_and_observation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("describe", "ieee13_mg", "--full") == 0
    shown = capsys.readouterr().out
    for expected in ("ess_1.p_kw", "gen_2.p_kw", "MG1", "observations", "rewards", "voltage_violations"):
        assert expected in shown


def test_describe_is_short_unless_all_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("describe", "ieee13_mg") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("MG1", "ess_1", "voltage_violation_pu", "as played"))
    assert not any(word in shown for word in ("world.sun_pu", "curtailed_kwh", "network_v_min_pu"))


def test_describe_of_an_unknown_scenario_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("describe", "ieee13_mgg") == 1
    assert "ieee13_mg" in capsys.readouterr().err


def test_describe_draws_a_scenario_at_the_hour_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "one.svg", tmp_path / "two.PNG"
    at = ("--day", "5", "--step", "41")
    assert run_cli("describe", "ieee13_mg", "--draw", str(files[0]), "--profile", str(files[1]), *at) == 0
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert "ieee13_mg, 2018-01-06 10:00 (day 5, step 41 without control)" in files[0].read_text(encoding="utf-8")
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_describe_draws_a_bare_feeder_by_name_or_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master = tmp_path / "mine.dss"
    master.write_text(
        "New Circuit.x basekv=12.47\nNew Line.a bus1=sourcebus bus2=b\nSet VoltageBases=[12.47]\nCalcVoltageBases\n"
    )
    for reference in ("ieee37", str(master)):
        file = tmp_path / f"{Path(reference).stem}.svg"
        assert run_cli("describe", reference, "--draw", str(file)) == 0
        assert f"{Path(reference).stem}, as the model stands" in file.read_text(encoding="utf-8")
    capsys.readouterr()


def test_describe_refuses_a_drawing_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("describe", "ieee13_mg", "--draw", str(tmp_path / "a.jpg")) == 1
    assert "ends in .png or .svg" in capsys.readouterr().err
    assert run_cli("describe", "ieee13_mg", "--draw", str(tmp_path / "a.png"), "--step", "97") == 1
    assert "allowed: 0..96" in capsys.readouterr().err
    assert run_cli("describe", "ieee13_mgg", "--draw", str(tmp_path / "a.png")) == 1
    assert "did you mean 'ieee13_mg'" in capsys.readouterr().err
    assert run_cli("describe", "ieee13_mg", "--day", "4") == 2
    assert "--draw FILE" in capsys.readouterr().err
    assert run_cli("describe", "ieee13", "--draw", str(tmp_path / "a.png"), "--day", "4") == 2
    assert "as its model stands" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_describe_of_a_feeder_tells_what_was_left_and_writes_a_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("describe", "ieee13", "--agents", "per_phase") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "three_phase" in told
    assert "Line.671692 stay as they are" in told
    file = tmp_path / "mine.yaml"
    assert run_cli("describe", "ieee13", "--agents", "single", "--add-der", "0.3", "--write", str(file)) == 0
    assert capsys.readouterr().out.strip() == str(file)
    scenario = powergrid.load_scenario(file)
    assert scenario == powergrid.load_scenario("ieee13", {"agents": "single", "add_der": {"penetration": 0.3}})
    assert run_cli("evaluate", str(file), "--policy", "no_control", "--days", "1") == 0
    assert "no_control" in capsys.readouterr().out


def test_describe_writes_no_scenario_whose_profiles_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    assert run_cli("describe", "ieee13", "--set", f"profiles.source={tmp_path}/meters", "--write", str(file)) == 1
    assert "no such file" in " ".join(capsys.readouterr().err.split())
    assert not file.exists()


def test_describe_keeps_a_scenario_that_was_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    assert [run_cli("describe", "ieee13", "--write", str(file)) for _ in range(2)] == [0, 0]
    edited = file.read_text(encoding="utf-8") + "# ours\n"
    file.write_text(edited, encoding="utf-8")
    capsys.readouterr()
    assert run_cli("describe", "ieee13", "--write", str(file)) == 1
    assert "name another file" in " ".join(capsys.readouterr().err.split())
    assert file.read_text(encoding="utf-8") == edited


def test_describe_draws_and_writes_when_asked_for_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing, file = tmp_path / "a.svg", tmp_path / "mine.yaml"
    assert run_cli("describe", "ieee13", "--draw", str(drawing), "--write", str(file)) == 0
    assert capsys.readouterr().out.split() == [str(drawing), str(file)]
    assert drawing.exists()
    assert powergrid.load_scenario(file) == powergrid.load_scenario("ieee13")


def test_describe_of_a_feeder_without_devices_says_what_to_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    master = tmp_path / "mine.dss"
    master.write_text(
        "New Circuit.x basekv=12.47\nNew Line.a bus1=sourcebus bus2=b\nNew Load.l bus1=b kv=12.47 kw=500\n"
        "Set VoltageBases=[12.47]\nCalcVoltageBases\n"
    )
    assert run_cli("describe", str(master)) == 1
    assert "--add-der 0.3" in capsys.readouterr().err
    assert run_cli("describe", str(master), "--add-der", "0.3") == 0
    assert "pv_b" in capsys.readouterr().out
    assert run_cli("describe", str(master), "--add-der", "0.3", "--draw", str(tmp_path / "a.svg")) == 0


def test_set_of_an_unknown_key_gives_the_scenarios_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("describe", "ieee13_mg", "--set", "mod=centralized") == 1
    assert "did you mean 'mode'" in capsys.readouterr().err


@pytest.mark.slow
def test_train_then_resume_on_a_feeder_with_a_quiet_console(tmp_path: Path) -> None:
    settings = ["train_batch_size=192", "minibatch_size=96", "num_envs_per_env_runner=2", "validation_episodes=1"]
    options = [item for setting in settings for item in ("--setting", setting)]
    command = [sys.executable, "-m", "powergrid.cli", "train"]
    for arguments, told, days in (
        (["ieee13_mg", "--iterations", "1", "--out", str(tmp_path), "--name", "run"], "iteration 1/1", "1"),
        (["--resume", str(tmp_path / "run"), "--iterations", "2"], "iteration 2/2", "0"),
    ):
        done = subprocess.run(
            [*command, *arguments, "--workers", "0", "--test-days", days, *options],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0] == "Starting Ray ..."
        assert lines[1].startswith(told)
        assert lines[2].startswith("Finished after")
        assert any("rule_based" in line for line in lines[3:]) == (days == "1")
    assert (tmp_path / "run" / "test" / "evaluation.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "algorithm", "options"),
    [
        ("ieee13_mg", "mappo", ["train_batch_size=192", "minibatch_size=96"]),
        ("ieee13_mg", "sac", ["steps_per_iteration=192", "learning_starts=64", "updates_per_step=0.05"]),
        ("ieee13_voltvar", "dqn", ["steps_per_iteration=192", "learning_starts=64", "updates_per_step=0.05"]),
    ],
)
def test_every_algorithm_trains_resumes_and_is_compared_on_a_feeder(
    ray_session: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    scenario: str,
    algorithm: str,
    options: list[str],
) -> None:
    common = ["num_envs_per_env_runner=2", "validation_episodes=1", *options]
    settings = [item for setting in common for item in ("--setting", setting)]
    agents = ["--agents", "per_device", "--setting", "share_unequal=true"] if algorithm == "dqn" else []
    start = [scenario, "--algorithm", algorithm, *agents, "--iterations", "1", "--out", str(tmp_path), "--name", "run"]
    for arguments, days in ((start, 1), (["--resume", str(tmp_path / "run"), "--iterations", "2"], 0)):
        assert run_cli("train", *arguments, "--workers", "0", "--test-days", str(days), *settings) == 0
        assert capfd.readouterr().err == ""
    assert "no_control" in (tmp_path / "run" / "test" / "evaluation.csv").read_text()


@pytest.mark.parametrize("command", ["evaluate", "replay", "report", "study", "stress", "hosting"])
def test_folder_that_cannot_be_is_told_before_anything_is_played(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "there.csv"
    file.write_text("kept", encoding="utf-8")
    players = ["ieee13_mg", "native"] if command in ("evaluate", "hosting") else ["native", "ieee13_mg"]
    assert run_cli(command, *players, "--out", str(file)) == 1
    assert "is a file, and a folder is meant" in " ".join(capsys.readouterr().err.split())
    assert file.read_text(encoding="utf-8") == "kept"


def test_setting_among_keys_of_the_scenario_is_told_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "ieee13_mg", "--set", "lr=0.1") == 1
    assert "'lr' is a setting of the training: --setting lr=0.1" in " ".join(capsys.readouterr().err.split())


def test_file_with_a_wrong_ending_is_told_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mill.yaml").write_text("", encoding="utf-8")
    assert run_cli("evaluate", str(tmp_path / "mill.yam"), "--policy", "native") == 1
    assert f"(didyoumean'{tmp_path}/mill.yaml'?)" in "".join(capsys.readouterr().err.split())


def test_run_that_is_not_there_is_told_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine-1" / "checkpoints").mkdir(parents=True)
    for words in (
        ["report", str(tmp_path / "mine-2")],
        ["evaluate", "ieee13_mg", "--policy", str(tmp_path / "mine-2")],
    ):
        assert run_cli(*words) == 1
        told = "".join(capsys.readouterr().err.split())
        assert f"nosuchrunorcheckpoint(didyoumean{tmp_path}/mine-1?)" in told


def test_evaluate_of_an_unknown_policy_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", "ieee13_mg", "--policy", "no_controll", "--policy", "runs/none") == 1
    assert "runs/none: no such run or checkpoint" in capsys.readouterr().err
    assert run_cli("evaluate", "ieee13_mg", "--policy", "no_controll") == 1
    assert "did you mean 'no_control'" in capsys.readouterr().err


def test_evaluate_writes_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", "ieee13_mg", "--policy", "no_control", "--days", "1", "--out", str(tmp_path)) == 0
    assert "no_control" in capsys.readouterr().out
    assert {file.suffix for file in tmp_path.iterdir()} == {".csv", ".json"}
