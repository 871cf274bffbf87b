"""Policies that other libraries have saved play the same days as everybody, and what cannot play is told."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.adapters import is_policy_file, load_policy_file
from powergrid.cli import main
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.stresses.play import stress_days

SHORT: dict[str, Any] = {"episode_length": 6, "step_minutes": 240}
#: Taps that rest, so that masks say something.
LIMITED = {"devices.regulator_*.dwell_steps": 2}


def play_alone(scenario: str, decide: Callable[..., Any], day: int, **keys: Any) -> float:
    """Return the mean reward of agents on a day that a controller plays by the face that it was trained on."""
    with closing(powergrid.make_central(scenario, split="test", **SHORT, **keys)) as env:
        env.task.reset(0, np.random.default_rng([0, day]), {"day": day})  # as an evaluation starts a day
        env._episode.playing = True
        total, over, seen = 0.0, False, env._observe()
        while not over:
            seen, reward, terminated, truncated, _ = env.step(decide(env, seen))
            total, over = total + reward, terminated or truncated
        return total / len(env.scenario.agents)


def play_file(scenario: str, file: Path, **keys: Any) -> tuple[int, float]:
    """Return a day and the mean reward on it of a policy in a file."""
    policy = load_policy_file(file, trust=True)
    reports = [
        evaluate({"env_name": scenario, **SHORT, **keys}, ["no_control", ("mine", each)], days=2, n_envs=n)
        for n, each in ((1, policy), (2, pickle.loads(pickle.dumps(policy))))
    ]
    rows, others = (report.frame.query("policy == 'mine'") for report in reports)
    assert rows["reward"].tolist() == others["reward"].tolist()
    return int(rows["day"].iloc[0]), float(rows["reward"].iloc[0])


@pytest.mark.parametrize(
    ("algorithm", "scenario", "policy", "actions"),
    [
        ("stable_baselines3.PPO", "ieee13_mg", "MlpPolicy", "auto"),
        ("stable_baselines3.SAC", "ieee13_mg", "MlpPolicy", "auto"),
        ("stable_baselines3.A2C", "ieee13_voltvar", "MlpPolicy", "multidiscrete"),
        ("sb3_contrib.RecurrentPPO", "ieee13_mg", "MlpLstmPolicy", "auto"),
    ],
)
def test_file_of_stable_baselines3_plays_as_its_model(
    tmp_path: Path, algorithm: str, scenario: str, policy: str, actions: Any
) -> None:
    pytest.importorskip("sb3_contrib")
    module, _, name = algorithm.partition(".")
    with closing(powergrid.make_central(scenario, actions=actions, levels=7, **SHORT)) as env:
        model = getattr(__import__(module), name)(policy, env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    model.save(tmp_path / "mine.zip")
    state: list[Any] = [None]

    def decide(_: Any, seen: Any) -> Any:
        first = np.array([state[0] is None])
        action, state[0] = model.predict(seen, state=state[0], episode_start=first, deterministic=True)
        return action

    day, reward = play_file(scenario, tmp_path / "mine.zip")
    assert reward == pytest.approx(play_alone(scenario, decide, day, actions=actions, levels=7), abs=1e-6)


def test_maskable_policy_is_given_masks(tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    with closing(powergrid.make_central("ieee13_voltvar", actions="multidiscrete", **SHORT, **LIMITED)) as env:
        model = contrib.MaskablePPO("MlpPolicy", env, seed=0, device="cpu")
        model.save(tmp_path / "mine.zip")
    day, reward = play_file("ieee13_voltvar", tmp_path / "mine.zip", **LIMITED)

    def decide(env: Any, seen: Any) -> Any:
        return model.predict(seen, action_masks=env.action_masks(), deterministic=True)[0]

    alone = play_alone("ieee13_voltvar", decide, day, actions="multidiscrete", **LIMITED)
    assert reward == pytest.approx(alone, abs=1e-6)


def save_actor(env: Any, file: Path, group: str | None) -> Any:
    """Save an actor for a group of agents, or for one controller, and return it."""
    import torch
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ProbabilisticActor, TanhNormal

    torch.manual_seed(0)
    keys = [(group, each) if group else each for each in ("observation", "loc", "scale", "action")]
    width = env.observation_spec[keys[0]].shape[-1]
    n = env.full_action_spec[keys[3]].shape[-1]
    net = torch.nn.Sequential(torch.nn.Linear(width, 2 * n), _Halves())
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=[keys[0]], out_keys=keys[1:3]),
        in_keys={"loc": keys[1], "scale": keys[2]},
        out_keys=[keys[3]],
        distribution_class=TanhNormal,
    )
    torch.save(actor, file)
    return actor


@pytest.mark.parametrize("view", ["agents", "central"])
def test_file_of_torchrl_plays_as_its_module(tmp_path: Path, view: Any) -> None:
    pytest.importorskip("torchrl")
    from torchrl.envs.utils import ExplorationType, set_exploration_type

    from powergrid.adapters.torchrl import TorchGridEnv

    with closing(TorchGridEnv("ieee13_mg", 1, view=view, split="test", **SHORT)) as env:
        actor = save_actor(env, tmp_path / "mine.pt", "agents" if view == "agents" else None)
        day, reward = play_file("ieee13_mg", tmp_path / "mine.pt")
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            played = env.rollout(6, actor, auto_reset=False, tensordict=env.reset(day=day))
    got = played["next", "agents", "reward"].sum(1).mean() if view == "agents" else played["next", "reward"].sum() / 2
    assert reward == pytest.approx(float(got), abs=1e-4)


@pytest.mark.parametrize("view", ["agents", "central"])
def test_file_of_torchrl_plays_under_stresses(tmp_path: Path, view: Any) -> None:
    """Also with readings missing, and with events whose channels it does not see."""
    pytest.importorskip("torchrl")
    from powergrid.adapters.torchrl import TorchGridEnv

    with closing(TorchGridEnv("ieee13_mg", 1, view=view, **SHORT)) as env:
        save_actor(env, tmp_path / "mine.pt", "agents" if view == "agents" else None)
    policy = ("mine", load_policy_file(tmp_path / "mine.pt", trust=True))
    stresses = ["missing_readings", "line_out"]
    report = stress_days({"env_name": "ieee13_mg", **SHORT}, [policy], stresses, against=[], days=1, command="stress")
    rewards = report.days.query("policy == 'mine'").set_index("stress")["reward"]
    assert rewards[stresses].ne(rewards["undisturbed"]).all()


@pytest.mark.parametrize(
    ("view", "keys"),
    [
        ("agents", {"agents": "per_device", "plain_discrete": True}),
        ("agents", {}),
        ("central", {"actions": "multidiscrete", "levels": 5}),
    ],
    ids=["plain", "several", "central"],
)
def test_module_that_reads_masks_is_given_them(tmp_path: Path, view: Any, keys: dict[str, Any]) -> None:
    """Taps rest after each move, so that the best of all positions is not always among those that can be had."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchrl")
    from tensordict.nn import TensorDictSequential
    from torchrl.envs.utils import ExplorationType, set_exploration_type
    from torchrl.modules import Actor

    from powergrid.adapters.torchrl import TorchGridEnv

    torch.manual_seed(0)
    both = {**SHORT, **LIMITED, "action_masks": "observations"}
    with closing(TorchGridEnv("ieee13_voltvar", 1, view=view, split="test", **both, **keys)) as env:
        actors = []
        for group in [(each,) for each in env.group_map] or [()]:
            seen, mask, act = ((*group, key) for key in ("observation", "action_mask", "action"))
            spec = env.full_action_spec_unbatched[act]
            sizes = (spec[0] if group else spec).nvec.tolist() if hasattr(spec, "nvec") else None
            net = _Masked(*(env.observation_spec[key].shape[-1] for key in (seen, mask)), sizes)
            actors.append(Actor(net, in_keys=[seen, mask], out_keys=[act], spec=spec))
        actor = actors[0] if view == "central" else TensorDictSequential(*actors)
        torch.save(actor, tmp_path / "mine.pt")
        own = {key: value for key, value in keys.items() if key not in ("actions", "levels")}
        day, reward = play_file("ieee13_voltvar", tmp_path / "mine.pt", **LIMITED, **own)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            played = env.rollout(6, actor, auto_reset=False, tensordict=env.reset(day=day))
    assert not all(value.all() for key, value in played.items(True, True) if "action_mask" in key)
    if view == "central":
        got = played["next", "reward"].sum() / len(env.envs.scenario.agents)
    else:
        got = sum(played["next", group, "reward"].sum() for group in env.group_map) / len(env.envs.possible_agents)
    assert reward == pytest.approx(float(got), abs=1e-4)


