"""The best that could have been done on a day by whoever had known all of it: what policies are scored by."""

from __future__ import annotations

from powergrid.evaluation.optimum.foresight import Optimum, climb, find_optimum, play_best, require_foreseeable
from powergrid.evaluation.optimum.kept import Foresight, Optima

__all__ = ["Foresight", "Optima", "Optimum", "climb", "find_optimum", "play_best", "require_foreseeable"]
