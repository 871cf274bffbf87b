"""Training on Ray RLlib: configure, train, resume, and use what was trained; the environment is not here.

Importing this package is cheap: Ray and torch load on the first use of what needs them, and
``load_policy`` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.training.config import ppo_config
    from powergrid.training.inference import Policy, export_policy, load_policy
    from powergrid.training.run import RunResult, resume, train
    from powergrid.training.settings import TrainSettings

__all__ = ["Policy", "RunResult", "TrainSettings", "export_policy", "load_policy", "ppo_config", "resume", "train"]

_HOME = {
    "Policy": "inference",
    "RunResult": "run",
    "TrainSettings": "settings",
    "export_policy": "inference",
    "load_policy": "inference",
    "ppo_config": "config",
    "resume": "run",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
