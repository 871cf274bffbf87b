"""Compare whole volt-var episodes with a bridge as they are usually written, playing to the same voltages.

The other bridge is :class:`NaiveVoltVar` below: a Gymnasium-style wrapper around OpenDSSDirect, written with care but
in the usual way. It reads the feeder's text anew at each reset, activates element after element to write loads, taps,
capacitors and batteries, lets ``Solution.Solve`` solve, and reads voltages bus by bus. Ours is
``powergrid.make_central``, everything it does included, and by the side of it ``powergrid.make_vector``, many at once,
per environment. All play the same days with the same actions, and every voltage and reward is compared before any time
is taken.

As such bridges usually do, it writes what every device is to do in each step; with ``--careful`` it writes only what
moved, and so leaves the admittance matrix alone where nothing did.

Usage: python benchmarks/naive.py [SCENARIO ...] [--rounds N] [--envs N] [--careful] [--quick]
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

import powergrid
from benchmarks.common import Table, machine_line, make_parser, parse
from powergrid.envs import CentralVectorEnv
from powergrid.envs.central import CentralGridEnv
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
SCENARIOS = ("ieee13_voltvar", "ieee34_voltvar", "ieee123_voltvar", "ieee8500_voltvar")
MODES = ("moving", "held")
#: Largest difference of voltages that two solves to the scenario's tolerance may have [pu].
ALLOWED_V_PU = 2e-4
#: And of rewards, in parts of the largest.
ALLOWED_REWARD = 1e-3


@dataclass
class Battery:
    """A battery as such bridges have it: a power, a state of charge, and the limits of both."""

    name: str
    bus: str
    p_max_kw: float
    e_max_kwh: float
    soc_min: float
    soc_max: float
    soc_initial: float
    eta_charge: float
    eta_discharge: float
    levels: int
    wear_usd_per_kwh: float
    soc: float = 0.0
    p_kw: float = 0.0

    def choose(self, level: int, dt_h: float) -> None:
        """Take one of the evenly spaced powers, as far as the state of charge allows."""
        wanted = -self.p_max_kw + 2.0 * self.p_max_kw * level / (self.levels - 1)
        most = max(0.0, (self.soc - self.soc_min) * self.e_max_kwh * self.eta_discharge / dt_h)
        least = min(0.0, (self.soc - self.soc_max) * self.e_max_kwh / self.eta_charge / dt_h)
        self.p_kw = min(max(wanted, least), most)

    def advance(self, dt_h: float) -> None:
        """Move the state of charge on by a step."""
        gain = 1.0 / self.eta_discharge if self.p_kw > 0.0 else self.eta_charge
        self.soc = min(max(self.soc - self.p_kw * dt_h * gain / self.e_max_kwh, 0.0), 1.0)


class NaiveVoltVar:
    """Play a volt-var scenario through OpenDSSDirect, one element after the other.

    Args:
        scenario: The scenario; its agents, channels and zones are not used.
        master: Its feeder.
        start: Taps by RegControl and steps by Capacitor that episodes start from.
        careful: Write taps and steps only where they differ.
    """

    def __init__(
        self, scenario: Scenario, master: str, start: tuple[dict[str, int], dict[str, int]], *, careful: bool = False
    ) -> None:
        import opendssdirect

        self.dss: Any = opendssdirect
        self._careful = careful
        self._scenario, self._master, self._start = scenario, master, start
        self._dt_h = scenario.step_minutes / 60.0
        self.batteries: list[Battery] = []
        self._capacitors: list[tuple[str, float]] = []
        self._regulators: list[tuple[str, float]] = []
        spec: Any
        for name, spec in scenario.devices.items():
            if spec.kind == "storage":
                keys = Battery.__dataclass_fields__.keys() - {"name", "soc", "p_kw"}
                self.batteries.append(Battery(name, **{key: getattr(spec, key) for key in keys}))
            else:
                element = str(spec.element).partition(".")[2]
                kept = self._capacitors if spec.kind == "capacitor" else self._regulators
                kept.append((element, spec.cost_usd_per_operation))
        self._load_kw, self._load_kvar = np.zeros((0, 0)), np.zeros((0, 0))

    def reset(self, load_kw: FloatArray, load_kvar: FloatArray) -> FloatArray:
        """Start a day.

        Args:
            load_kw: What each load asks for in each step [kW], shape (n_steps, n_loads).
            load_kvar: The same of reactive power [kvar].
        """
        dss, solver = self.dss, self._scenario.solver
        self._load_kw, self._load_kvar, self._step = load_kw, load_kvar, 0
        dss.Text.Command("Clear")
        dss.Text.Command(f"Redirect [{self._master}]")
        for battery in self.batteries:
            dss.Circuit.SetActiveBus(battery.bus)
            dss.Text.Command(
                f"New Generator.{battery.name} bus1={battery.bus}.1.2.3 phases=3 kv={dss.Bus.kVBase() * 3**0.5} "
                "kw=0 kvar=0 model=1 vminpu=0.2 vmaxpu=2 status=fixed"
            )
            battery.soc, battery.p_kw = battery.soc_initial, 0.0
        dss.Text.Command(
            f"Set mode=snapshot controlmode=off tolerance={solver.tolerance} maxiterations={solver.max_iterations}"
        )
        self._load_names, self._bus_names = dss.Loads.AllNames(), dss.Circuit.AllBusNames()
        taps, steps = self._start
        self._taps = [taps[name] for name, _ in self._regulators]
        self._steps = [steps[name] for name, _ in self._capacitors]
        for (name, _), tap in zip(self._regulators, self._taps, strict=True):
            self._set_tap(name, tap)
        for (name, _), on in zip(self._capacitors, self._steps, strict=True):
            self._set_capacitor(name, on)
        self._write_loads()
        self._solve()
        return self._observe()

    def step(self, action: Sequence[int]) -> tuple[FloatArray, float, bool, dict[str, float]]:
        """Play a step: a level for each battery, steps for each capacitor, a place on the scale for each regulator."""
        n_batteries, n_capacitors = len(self.batteries), len(self._capacitors)
        operations_usd = 0.0
        for battery, level in zip(self.batteries, action, strict=False):
            battery.choose(level, self._dt_h)
            self.dss.Generators.Name(battery.name)
            self.dss.Generators.kW(battery.p_kw)
            self.dss.Generators.kvar(0.0)
        for i, on in enumerate(action[n_batteries : n_batteries + n_capacitors]):
            if on != self._steps[i] or not self._careful:
                name, cost = self._capacitors[i]
                self._set_capacitor(name, on)
                operations_usd += cost * abs(on - self._steps[i])
                self._steps[i] = on
        for i, place in enumerate(action[n_batteries + n_capacitors :]):
            tap = place - 16
            if tap != self._taps[i] or not self._careful:
                name, cost = self._regulators[i]
                self._set_tap(name, tap)
                operations_usd += cost * abs(tap - self._taps[i])
                self._taps[i] = tap
        self._write_loads()
        self._solve()
        for battery in self.batteries:
            battery.advance(self._dt_h)
        self._step += 1
        over = self._step == len(self._load_kw)
        observation = self._observe()
        reward, info = self._reward(operations_usd, over=over)
        return observation, reward, over, info

    @property
    def voltages(self) -> dict[str, float]:
        """Voltage of each node by ``bus.node`` [pu], as read last."""
        return dict(zip(self._node_names(), self._v_pu, strict=True))

    def _set_tap(self, name: str, tap: int) -> None:
        self.dss.RegControls.Name(name)
        self.dss.RegControls.TapNumber(tap)

    def _set_capacitor(self, name: str, on: int) -> None:
        self.dss.Capacitors.Name(name)
        self.dss.Capacitors.States([int(i < on) for i in range(self.dss.Capacitors.NumSteps())])

    def _write_loads(self) -> None:
        loads, row = self.dss.Loads, min(self._step, len(self._load_kw) - 1)
        kw, kvar = self._load_kw[row].tolist(), self._load_kvar[row].tolist()
        for name, p, q in zip(self._load_names, kw, kvar, strict=True):
            loads.Name(name)
            loads.kW(p)
            loads.kvar(q)

    def _solve(self) -> None:
        self.dss.Solution.Solve()
        if not self.dss.Solution.Converged():
            raise RuntimeError("the power flow did not converge")

    def _observe(self) -> FloatArray:
        circuit, bus = self.dss.Circuit, self.dss.Bus
        v_pu: list[float] = []
        for name in self._bus_names:
            circuit.SetActiveBus(name)
            v_pu.extend(bus.puVmagAngle()[::2])
        self._v_pu = np.array(v_pu)
        state = [*self._taps, *self._steps, *(b.soc for b in self.batteries), *(b.p_kw for b in self.batteries)]
        return np.concatenate([self._v_pu, state])

    def _reward(self, operations_usd: float, *, over: bool) -> tuple[float, dict[str, float]]:
        """Return the reward of docs/voltvar.md and its terms."""
        weights = self._scenario.reward.weights
        violation_pu = float(np.maximum(np.maximum(self._v_pu - 1.05, 0.95 - self._v_pu), 0.0).sum())
        losses_kw = self.dss.Circuit.Losses()[0] / 1000.0
        wear_usd = sum(battery.wear_usd_per_kwh * abs(battery.p_kw) for battery in self.batteries) * self._dt_h
        left = sum(abs(b.soc - b.soc_initial) * b.e_max_kwh for b in self.batteries) if over else 0.0
        cost = operations_usd + wear_usd + self._scenario.penalty * violation_pu
        cost += weights["losses_kwh"] * losses_kw * self._dt_h + weights["soc_deviation_kwh"] * left
        info = {"violation_pu": violation_pu, "losses_kw": losses_kw, "operations_usd": operations_usd}
        return -self._scenario.reward.scale * cost, info

    def _node_names(self) -> list[str]:
        names = []
        for name in self._bus_names:
            self.dss.Circuit.SetActiveBus(name)
            names += [f"{name}.{node}" for node in self.dss.Bus.Nodes()]
        return names


class Pair:
    """Both bridges on one scenario.

    Args:
        name: The scenario.
        n_envs: How many environments our vector environment has.
        careful: Whether the other one writes only what moved.
    """

    def __init__(self, name: str, n_envs: int, *, careful: bool = False) -> None:
        self.ours: CentralGridEnv = powergrid.make_central(name, actions="mixed")
        self.vector = CentralVectorEnv(name, n_envs, actions="mixed", autoreset_mode=AutoresetMode.DISABLED)
        simulation = self.ours.task.simulation
        circuit, network = simulation.circuits[0], simulation.network
        self.days, self.n_steps = simulation.days, simulation.options.horizon_steps
        start = (
            dict(zip(network.regulator_controls, circuit.taps.tolist(), strict=True)),
            dict(zip(network.capacitors, circuit.steps_on.tolist(), strict=True)),
        )
        self.naive = NaiveVoltVar(self.ours.scenario, str(simulation.feeder.master), start, careful=careful)
        self._held, self._n_envs = self.ours.neutral_action(), n_envs
        self._n_batteries = len(self.naive.batteries)
        self._loads: dict[int, tuple[FloatArray, FloatArray]] = {}

    def draw_actions(self, mode: str, seed: int) -> list[Any]:
        """Draw an episode's actions: all at random, or the batteries alone with capacitors and taps held."""
        self.ours.action_space.seed(seed)
        actions = [self.ours.action_space.sample() for _ in range(self.n_steps)]
        if mode == "held":
            for action in actions:
                action[self._n_batteries :] = self._held[self._n_batteries :]
        return actions

    def loads_of(self, day: int) -> tuple[FloatArray, FloatArray]:
        """Return the demand of a day, as both have it ready [kW], [kvar], each of shape (n_steps, n_loads)."""
        if day not in self._loads:
            self.ours.reset(options={"day": day})
            simulation = self.ours.task.simulation
            kw, kvar = simulation.day_load_kw[0, : self.n_steps], simulation.day_load_kvar[0, : self.n_steps]
            self._loads[day] = kw.copy(), kvar.copy()
        return self._loads[day]

    def play_ours(self, day: int, actions: list[Any]) -> FloatArray:
        """Play an episode and give the seconds of its reset and of each step, shape (1 + n_steps,)."""
        return self._play(lambda: self.ours.reset(options={"day": day}), self.ours.step, actions)

    def play_vector(self, day: int, actions: list[Any]) -> FloatArray:
        """Play an episode in every environment at once and give the same, per environment."""
        stacked = self._stack(actions)
        return self._play(lambda: self.vector.reset(options={"day": day}), self.vector.step, stacked) / self._n_envs

    def play_naive(self, day: int, actions: list[Any]) -> FloatArray:
        """Play an episode through the other bridge and give the same."""
        loads = self.loads_of(day)
        return self._play(lambda: self.naive.reset(*loads), self.naive.step, [action.tolist() for action in actions])

    def _stack(self, actions: list[Any]) -> list[Any]:
        return [np.tile(action, (self._n_envs, 1)) for action in actions]

    @staticmethod
    def _play(reset: Callable[[], Any], step: Callable[[Any], Any], actions: Sequence[Any]) -> FloatArray:
        clock, marks = time.perf_counter, [time.perf_counter()]
        reset()
        marks.append(clock())
        for action in actions:
            step(action)
            marks.append(clock())
        return np.diff(marks)

    def compare(self, day: int, actions: list[Any]) -> tuple[float, float]:
        """Play an episode in both, step by step, and give the largest difference of voltages [pu] and of rewards.

        The difference of rewards is in parts of the largest reward.
        """
        loads = self.loads_of(day)
        self.ours.reset(options={"day": day})
        self.vector.reset(options={"day": day})
        self.naive.reset(*loads)
        nodes = self.ours.task.simulation.network.nodes
        snapshot = self.ours.task.simulation.snapshot

        def differ() -> float:
            theirs = self.naive.voltages
            return float(np.abs(snapshot.v_pu[0] - [theirs[node] for node in nodes]).max())

        v_pu, off, largest = differ(), 0.0, 0.0
        for action, stacked in zip(actions, self._stack(actions), strict=True):
            reward = float(self.ours.step(action)[1])
            others = self.vector.step(stacked)[1], self.naive.step(action.tolist())[1]
            off = max(off, *(float(np.abs(reward - other).max()) for other in others))
            largest = max(largest, abs(reward))
            v_pu = max(v_pu, differ())
        return v_pu, off / largest

    def close(self) -> None:
        """Release the engines."""
        self.ours.close()
        self.vector.close()
        self.naive.dss.Text.Command("Clear")


