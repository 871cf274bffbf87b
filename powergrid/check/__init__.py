"""Check a feeder and report all that is wrong with it at once, in a process of its own."""

from powergrid.check.report import CHECKS, Check, FeederReport, Finding, Snapshot
from powergrid.check.sandbox import check_feeder

__all__ = ["CHECKS", "Check", "FeederReport", "Finding", "Snapshot", "check_feeder"]