def test_what_does_not_fit_is_one_error(tmp_path: Path) -> None:
    sb3, torch = pytest.importorskip("stable_baselines3"), pytest.importorskip("torch")
    pytest.importorskip("torchrl")
    from tensordict.nn import TensorDictModule

    from powergrid.adapters.torchrl import TorchGridEnv

    with closing(powergrid.make_central("ieee13_voltvar", outlook={}, **SHORT)) as env:
        sb3.PPO("MlpPolicy", env, device="cpu").save(tmp_path / "mine.zip")
    with closing(TorchGridEnv("ieee34_mg", 1, **SHORT)) as env:
        save_actor(env, tmp_path / "mine.pt", "agents")
    for file, keys in {"masks.pt": ("agents", "action_mask"), "one.pt": ()}.items():
        keys = [("agents", "observation"), keys] if keys else ["observation"]
        torch.save(TensorDictModule(_Third(), keys, ["action"]), tmp_path / file)
    files = ("mine.zip", "mine.pt", "masks.pt", "one.pt")
    players = [(file, load_policy_file(tmp_path / file, trust=True)) for file in files]
    with pytest.raises(ScenarioError) as raised:
        evaluate({"env_name": "ieee13_mg", **SHORT}, players, days=1)
    told = "\n".join(raised.value.problems)
    assert re.search(r"mine.zip: sees \d+ numbers here; the policy takes Box\(-1.0, 1.0, \(\d+,\), float32\)", told)
    assert "mine.zip: acts by Box(-1.0, 1.0, (10,), float32) here; the policy by MultiDiscrete" in told
    assert "mine.pt: fails on observations of [28]: mat1 and mat2 shapes cannot be multiplied" in told
    assert "masks.pt: reads ('agents', 'action_mask'); here are ('agents', 'observation')" in told
    assert re.search(
        r"one.pt: the controller acts by .* numbers here; the policy by .* positions, of which its spec", told
    )


