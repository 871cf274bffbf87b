from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchrl")

import torch
from torchrl.envs import (
    ActionMask,
    Compose,
    DTypeCastTransform,
    GymEnv,
    PettingZooWrapper,
    TransformedEnv,
    check_env_specs,
)

import powergrid
from powergrid.adapters.torchrl import TorchGridEnv
from powergrid.errors import ScenarioError

#: Taps and banks rest after each move.
RESTING = {"reg*": {"dwell_steps": 2}, "cap*": {"dwell_steps": 2}}


def keeps_to(mask: torch.Tensor, chosen: torch.Tensor, sizes: list[int]) -> bool:
    """Whether chosen positions are those of a mask that rules something out, that of all actions in a row."""
    assert not mask.all()
    each = torch.as_tensor(sizes)
    return bool(mask.reshape(-1, sum(sizes)).gather(-1, chosen.reshape(-1, len(sizes)) + each.cumsum(0) - each).all())


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    with closing(TorchGridEnv("ieee13_mg", 2, episode_length=4)) as made:
        yield made


@pytest.mark.parametrize("view", ["agents", "central"])
def test_checker_of_the_library_accepts_every_scenario(shipped: str, view: Any) -> None:
    with closing(TorchGridEnv(shipped, 2, view=view)) as env:
        check_env_specs(env, seed=0)


def test_tensors_are_the_arrays_of_the_vector_environment(env: Any) -> None:
    env.set_seed(7)
    played = env.rollout(4)
    with closing(powergrid.make_vector("ieee13_mg", 2, episode_length=4)) as same:
        seen, _ = same.reset(seed=7)
        for step in range(4):
            now = played[:, step]["agents"]
            for i, name in enumerate(same.possible_agents):
                np.testing.assert_array_equal(now["observation"][:, i].numpy(), seen[name])
            actions = {name: now["action"][:, i].numpy() for i, name in enumerate(same.possible_agents)}
            seen, rewards, *_ = same.step(actions)
            told = played[:, step]["next", "agents", "reward"].squeeze(-1).numpy()
            np.testing.assert_array_equal(told, rewards.astype(np.float32))
    assert played["next", "truncated"].squeeze(-1).tolist() == [[False, False, False, True]] * 2
    assert not played["next", "terminated"].any()


def test_environments_that_are_over_start_anew_where_asked(env: Any) -> None:
    """A rollout over the end of a day, as collectors play it; then a reset of the second alone."""
    env.set_seed(1)
    played = env.rollout(6, break_when_any_done=False)
    assert played["next", "done"].squeeze(-1)[:, 3].all()
    assert not played["done"][:, 4].any()
    days = env.envs.days.copy()
    mask = torch.tensor([[False], [True]])
    env.reset(played[:, -1].select().set("_reset", mask), day=33)
    assert env.envs.days.tolist() == [days[0], 33]


def test_agents_that_differ_have_groups_of_their_own() -> None:
    with closing(TorchGridEnv("ieee13_voltvar", 2)) as env:
        assert env.group_map == {name: [name] for name in ("capacitors", "regulators", "batteries")}
        assert env.full_action_spec["regulators", "action"].nvec.shape[-1] == 3


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested:UserWarning")
def test_torchrls_own_wrapper_groups_agents_that_are_underscored() -> None:
    made = powergrid.make("ieee13_mg", agent_names="underscored", episode_length=4)
    with closing(PettingZooWrapper(made)) as env:
        assert env.group_map == {"MG": ["MG_1", "MG_2"]}
        assert env.rollout(4)["MG", "observation"].shape[:2] == (4, 2)
        check_env_specs(env)
    with closing(PettingZooWrapper(powergrid.make("ieee13_mg"))) as env:
        assert env.group_map == {"MG1": ["MG1"], "MG2": ["MG2"]}


