"""Compare steps a second of the faces that learners take with those of ``NetworkedGridEnv``, one by one.

All play the same scenario in turn, from day to day, with actions drawn beforehand, in one process but for TorchRL's
``ParallelEnv``, which has two besides. Seconds are of processor time, of all processes together, so that what else runs
on a machine disturbs little; more processors show nothing by it. The ratio is of steps a second to
``NetworkedGridEnv``, round by round. What is not installed has no row: BenchMARL wants a TorchRL that the others do
not.

Usage: python benchmarks/learners.py [SCENARIO ...] [--rounds N] [--quick]
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import Table, machine_line, make_parser, median_ratio, parse, take_turns

N_ENVS, N_STEPS = 16, 96


class Face(NamedTuple):
    """What is stepped: an environment or several, and with what.

    Attributes:
        step: Plays a step in all, and begins the next day where one is over.
        actions: What it is given, step by step.
        n_envs: How many environments it steps.
        close: Ends them.
    """

    step: Callable[[Any], Any]
    actions: list[Any]
    n_envs: int
    close: Callable[[], Any]

    def play(self) -> float:
        """Return the processor time of a step of one environment [s]."""
        start = spent_s()
        for action in self.actions:
            self.step(action)
        return (spent_s() - start) / len(self.actions) / self.n_envs


def spent_s() -> float:
    """Return the processor time of this process and of those that it started and that still run [s]."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def draw(space: Any) -> list[Any]:
    """Draw actions for every step, the same ones in each run."""
    space.seed(0)
    return [space.sample() for _ in range(N_STEPS)]


def of_rllib(name: str) -> Iterator[tuple[str, Face]]:
    """Yield RLlib's faces: one environment, those that its own runners step, and those that ours do."""
    import gymnasium as gym
    from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv

    from powergrid.envs import NetworkedGridEnv
    from powergrid.scenario import load_scenario
    from powergrid.training.rllib.sampling.environments import GridVectorMultiAgentEnv

    env = NetworkedGridEnv({"env_name": name})

    def step(action: Any) -> None:
        *_, terminated, truncated, _ = env.step(action)
        if terminated["__all__"] or truncated["__all__"]:
            env.reset()

    env.reset(seed=0)
    one = gym.spaces.Dict({agent: env.get_action_space(agent) for agent in env.possible_agents})
    yield "NetworkedGridEnv", Face(step, draw(one), 1, env.close)
    many = SyncVectorMultiAgentEnv([lambda: NetworkedGridEnv({"env_name": name})] * N_ENVS)
    many.reset(seed=0)
    rows = [[action] * N_ENVS for action in draw(one)]
    yield "RLlib, SyncVectorMultiAgentEnv", Face(many.step, rows, N_ENVS, many.close)
    own = GridVectorMultiAgentEnv(load_scenario(name), N_ENVS, None)
    own.reset_arrays(seed=0)

    def step_arrays(action: Any) -> None:
        *_, terminated, truncated, _ = own.step(action)
        if (over := terminated | truncated).any():
            own.reset_arrays(over=over)

    yield "RLlib, powergrid train", Face(step_arrays, draw(own.vector.action_space), N_ENVS, own.close_extras)


def of_sb3(name: str) -> Iterator[tuple[str, Face]]:
    """Yield Stable-Baselines3's faces: its own vector of single environments, and ours."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    import powergrid
    from powergrid.adapters.sb3 import GridVecEnv

    dummy: Any = DummyVecEnv([lambda: powergrid.make_central(name)] * N_ENVS)
    for label, env in (("SB3, DummyVecEnv", dummy), ("SB3, GridVecEnv", GridVecEnv(name, N_ENVS))):
        env.reset()
        env.action_space.seed(0)
        actions = [[env.action_space.sample() for _ in range(N_ENVS)] for _ in range(N_STEPS)]
        yield label, Face(env.step, actions, N_ENVS, env.close)


def of_gymnasium(name: str) -> Iterator[tuple[str, Face]]:
    """Yield what loops in CleanRL's manner step, as tensors, and what skrl wraps."""
    import gymnasium as gym
    import torch
    from skrl.envs.wrappers.torch import wrap_env

    def make() -> Any:
        made = gym.make_vec(f"powergrid.envs:powergrid/{name}-v1", N_ENVS)
        made.reset(seed=0)
        return made

    env = make()

    def step(action: Any) -> None:
        seen, reward, *_ = env.step(action.numpy())
        torch.as_tensor(seen), torch.as_tensor(reward)

    actions = [torch.as_tensor(action) for action in draw(env.action_space)]
    yield "CleanRL's loop, make_vec", Face(step, actions, N_ENVS, env.close)
    wrapped: Any = wrap_env(make(), wrapper="gymnasium")
    wrapped.reset()
    yield "skrl, make_vec", Face(wrapped.step, actions, N_ENVS, wrapped.close)


def of_torchrl(name: str) -> Iterator[tuple[str, Face]]:
    """Yield TorchRL's faces: environments in lockstep, and two processes with half of them each."""
    from torchrl.envs import ParallelEnv

    from powergrid.adapters.torchrl import TorchGridEnv

    half = N_ENVS // 2
    yield "TorchRL, batched", step_tensors(TorchGridEnv(name, N_ENVS, view="central"))
    both = ParallelEnv(2, functools.partial(TorchGridEnv, name, half, view="central"), mp_start_method="spawn")
    yield "TorchRL, ParallelEnv", step_tensors(both)


def of_benchmarl(name: str) -> Iterator[tuple[str, Face]]:
    """Yield what BenchMARL steps: agents in groups."""
    from powergrid.adapters.benchmarl import GridTaskClass

    make = GridTaskClass(name).get_env_fun(N_ENVS, continuous_actions=True, seed=0, device="cpu")
    yield "BenchMARL, GridTaskClass", step_tensors(make())


def step_tensors(env: Any) -> Face:
    """Return a face of an environment of TorchRL."""
    moment = env.reset()
    keys = env.action_keys
    drawn = [env.rand_action(moment).select(*keys).clone() for _ in range(N_STEPS)]
    return Face(env.step_and_maybe_reset, drawn, N_ENVS, env.close)


def make_faces(name: str, stack: ExitStack) -> Mapping[str, Face]:
    """Return the faces of all libraries that are there, closed by the stack."""
    faces: dict[str, Face] = {}
    for make in (of_rllib, of_sb3, of_gymnasium, of_torchrl, of_benchmarl):
        try:
            for label, face in make(name):
                stack.callback(face.close)
                faces[label] = face
        except ImportError as error:
            print(f"without {make.__name__.removeprefix('of_')}: {error}")
    return faces


def main() -> None:
    """Print the table."""
    args = parse(make_parser(__doc__, ["ieee13_mg", "ieee13_voltvar", "ieee123_mg"], rounds=7))
    print(machine_line("gymnasium", "ray", "torchrl"))
    print(f"{N_ENVS} environments but for NetworkedGridEnv")
    table = Table(("scenario", "15s"), ("face", "31s"), ("steps/s of processor", ".0f"), ("/ NetworkedGridEnv", ".2f"))
    for name in args.scenarios:
        with ExitStack() as stack:
            faces = make_faces(name, stack)
            times = take_turns(args.rounds, {label: face.play for label, face in faces.items()})
        for label, each in times.items():
            table.add(name, label, 1.0 / statistics.median(each), 1.0 / median_ratio(times, label, "NetworkedGridEnv"))


if __name__ == "__main__":
    main()