def test_no_file_is_loaded_without_the_users_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.zip"
    file.write_bytes(b"PK")
    assert is_policy_file(str(file))
    (tmp_path / "run.zip").mkdir()
    assert not is_policy_file(str(tmp_path / "run.zip"))
    assert "other.pt: there is no such file" in told_by(["evaluate", "ieee13_mg", "--policy", "other.pt"], capsys)
    with pytest.raises(PowerGridError, match=r"is to run the code in it: .*--trust-checkpoint"):
        load_policy_file(file)
    for commands in (
        ["evaluate", "ieee13_mg", "--policy", str(file)],
        ["replay", str(file), "ieee13_mg", "--day", "3"],
        ["record", "ieee13_mg", "--policy", str(file), "--out", str(tmp_path / "sets")],
        ["optimum", "ieee13_mg", "--policy", str(file)],
        ["hosting", "ieee13_mg", str(file), "--out", str(tmp_path / "hosting")],
        ["export", str(file), "ieee13_mg", "--opendss", "--day", "3", "--out", str(tmp_path / "day")],
        ["advise", str(file), "ieee13_mg", "--spec"],
        ["serve", str(file), "ieee13_mg"],
    ):
        assert "is to run the code in it" in told_by(commands, capsys)


def told_by(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error that a command ends with, on one line."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 1
    return capsys.readouterr().err.replace("\n", " ")


def test_commands_play_a_file_that_is_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And name the scenario that it lacks, and what it cannot be written as."""
    sb3 = pytest.importorskip("stable_baselines3")
    pytest.importorskip("minari")
    with closing(powergrid.make_central("ieee13_mg", **SHORT)) as env:
        sb3.PPO("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu").save(tmp_path / "mine.zip")
    file, short = str(tmp_path / "mine.zip"), [f"--set={key}={value}" for key, value in SHORT.items()]
    for command in (
        ["record", "ieee13_mg", "--policy", file, "--days", "1", "--out", str(tmp_path / "sets")],
        ["optimum", "ieee13_mg", "--policy", file, "--out", str(tmp_path / "optimum")],
        ["export", file, "ieee13_mg", "--opendss", "--day", "3", "--out", str(tmp_path / "day")],
        ["advise", file, "ieee13_mg", "--example", str(tmp_path / "readings.csv")],
        ["hosting", "ieee13_mg", file, "--at=671", "--map=0", "--step-kw=900", "--most-kw=900", "--days=1", "--seeds=1",
         "--out", str(tmp_path / "hosting")],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main([*command, "--trust-checkpoint", *short])
        assert not ended.value.code, capsys.readouterr().err
    for made in ("sets/powergrid/ieee13_mg/mine-v1/README.md", "day/Master.dss", "readings.csv", "hosting/report.html"):
        assert (tmp_path / made).is_file()
    assert "of no scenario: name one after it" in told_by(["advise", file, "--spec", "--trust-checkpoint"], capsys)
    assert "with --opendss what it does on a day" in told_by(["export", file, "--trust-checkpoint"], capsys)


def test_what_is_no_policy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchrl")
    (tmp_path / "mine.zip").write_bytes(b"PK")
    (tmp_path / "mine.pt").write_bytes(b"PK")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    for name, told in (
        ("mine.zip", "holds no policy of Stable-Baselines3"),
        ("mine.pt", "torch cannot load it"),
        ("weights.pt", "holds weights alone"),
        ("other.pt", "there is no such file"),
    ):
        with pytest.raises(PowerGridError, match=told):
            load_policy_file(tmp_path / name, trust=True)
    monkeypatch.setitem(sys.modules, "powergrid.adapters.sb3", None)
    with pytest.raises(PowerGridError, match=r'pip install "powergrid-dss\[sb3\]"'):
        load_policy_file(tmp_path / "mine.zip", trust=True)


try:
    import torch as _torch
except ImportError:  # no test above needs it then
    pass
else:

    class _Masked(_torch.nn.Module):
        """Take the best of the positions that can be had; here, where a pickle finds it."""

        def __init__(self, n_seen: int, n_masked: int, sizes: list[int] | None) -> None:
            super().__init__()
            self.sizes, self.net = sizes, _torch.nn.Linear(n_seen, n_masked)

        def forward(self, seen: Any, mask: Any) -> Any:
            logits = self.net(seen).masked_fill(~mask, -_torch.inf)
            if self.sizes is None:
                return logits.argmax(-1)
            return _torch.stack([part.argmax(-1) for part in logits.split(self.sizes, -1)], -1)

    class _Third(_torch.nn.Module):
        """Ask for the third position of ten actions; here, where a pickle finds it."""

        def forward(self, seen: Any, *masks: Any) -> Any:
            return _torch.full((*seen.shape[:-1], 10), 2)

    class _Halves(_torch.nn.Module):
        """Part what a network gives into mean and spread; here, where a pickle finds it."""

        def forward(self, both: Any) -> Any:
            mean, spread = both.chunk(2, -1)
            return mean, _torch.nn.functional.softplus(spread) + 0.01