@pytest.mark.parametrize("view", ["agents", "central"])
@pytest.mark.parametrize("keys", [{}, {"agents": "per_device", "plain_discrete": True}], ids=["several", "plain"])
def test_masks_stand_beside_observations_and_keep_to_what_can_be_had(view: Any, keys: dict[str, Any]) -> None:
    """Taps and banks rest after each move, so that half of all steps leave one position each."""
    keys = {**keys, "devices": RESTING, "action_masks": "observations"}
    if view == "central":
        keys["actions"] = "multidiscrete"
    made: Any = TorchGridEnv("ieee13_voltvar", 2, view=view, **keys)
    groups = [(group,) for group in made.group_map] or [()]
    masks = [ActionMask(action_key=(*group, "action"), mask_key=(*group, "action_mask")) for group in groups]
    with closing(TransformedEnv(made, Compose(*masks))) as env:
        check_env_specs(env)
        played = env.rollout(8)
        for group in groups:
            mask, chosen = played[(*group, "action_mask")], played[(*group, "action")]
            assert mask.dtype == torch.bool
            own = env.full_action_spec[(*group, "action")]
            sizes = own.nvec[(0,) * (own.nvec.ndim - 1)].tolist() if hasattr(own, "nvec") else [int(own.n)]
            assert keeps_to(mask, chosen, sizes * (mask.shape[-1] // sum(sizes)))


@pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested:UserWarning")
def test_torchrls_own_wrapper_reads_masks_but_of_several_alike() -> None:
    """As docs/learners.md says of its version."""
    keys: dict[str, Any] = {"agent_names": "underscored", "action_masks": "observations", "devices": RESTING}
    made = powergrid.make("ieee13_voltvar", agents="per_device", **keys)
    with closing(PettingZooWrapper(made)) as env:
        check_env_specs(env)
        played = env.rollout(8)
        for group, size in {"capacitor": 2, "regulator": 33, "battery": 33}.items():
            assert keeps_to(played[group, "action_mask"], played[group, "action"], [size])
    others = {"capacitors": ["capacitor_1", "regulator_1"], "regulators": ["capacitor_2", "regulator_2", "regulator_3"]}
    both = {name: {"devices": devices} for name, devices in others.items()}
    with closing(PettingZooWrapper(powergrid.make("ieee13_voltvar", agents=both, **keys))) as env:
        played = env.rollout(8)
        assert keeps_to(played["regulators", "action_mask"], played["regulators", "action"], [2, 33, 33])
    with (
        closing(powergrid.make("ieee13_voltvar", **keys)) as own,
        pytest.raises(RuntimeError, match=r"size .* \(2\) must"),
    ):
        PettingZooWrapper(own).reset()


def test_library_reads_masks_of_one_controller_by_its_transforms() -> None:
    made = GymEnv(
        "powergrid.envs:powergrid/ieee13_voltvar-v1",
        action_masks="observations",
        devices=RESTING,
        categorical_action_encoding=True,
    )
    masks = Compose(DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"]), ActionMask())
    with closing(TransformedEnv(made, masks)) as env:
        check_env_specs(env)
        played = env.rollout(8)
        assert keeps_to(played["action_mask"], played["action"], [33, 2, 2, 33, 33, 33])


def test_library_makes_one_controller_by_its_name() -> None:
    with closing(GymEnv("powergrid.envs:powergrid/ieee13_mg-v1", episode_length=4)) as env:
        check_env_specs(env)
        assert env.rollout(9)["next", "truncated"].squeeze(-1).tolist() == [False, False, False, True]


def test_numbers_stand_for_positions_where_an_agent_has_both() -> None:
    """An action of -1 leaves ties open, one of 1 closes them: what the numbers mean is played."""
    with closing(TorchGridEnv("ieee34_ieee13", 1)) as env:
        assert env.full_action_spec["agents", "action"].shape[:2] == (1, 3)
        islands = []
        for tie in (1.0, -1.0):
            env.set_seed(0)
            moment = env.reset()
            action = torch.zeros(env.full_action_spec["agents", "action"].shape)
            action[..., -1] = tie
            env.step(moment.set(("agents", "action"), action))
            islands.append(env.envs.infos()[0, 0, env.envs.info_names.index("islands")])
        assert islands == [0.0, 3.0]


@pytest.mark.parametrize("backend", ["inline", "processes"])
def test_what_is_closed_has_let_its_engines_and_workers_go(backend: Any) -> None:
    env: Any = TorchGridEnv("ieee13_mg", 2, backend=backend, workers=2 if backend == "processes" else None)
    assert not env.is_closed
    env.reset()
    env.close()
    env.close()
    assert env.is_closed
    with pytest.raises(ScenarioError, match="the environment is closed"):
        env.reset()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"groups": "agents"}, "groups: names of agents by group, as {'agents': [...]}, not 'agents'"),
        ({"groups": {"a": "MG1"}}, "groups: agent 'MG2' is in 0 groups"),
        ({"groups": {"a": ["MG1", "MG2"]}, "view": "central"}, "groups are of agents; leave them out"),
        ({"autoreset_mode": "SAME_STEP"}, "autoreset_mode: the library asks for one alone; leave it out"),
    ],
)
def test_what_cannot_be_is_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        TorchGridEnv("ieee13_mg", **keys)
    assert told in str(raised.value)


def test_groups_that_do_not_fit_are_told_all_at_once() -> None:
    groups = {"some": ["capacitors", "regulators"], "more": ["capacitors", "batery"]}
    with pytest.raises(ScenarioError) as told:
        TorchGridEnv("ieee13_voltvar", groups=groups)
    text = str(told.value)
    for part in (
        "unknown agent 'batery' (did you mean 'batteries'",
        "'capacitors' is in 2 groups",
        "'batteries' is in 0 groups",
        "some: capacitors, regulators have different spaces",
    ):
        assert part in text