def measure(pair: Pair, mode: str, rounds: int) -> tuple[float, ...]:
    """Measure one scenario in one mode.

    Returns:
        Largest difference of voltages [pu]; a step of the naive one, of ours alone and of ours among many, and resets
        of the same [s], by the least times; then for ours alone and for ours among many how many times as long the
        naive one's episodes take, reset included: by the least times, and the median over the rounds.

    Raises:
        AssertionError: the two do not play the same.
    """
    rng = np.random.default_rng(0)
    days = rng.choice(np.array(pair.days), size=2, replace=False).tolist()
    plays = [(int(day), pair.draw_actions(mode, seed)) for seed, day in enumerate(days)]
    v_pu, reward = np.max([pair.compare(*play) for play in plays], axis=0).tolist()
    assert v_pu < ALLOWED_V_PU, f"voltages differ by {v_pu:.1e} pu"
    assert reward < ALLOWED_REWARD, f"rewards differ by {reward:.1e} of the largest"
    whose = {"naive": pair.play_naive, "ours": pair.play_ours, "vector": pair.play_vector}
    least = {who: np.full((len(plays), 1 + pair.n_steps), np.inf) for who in whose}
    ratios: dict[str, list[float]] = {"ours": [], "vector": []}
    gc.collect()
    for _ in range(rounds):
        for i, play in enumerate(plays):
            times = {who: take(*play) for who, take in whose.items()}
            for who, seconds in times.items():
                np.minimum(least[who][i], seconds, out=least[who][i])
            for who, found in ratios.items():
                found.append(times["naive"].sum() / times[who].sum())
    mean = {who: seconds.mean(axis=0) for who, seconds in least.items()}
    steps, resets = [mean[who][1:].mean() for who in whose], [mean[who][0] for who in whose]
    both = ((mean["naive"].sum() / mean[who].sum(), statistics.median(found)) for who, found in ratios.items())
    return (v_pu, *steps, *resets, *itertools.chain(*both))


