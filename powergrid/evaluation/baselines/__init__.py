"""What a policy has to beat: baselines by name, each made for a whole batch of a task; nobody trained them."""

from __future__ import annotations

from powergrid.evaluation.baselines.receding import Receding
from powergrid.evaluation.baselines.registry import (
    BASELINES,
    Baseline,
    BaselineEntry,
    baseline_names,
)
from powergrid.evaluation.baselines.unaided import NoControl, RandomActions, leave_to_feeder, leave_to_itself
from powergrid.rules import RuleBased, RuleConstants

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineEntry",
    "NoControl",
    "RandomActions",
    "Receding",
    "RuleBased",
    "RuleConstants",
    "baseline_names",
    "leave_to_feeder",
    "leave_to_itself",
]
