"""The best that could have been done on a day by whoever had known all of it: what policies are scored by."""

from __future__ import annotations

from powergrid.evaluation.optimum.foresight import Foresight, Optimum, find_optimum

__all__ = ["Foresight", "Optimum", "find_optimum"]
