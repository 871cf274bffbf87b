"""Play policies and baselines on the same days and compare them; it trains nothing.

Importing this package is cheap: engine and tables load on the first use of what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.evaluation.baselines import BASELINES, Baseline, baseline_names
    from powergrid.evaluation.feeders import FeederComparison, evaluate_feeders
    from powergrid.evaluation.report import EvaluationReport, confidence_interval
    from powergrid.evaluation.rollout import Policy, baseline_returns, evaluate, play_days
    from powergrid.evaluation.rules import RuleBased, RuleConstants

__all__ = [
    "BASELINES",
    "Baseline",
    "EvaluationReport",
    "FeederComparison",
    "Policy",
    "RuleBased",
    "RuleConstants",
    "baseline_names",
    "baseline_returns",
    "confidence_interval",
    "evaluate",
    "evaluate_feeders",
    "play_days",
]

_HOME = {
    "BASELINES": "baselines",
    "Baseline": "baselines",
    "EvaluationReport": "report",
    "FeederComparison": "feeders",
    "Policy": "rollout",
    "baseline_returns": "rollout",
    "RuleBased": "rules",
    "RuleConstants": "rules",
    "baseline_names": "baselines",
    "confidence_interval": "report",
    "evaluate": "rollout",
    "evaluate_feeders": "feeders",
    "play_days": "rollout",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
