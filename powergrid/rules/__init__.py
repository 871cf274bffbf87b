"""Engineers' rules for every kind of device: a bar that policies are held against, and what they may first imitate."""

from __future__ import annotations

from powergrid.rules.proposals import Proposals, list_proposed, name_proposed
from powergrid.rules.rule_based import RuleBased
from powergrid.rules.shared import RuleConstants

__all__ = ["PLAYED", "Proposals", "RuleBased", "RuleConstants", "list_proposed", "name_proposed"]

#: Baselines, by name, whose days a training plays by itself to imitate them.
PLAYED: dict[str, type[RuleBased]] = {"rule_based": RuleBased}
