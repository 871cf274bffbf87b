"""Play policies and baselines on the same days and compare them; it trains nothing.

Importing this package is cheap: engine and tables load on the first use of what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powergrid.evaluation.baselines import BASELINES, Baseline, RuleBased, RuleConstants, baseline_names
    from powergrid.evaluation.players import Policy
    from powergrid.evaluation.replay import DayRecording, find_worst_days, record_day
    from powergrid.evaluation.report import EvaluationReport, FeederComparison
    from powergrid.evaluation.rollout import baseline_returns, evaluate, evaluate_feeders, play_days
    from powergrid.evaluation.statistics import confidence_interval

__all__ = [
    "BASELINES",
    "Baseline",
    "DayRecording",
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
    "find_worst_days",
    "play_days",
    "record_day",
]

_HOME = {
    **dict.fromkeys(("BASELINES", "Baseline", "RuleBased", "RuleConstants", "baseline_names"), "baselines"),
    **dict.fromkeys(("DayRecording", "find_worst_days", "record_day"), "replay"),
    **dict.fromkeys(("EvaluationReport", "FeederComparison"), "report"),
    "confidence_interval": "statistics",
    **dict.fromkeys(("baseline_returns", "evaluate", "evaluate_feeders", "play_days"), "rollout"),
    "Policy": "players",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
