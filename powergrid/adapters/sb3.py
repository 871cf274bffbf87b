"""Stable-Baselines3's VecEnv on environments that are stepped in lockstep, and its policies from their files."""

from __future__ import annotations

import inspect
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

import powergrid
from powergrid.adapters import FilePolicy, require_free
from powergrid.envs.agents import ActionForm, CentralActions
from powergrid.envs.backends import BackendName
from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.files import reason_of
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
        require_free(overrides, "GridVecEnv", ("view", "autoreset_mode"))
        overrides |= {"actions": actions, "levels": levels, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.envs: Any = powergrid.make_vector(
            scenario, num_envs, view="central", backend=backend, workers=workers, **overrides
        )
        self._info_names = (info_names,) if isinstance(info_names, str) else tuple(info_names)
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


class Sb3Policy(FilePolicy):
    """Act as a policy that Stable-Baselines3 or sb3-contrib has saved, whichever algorithm trained it.

    Args:
        file: The file.

    Attributes:
        form: Form and levels of the actions of one controller, as ``powergrid.make_central`` has them.
        masked: Whether it takes action masks.

    Raises:
        PowerGridError: The file holds no policy, or one that cannot be built.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._policy = _build_policy(file)
        self.masked = "action_masks" in inspect.signature(self._policy.predict).parameters
        self.remembers = hasattr(self._policy, "lstm_actor")
        self.form: tuple[ActionForm, int] = "auto", 33
        self._state: Any = None
        self._first = np.ones(1, dtype=bool)

    def fit(self, task: GridTask, width: Any) -> list[str]:
        """Find the form of its actions, and say what does not fit."""
        observed, acted, problems = self._policy.observation_space, self._policy.action_space, list[str]()
        if observed.shape != (width,):
            problems.append(f"sees {width} numbers here; the policy takes {observed}")
        levels = {33, *np.unique(getattr(acted, "nvec", ())).tolist()} - {1}
        forms: list[tuple[ActionForm, int]] = [("auto", 33), ("box", 33), *(("multidiscrete", n) for n in levels)]
        spaces = {form: CentralActions(task.agents, *form).space for form in forms}
        fitting = [form for form, space in spaces.items() if space == acted]
        if not fitting:
            problems.append(f"acts by {spaces['auto', 33]} here; the policy by {acted}")
        else:
            self.form = fitting[0]
        return problems

    def reset(self, task: GridTask, env: int) -> None:
        """Have it forget what it saw."""
        self._state, self._first = None, np.ones(1, dtype=bool)

    def act(self, observations: Observations, masks: npt.NDArray[np.bool_] | None = None) -> Any:
        """Return its action without exploration, by what one controller sees."""
        given = {"action_masks": masks} if self.masked else {}
        action, self._state = self._policy.predict(
            observations, state=self._state, episode_start=self._first, deterministic=True, **given
        )
        self._first = np.zeros(1, dtype=bool)
        return action


#: What a file holds that a policy is built from; the rest is not unpickled.
_NEEDED = ("policy_class", "observation_space", "action_space", "policy_kwargs", "use_sde")


def _build_policy(file: Path) -> Any:
    """Build the policy of a file; the algorithm that trained it is not needed, nor known by it."""
    try:
        with zipfile.ZipFile(file) as archive:
            others = dict.fromkeys(set(json.loads(archive.read("data"))) - set(_NEEDED))
        found, weights, _ = load_from_zip_file(file, custom_objects=others, device="cpu")
        data: dict[str, Any] = found or {}
        kind, keys = data["policy_class"], dict(data["policy_kwargs"])
        if "use_sde" in inspect.signature(kind.__init__).parameters:
            keys.setdefault("use_sde", bool(data.get("use_sde")))
        policy = kind(data["observation_space"], data["action_space"], lambda _: 0.0, **keys)
        policy.load_state_dict(weights["policy"])
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of a file that may be anything, by code that may do anything
        raise PowerGridError(f"{file}: holds no policy of Stable-Baselines3: {reason_of(error)}") from error
    policy.set_training_mode(False)
    return policy
