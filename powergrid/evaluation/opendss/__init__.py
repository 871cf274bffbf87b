"""The way back into OpenDSS: what a policy does on a day as plain scripts, played by the engine alone, and settings.

``played`` plays the day and keeps what came into the engine, ``script`` writes it as text, ``bare`` plays such a folder
without this package, ``export`` puts them together.
"""

from powergrid.evaluation.opendss.engine_play import Difference, EnginePlay, compare_with_engine, play_alone
from powergrid.evaluation.opendss.export import Export, export_day, write_day
from powergrid.evaluation.opendss.played import PlayedDay, Positions, Series, play_day

__all__ = [
    "Difference", "EnginePlay", "Export", "PlayedDay", "Positions", "Series", "compare_with_engine", "export_day",
    "play_alone", "play_day", "write_day",
]  # fmt: skip
