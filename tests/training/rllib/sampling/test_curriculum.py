"""Ranges that follow a training's iterations: as a setting, by a function, and by a callback on RLlib's own classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.training import PPOConfig, algorithm_config, resume, set_ranges, train
from powergrid.training.rllib.sampling import curriculum
from powergrid.training.runs.checkpoints import find_checkpoint, is_ours, trust_claims
from powergrid.training.runs.session import RaySession, build_algorithm
from powergrid.training.runs.settings import make_settings
from tests.training.conftest import TINY
from tests.training.toy import ToyGridEnv

SCENARIO = {"env_name": "ieee13_mg", "load_scale": {"uniform": [0.8, 0.9]}}
SMALL = {**TINY, "num_envs_per_env_runner": 2, "train_batch_size": 192, "minibatch_size": 96, "hidden": [8]}
STAGES = {1: {"load_scale": 1.0}, 2: {"load_scale": {"uniform": [1.1, 1.2]}}, 3: {}}


def by_thirds(iteration: int) -> dict[str, Any]:
    """Return ranges that widen."""
    return {"load_scale": {"uniform": [1.0, 1.0 + iteration / 10]}} if iteration else {"load_scale": 1.0}


def no_ranges(iteration: int) -> None:
    """Return nothing."""


def scale_of(algorithm: Any) -> float:
    """Return by how much demand is scaled in the first environment's present episode."""
    env = algorithm.env_runner.env
    infos = env.infos(0) if hasattr(env, "infos") else env.envs[0].unwrapped._look()[1]
    scale: float = infos["MG1"]["drawn.load_scale"]
    return scale


@pytest.fixture
def drawn(ray_session: None) -> Iterator:
    built: list[Any] = []

    def make(algorithm: str = "ppo", iterations: int = 4, scenario: Any = SCENARIO, **settings: Any) -> list[float]:
        """Return by how much demand was scaled in the episodes of each iteration, one environment's."""
        config = algorithm_config(scenario, algorithm, **settings)
        built.append(build_algorithm(config, RaySession(None)))
        scales = []
        for _ in range(iterations):
            built[-1].train()
            scales.append(scale_of(built[-1]))
        return scales

    yield make
    for algorithm in built:
        algorithm.stop()


@pytest.mark.parametrize("runner", ["grid", "stock"])
def test_episodes_draw_by_the_ranges_whose_turn_it_is(drawn: Any, runner: str) -> None:
    first, second, third, fourth = drawn(**SMALL, curriculum=STAGES, env_runner=runner)
    assert 0.8 <= first <= 0.9
    assert second == 1.0
    assert 1.1 <= third <= 1.2
    assert 0.8 <= fourth <= 0.9


def test_a_function_is_asked_for_each_iteration(drawn: Any) -> None:
    scales = drawn(**SMALL, curriculum=f"{__name__}:by_thirds", iterations=3)
    assert scales[0] == 1.0
    assert 1.0 < scales[1] <= 1.1
    assert 1.0 < scales[2] <= 1.2


def test_a_resumed_run_goes_on_in_its_stage(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "curriculum": STAGES, "iterations": 2, "validate_every": 0}
    run = train(SCENARIO, settings, out_dir=tmp_path, name="run")
    stored = json.loads((run.folder / "run.json").read_text())["settings"]["curriculum"]
    assert make_settings("ppo", {"curriculum": stored}).curriculum == STAGES
    led: list[Any] = []

    def note(algorithm: Any, ranges: Any) -> None:
        led.append((algorithm.iteration, ranges))
        set_ranges(algorithm, ranges)

    monkeypatch.setattr(curriculum, "set_ranges", note)
    resume(run.folder, iterations=4)
    assert led == [(0, {}), (2, STAGES[2]), (3, {}), (4, {})]  # where it is built, restored and after each iteration


def test_a_function_of_a_run_is_what_its_checkpoints_are_signed_for(tmp_path: Path, ray_session: None) -> None:
    settings = {**SMALL, "curriculum": f"{__name__}:by_thirds", "iterations": 1, "validate_every": 0}
    run = train(SCENARIO, settings, out_dir=tmp_path, name="run")
    manifest = json.loads((run.folder / "run.json").read_text())
    assert is_ours(find_checkpoint(run.folder), trust_claims(manifest))
    manifest["settings"]["curriculum"] = "os:getcwd"
    (run.folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(PowerGridError, match="was changed since"):
        resume(run.folder, iterations=2)


def test_a_callback_leads_rllibs_own_classes(ray_session: None) -> None:
    config = PPOConfig().environment(NetworkedGridEnv, env_config=SCENARIO).env_runners(num_env_runners=0)
    config.training(train_batch_size=96, minibatch_size=96, num_epochs=1)
    config.callbacks(on_train_result=lambda algorithm, **kwargs: set_ranges(algorithm, {"load_scale": 1.25}))
    algorithm = build_algorithm(config, RaySession(None))
    try:
        for _ in range(2):
            algorithm.train()
        assert scale_of(algorithm) == 1.25
    finally:
        algorithm.stop()


def test_what_cannot_be_led_is_told(tmp_path: Path) -> None:
    stages = {0: {"load_scales": 1.0}, 5: {"step_minutes": 5}}
    with pytest.raises(ScenarioError, match=r"(?s)from iteration 0: .*load_scale'.*from iteration 5: .*step_minutes"):
        train(SCENARIO, {"curriculum": stages}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match=r"no_such_module:f for iteration 0: ModuleNotFoundError.*PYTHONPATH"):
        train(SCENARIO, {"curriculum": "no_such_module:f"}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match="no_ranges returned None and not ranges"):
        train(SCENARIO, {"curriculum": f"{__name__}:no_ranges"}, out_dir=tmp_path)
    with pytest.raises(ScenarioError, match="only powergrid's own environments draw"):
        train({}, {"curriculum": STAGES}, out_dir=tmp_path, env=ToyGridEnv)
    with pytest.raises(ScenarioError, match="curriculum"):
        make_settings("ppo", {"curriculum": {-1: {}}})
