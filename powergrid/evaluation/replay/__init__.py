"""One day played by several policies and kept step by step: recordings, their tables, and a page that shows them."""

from powergrid.evaluation.replay.recorder import record_day
from powergrid.evaluation.replay.recording import DayRecording, RecordedTable, find_worst_days, pick_day

__all__ = ["DayRecording", "RecordedTable", "find_worst_days", "pick_day", "record_day"]
