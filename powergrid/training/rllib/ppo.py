"""RLlib's PPO under the names of its earlier versions too, and of ours; what it learns and how is RLlib's own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import ray.rllib.algorithms.ppo as rllib
from ray.train._internal.session import _TrainingResult

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.files import real_path
from powergrid.training.policies.export import policy_of_algorithm
from powergrid.training.rllib.metrics import GridMetricsCallback
from powergrid.training.rllib.planning.env_config import default_env
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.rllib.planning.policies import multi_agent_arguments, policies_of
from powergrid.training.rllib.planning.problems import space_problems
from powergrid.training.rllib.sampling.processes import KeepsRunners, available_cpus, fit_env_runners, tolerate_faults
from powergrid.training.runs.checkpoints import POLICY_FOLDER, require_trust, sign

logger = logging.getLogger("powergrid.training")

#: Arguments of ``PPOConfig.training`` and ``PPOConfig.rollouts`` in earlier versions, and what they are called now.
OLD_TRAINING_NAMES = {"sgd_minibatch_size": "minibatch_size", "num_sgd_iter": "num_epochs"}
OLD_ROLLOUTS_NAMES = {
    "num_rollout_workers": "num_env_runners",
    "num_envs_per_worker": "num_envs_per_env_runner",
    "recreate_failed_workers": "restart_failed_env_runners",
}
_TO_FAULT_TOLERANCE = ("restart_failed_env_runners",)


class SavedCheckpoint(str, _TrainingResult):
    """The path of a checkpoint, as ``save()`` gave in earlier versions, and RLlib's result of saving in one."""

    def __new__(cls, checkpoint: Any, metrics: Any) -> SavedCheckpoint:
        """Make the path of what RLlib saved."""
        return str.__new__(cls, checkpoint.path)

    def __init__(self, checkpoint: Any, metrics: Any) -> None:
        self.checkpoint, self.metrics = checkpoint, metrics

    def __getnewargs__(self) -> Any:
        """Let it pickle: it crosses processes where Tune trains."""
        return self.checkpoint, self.metrics


class PPO(KeepsRunners, rllib.PPO):
    """RLlib's PPO, whose checkpoints are paths, hold a policy, and are loaded only by their maker or with trust."""

    def save(self, checkpoint_dir: str | None = None) -> SavedCheckpoint:
        """Write a checkpoint, with the policy for use without RLlib, signed with this user's key.

        Args:
            checkpoint_dir: The folder; a new one below the system's folder for temporary files where none is given.

        Returns:
            The folder's path, a ``str``; ``PPO.from_checkpoint``, ``restore`` and ``load_policy`` take it.
        """
        result = super().save(checkpoint_dir)
        saved = SavedCheckpoint(result.checkpoint, result.metrics)
        try:
            policy_of_algorithm(self).save(Path(saved) / POLICY_FOLDER)
        except PowerGridError as error:
            logger.warning("%s: RLlib can load it, powergrid.load_policy cannot: %s", saved, error)
        sign(Path(saved))
        return saved

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: Any = None, *, trust: bool = False, **kwargs: Any) -> Any:
        """Build the algorithm that a checkpoint holds, with its state.

        A checkpoint of RLlib is Python pickle: loading one runs what is in it.

        Args:
            path: The checkpoint's folder, absolute or not, or what ``save`` returned, also that of RLlib's own class.
            filesystem: As RLlib's.
            trust: Load it although this user did not make it.
            kwargs: As RLlib's.

        Raises:
            PowerGridError: It was made elsewhere, or was changed, and ``trust`` is not set.
        """
        if isinstance(path, _TrainingResult) and not isinstance(path, SavedCheckpoint):
            # what save() of RLlib's own class returned: no file says where it comes from, but an object of this process
            path, trust = path.checkpoint, True
        place = getattr(path, "path", path)  # RLlib's own Checkpoint has one
        if filesystem is None and "://" not in str(place):
            path = str(real_path(place))
            if not trust:
                require_trust(Path(path), remedy="PPO.from_checkpoint(path, trust=True)")
        elif not trust:
            require_trust(None, remedy="PPO.from_checkpoint(path, trust=True)", shown=str(place))
        # by RLlib's class: the checkpoint says which one it is, and Tune's name "PPO" stands for RLlib's
        with older_module_names():
            return rllib.PPO.from_checkpoint(path, filesystem, **kwargs)


