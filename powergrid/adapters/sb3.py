"""Stable-Baselines3's VecEnv on environments that are stepped in lockstep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

import powergrid
from powergrid.envs.agents import ActionForm
from powergrid.envs.backends import BackendName
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.scenario import Scenario

Observations = npt.NDArray[np.float32]


class GridVecEnv(VecEnv):
    """Play a scenario as one controller in several environments at once, for any learner of Stable-Baselines3.

    Environment ``i`` is what ``powergrid.make_central`` gives alone: same spaces, observations and rewards. Episodes
    are reported as SB3's ``Monitor`` does, so that it needs no ``VecMonitor``.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        num_envs: Number of environments.
        actions: Form of the action space, see ``powergrid.make_central``; SB3 takes ``auto``, ``box`` and
            ``multidiscrete``.
        levels: Number of values of a continuous action in the form ``multidiscrete``.
        info_names: Numbers that each step's infos hold, by name; a dict for each environment costs its time.
        backend: Where environments are played: ``inline``, or ``processes`` in ``workers`` of them.
        workers: Number of processes; None takes one for each processor.
        overrides: Scenario fields to change, for example ``split="test"``.

    Raises:
        ScenarioError: with every problem of the settings; a name of an info, at the first reset.
        FeederError: the feeder does not compile or solve.
    """

    def __init__(
        self,
        scenario: str | Path | Mapping[str, Any] | Scenario,
        num_envs: int,
        *,
        actions: ActionForm = "auto",
        levels: int = 33,
        info_names: Sequence[str] = (),
        backend: BackendName = "inline",
        workers: int | None = None,
        **overrides: Any,
    ) -> None:
        overrides |= {"actions": actions, "levels": levels, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.envs: Any = powergrid.make_vector(
            scenario, num_envs, view="central", backend=backend, workers=workers, **overrides
        )
        self._info_names = tuple(info_names)
        self._actions: Any = None
        self._start()
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)

    def reset(self) -> Observations:
        """Start an episode in every environment, with what ``seed`` and ``set_options`` said, once."""
        seeds = list(self._seeds) if any(seed is not None for seed in self._seeds) else None
        options = [dict(each) for each in self._options]
        if any(each != options[0] for each in options):
            raise ScenarioError("set_options", ["options of environments differ; give all the same"])
        observations, infos = self.envs.reset(seed=seeds, options=options[0])
        unknown = [name for name in self._info_names if name not in infos]
        if unknown:
            names = [name for name in infos if not name.startswith("_")]
            raise ScenarioError("info_names", [describe_unknown("info", name, names) for name in unknown])
        self.reset_infos = self._dicts(infos)
        self._start()
        self._reset_seeds()
        self._reset_options()
        seen: Observations = observations
        return seen

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take the actions of all environments; :meth:`step_wait` plays them."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[Observations, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Play a step in every environment; those that are over start anew.

        Returns:
            Observations (num_envs, n), rewards and ends (num_envs,), and a dict for each environment. At an end it
            holds ``terminal_observation``, ``TimeLimit.truncated``, ``episode`` as of ``Monitor`` (``r`` return, ``l``
            steps, ``t`` seconds), and every number of the last step.
        """
        observations, rewards, terminated, truncated, told = self.envs.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        over = terminated | truncated
        infos = self._dicts(told)
        for env in np.flatnonzero(over):
            names = (name for name in told["final_info"] if not name.startswith("_"))
            infos[env] = {name: told["final_info"][name][env] for name in names}
            infos[env]["terminal_observation"] = told["final_obs"][env]
            infos[env]["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
            since = round(time.perf_counter() - self._began, 6)
            infos[env]["episode"] = {"r": float(self._returns[env]), "l": int(self._lengths[env]), "t": since}
        self._returns[over], self._lengths[over] = 0.0, 0
        return observations, rewards.astype(np.float32), over, infos

    def close(self) -> None:
        """Release engines and workers."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment for each of the environments: its own row, or the same."""
        return self._split(getattr(self.envs, attr_name), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: environments are one object, whose settings are the scenario's.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"{attr_name!r} cannot be set: make the environments anew, with a scenario field")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once and return each environment's row of the result."""
        return self._split(getattr(self.envs, method_name)(*method_args, **method_kwargs), indices)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Tell that episodes are reported, as ``Monitor`` does, and that there is no wrapper else."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _start(self) -> None:
        self._began = time.perf_counter()
        self._returns, self._lengths = np.zeros(self.envs.num_envs), np.zeros(self.envs.num_envs, dtype=np.int64)

    def _dicts(self, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        columns = [told[name] for name in self._info_names]
        return [{n: c[env] for n, c in zip(self._info_names, columns, strict=True)} for env in range(self.num_envs)]

    def _split(self, value: Any, indices: VecEnvIndices) -> list[Any]:
        rows = isinstance(value, np.ndarray) and value.shape[:1] == (self.envs.num_envs,)
        return [value[env] if rows else value for env in self._get_indices(indices)]
