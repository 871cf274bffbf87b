from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from powergrid.cli import main
from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError
from powergrid.training import RunResult, export_policy, export_run, load_policy, train
from powergrid.training.policies.inference import ACTIVATIONS, Network, ObservationFilter, Policy
from tests.training.conftest import TINY
from tests.training.policies.test_inference import ACTIONS, assert_same
from tests.training.toy import ToyGridEnv

AGENTS = ("MG1", "MG2")


def run_file(file: Path, observations: np.ndarray, names: list[str], **beside: np.ndarray) -> dict[str, np.ndarray]:
    """Run an exported file the way another program would."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, {"observation": observations, **beside}), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = torch.jit.load(str(file))(*map(torch.from_numpy, (observations, *beside.values())))
    return {n: t.numpy() for n, t in zip(names, given if isinstance(given, tuple) else (given,), strict=True)}


def assert_acts_like(policy: Policy, folder: Path, observations: np.ndarray) -> None:
    interface = json.loads((folder / "interface.json").read_text())
    for agent in AGENTS:
        told = interface["agents"][agent]
        names = [output["name"] for output in told["outputs"]]
        given = run_file(folder / told["file"], observations, names)
        expected = policy.act_batch(agent, observations)
        assert_same(given if isinstance(expected, dict) else given["action"], expected)
        for output in told["outputs"]:
            assert given[output["name"]].dtype == output["dtype"]
            assert list(given[output["name"]].shape[1:]) == output["shape"][1:]
        for i in range(len(observations)):
            row = {name: values[i] for name, values in given.items()}
            assert policy.action_spaces[agent].contains(row if isinstance(expected, dict) else row["action"])


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize("actions", ACTIONS)
def test_exported_policy_acts_like_the_original(build, tmp_path: Path, actions: str, format: str) -> None:
    algorithm = build({"actions": actions}, policies="independent")
    algorithm.train()
    export_policy(algorithm, tmp_path / "policy")
    export_run(tmp_path / "policy", tmp_path / "out", format=format)
    observations = np.random.default_rng(0).uniform(-5, 5, (50, 6)).astype(np.float32)
    assert_acts_like(load_policy(tmp_path / "policy"), tmp_path / "out", observations)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_exported_policy_has_every_activation_filter_and_bound(tmp_path: Path, activation: str, format: str) -> None:
    rng = np.random.default_rng(1)
    layers = [(8, 6), (8, 8), (3, 8)]
    network = Network(
        tuple(rng.normal(size=shape).astype(np.float32) for shape in layers),
        tuple(rng.normal(size=shape[0]).astype(np.float32) for shape in layers),
        (activation, activation, "linear"),
    )
    space = gym.spaces.Box(np.float32([-4, 0, 1]), np.float32([1, 2, 9]))
    seen = ObservationFilter(rng.normal(size=6), rng.uniform(0.5, 2, 6), 1.5)
    policy = Policy(
        {"p": network}, dict.fromkeys(AGENTS, "p"), dict.fromkeys(AGENTS, space), normalize_actions=False,
        clip_actions=True, filters={"MG2": seen},
    )  # fmt: skip
    policy.save(tmp_path / "policy")
    export_run(tmp_path / "policy", tmp_path / "out", format=format)
    observations = rng.uniform(-5, 5, (40, 6)).astype(np.float32)
    assert_acts_like(policy, tmp_path / "out", observations)
    assert not np.allclose(policy.act_batch("MG1", observations), policy.act_batch("MG2", observations))


@pytest.fixture(scope="module")
def grid_run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    settings = {**TINY, "num_envs_per_env_runner": 2, "train_batch_size": 192, "iterations": 1, "validate_every": 0}
    return train({"env_name": "ieee13_mg"}, settings, out_dir=tmp_path_factory.mktemp("runs"), name="grid")


def test_export_command_documents_every_input_and_output(
    grid_run: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_exits(["export", str(grid_run.folder), "--out", str(tmp_path)])
    printed = capsys.readouterr().out.split()
    assert [Path(line).name for line in printed] == ["MG1.onnx", "MG2.onnx", "interface.json"]
    interface = json.loads((tmp_path / "interface.json").read_text())
    assert (interface["scenario"], interface["checkpoint"]) == ("ieee13_mg", "iteration_000001")
    env = NetworkedGridEnv({"env_name": "ieee13_mg", "proposals": "rule_based"})  # as the run saw it
    described = env.describe()
    for agent in env.possible_agents:
        told = interface["agents"][agent]
        seen = described.observations[described.observations.agent == agent]
        assert len(told["observations"]) == told["input"]["shape"][1] == env.observation_spaces[agent].shape[0]
        assert [row["name"] for row in told["observations"]] == list(seen.name)
        assert [row["unit"] for row in told["observations"]] == list(seen.unit)
        assert [row["high"] for row in told["observations"]] == pytest.approx(list(seen.high), rel=1e-6)
        acts = described.actions[described.actions.agent == agent]
        assert [(row["output"], row["name"], row["unit"]) for row in told["actions"]] == [
            ("action", *pair) for pair in zip(acts.name, acts.unit, strict=True)
        ]
        assert [row["low"] for row in told["actions"]] == pytest.approx(list(acts.low), rel=1e-6)
    observations, _ = env.reset(seed=4)
    env.close()
    policy = load_policy(grid_run.folder)
    for agent, observed in observations.items():
        given = run_file(tmp_path / f"{agent}.onnx", observed[None], ["action"])["action"][0]
        np.testing.assert_allclose(given, policy.act({agent: observed})[agent], rtol=1e-5, atol=1e-6)


def main_exits(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_export_of_a_run_from_elsewhere_imports_nothing_that_it_names(trained: RunResult, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "env": "no_such_module:Env"}))
    export_run(run, tmp_path / "out")
    with pytest.raises(PowerGridError, match="cannot be imported"):
        export_run(run, tmp_path / "out", trust=True)
    assert manifest["env"].endswith(ToyGridEnv.__name__)


def test_export_with_an_unknown_format_says_which_there_are(trained: RunResult, tmp_path: Path) -> None:
    with pytest.raises(PowerGridError, match=r"unknown format 'onxx'.*onnx"):
        export_run(trained.folder, tmp_path, format="onxx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_run_from_before_a_setting_was_known_is_another_seed_of_the_same_training(
    grid_run: RunResult, tmp_path: Path
) -> None:
    shutil.copytree(grid_run.folder, tmp_path / "run", symlinks=True)
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    del told["settings"]["gru_width"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    assert load_policy(tmp_path / "run").trained_as == load_policy(grid_run.folder).trained_as
    told["settings"]["lr"] *= 2.0
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    assert load_policy(tmp_path / "run").trained_as != load_policy(grid_run.folder).trained_as
