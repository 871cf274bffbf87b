"""What evaluations came to, on one feeder or on several: tables to read, rows to work with, files; it plays nothing."""

from powergrid.evaluation.report.evaluation import EvaluationReport
from powergrid.evaluation.report.feeders import FeederComparison
from powergrid.evaluation.report.tables import as_markdown, as_table, describe_versions, write_tables
from powergrid.evaluation.statistics import CONFIDENCE, Interval, confidence_interval

__all__ = [
    "CONFIDENCE", "EvaluationReport", "FeederComparison", "Interval", "as_markdown", "as_table", "confidence_interval",
    "describe_versions", "write_tables",
]  # fmt: skip
