"""Write down what every shipped scenario is, version by version: the digests that ``tests/scenario`` hold it to.

A version that is there already is never written anew: who changes what a scenario plays raises its ``version``, keeps
the file of the version before as ``NAME-vN.yaml``, and runs this once.

Usage::

    python scripts/freeze_scenarios.py
"""

from __future__ import annotations

import json
from pathlib import Path

from powergrid.scenario import list_scenarios, load_scenario
from powergrid.scenario.versions import frozen, take_digests

TABLE = Path(__file__).parent.parent / "powergrid" / "scenarios" / "frozen.json"


def main() -> None:
    """Add the versions that are not there yet."""
    table = {name: dict(held) for name, held in frozen().items()}
    for name in list_scenarios():
        scenario = load_scenario(name)
        if scenario.versioned_name not in table:
            table[scenario.versioned_name] = take_digests(scenario)
            print(f"froze {scenario.versioned_name}")
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
