"""Training on Ray RLlib: configure, train, resume, and use what was trained; the environment is not here.

Importing this package is cheap: Ray and torch load on the first use of what needs them, and
``load_policy`` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.scenario import pack_env_config
    from powergrid.training.algorithm import PPO, PPOConfig
    from powergrid.training.builders import algorithm_config
    from powergrid.training.callbacks import GridMetricsCallback
    from powergrid.training.config import ppo_config
    from powergrid.training.extraction import export_policy
    from powergrid.training.inference import Policy, load_policy
    from powergrid.training.portable import export_run
    from powergrid.training.run import RunResult, resume, train
    from powergrid.training.settings import TrainSettings
    from powergrid.training.tuning import TuneResult, tune

__all__ = [
    "PPO",
    "GridMetricsCallback",
    "PPOConfig",
    "Policy",
    "RunResult",
    "TrainSettings",
    "TuneResult",
    "algorithm_config",
    "export_policy",
    "export_run",
    "load_policy",
    "pack_env_config",
    "ppo_config",
    "resume",
    "train",
    "tune",
]

_HOME = {
    "GridMetricsCallback": "callbacks",
    "PPO": "algorithm",
    "PPOConfig": "algorithm",
    "Policy": "inference",
    "RunResult": "run",
    "TrainSettings": "settings",
    "TuneResult": "tuning",
    "algorithm_config": "builders",
    "export_policy": "extraction",
    "export_run": "portable",
    "load_policy": "inference",
    "pack_env_config": "config",
    "ppo_config": "config",
    "resume": "run",
    "train": "run",
    "tune": "tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
