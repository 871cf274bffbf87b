"""The decision problem: who sees what, who does what, what is good.

``NetworkedGridEnv`` is loaded when it is first asked for, since it needs Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
