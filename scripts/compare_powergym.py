"""Play powergym's four systems on the feeders shipped here, with its reward, and print what differs by how much.

    python scripts/compare_powergym.py --days 20 --large-days 3

The systems are its own in what it publishes of them: banks, regulators, batteries, where all stand at first, weights.
Feeders and days are those shipped here, since its load shapes are not the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import typer

from powergrid.evaluation import evaluate

#: Bus, phases, power and energy of each battery, by system; all start full.
#: Source: siemens/powergym, systems/*/Battery.csv and the generators of its master files.
BATTERIES: dict[str, list[tuple[str, list[int], float, float]]] = {
    "13bus": [("680", [1, 2, 3], 200, 1000)],
    "34bus": [("890", [1, 2, 3], 500, 4000), ("832", [1, 2, 3], 500, 4000)],
    "123bus": [("33", [1], 100, 1000), ("114", [1], 100, 1000), ("67", [1, 2, 3], 100, 1000),
               ("300", [1, 2, 3], 100, 1000)],
    "8500node": [
        ("l3160098", [1, 2, 3], 100, 1000),
        *((bus, [1], 100, 1000) for bus in ("l3312692", "l3091052", "l3065696", "l3235247", "l3066804", "l3251854",
                                            "l2785537", "l2839331")),
        ("m1069509", [1, 2, 3], 100, 1000),
    ],
}  # fmt: skip
#: The shipped scenario with the same banks and regulators, and its regulator controls, which all start at the top tap.
SCENARIOS = {"13bus": "ieee13_voltvar", "34bus": "ieee34_voltvar", "123bus": "ieee123_voltvar",
             "8500node": "ieee8500_voltvar"}  # fmt: skip
_LOSSLESS = {"soc_min": 0.0, "soc_max": 1.0, "soc_initial": 1.0, "eta_charge": 1.0, "eta_discharge": 1.0}


def map_system(system: str) -> dict[str, Any]:
    """Return the keys that make of a shipped scenario powergym's system of a name."""
    from powergrid import load_scenario

    scenario = load_scenario(SCENARIOS[system])
    batteries = {
        f"battery_{i}": {"bus": bus, "phases": phases, "connection": "delta" if len(phases) > 1 else "wye",
                         "p_max_kw": kw, "e_max_kwh": kwh, "levels": 33, "wear_usd_per_kwh": 0.0, **_LOSSLESS}
        for i, (bus, phases, kw, kwh) in enumerate(BATTERIES[system], start=1)
    }  # fmt: skip
    return {
        "env_name": SCENARIOS[system],
        "reward.preset": f"powergym_{system}",
        "load_scale": 1.0,
        "taps": dict.fromkeys(scenario.taps, 16),
        "devices": batteries,
    }


def play(system: str, days: int) -> Iterator[dict[str, object]]:
    """Yield a row for each policy: returns and terms of a day, means over the days."""
    policies = ["no_control", "native", "random"]
    frame = evaluate(map_system(system), policies, split="test", days=days).frame
    n_agents = frame.filter(like="reward:").shape[1]
    for policy in policies:
        own = frame[frame["policy"] == policy].mean(numeric_only=True)
        yield {
            "system": system,
            "policy": policy,
            "return": own["reward"] * n_agents,
            "bus extremes, pu": own["bus_extremes_pu"],
            "nodes, pu": own["voltage_violation_pu"],
            "loss ratio": own["losses_share"],
            "moves": own["gear_moves"],
            "discharge": own.get("discharge_share", 0.0),
        }


def main(days: int = 20, large_days: int = 3) -> None:
    """Print the table of docs/peers.md."""
    rows = [row for system in SCENARIOS for row in play(system, large_days if system == "8500node" else days)]
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
