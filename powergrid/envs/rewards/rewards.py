"""Named reward terms, zone by zone, and their weighted sum; terms are kept.

Every term is a cost: the reward is minus the weighted sum, times the scenario's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.agents import ownership
from powergrid.envs.rewards.optional import OtherTerms, PaidTerms, PeakImport, multiply_rows
from powergrid.errors import ScenarioError
from powergrid.grid.devices.spec import Rows
from powergrid.grid.metrics import Metrics
from powergrid.grid.simulation import Simulation
from powergrid.quantities import COUNTED_TERMS, MONEY_TERMS, TERMS
from powergrid.scenario import Scenario

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_ENERGY = COUNTED_TERMS.index("energy_cost_usd")
_STORED = COUNTED_TERMS.index("stored_energy_usd")
_REFERENCE = COUNTED_TERMS.index("reference_cost_usd")
_LOSSES = COUNTED_TERMS.index("losses_kwh")
_UNSERVED = COUNTED_TERMS.index("unserved_kwh")
_GENERATION = COUNTED_TERMS.index("generation_cost_usd")
_DEVIATION = COUNTED_TERMS.index("soc_deviation_kwh")
#: Terms side by side that one gather takes from what was measured, and the columns of it that they are.
_MEASURED = {
    "losses_kwh": "losses_kw",
    "voltage_violation_pu": "shared_violation_pu",
    "overload_pu": "shared_overload_pu",
}
#: Terms that a kind of devices counts, which few scenarios have.
_OF_FLEETS = ("hvac_kwh", "discomfort_k2h")
_FIRST_MEASURED, _LAST_MEASURED = (COUNTED_TERMS.index([*_MEASURED][i]) for i in (0, -1))


class Rewards:
    """Take the terms of every step for every agent.

    Args:
        scenario: Says the weights.
        simulation: The simulation.
        metrics: Its metrics, with one zone for each agent.
        owners: Names of each agent's devices.
        loads_in: 1 where a load is in an agent's zone, shape (n_loads, n_agents).
        zone_nodes: Nodes of each agent's zone.
        pcc_nodes: Nodes of each agent's point of common coupling.
        peak: The highest import, None where it has no weight.

    Attributes:
        terms: Terms of the last step in their units, shape (n_envs, n_agents, n_terms), in the order of ``told``.
        by_term: The same numbers term by term, shape (n_terms, n_envs, n_agents).
        rewards: Reward of the last step, shape (n_envs, n_agents).
        told: Names of the terms that are counted: those that always are, then others that have a weight.
    """

    _memory = ("by_term", "_reference", "_usd_per_kw", "_soc_initial", "_stored_kwh", "_stored_price")

    def __init__(
        self,
        scenario: Scenario,
        simulation: Simulation,
        metrics: Metrics,
        owners: Sequence[Sequence[str]],
        loads_in: FloatArray,
        zone_nodes: Sequence[IntArray],
        pcc_nodes: Sequence[IntArray],
        peak: PeakImport | None = None,
    ) -> None:
        self._simulation, self._metrics, self._peak = simulation, metrics, peak
        of_devices = {term for fleet in simulation.fleets for term in fleet.terms}
        drawn = {key.removeprefix("reward.weights.") for key in scenario.ranges}
        asked = [term for term in TERMS if term not in COUNTED_TERMS and (scenario.weight_of(term) or term in drawn)]
        asked = [term for term in asked if term in of_devices or term not in _OF_FLEETS]
        self.told = (*COUNTED_TERMS, *asked)
        n_envs, n_agents = simulation.n_envs, len(owners)
        self._scenario, self._agents_devices = scenario, owners
        weights = self._find_weights(scenario)
        self._share = scenario.share_reward
        self._divergence: float | FloatArray = scenario.divergence.penalty
        self.by_term = np.zeros((len(self.told), n_envs, n_agents))  # each term's numbers side by side in memory
        chosen = (_ENERGY, _REFERENCE, _LOSSES, slice(_FIRST_MEASURED, _LAST_MEASURED + 1), _STORED)
        self._parts = tuple(self.by_term[of] for of in chosen)
        self._forms = simulation.snapshot.forming_kva.size > 0
        self._weights = np.tile(weights[:, None, None], (1, n_envs, n_agents))
        self._weighed = np.zeros_like(self.by_term)
        rows = {term: self.by_term[self.told.index(term)] for term in asked if term not in _OF_FLEETS}
        self._peak_rise = rows.pop("peak_rise_kw", None)
        paid = {term: rows.pop(term) for term in PaidTerms.NAMES if term in rows}
        self._paid = PaidTerms(simulation, metrics, owners, paid) if paid else None
        self._others = OtherTerms(simulation, metrics, owners, zone_nodes, pcc_nodes, rows) if rows else None
        self.terms = self.by_term.transpose(1, 2, 0)
        self.rewards = np.zeros((n_envs, n_agents))
        n_rows = simulation.options.horizon_steps + 1
        # laid out at the start of a day, so that a step takes one row of each
        self._reference, self._usd_per_kw = np.zeros((2, n_envs, n_rows, n_agents))
        self._reference_rows, self._usd_rows = (
            day.reshape(-1, n_agents) for day in (self._reference, self._usd_per_kw)
        )
        terms = COUNTED_TERMS[_FIRST_MEASURED : _LAST_MEASURED + 1]
        places = [metrics.find_places(_MEASURED[term]) for term in terms]
        self._measured = np.array([np.broadcast_to(own, (n_envs, n_agents)) for own in places])
        self._import = metrics.find_places("zone_kva")[:, ::2].copy()
        self._loss_hours = np.full((n_envs, n_agents), simulation.dt_h / n_agents)
        self._sun_kw = _find_sun_kw(simulation, owners)
        self._islands = simulation.islands
        if self._islands is not None:
            self._load_owners, self._source_prices = _own_islands(simulation, owners, loads_in)
        self._bind_devices(owners)

    def _bind_devices(self, owners: Sequence[Sequence[str]]) -> None:
        """Find what devices cost, what they store and owe, and whose they are."""
        simulation, (_, n_envs, n_agents) = self._simulation, self.by_term.shape
        # terms that are no device's read as zero
        self._owners = ownership(owners, simulation.device_names)
        self._of_devices = np.zeros((len(self.told), n_envs, len(self._owners)))
        self._device_terms = [
            (fleet, term, self._of_devices[row, :, own]) for fleet, term, row, own in place_terms(simulation, self.told)
        ]
        self._of_devices_rows = self._of_devices.reshape(-1, len(self._owners))
        self._by_term_rows = self.by_term.reshape(-1, n_agents)
        self._storage = next((f for f in simulation.fleets if f.kind == "storage"), None)
        self._soc_initial = np.zeros((n_envs, 0))
        if self._storage is not None:
            e_max = np.array([float(spec.e_max_kwh) for spec in self._storage.specs])
            self._kwh_per_soc = ownership(owners, self._storage.names) * e_max[:, None]
            self._e_max: FloatArray | None = None  # battery by battery, where environments differ
            self._soc_initial = np.zeros((n_envs, len(e_max)))
        self._stored_kwh, self._stored_now = np.zeros((n_envs, n_agents)), np.zeros((n_envs, n_agents))
        self._stored_price = np.zeros((n_envs, n_agents))
        self._owing = [
            (fleet, ownership(owners, fleet.names))
            for fleet in simulation.fleets
            if hasattr(fleet, "unserved_at_end_kwh")
        ]

    def start(self, rows: Rows, zone_kw: FloatArray) -> None:
        """Note what some environments start from.

        Args:
            rows: The environments.
            zone_kw: Demand in each agent's zone on their days [kW], shape (n_rows, horizon_steps + 1, n_agents).
        """
        if self._storage is not None:
            self._soc_initial[rows] = soc = self._storage.soc[rows]
            self._stored_kwh[rows] = self._in_batteries(soc, rows)
        simulation = self._simulation
        # the mean of the tariff alone: what events make of the price is in what is paid, not in what is stored
        price = simulation.day_price[rows]
        self._stored_price[rows] = np.add.reduce(price[:, :-1], axis=1, keepdims=True) / (price.shape[1] - 1)
        sun_kw = self._sun_kw if self._sun_kw.ndim == 1 else self._sun_kw[rows, None]
        reference = np.multiply(simulation.day_pv_pu[rows, :, None], sun_kw)
        np.subtract(zone_kw, reference, out=reference)
        paid = simulation.day_paid_price[rows] * simulation.dt_h
        self._reference[rows] = np.multiply(reference, paid[:, :, None], out=reference)
        self._usd_per_kw[rows] = paid[:, :, None]
        self.terms[rows] = 0.0
        self.rewards[rows] = 0.0

    def take(self, ends: BoolArray) -> None:
        """Take the terms of the step that was solved.

        Args:
            ends: Whether the horizon ends with it, so that what is still owed counts as unserved, shape (n_envs,).
        """
        simulation, metrics, terms = self._simulation, self._metrics, self.by_term
        over = True in ends.tolist()  # a sixth of what a numpy function takes on a few
        for fleet, term, part in self._device_terms:
            part[...] = fleet.terms[term]
        self._of_devices_rows.dot(self._owners, self._by_term_rows)
        measured, row = metrics.results, simulation.played_row
        energy, reference, losses, of_metrics, change = self._parts
        measured.take(self._import, None, energy, "clip")
        np.multiply(energy, self._usd_rows.take(row, 0), out=energy)
        self._reference_rows.take(row, 0, reference, "clip")
        measured.take(self._measured, None, of_metrics, "clip")
        np.multiply(losses, self._loss_hours, out=losses)
        if self._peak is not None:
            np.divide(self._peak.rise_kw, terms.shape[2], out=self._peak_rise)
        if self._paid is not None:
            self._paid.take(self._usd_rows.take(row, 0))
        if self._islands is not None and self._islands.apart:
            terms[_UNSERVED] += multiply_rows(self._islands.unserved_kw, self._load_owners)
        if self._forms and np.count_nonzero(simulation.snapshot.forming_kva):
            terms[_GENERATION] += simulation.snapshot.forming_kva.real @ self._source_prices
        if self._storage is not None:
            stored = self._stored_now
            if self._e_max is None:
                self._storage.soc.dot(self._kwh_per_soc, stored)
            else:
                stored[...] = self._in_batteries(self._storage.soc)
            np.multiply(np.subtract(self._stored_kwh, stored, out=change), self._stored_price, out=change)
            # kept, so that the terms of a day telescope to what left the batteries in it
            self._stored_kwh, self._stored_now = stored, self._stored_kwh
            if over:
                deviation = np.abs(self._storage.soc - self._soc_initial) * ends[:, None]
                terms[_DEVIATION] = self._in_batteries(deviation)
        if self._owing and over:
            for fleet, owners in self._owing:
                terms[_UNSERVED] += (fleet.unserved_at_end_kwh() * ends[:, None]) @ owners
        if self._others is not None:
            self._others.take(self._soc_initial, ends)
        np.multiply(self._weights, terms, out=self._weighed)
        rewards = np.add.reduce(self._weighed)  # term by term: the same bits for any number of environments
        # a step that did not converge reports the last good state, so that only the penalty tells it from a good one
        if False in simulation.snapshot.converged.tolist():
            rewards -= self._divergence * ~simulation.snapshot.converged[:, None]
        if self._share:
            rewards[:] = rewards.mean(axis=1, keepdims=True)
        self.rewards = rewards

    def _find_weights(self, scenario: Scenario) -> FloatArray:
        """Return what a unit of each term adds to the reward, shape (n_terms,)."""
        return np.array([scenario.weight_of(term) for term in self.told]) * -scenario.reward.scale

    def _in_batteries(self, soc: FloatArray, rows: Rows = slice(None)) -> FloatArray:
        """Return the energy of states of charge of some environments by agent [kWh], shape (n_rows, n_agents)."""
        if self._e_max is None:
            return np.asarray(soc @ self._kwh_per_soc)
        return multiply_rows(soc * self._e_max[rows], np.sign(self._kwh_per_soc))

    def take_numbers(self, env: int, values: Mapping[tuple[str, ...], Any]) -> None:
        """Weigh the terms of one environment, and count what its devices hold, by numbers of its own.

        Args:
            env: Which environment.
            values: By the parts of the scenario's key; all others are the scenario's.

        Raises:
            ScenarioError: a weight is of a term that is not counted.
        """
        scenario = self._scenario
        own = {path[2]: value for path, value in values.items() if path[:2] == ("reward", "weights")}
        uncounted = [term for term in own if term not in self.told]
        if uncounted:
            remedy = "give it any, or a range, when the environment is built"
            raise ScenarioError(
                "options", [f"reward.weights.{term} has no weight here; {remedy}" for term in uncounted]
            )
        reward = scenario.reward.model_copy(
            update={
                "weights": {**scenario.reward.weights, **own},
                "scale": values.get(("reward", "scale"), scenario.reward.scale),
            }
        )
        penalty = values.get(("penalty",), scenario.penalty)
        weights = self._find_weights(scenario.model_copy(update={"reward": reward, "penalty": penalty}))
        self._weights[:, env] = weights[:, None]
        usual = scenario.divergence.penalty
        lost = values.get(("divergence", "penalty"), usual)
        if not isinstance(self._divergence, float | int) or lost != usual:
            n_envs = self.rewards.shape[0]
            if isinstance(self._divergence, float | int):
                self._divergence = np.full((n_envs, 1), usual)
            self._divergence[env] = lost
        if any(path[0] == "devices" for path in values) or self._sun_kw.ndim > 1:
            self._count_devices(env)

    def _count_devices(self, env: int) -> None:
        """Count what devices of one environment hold and are rated for by what is said of them there."""
        n_envs = self.rewards.shape[0]
        if self._sun_kw.ndim == 1:
            self._sun_kw = np.tile(self._sun_kw, (n_envs, 1))
        self._sun_kw[env] = _find_sun_kw(self._simulation, self._agents_devices, env)
        if self._storage is not None:
            if self._e_max is None:
                self._e_max = np.tile([float(spec.e_max_kwh) for spec in self._storage.specs], (n_envs, 1))
            self._e_max[env] = [float(spec.e_max_kwh) for spec in self._storage.specs_of(env)]
        if self._others is not None:
            self._others.take_ratings(env)

    def money(self) -> FloatArray:
        """Return the money of the last step, stored energy left out [USD], shape (n_envs, n_agents)."""
        money: FloatArray = self.terms[:, :, [self.told.index(term) for term in MONEY_TERMS if term in self.told]].sum(
            axis=2
        )
        return money

    def state(self) -> dict[str, FloatArray]:
        """Copy what the last step gave, and what the terms of the next are counted from."""
        peak = {} if self._peak is None else {"peak_kw": self._peak.kw.copy()}
        return {name: getattr(self, name).copy() for name in (*self._memory, "rewards")} | peak

    def restore(self, state: Mapping[str, FloatArray]) -> None:
        """Put a :meth:`state` back."""
        for name in self._memory:
            getattr(self, name)[...] = state[name]  # in place: some have views of theirs
        self.rewards = state["rewards"].copy()  # the last ones may be a caller's
        if self._peak is not None:
            self._peak.kw[...] = state["peak_kw"]


def place_terms(simulation: Simulation, names: Sequence[str]) -> list[tuple[Any, str, int, slice]]:
    """Return the fleets that count any of some terms, each with a term, its place among them and its devices."""
    ends = np.cumsum([fleet.n for fleet in simulation.fleets]).tolist()
    return [
        (fleet, term, row, slice(end - fleet.n, end))
        for fleet, end in zip(simulation.fleets, ends, strict=True)
        for row, term in enumerate(names)
        if term in fleet.terms
    ]


def _find_sun_kw(simulation: Simulation, owners: Sequence[Sequence[str]], env: int = 0) -> FloatArray:
    """Return what each agent's inverters are rated for in an environment [kW], shape (n_agents,)."""
    sun_kw = np.zeros(len(owners))
    for fleet in simulation.fleets:
        if fleet.kind == "inverter":
            rated = np.array([float(spec.p_max_kw) for spec in fleet.specs_of(env)])
            sun_kw += rated @ ownership(owners, fleet.names)
    return sun_kw


