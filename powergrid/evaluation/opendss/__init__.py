"""The way back into OpenDSS: what a policy does on a day as plain scripts, played by the engine alone, and settings.

``played`` plays the day and keeps what came into the engine, ``script`` writes it as text, ``bare`` plays such a folder
without this package, ``export`` puts them together. ``settings`` fits OpenDSS's own controls to it, ``comparison`` says
what is lost so.
"""

from powergrid.evaluation.opendss.comparison import Comparison, compare_settings, export_settings
from powergrid.evaluation.opendss.engine_play import Difference, EnginePlay, compare_with_engine, play_alone
from powergrid.evaluation.opendss.export import Export, export_day, write_day
from powergrid.evaluation.opendss.played import PlayedDay, Positions, Series, play_day
from powergrid.evaluation.opendss.settings import Fit, Settings, fit_settings

__all__ = [
    "Comparison", "Difference", "EnginePlay", "Export", "Fit", "PlayedDay", "Positions", "Series", "Settings",
    "compare_settings", "compare_with_engine", "export_day", "export_settings", "fit_settings", "play_alone",
    "play_day", "write_day",
]  # fmt: skip
