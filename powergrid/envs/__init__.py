"""The decision problem: who sees what, who does what, what is good.

``NetworkedGridEnv`` is loaded when it is first asked for, since it needs Ray. Importing this makes every version of the
shipped scenarios known to Gymnasium, as one controller:
``gymnasium.make("powergrid.envs:powergrid/ieee13_voltvar-v1")`` gives what ``powergrid.make_central`` does,
``gymnasium.make_vec`` the same many at once, with any scenario field beside.
"""

from __future__ import annotations

import importlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from powergrid.envs.central import CentralGridEnv, CentralVectorEnv
    from powergrid.envs.core import GridTask
    from powergrid.envs.networked import NetworkedGridEnv
    from powergrid.envs.parallel import ParallelGridEnv
    from powergrid.envs.vector import GridVectorEnv

__all__ = ["CentralGridEnv", "CentralVectorEnv", "GridTask", "GridVectorEnv", "NetworkedGridEnv", "ParallelGridEnv"]

_HOME = {
    "CentralGridEnv": "central",
    "CentralVectorEnv": "central",
    "GridTask": "core",
    "GridVectorEnv": "vector",
    "NetworkedGridEnv": "networked",
    "ParallelGridEnv": "parallel",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"powergrid.envs.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_central_vector(scenario: str, num_envs: int, **overrides: Any) -> CentralVectorEnv:
    """Return many environments with one controller each, as :func:`powergrid.make_vector` does."""
    vector: CentralVectorEnv = importlib.import_module("powergrid").make_vector(
        scenario, num_envs, view="central", **overrides
    )
    return vector


for _name in json.loads((resources.files("powergrid") / "scenarios" / "frozen.json").read_text(encoding="utf-8")):
    if f"powergrid/{_name}" not in gymnasium.registry:
        gymnasium.register(
            f"powergrid/{_name}",
            entry_point="powergrid:make_central",  # by name: specs are to be written as JSON
            vector_entry_point="powergrid.envs:make_central_vector",
            kwargs={"scenario": _name},
        )
