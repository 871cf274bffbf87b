"""Let policies play days, and take these down step by step."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.envs.draws import tell
from powergrid.errors import ScenarioError, find_number_problems
from powergrid.evaluation.drawing.state import closed_branches, place_devices
from powergrid.evaluation.players import Player, Policy, find_players, seat_players
from powergrid.evaluation.players.trained import Sight, find_all_differences, say_differences
from powergrid.evaluation.replay.recording import Columns, DayRecording, FloatArray, RecordedTable, find_split, pick_day
from powergrid.evaluation.rollout import Progress, play_steps, read_scenario, start_days
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.quantities import RECORDED, STEP
from powergrid.scenario import Scenario

_UNITS: dict[tuple[str, str], str] = {(owner, q.name): q.unit for owner in ("agent", "network") for q in STEP}
_UNITS |= {(q.owner, q.name): q.unit for q in RECORDED}


def record_day(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    day: int | str | datetime.date,
    *,
    seed: int = 0,
    notes: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> list[DayRecording]:
    """Play one day with every policy and return what happened, step by step.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        policies: Names of baselines, or a name with an object that has ``act``.
        day: The day from the first of the profiles, or its date; of whichever split.
        seed: Of whatever is random in the day, as :func:`powergrid.evaluation.evaluate` takes it.
        notes: What is to be known of a policy on this day, by its name.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: the settings, a policy's name or the day are wrong.
        FeederError: the feeder does not compile or solve.
    """
    scenario, players = read_scenario(env_config, "all"), find_players(policies)
    if problems := find_number_problems(0, MOST_SEED, seed=seed):
        raise ScenarioError("record_day", problems)
    chosen = pick_day(scenario.read_profiles(), day)
    recordings: list[DayRecording] = []
    for recording in record_days(scenario, players, [chosen], seed=seed, notes=notes):
        recordings.append(recording)
        if progress is not None:
            progress(len(recordings), len(players))
    return recordings


def record_days(
    scenario: Scenario,
    players: Sequence[Player],
    days: Sequence[int],
    *,
    seed: int = 0,
    notes: Mapping[str, Sequence[str]] | None = None,
    usual: Sight | None = None,
) -> Iterator[DayRecording]:
    """Yield what happened on each of several days, step by step, player by player; one recording is held at a time.

    Args:
        scenario: The scenario, of a split that has the days.
        players: A name with a policy, or with None for the baseline of that name.
        days: The days from the first of the profiles.
        seed, notes: As for :func:`record_day`.
        usual: What is seen by policies whose training is not known, where not what the scenario shows.
    """
    differ = find_all_differences(players, scenario)
    said = "" if scenario.telemetry is None else scenario.telemetry.say()
    for (name, policy), (_, task, player) in zip(players, seat_players(scenario, players, 1, seed, usual), strict=True):
        kind, own_notes = "baseline" if policy is None else "policy", tuple((notes or {}).get(name, ()))
        own_notes += (f"Telemetry: {said}.",) if said else ()
        own_notes += (say_differences(differ[name]),) if name in differ else ()
        for day in days:
            start_days(task, player, [day], seed)
            recorder = Recorder(task)
            for action, _ in play_steps(task, player, 1):
                recorder.add(action)
            yield recorder.finish(name, kind, own_notes)


class Recorder:
    """Keep the steps of the one environment of a task, from its last reset or from any step of the episode on.

    Args:
        task: The task.
        n_steps: Steps that a day has; those of the episode if not given.
    """

    def __init__(self, task: GridTask, n_steps: int | None = None) -> None:
        self._task, self._steps = task, list[dict[str, Columns]]()
        self._first_step = int(task.simulation.step_index[0])
        self._n_steps = n_steps or task.simulation.options.horizon_steps
        simulation = task.simulation
        network = simulation.network
        b = network.branches
        self._first_terminal = np.searchsorted(b.terminal_branch, np.arange(len(b.names)))
        self._n_devices = len(simulation.device_names)
        ends = np.cumsum([fleet.n for fleet in simulation.fleets]).tolist()
        self._fleets = [(fleet, slice(end - fleet.n, end)) for fleet, end in zip(simulation.fleets, ends, strict=True)]
        self._units = {("device", s.name): s.unit for fleet, _ in self._fleets for s in fleet.states}
        circuit = simulation.circuits[0]
        regulators = [f"{r.class_name}.{r.transformer}".lower() for r in circuit.switchgear.regulators]
        self._names = {
            "node": network.nodes,
            "bus": tuple(network.buses[place] for place in task.metrics.three_phase_buses.tolist()),
            "branch": b.names,
            "switchgear": (
                *(name if regulators.count(name) == 1 else f"{name}:{r.winding}"
                  for name, r in zip(regulators, circuit.switchgear.regulators, strict=True)),
                *(f"capacitor.{name}" for name in network.capacitors),
            ),
            "device": simulation.device_names,
            "agent": tuple(agent.name for agent in task.agents),
            "network": ("network",),
            "action": tuple(f"{action.device}.{action.name}" for action in simulation.actions),
            "channel": tuple(f"{a.name}: {task.channels.table[i].name}" for a in task.agents for i in a.observed),
        }  # fmt: skip
        places = {name: place for place, name in enumerate(simulation.device_names)}
        self._acting = np.array([places[action.device] for action in simulation.actions], dtype=np.int64)
        self._gain = np.array([action.gain for action in simulation.actions])
        self._offset = np.array([action.offset for action in simulation.actions])
        self._seen = self._look()
        self._positions = np.concatenate([circuit.taps, circuit.steps_on])
        storage = next((fleet for fleet, _ in self._fleets if hasattr(fleet, "cycles")), None)
        self._cycles_before = 0.0 if storage is None else storage.cycles[0].copy()

    def add(self, action: FloatArray) -> None:
        """Keep the step that was just taken by an action, shape (1, n_actions)."""
        simulation, step = self._task.simulation, self._first_step + len(self._steps)
        snapshot, circuit = simulation.snapshot, simulation.circuits[0]
        flow = snapshot.terminal_kva[0, self._first_terminal]
        devices, positions = self._take_devices(), np.concatenate([circuit.taps, circuit.steps_on])
        self._steps.append({
            "node": {"v_pu": snapshot.v_pu[0], "energised": simulation.energised[0]},
            "bus": {
                "sequence_unbalance_pu": self._task.metrics.sequence_unbalance_pu[0],
                "line_unbalance_pu": self._task.metrics.line_unbalance_pu[0],
            },
            "branch": {
                "p_kw": flow.real,
                "q_kvar": flow.imag,
                "loading_pu": snapshot.loading_pu[0],
                "closed": closed_branches(circuit),
            },
            "switchgear": {"position": positions, "moved": np.abs(positions - self._positions)},
            "device": devices,
            **self._take_numbers(),
            "action": self._take_actions(action[0], devices),
            "channel": {"observed": self._seen},
        })  # fmt: skip
        self._steps[-1]["network"] |= {
            "source_q_kvar": snapshot.source_kva.imag,
            "demand_kw": simulation.day_load_kw[0, step].sum(keepdims=True),
            "demand_kvar": simulation.day_load_kvar[0, step].sum(keepdims=True),
            "sun_pu": simulation.day_pv_pu[0, step : step + 1],
        }
        self._steps[-1] = {
            owner: {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
            for owner, columns in self._steps[-1].items()
        }
        self._seen, self._positions = self._look(), positions

    def finish(self, policy: str, kind: str, notes: tuple[str, ...]) -> DayRecording:
        """Return the day as the policy of a name and kind played it."""
        task, simulation = self._task, self._task.simulation
        scenario, network, n_steps = task.scenario, simulation.network, len(self._steps)
        # the episode may start at any hour of its day
        late, first = divmod((int(simulation.first_step[0]) + self._first_step) * scenario.step_minutes, 24 * 60)
        day = int(simulation.day[0]) + late
        start = simulation.profiles.start.astype("datetime64[D]") + day
        minutes = (first + np.arange(n_steps) * scenario.step_minutes).astype("timedelta64[m]")
        owners = {"node": "nodes", "bus": "buses", "branch": "branches", "switchgear": "switchgear"}
        owners |= {
            "device": "devices",
            "agent": "agents",
            "network": "network",
            "action": "actions",
            "channel": "channels",
        }
        return DayRecording(
            policy=policy,
            kind=kind,
            scenario=scenario.name,
            feeder=scenario.feeder,
            day=day,
            date=str(start),
            split=find_split(simulation.profiles, day),
            step_minutes=scenario.step_minutes,
            times=start.astype("datetime64[m]") + minutes,
            finished=n_steps == self._n_steps and not task.terminated[0],
            band=(scenario.voltage.v_min_pu, scenario.voltage.v_max_pu),
            feeder_network=network,
            placed=place_devices(simulation),
            zones={name: spec.zone.find_buses(network) for name, spec in scenario.agents.items()},
            specs=dict(simulation.devices),
            notes=notes,
            drawn={} if task.drawn is None else tell(task.drawn[0]),
            **{attribute: self._table(owner) for owner, attribute in owners.items()},
        )

    def _table(self, owner: str) -> RecordedTable:
        columns = self._steps[0][owner]
        values = {name: np.stack([step[owner][name] for step in self._steps]) for name in columns}
        units = {name: _UNITS.get((owner, name), self._units.get((owner, name), "")) for name in columns}
        for name in columns:  # what devices count has the names of terms and infos
            if owner == "device" and (owner, name) not in _UNITS and ("agent", name) in _UNITS:
                units[name] = units[name] or _UNITS["agent", name]
        return RecordedTable(owner, tuple(self._names[owner]), values, units)

    def _look(self) -> npt.NDArray[np.float32]:
        """Return what all agents see, one after the other."""
        return np.concatenate([seen[0] for seen in self._task.observe()])

    def _take_devices(self) -> Columns:
        """Take powers, positions, states and counts of all devices, NaN where one has none."""
        powers, taken = self._task.simulation.powers, Columns()
        n_power = powers.setpoints.shape[2]

        def column(name: str) -> FloatArray:
            if name not in taken:
                taken[name] = np.full(self._n_devices, np.nan)
            return taken[name]

        for prefix, both in (("asked_", powers.requested), ("set_", powers.setpoints), ("", powers.delivered)):
            for name, values in zip((f"{prefix}p_kw", f"{prefix}q_kvar"), both, strict=True):
                column(name)[:n_power] = values[0]
        for fleet, own in self._fleets:
            if hasattr(fleet, "requested_position"):
                column("asked_position")[own] = fleet.requested_position[0]
                column("position")[own] = fleet.position[0]
            if hasattr(fleet, "cycles"):
                column("cycles")[own] = fleet.cycles[0] - self._cycles_before
            for state, (attribute, device) in zip(fleet.states, fleet.held, strict=True):
                column(state.name)[own.start + device] = getattr(fleet, attribute)[0, device]
            for name, counted in fleet.terms.items():
                column(name)[own] = counted[0]
        if (told := self._task.simulation.handed_back) is not None:
            column("handed_back")[:] = told.changed[0]
        return taken

    def _take_numbers(self) -> dict[str, Columns]:
        """Take rewards, terms and metrics of agents, and metrics of the network."""
        task = self._task
        infos = dict(zip(task.info_names, task.infos()[0].T, strict=True))
        n_own = len(task.info_names) - sum(metric.owner == "network" for metric in task.info_metrics)
        own, shared = task.info_names[:n_own], task.info_names[n_own:]
        return {
            "agent": {"reward": task.rewards[0], **{name: infos[name] for name in own}},
            "network": {name: infos[name][:1] for name in shared},
        }

    def _take_actions(self, action: FloatArray, devices: Columns) -> Columns:
        """Take what was decided, what it means, and what came of it where that is a power or a position."""
        known = {"p_kw": "set_p_kw", "q_kvar": "set_q_kvar", "tap": "position", "steps_on": "position"}
        known["closed"] = "position"
        was_set = [
            devices[known[each.name]][place] if each.name in known else np.nan
            for each, place in zip(self._task.simulation.actions, self._acting, strict=True)
        ]
        return {"action": action, "asked": action * self._gain + self._offset, "set": np.array(was_set)}