def main() -> None:
    """Measure scenarios and print the table."""
    parser = make_parser(__doc__, SCENARIOS, rounds=20)
    parser.add_argument("--envs", type=int, default=16, help="environments of the vector environment")
    parser.add_argument("--careful", action="store_true", help="let the other bridge write only what moved")
    args = parse(parser)
    print(machine_line("opendssdirect.py"))
    print("single: make_central; vector: one of", args.envs, "in make_vector; ratios: naive episodes over ours")
    table = Table(
        ("scenario", "16s"), ("gear", "6s"), ("|dV| pu", "7.0e"), ("naive step us", "9.0f"), ("single", "6.0f"),
        ("vector", "6.0f"), ("naive reset ms", "6.2f"), ("single", "6.2f"), ("vector", "6.2f"),
        ("naive/single", "5.2f"), ("median", "5.2f"), ("naive/vector", "5.2f"), ("median", "5.2f"),
    )  # fmt: skip
    for name in args.scenarios:
        pair = Pair(name, args.envs, careful=args.careful)
        for mode in MODES:
            v_pu, *rest = measure(pair, mode, args.rounds)
            steps, resets, ratios = rest[:3], rest[3:6], rest[6:]
            table.add(name, mode, v_pu, *(s * 1e6 for s in steps), *(s * 1e3 for s in resets), *ratios)
        pair.close()


if __name__ == "__main__":
    main()