class PPOConfig(rllib.PPOConfig):
    """RLlib's ``PPOConfig``, which also takes what its earlier versions took.

    ``training(sgd_minibatch_size=..., num_sgd_iter=...)`` and ``rollouts(num_rollout_workers=...)`` work;
    ``environment(NetworkedGridEnv, env_config={...})`` without ``multi_agent(...)`` gives all agents one policy,
    ``grid_policy``, or one for each group with equal spaces; more processes than Ray has CPUs are cut down with a
    sentence when the algorithm is built or the configuration goes to Tune; infos become metrics. Everything else has
    RLlib's defaults.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPO)  # type: ignore[no-untyped-call]
        self._own_policies = False
        self._unshared: list[str] = []
        self.callbacks(GridMetricsCallback)
        tolerate_faults(self)

    def training(self, **settings: Any) -> PPOConfig:
        """Take RLlib's arguments, and ``sgd_minibatch_size`` and ``num_sgd_iter``.

        Raises:
            ScenarioError: One argument came under two names.
        """
        config: PPOConfig = super().training(**_renamed("training", settings, OLD_TRAINING_NAMES))
        return config

    def rollouts(self, **settings: Any) -> PPOConfig:
        """Take what RLlib's ``env_runners`` takes, and the names of earlier versions."""
        renamed = _renamed("rollouts", settings, OLD_ROLLOUTS_NAMES)
        tolerance = {name: renamed.pop(name) for name in _TO_FAULT_TOLERANCE if name in renamed}
        if tolerance:
            self.fault_tolerance(**tolerance)
        config: PPOConfig = self.env_runners(**renamed)
        return config

    def environment(self, env: Any = None, **settings: Any) -> PPOConfig:
        """Take the environment; agents share ``grid_policy`` where no policies are given.

        Raises:
            ScenarioError: The scenario is wrong.
        """
        given = {} if env is None else {"env": env}  # RLlib takes None for an environment, and forgets the one it has
        config: PPOConfig = super().environment(**given, **settings)
        config.disable_env_checking = settings.get("disable_env_checking", True)  # the check resets with seed 42
        if (not config.is_multi_agent or self._own_policies) and callable(config.env):
            config._share_policies()
        return config

    def multi_agent(self, **settings: Any) -> PPOConfig:
        """Take the policies and who has which."""
        self._own_policies, self._unshared = False, []
        config: PPOConfig = super().multi_agent(**settings)
        return config

    def build_algo(self, env: Any = None, use_copy: bool = True) -> Any:
        """Build the algorithm, with no more processes than Ray has CPUs for.

        Raises:
            ScenarioError: No policies were given, and PPO cannot learn on the agents' spaces.
        """
        self._require_policies()
        if not self._is_frozen:
            self.num_env_runners = self._fitting_env_runners()
        return super().build_algo(env, use_copy)

    build = build_algo

    def to_dict(self) -> dict[str, Any]:
        """Return what Tune takes, with a CPU left for the trial itself."""
        self._require_policies()
        settings: dict[str, Any] = super().to_dict()
        for own in ("_own_policies", "_unshared"):
            settings.pop(own)
        if not self._is_frozen:  # an algorithm's own, which is built
            settings["num_env_runners"] = self._fitting_env_runners(reserved=self.num_cpus_for_main_process)
        return settings

    def _fitting_env_runners(self, reserved: int = 0) -> int:
        if not self.num_env_runners:
            return 0
        runners, warning = fit_env_runners(self.num_env_runners, available_cpus(), reserved)
        if warning:
            logger.warning(warning)
        return runners

    def _require_policies(self) -> None:
        if self._unshared:
            raise ScenarioError("PPOConfig without multi_agent(...)", self._unshared)

    def _share_policies(self) -> None:
        facts = probe_env(self.env or default_env(), self.env_config)
        policy_of = policies_of("shared", facts)
        self._unshared = space_problems(facts, policy_of)
        if self._unshared:  # multi_agent(...) may follow
            return
        self.multi_agent(**multi_agent_arguments(facts, policy_of))
        self._own_policies = True


def _renamed(method: str, settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return settings under their present names."""
    twice = [f"{old!r} and {new!r} are the same setting; give one" for old, new in names.items()
             if old in settings and new in settings]  # fmt: skip
    if twice:
        raise ScenarioError(f"PPOConfig.{method}", twice)
    return {names.get(name, name): value for name, value in settings.items()}


#: Modules of ``powergrid.training`` in 0.1.0 that its checkpoints name, and where what was in them is now. RLlib
#: pickles a configuration by the names of its classes: a module can be moved, but not forgotten.
HOMES: dict[str, tuple[str, ...]] = {
    "algorithm": ("rllib.ppo",),
    "callbacks": ("rllib.metrics",),
    "config": ("rllib.planning.policies", "rllib.config"),
    "env_runner": ("rllib.env_runner",),
    "fitted_env": ("rllib.sampling.environments",),
    "fitting": ("policies.spaces",),
    "learner": ("rllib.learner",),
    "mappo": ("rllib.modules",),
    "network": ("rllib.modules",),
    "offpolicy": ("rllib.off_policy",),
    "replay": ("rllib.off_policy",),
    "vectorised": ("rllib.sampling.environments",),
    # since then, before 0.2.0
    "rllib.agents": ("rllib.planning.policies",),
    "rllib.curriculum": ("rllib.sampling.curriculum",),
    "rllib.environments": ("rllib.sampling.environments",),
}
_TRAINING = "powergrid.training"


@contextmanager
def older_module_names() -> Iterator[None]:
    """Let pickles find the classes of 0.1.0 while the block restores a checkpoint."""
    aliases = {f"{_TRAINING}.{old}": _alias(old, homes) for old, homes in HOMES.items()}
    sys.modules.update(aliases)
    try:
        yield
    finally:
        for name, alias in aliases.items():
            if sys.modules.get(name) is alias:
                del sys.modules[name]


def _alias(old: str, homes: tuple[str, ...]) -> ModuleType:
    """Return a module that holds nothing and looks each name up where it is now."""
    alias = ModuleType(f"{_TRAINING}.{old}")

    def find(name: str) -> Any:
        for home in homes:
            module = import_module(f"{_TRAINING}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"powergrid.training.{old} of version 0.1.0 has no {name!r} that is still known")

    alias.__dict__["__getattr__"] = find
    return alias
