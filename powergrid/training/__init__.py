"""Training on Ray RLlib: configure, train, resume, and use what was trained; the environment is not here.

Importing this package is cheap: Ray and torch load on the first use of what needs them, and
``load_policy`` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.scenario import pack_env_config
    from powergrid.training.policies.export import export_policy, export_run
    from powergrid.training.policies.inference import Policy, load_policy
    from powergrid.training.rllib.config import algorithm_config, ppo_config
    from powergrid.training.rllib.learning.imitation import Imitated, imitate
    from powergrid.training.rllib.metrics import GridMetricsCallback
    from powergrid.training.rllib.ppo import PPO, PPOConfig
    from powergrid.training.rllib.sampling.curriculum import set_ranges
    from powergrid.training.runs.settings import TrainSettings
    from powergrid.training.runs.train import RunResult, resume, train
    from powergrid.training.runs.tune import TuneResult, tune

__all__ = [
    "PPO",
    "GridMetricsCallback",
    "Imitated",
    "PPOConfig",
    "Policy",
    "RunResult",
    "TrainSettings",
    "TuneResult",
    "algorithm_config",
    "export_policy",
    "export_run",
    "imitate",
    "load_policy",
    "pack_env_config",
    "ppo_config",
    "resume",
    "set_ranges",
    "train",
    "tune",
]

_HOME = {
    "GridMetricsCallback": "rllib.metrics",
    "Imitated": "rllib.learning.imitation",
    "PPO": "rllib.ppo",
    "PPOConfig": "rllib.ppo",
    "Policy": "policies.inference",
    "RunResult": "runs.train",
    "TrainSettings": "runs.settings",
    "TuneResult": "runs.tune",
    "algorithm_config": "rllib.config",
    "export_policy": "policies.export",
    "export_run": "policies.export",
    "imitate": "rllib.learning.imitation",
    "load_policy": "policies.inference",
    "pack_env_config": "rllib.config",
    "ppo_config": "rllib.config",
    "resume": "runs.train",
    "set_ranges": "rllib.sampling.curriculum",
    "train": "runs.train",
    "tune": "runs.tune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
