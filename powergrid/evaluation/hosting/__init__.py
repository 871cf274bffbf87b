"""How much can be added to a feeder before a limit breaks: by size, by place, under several controls."""

from __future__ import annotations

from powergrid.evaluation.hosting.limits import LIMITS, Limit
from powergrid.evaluation.hosting.report import Hosting
from powergrid.evaluation.hosting.study import HostingOptions, study_hosting

__all__ = ["LIMITS", "Hosting", "HostingOptions", "Limit", "study_hosting"]
