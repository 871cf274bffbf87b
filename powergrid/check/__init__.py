"""Check a feeder and report all that is wrong with it at once, in a process of its own."""

from powergrid.check.inspection import check_feeder
from powergrid.check.report import CHECKS, Check, FeederReport, Finding, Snapshot

__all__ = ["CHECKS", "Check", "FeederReport", "Finding", "Snapshot", "check_feeder"]
