"""Hold hosting capacity against a sweep in plain OpenDSS, driven by text commands, on any feeder.

    python scripts/hosting_by_hand.py ieee123 --step-kw 500 --most-kw 8000 --control native

Compiles the master file as it stands for each size, adds the panels, writes demand and sun of each step, lets the
engine's own controls act or not, and reads voltages and currents. Prints both answers, limit by limit; exit status 1
where they differ by more than a step. What is told to the engine is of the scenario (demand, sun, ratings); how it is
played and looked at is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect

from powergrid.evaluation.hosting import LIMITS, Hosting, HostingOptions, study_hosting
from powergrid.scenario import Scenario, load_scenario


@dataclass(frozen=True)
class Day:
    """What happens on a day: demand by load [kW, kvar], sun, ratings by branch [A], and where taps and banks begin."""

    demand: Mapping[str, np.ndarray]
    sun: np.ndarray
    amps: Mapping[str, float]
    taps: Mapping[str, int]
    steps_on: Mapping[str, int]


def read_day(scenario: Scenario, day: int) -> Day:
    """Return a day of a scenario as numbers."""
    with closing(scenario.simulate()) as simulation:
        simulation.reset(0, np.random.default_rng(0), day)
        network, b = simulation.network, simulation.network.branches
        kw, kvar = simulation.day_load_kw[0, :-1], simulation.day_load_kvar[0, :-1]
        demand = {name: np.stack([kw[:, i], kvar[:, i]], axis=1) for i, name in enumerate(network.loads.names)}
        rated = {name: float(amps) for name, amps in zip(b.names, b.norm_amps, strict=True) if amps > 0.0}
        sun = simulation.day_pv_pu[0, :-1].copy()
        return Day(demand, sun, rated, scenario.taps, scenario.steps_on)


class ByHand:
    """One circuit in an engine of its own, by text commands."""

    def __init__(self, master: Path, ends: Mapping[str, str], kw: float, *, controls: bool, volt_var: bool) -> None:
        self.dss = opendssdirect.dss.NewContext()
        self.dss.Basic.AllowChangeDir(False)
        self.controls, self.panels = controls, list[str]()
        self.run("clear", f'redirect "{master}"', "batchedit energymeter..* enabled=no")
        self.run("set tolerance=1e-6 maxiterations=100 maxcontroliter=100 mode=snapshot controlmode=static")
        self.run("solve", "solve", "solve")
        for number, (bus, nodes) in enumerate(ends.items() if kw > 0.0 else ()):
            phases = nodes.count(".")
            self.dss.Circuit.SetActiveBus(bus)
            kv = self.dss.Bus.kVBase() * (1.0 if phases == 1 else 3.0**0.5)
            size = kw / len(ends)
            self.run(
                f"new pvsystem.own_{number} bus1={bus}{nodes} phases={phases} kv={kv} pmpp={size} kva={size} pf=1 "
                f"irradiance=1 %cutin=0.1 %cutout=0.1 kvarmax={0.44 * size} kvarmaxabs={0.44 * size}"
            )
            self.panels.append(f"own_{number}")
        if volt_var and self.panels:
            listed = " ".join(f"pvsystem.{name}" for name in self.panels)
            self.run("new xycurve.own npts=4 xarray=[0.92 0.98 1.02 1.08] yarray=[1 0 0 -1]")
            self.run(f"new invcontrol.own derlist=[{listed}] mode=voltvar voltage_curvex_ref=rated vvc_curve1=own "
                     "refreactivepower=varmax")  # fmt: skip
        self.run(f"set controlmode={'static' if controls else 'off'}")

    def run(self, *commands: str) -> None:
        """Run text commands."""
        for command in commands:
            self.dss.Text.Command(command)

    def set_gear(self, gear: Sequence[tuple[str, list[float]]]) -> None:
        """Put taps and banks where another circuit has them."""
        for name, values in gear:
            key = "taps" if name.lower().startswith("transformer") else "states"
            self.run(f"edit {name} {key}=[{' '.join(map(str, values))}]")

    def begin(self, day: Day) -> None:
        """Put taps and banks where the scenario says that days begin."""
        for name, tap in day.taps.items():
            self.run(f"edit regcontrol.{name} tapnum={tap}")
        for name, on in day.steps_on.items():
            self.dss.Capacitors.Name(name)
            steps = self.dss.Capacitors.NumSteps()
            self.run(f"edit capacitor.{name} states=[{' '.join(['1'] * on + ['0'] * (steps - on))}]")

    def gear(self) -> list[tuple[str, list[float]]]:
        """Return where taps and banks stand."""
        found = list[tuple[str, list[float]]]()
        for name in self.dss.Transformers.AllNames():
            self.dss.Text.Command(f"? transformer.{name}.taps")
            found.append((f"transformer.{name}", _numbers(self.dss.Text.Result())))
        for name in self.dss.Capacitors.AllNames():
            if name.lower() != "none":
                self.dss.Text.Command(f"? capacitor.{name}.states")
                found.append((f"capacitor.{name}", _numbers(self.dss.Text.Result())))
        return found

    def solve(self, day: Day, step: int, *, sun: float) -> bool:
        """Solve a step."""
        for name, values in day.demand.items():
            kw, kvar = values[step].tolist()
            self.run(f"edit load.{name} kw={kw!r} kvar={kvar!r}")
        for name in self.panels:
            self.run(f"edit pvsystem.{name} irradiance={sun!r}")
        try:
            self.run("solve")
        except opendssdirect.DSSException as error:
            if "#485" not in str(error):  # controls hunt, and the flow converged
                raise
        return bool(self.dss.Solution.Converged())

    def voltages(self) -> dict[str, complex]:
        """Return phasors of phases 1 to 3 by node [pu]."""
        found, names = dict[str, complex](), self.dss.Circuit.AllBusNames()
        for bus in names:
            self.dss.Circuit.SetActiveBus(bus)
            base = self.dss.Bus.kVBase() * 1000.0
            v = np.asarray(self.dss.Bus.Voltages(), dtype=float).ravel().view(complex)
            found |= {f"{bus}.{n}": each / base for n, each in zip(self.dss.Bus.Nodes(), v, strict=True) if n <= 3}
        return found

    def loadings(self, amps: Mapping[str, float]) -> dict[str, float]:
        """Return currents of first terminals over ratings by branch."""
        found = {}
        for name, most in amps.items():
            self.dss.Circuit.SetActiveElement(name)
            n = self.dss.CktElement.NumPhases()
            mags = np.asarray(self.dss.CktElement.CurrentsMagAng(), dtype=float).ravel()[0 : 2 * n : 2]
            found[name] = float(mags.max()) / most
        return found

    def reverse_kw(self) -> float:
        """Return what flows into the source [kW]."""
        return float(self.dss.Circuit.TotalPower()[0])


def _numbers(text: str) -> list[float]:
    return [float(each) for each in text.strip("[] ").replace(",", " ").split()]


def look(
    master: Path, day: Day, ends: Mapping[str, str], kw: float, gear: Any, *, controls: bool, volt_var: bool
) -> dict[str, np.ndarray] | None:
    """Play a day by hand and return what stands against limits, step by step; None where a step does not converge."""
    own = ByHand(master, ends, kw, controls=controls, volt_var=volt_var)
    bare = ByHand(master, ends, 0.0, controls=False, volt_var=False)
    if gear is not None:
        own.set_gear(gear)
    rows: dict[str, list[Any]] = {name: [] for name in ("v", "loading", "unbalance", "reverse", "step")}
    for step in range(len(day.sun)):
        if not own.solve(day, step, sun=float(day.sun[step])):
            return None
        v = own.voltages()
        rows["v"].append([abs(each) for each in v.values()])
        rows["loading"].append(list(own.loadings(day.amps).values()))
        rows["unbalance"].append(list(_unbalances(v).values()))
        rows["reverse"].append([own.reverse_kw()])
        if kw > 0.0:
            bare.set_gear(own.gear())
            if not bare.solve(day, step, sun=0.0):
                return None
            rows["step"].append([abs(abs(v[node]) - abs(each)) for node, each in bare.voltages().items()])
    return {name: np.array(own) for name, own in rows.items()} | {"gear": np.array(own.gear(), dtype=object)}


def _unbalances(v: Mapping[str, complex]) -> dict[str, float]:
    found = {}
    for bus in dict.fromkeys(node.rpartition(".")[0] for node in v):
        if all(f"{bus}.{n}" in v for n in (1, 2, 3)):
            a, b, c = (v[f"{bus}.{n}"] for n in (1, 2, 3))
            lines = np.abs([a - b, b - c, c - a])
            found[bus] = float(np.abs(lines - lines.mean()).max() / max(lines.mean(), 1e-9))
    return found


def sweep_by_hand(
    master: Path, day: Day, ends: Mapping[str, str], sizes: Sequence[float], *, control: str
) -> dict[str, float]:
    """Return the size up to which each limit holds [kW], by its name; the largest where nothing breaks."""
    how = {"controls": control != "no_control", "volt_var": control == "volt_var"}
    start = ByHand(master, ends, 0.0, controls=True, volt_var=False)
    start.begin(day)
    gear = start.gear()
    base = look(master, day, ends, 0.0, gear, **how)
    assert base is not None
    base["step"] = np.zeros((1, 1))
    holds, broken = dict.fromkeys(LIMITS, 0.0), set[str]()
    for kw in sizes:
        found = look(master, day, ends, kw, gear, **how)
        for name, limit in LIMITS.items():
            key = {"v_pu": "v", "loading_pu": "loading", "unbalance_pu": "unbalance", "reverse_kw": "reverse"}.get(
                limit.quantity, "step"
            )
            if name in broken:
                continue
            if found is None or any(
                bool((sign * found[key] > np.maximum((sign * base[key]).max(axis=0), sign * level) + 1e-4).any())
                for sign, level in ((1.0, limit.high), (-1.0, limit.low)) if np.isfinite(level) and found[key].size
            ):  # fmt: skip
                broken.add(name)
            else:
                holds[name] = kw
        if len(broken) == len(LIMITS):
            break
    return holds


def compare(
    scenario: Scenario, control: str, bus: str, day: int, step_kw: float, most_kw: float, folder: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the size up to which each limit holds, as PowerGrid and as plain OpenDSS has it."""
    options = HostingOptions(
        placements=[bus], step_kw=step_kw, most_kw=most_kw, limits=list(LIMITS), dates=[day], map_buses=0
    )
    found: Hosting = study_hosting(scenario, [control], folder, options)
    ours = dict(zip(found.causes["limit"], found.causes["capacity_kw"], strict=True))
    network, feeder = found.network, scenario.read_feeder()
    shares = found.parts[0].sweeps[0].shares
    ends = {}
    for own in shares:
        here = network.nodes_of([network.bus_index[own]])
        phases = sorted(network.node_phase[here[network.is_phase[here]]].tolist())
        ends[own] = "".join(f".{phase}" for phase in phases)
    return ours, sweep_by_hand(feeder.master, read_day(scenario, day), ends, found.sizes, control=control)


def main() -> None:
    """Compare on one feeder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("feeder")
    parser.add_argument("--control", choices=["no_control", "native", "volt_var"], default="native")
    parser.add_argument("--at", default="uniform")
    parser.add_argument("--day", type=int, default=180)
    parser.add_argument("--step-kw", type=float, required=True)
    parser.add_argument("--most-kw", type=float, required=True)
    parser.add_argument("--step-minutes", type=int, default=60)
    given = parser.parse_args()
    scenario = load_scenario(given.feeder, {"step_minutes": given.step_minutes, "split": "all"})
    with tempfile.TemporaryDirectory() as folder:
        ours, by_hand = compare(
            scenario, given.control, given.at, given.day, given.step_kw, given.most_kw, Path(folder)
        )
    print(f"{'limit':15}{'PowerGrid':>12}{'by hand':>12}  [kW]")
    for name, kw in ours.items():
        print(f"{name:15}{kw:12,.0f}{by_hand[name]:12,.0f}")
    sys.exit(any(abs(kw - by_hand[name]) > given.step_kw for name, kw in ours.items()))


if __name__ == "__main__":
    main()
