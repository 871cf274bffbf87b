"""The whole configuration vocabulary, validated: one file says everything about an environment.

``vocabulary`` holds the parts of a scenario, ``model`` the whole and how it is built, ``loading`` how a name, a file
or an ``env_config`` becomes one, ``writing`` how it becomes a file, ``swapping`` how it comes to other feeders,
``problems`` how what is wrong is told, ``packing`` and ``bundle`` how its files come to other machines.
"""

from __future__ import annotations

from powergrid.scenario.loading import explain_config, list_scenarios, load_scenario, scenario_from_config
from powergrid.scenario.model import Scenario
from powergrid.scenario.packing import pack_env_config
from powergrid.scenario.swapping import pick_feeder, scenarios_by_feeder
from powergrid.scenario.vocabulary import REWARD_WEIGHTS, SHIPPED_SOURCES, AgentSpec, Mode, RewardTerm, ZoneSpec
from powergrid.scenario.writing import write_scenario

__all__ = [
    "REWARD_WEIGHTS",
    "SHIPPED_SOURCES",
    "AgentSpec",
    "Mode",
    "RewardTerm",
    "Scenario",
    "ZoneSpec",
    "explain_config",
    "list_scenarios",
    "load_scenario",
    "pack_env_config",
    "pick_feeder",
    "scenario_from_config",
    "scenarios_by_feeder",
    "write_scenario",
]