def _own_islands(
    simulation: Simulation, owners: Sequence[Sequence[str]], loads_in: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Say who answers for what islands lack and for what their forming sources give.

    A microgrid is the agent's that owns the switch on its tie, else the agents' whose zone holds its loads. Loads
    elsewhere are the agents' whose zone holds them, in equal parts everybody's where none does.

    Returns:
        Hours to multiply the demand with that is not served, shape (n_loads, n_agents), and USD for each kW of a
        forming source, shape (n_forming, n_agents).
    """
    network, n_agents = simulation.network, len(owners)
    nobody = loads_in.sum(axis=1) == 0.0
    of_loads = np.where(nobody[:, None], 1.0 / n_agents, loads_in)
    prices = []
    for microgrid in network.microgrids:
        tie = f"line.{microgrid.tie}"
        switches = [
            name for name, spec in simulation.devices.items() if str(getattr(spec, "element", "")).lower() == tie
        ]
        inside = np.isin(network.loads.bus, [network.bus_index[bus] for bus in microgrid.buses])
        own = np.array([float(any(switch in devices for switch in switches)) for devices in owners])
        own = own if own.any() else (loads_in[inside].sum(axis=0) > 0.0).astype(float)
        own = own if own.any() else np.full(n_agents, 1.0 / n_agents)
        of_loads[inside] = own
        if microgrid.forming is not None:
            prices.append(own * microgrid.forming.cost_usd_per_kwh)
    dt_h = simulation.dt_h
    return of_loads * dt_h, np.array(prices).reshape(-1, n_agents) * dt_h
