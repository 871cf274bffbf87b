"""Where the classes of version 0.1.0 are now, so that its checkpoints, which name them, still load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

#: Modules of ``powergrid.training`` in 0.1.0 that its checkpoints name, and where what was in them is now. RLlib
#: pickles a configuration by the names of its classes: a module can be moved, but not forgotten.
HOMES: dict[str, tuple[str, ...]] = {
    "algorithm": ("rllib.ppo",),
    "callbacks": ("rllib.metrics",),
    "config": ("rllib.agents", "rllib.config"),
    "env_runner": ("rllib.env_runner",),
    "fitted_env": ("rllib.environments",),
    "fitting": ("policies.spaces",),
    "learner": ("rllib.learner",),
    "mappo": ("rllib.modules",),
    "network": ("rllib.modules",),
    "offpolicy": ("rllib.off_policy",),
    "replay": ("rllib.off_policy",),
    "vectorised": ("rllib.environments",),
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
