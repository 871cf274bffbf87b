"""The whole configuration vocabulary, validated: one file says everything about an environment.

``vocabulary`` holds the parts of a scenario, ``model`` the whole, how it is built and what is wrong with it, ``plain``
makes what anybody gave plain data, ``files`` reads and writes it, ``loading`` makes one of a name, data or an
``env_config`` and brings it to other feeders, ``bundle`` takes its files to other machines.
"""

from __future__ import annotations

from powergrid.scenario.bundle import pack_env_config
from powergrid.scenario.files import as_env_config, write_scenario
from powergrid.scenario.loading import (
    explain_config,
    load_scenario,
    pick_feeder,
    scenario_from_config,
    scenarios_by_feeder,
)
from powergrid.scenario.model import Scenario
from powergrid.scenario.versions import list_scenarios, list_versions, name_version
from powergrid.scenario.vocabulary import REWARD_WEIGHTS, SHIPPED_SOURCES, AgentSpec, Mode, RewardTerm, ZoneSpec

__all__ = [
    "REWARD_WEIGHTS",
    "SHIPPED_SOURCES",
    "AgentSpec",
    "Mode",
    "RewardTerm",
    "Scenario",
    "ZoneSpec",
    "as_env_config",
    "explain_config",
    "list_scenarios",
    "list_versions",
    "load_scenario",
    "name_version",
    "pack_env_config",
    "pick_feeder",
    "scenario_from_config",
    "scenarios_by_feeder",
    "write_scenario",
]
