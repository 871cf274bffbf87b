"""What an advisor reads and sets, as plain data: the answer to ``/spec``."""

from __future__ import annotations

import math
from typing import Any

from powergrid.advice.advisor import Advisor
from powergrid.advice.twin import POSITIONS


def describe(advisor: Advisor) -> dict[str, Any]:
    """Return names, units and ranges of all readings and setpoints, and when the fallback takes over."""
    task, options = advisor.task, advisor.options
    seen = {task.channels.table[column].name for agent in task.agents for column in agent.observed}
    readings = [
        {
            "name": each.name,
            "unit": each.unit,
            "possible": [each.low, each.high],
            "trained": None if math.isnan(each.trained_low) else [each.trained_low, each.trained_high],
            "whole": each.whole,
            "seen": each.name in seen or f"network.{each.name}" in seen,
            "meaning": each.meaning,
        }
        for each in advisor.catalogue.readings
    ]
    owners = {device: name for name, spec in task.scenario.agents.items() for device in spec.devices}
    setpoints = [
        {
            "device": action.device,
            "kind": task.simulation.devices[action.device].kind,
            "agent": owners[action.device],
            "quantity": action.name if action.name in (*POSITIONS, "q_kvar") else "p_kw",
            "unit": "" if action.name in POSITIONS else "kvar" if action.name == "q_kvar" else "kW",
            "range": list(advisor.range_of(action)),
        }
        for action in task.simulation.actions
        if action.device in owners
    ]
    return {
        "scenario": task.scenario.name,
        "feeder": task.scenario.feeder,
        "step_minutes": advisor.step_minutes,
        "agents": {agent.name: list(agent.devices) for agent in task.agents},
        "fallback": options.fallback,
        "min_coverage": options.min_coverage,
        "max_age_minutes": advisor.max_age_minutes,
        "units": "kW, kvar, kWh, pu and USD/kWh; names may end in another unit of the kind: _kv, _v, _mw, _percent",
        "readings": readings,
        "setpoints": setpoints,
    }
