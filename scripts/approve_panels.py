"""Play the year that a connection study looks at: may the panels of a scenario be connected as they are?

All panels give all their sun, batteries and customers do nothing, and inverters follow the default volt-var curve of
IEEE Std 1547-2018, Category B (44 % of the kVA absorbed at 1.08 pu, nothing between 0.98 and 1.02 pu). Approved is what
leaves, in every step of the year with sun in it, no node above the band that is not as high without panels, and no
branch above its rating by power that flows towards the source.

Usage::

    python scripts/approve_panels.py SCENARIO [--days N] [--scale FACTOR ...]
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powergrid.envs import GridTask
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Voltage [pu] and reactive power, of 44 % of the kVA: the default of Category B.
CURVE_PU = (0.92, 0.98, 1.02, 1.08), (1.0, 0.0, 0.0, -1.0)
#: Sun from which a step counts [pu], and how far from the last step's reactive power an inverter goes to the new one.
LEAST_SUN, PACE = 0.1, 0.5
#: What a voltage has to be higher by to be the panels' doing [pu].
_NOTICED_PU = 1e-4
N_ENVS = 73


@dataclass(frozen=True)
class Year:
    """The highest of all steps that were played.

    Attributes:
        v_pu: Voltage of each node while the sun shines, shape (n_nodes,).
        loading_pu: Loading of each branch meanwhile, where power flows towards the source, shape (n_branches,).
        nodes, branches: Their names.
    """

    v_pu: FloatArray
    loading_pu: FloatArray
    nodes: tuple[str, ...]
    branches: tuple[str, ...]


def play(scenario: Scenario, days: IntArray, *, panels: bool) -> Year:
    """Play days of a scenario's connection study, or the same without panels and at night as well."""
    with closing(GridTask(scenario, len(days))) as task:
        simulation, network = task.simulation, task.simulation.network
        specs = [simulation.devices[action.device] for action in simulation.actions]
        power, reactive = (
            [i for i, action in enumerate(simulation.actions) if specs[i].kind == "inverter" and action.name == name]
            for name in ("p_kw", "q_kvar")
        )
        own = [network.nodes_within([network.bus_index[str(specs[i].bus).lower()]]) for i in reactive]
        first = network.branches.terminal_branch.searchsorted(np.arange(len(network.branches.names)))
        v_pu, loading_pu, q = np.zeros(len(network.nodes)), np.zeros(len(first)), np.zeros((len(days), len(reactive)))
        for env, day in enumerate(days.tolist()):
            task.reset(env, np.random.default_rng(0), {"day": day})
        for step in range(scenario.episode_length):
            actions = task.action_buffer()
            actions[:] = simulation.neutral()
            if panels:
                seen = [simulation.snapshot.v_pu[:, nodes].mean(axis=1) for nodes in own]
                q += PACE * (np.stack([np.interp(v, *CURVE_PU) for v in seen], axis=1) - q)
                actions[:, reactive] = q
            else:
                actions[:, power] = -1.0
            counts = simulation.day_pv_pu[:, step] > (LEAST_SUN if panels else -1.0)
            task.step()
            solved = simulation.snapshot
            back = np.where(solved.terminal_kva.real[:, first] < 0.0, solved.loading_pu, 0.0)
            v_pu = np.maximum(v_pu, solved.v_pu[counts].max(axis=0, initial=0.0))
            loading_pu = np.maximum(loading_pu, back[counts].max(axis=0, initial=0.0))
        return Year(v_pu, loading_pu, network.nodes, network.branches.names)


def approve(scenario: Scenario, days: IntArray) -> tuple[bool, str]:
    """Return whether the panels of a scenario may be connected, and what comes nearest to a limit, as a sentence."""
    scenario = load_scenario(scenario, {"split": "all"})
    parts = np.array_split(days, -(-len(days) // N_ENVS))
    with_panels, without = ([play(scenario, part, panels=on) for part in parts] for on in (True, False))
    v_pu, before = (np.max([year.v_pu for year in years], axis=0) for years in (with_panels, without))
    v_pu[v_pu < before + _NOTICED_PU] = 0.0  # as high without panels
    loading_pu = np.max([year.loading_pu for year in with_panels], axis=0)
    node, branch = int(v_pu.argmax()), int(loading_pu.argmax())
    holds = bool(v_pu[node] <= scenario.voltage.v_max_pu and loading_pu[branch] <= 1.0)
    names = with_panels[0]
    return holds, (
        f"highest voltage {v_pu[node]:.4f} pu at {names.nodes[node]}, highest loading towards the source "
        f"{loading_pu[branch]:.3f} of {names.branches[branch]}: {'approved' if holds else 'not approved'}"
    )


def main() -> None:
    """Play the year of each size that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("scenario")
    parser.add_argument("--days", type=int, default=365, help="days of the year, evenly spread")
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0], help="factors on panels and inverters")
    arguments = parser.parse_args()
    scenario = load_scenario(arguments.scenario)
    days = np.unique(np.linspace(0, 364, arguments.days).round().astype(np.int64))
    for scale in arguments.scale:
        sizes = {
            name: {"p_max_kw": spec.p_max_kw * scale, "s_max_kva": (spec.s_max_kva or 1.1 * spec.p_max_kw) * scale}
            for name, spec in scenario.devices.items()
            if spec.kind == "inverter" and spec.p_max_kw is not None
        }
        _, told = approve(load_scenario(scenario, {"devices": sizes}), days)
        print(f"{scenario.name}, panels times {scale:g}: {told}", flush=True)


if __name__ == "__main__":
    main()
