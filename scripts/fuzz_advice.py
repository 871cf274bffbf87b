"""Send advisors corrupted readings, and check every setpoint against limits written down here anew.

    python scripts/fuzz_advice.py --count 10000 ieee13_mg ieee13_voltvar

Readings of a played day are corrupted one way or several: numbers that are none, missing or swapped readings, absurd
units, names and sizes, other shapes, clocks that jump. Whatever raises, or is outside a limit, is printed with its
seed and ends the run with status 1.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from powergrid.advice import Advice, Advisor, AdvisorOptions, readings_of
from powergrid.advice.player import find_player
from powergrid.envs.core import GridTask
from powergrid.evaluation.players import PolicyPlayer
from powergrid.scenario import Scenario, load_scenario
from powergrid.training.policies.inference import Network, Policy

#: What a number is replaced by.
NONSENSE: tuple[Any, ...] = (
    *(math.nan, math.inf, -math.inf, None, "", "abc", "1e999", "NaN", "0x10", "1,5", "closed", True, False, -1, 0),
    *(2**70, 10**400, 1e308, -1e308, 1e-320, 0.1 + 1e-9, b"1.0", 1 + 2j, [], [1.0], {}, object(), "9" * 5000),
    *({"value": {"value": 1}}, {"value": 1.0, "unit": "parsec"}, {"value": "x" * 10_000, "unit": 3}),
    *({"value": 1.0, "time": "yesterday"}, {"value": 0.5, "time": "1999-01-01"}, {"value": 0.5, "time": "2190-01-01"}),
    *(np.float64("nan"), np.array([1.0])),
)
NAMES: tuple[Any, ...] = (
    *("", ".", "x" * 100_000, "675.9.v_pu", "ess_1.soc.soc", "time ", "network.", 3, None, (1, 2), "ess_1.p_kv"),
)
TIMES: tuple[Any, ...] = (
    *("never", "", 1e300, None, "2018-13-45", "1901-01-01", "2198-12-31T23:59", math.nan, True, ["now"]),
)
SHAPES: tuple[Any, ...] = (
    *(None, 3, "readings", [], [[]], [1, 2], {"readings": 7}, {"readings": {"readings": {}}}, b"{}", math.nan),
)


def random_policy(task: GridTask, seed: int = 0) -> Policy:
    """Return a policy of random weights, which asks for anything."""
    import gymnasium as gym

    rng, networks, spaces = np.random.default_rng(seed), {}, {}
    for agent in task.agents:
        sizes = [len(agent.observed), 16, gym.spaces.flatdim(agent.action_space)]
        weights = [rng.normal(0.0, 0.7, (b, a)).astype(np.float32) for a, b in pairwise(sizes)]
        biases = [rng.normal(0.0, 0.3, b).astype(np.float32) for b in sizes[1:]]
        networks[agent.name] = Network(tuple(weights), tuple(biases), ("tanh", "linear"))
        spaces[agent.name] = agent.action_space
    return Policy(networks, {name: name for name in networks}, spaces)


def corrupt(readings: dict[str, Any], rng: np.random.Generator) -> Any:
    """Return readings with up to eight things wrong with them."""
    if rng.random() < 0.05:
        return SHAPES[rng.integers(len(SHAPES))]
    out: dict[Any, Any] = dict(readings)
    for _ in range(rng.integers(1, 9)):
        _CORRUPTIONS[rng.integers(len(_CORRUPTIONS))](out, rng)
    if rng.random() < 0.1:
        return {"time": out.get("time"), "readings": [{"name": name, "value": value} for name, value in out.items()]}
    return out


def _pick(out: dict[Any, Any], rng: np.random.Generator, count: int = 1) -> list[Any]:
    names = list(out)
    return [names[i] for i in rng.choice(len(names), min(count, len(names)), replace=False)]


def _replace(out: dict[Any, Any], rng: np.random.Generator) -> None:
    for name in _pick(out, rng, int(rng.integers(1, max(2, len(out) // 2)))):
        out[name] = NONSENSE[rng.integers(len(NONSENSE))]


def _leave_out(out: dict[Any, Any], rng: np.random.Generator) -> None:
    for name in _pick(out, rng, int(rng.integers(1, max(2, len(out))))):
        del out[name]


def _swap(out: dict[Any, Any], rng: np.random.Generator) -> None:
    names = _pick(out, rng, 2)
    if len(names) == 2:
        out[names[0]], out[names[1]] = out[names[1]], out[names[0]]


def _scale(out: dict[Any, Any], rng: np.random.Generator) -> None:
    for name in _pick(out, rng, 20):
        if isinstance(out[name], float):
            out[name] *= float(rng.choice([-1.0, 1e-3, 1e3, 1e6, 1.3, 1e12]))


def _rename(out: dict[Any, Any], rng: np.random.Generator) -> None:
    for name in _pick(out, rng, 3):
        new = (
            NAMES[rng.integers(len(NAMES))] if rng.random() < 0.5 else f"{name}{rng.choice(['_kv', '_mw', '.x', '%'])}"
        )
        out[new] = out.pop(name)


def _retime(out: dict[Any, Any], rng: np.random.Generator) -> None:
    out["time"] = TIMES[rng.integers(len(TIMES))]


_CORRUPTIONS: tuple[Callable[[dict[Any, Any], np.random.Generator], None], ...] = (
    _replace, _replace, _leave_out, _swap, _swap, _scale, _rename, _retime,
)  # fmt: skip


def find_infeasible(advisor: Advisor, advice: Advice) -> Iterator[str]:
    """Yield every limit that a setpoint breaks, from the state that the advice takes devices to be in."""
    simulation, dt_h = advisor.task.simulation, advisor.step_minutes / 60.0
    of_device: dict[str, dict[str, float | None]] = {}
    for each in advice.setpoints:
        of_device.setdefault(each.device, {})[each.quantity] = each.set
        if each.set is not None and not math.isfinite(each.set):
            yield f"{each.device}.{each.quantity} is {each.set}"
    for fleet in simulation.fleets:
        for i, (name, spec) in enumerate(zip(fleet.names, fleet.specs, strict=True)):
            own = {quantity: value for quantity, value in of_device.get(name, {}).items() if value is not None}
            if own:
                yield from (f"{name}: {text} ({own})" for text in _CHECKS[fleet.kind](fleet, i, spec, own, dt_h))


def _check_storage(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    p, q, soc = own["p_kw"], own.get("q_kvar", 0.0), float(fleet.soc[0, i])
    charge = spec.p_charge_max_kw or spec.p_max_kw
    s = spec.s_max_kva or max(charge, spec.p_max_kw)
    e, drain = spec.e_max_kwh, spec.standby_loss_kw * dt_h / spec.e_max_kwh
    if not -charge - 1e-6 <= p <= spec.p_max_kw + 1e-6:
        yield "power beyond its rating"
    if spec.reactive and math.hypot(p, q) > s * (1 + 1e-9) + 1e-9:
        yield "outside its kVA circle"
    after = soc - (p / spec.eta_discharge if p > 0 else p * spec.eta_charge) * dt_h / e - drain
    if p > 1e-6 and after < spec.soc_min - 1e-6:
        yield f"discharged to {after}"
    if p < -1e-6 and after > spec.soc_max + 1e-6:
        yield f"charged to {after}"


def _check_inverter(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    p, q = own.get("p_kw", float(fleet.p_kw[0, i])), own.get("q_kvar", 0.0)
    s = spec.s_max_kva or 1.1 * spec.p_max_kw
    if not -1e-9 <= p <= min(spec.p_max_kw, float(fleet.available_kw[0, i]), spec.p_limit_kw or math.inf) + 1e-6:
        yield "more than the sun or its limit"
    if spec.reactive != "none" and math.hypot(p, q) > s * (1 + 1e-9) + 1e-9:
        yield "outside its kVA circle"
    if spec.reactive.startswith("category") and (abs(q) > 0.44 * s + 1e-6 or (p < 0.05 * min(spec.p_max_kw, s) and q)):
        yield "outside IEEE 1547 Table 7"


def _check_generator(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    p, q, before = own["p_kw"], own.get("q_kvar", 0.0), float(fleet.previous_p_kw[0, i])
    s = spec.s_max_kva or 1.25 * spec.p_max_kw
    if p and not min(spec.p_min_kw, s) - 1e-6 <= p <= min(spec.p_max_kw, s) + 1e-6:
        yield "outside its limits"
    if spec.reactive and math.hypot(p, q) > s * (1 + 1e-9) + 1e-9:
        yield "outside its kVA circle"
    if spec.ramp_kw_per_min is not None:
        jump = max(spec.p_min_kw, spec.ramp_kw_per_min * 60 * dt_h)
        if abs(p - before) > (spec.ramp_kw_per_min * 60 * dt_h if p and fleet.on[0, i] else jump) + 1e-6:
            yield f"ramps from {before}"


def _check_load(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    # what it takes less than its demand is owed
    cut, owed = float(fleet.cut_kw[0, i]), float(fleet.owed_kwh[0, i])
    if not -1e-6 <= owed + cut * dt_h <= spec.owed_max_kwh + 1e-6:
        yield f"owes {owed + cut * dt_h} kWh"


def _check_station(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    most = spec.ports * spec.p_max_kw + 1e-6
    if not -most <= own["p_kw"] <= (most if spec.v2g else 1e-9):
        yield "beyond its ports"


def _check_switchgear(fleet: Any, i: int, spec: Any, own: dict[str, float], dt_h: float) -> Iterator[str]:
    (position,), before = own.values(), int(fleet.previous_position[0, i])
    state = next(s for s in fleet.states if s.device == fleet.names[i] and s.name in ("tap", "steps_on", "closed"))
    moved = abs(position - before)
    if position != int(position) or not state.low <= position <= state.high:
        yield "no position that it has"
    if moved and spec.dwell_steps and fleet.locked_steps[0, i]:
        yield f"moves {moved} while it rests"
    if spec.moves_per_day and moved > fleet.moves_left[0, i]:
        yield f"moves {moved} of {fleet.moves_left[0, i]} that are left"
    if moved > (getattr(spec, "moves_per_step", None) or math.inf):
        yield f"moves {moved} at once"


_CHECKS: dict[str, Callable[[Any, int, Any, dict[str, float], float], Iterator[str]]] = {
    "storage": _check_storage,
    "inverter": _check_inverter,
    "generator": _check_generator,
    "flexible_load": _check_load,
    "ev_charger": _check_station,
    **dict.fromkeys(("capacitor", "regulator", "switch"), _check_switchgear),
}


def fuzz(scenario: Scenario, count: int, seed: int = 0, player: str | None = None) -> Iterator[str]:
    """Yield what goes wrong in as many rounds; a grid that follows what it can be told is played beside."""
    rng, env = np.random.default_rng(seed), GridTask(scenario)
    actor = find_player(scenario, player)[1] if player else PolicyPlayer(random_policy(env, seed))
    options = AdvisorOptions(fallback=("hold", "native", "none")[seed % 3], min_coverage=0.3)
    advisor = Advisor(scenario, actor, options)
    start = env.simulation.profiles.start.astype("datetime64[s]")
    horizon, step = env.simulation.options.horizon_steps, horizon_step(scenario)
    try:
        day = int(env.simulation.days[0])
        for number in range(count):
            if number % horizon == 0:
                day = int(rng.choice(env.simulation.days))
                env.reset(0, np.random.default_rng([0, day]), {"day": day})
            now = start + np.timedelta64(day, "D") + (number % horizon) * step
            readings: dict[str, Any] = {"time": str(now), **readings_of(env, advisor.catalogue)}
            sent = corrupt(readings, rng) if rng.random() < 0.9 else readings
            try:
                advice = advisor.advise(sent)
                wrong = list(find_infeasible(advisor, advice))
            except Exception as error:  # noqa: BLE001 (any is what is looked for)
                wrong = [f"{type(error).__name__}: {error}"]
            yield from (f"{scenario.name}, seed {seed}, round {number}: {text}" for text in wrong)
            env.action_buffer()[:] = advisor.action
            env.step()
    finally:
        env.close()
        advisor.close()


def horizon_step(scenario: Scenario) -> np.timedelta64:
    """Return the length of a step."""
    return np.timedelta64(round(scenario.step_minutes * 60), "s")


def main() -> int:
    """Run the rounds of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=["ieee13_mg", "ieee13_voltvar"])
    parser.add_argument("--count", type=int, default=10_000, help="rounds of all scenarios together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failures, rounds = 0, arguments.count // len(arguments.scenarios)
    for name in arguments.scenarios:
        begin = time.perf_counter()
        for failure in fuzz(load_scenario(name, {"split": "all"}), rounds, arguments.seed):
            failures += 1
            print(failure)
        print(f"{name}: {rounds} rounds in {time.perf_counter() - begin:.0f} s")
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
