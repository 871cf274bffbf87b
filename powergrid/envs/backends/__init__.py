"""Many environments played in lockstep: in this process, or in several that share arrays with it.

The core of the vector faces. A backend plays slices, each some of the environments on a task of its own: one for all,
or one in each process. What a step takes and gives lies on a board, arrays with environments first.
"""

from powergrid.envs.backends.board import ViewName, find_seen
from powergrid.envs.backends.face import VectorFace
from powergrid.envs.backends.lockstep import BackendName, Inline, VectorState

__all__ = ["BackendName", "Inline", "VectorFace", "VectorState", "ViewName", "find_seen"]
