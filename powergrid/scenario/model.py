"""A whole scenario: its keys, the checks between them and against its feeder, and how it becomes a simulation."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from powergrid.errors import Problem, ScenarioError, describe_unknown, list_names
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.circuit.own.controls import CLASSES_OF_KIND, target_of
from powergrid.grid.devices import FLEETS, AnyDeviceSpec, PowerFleet
from powergrid.grid.devices.spec import Spec
from powergrid.grid.devices.switchgear import SwitchgearSpec
from powergrid.grid.fallback import LimitedSimulation
from powergrid.grid.feeder.changes import FeederChanges, change_feeder
from powergrid.grid.feeder.compose import compose
from powergrid.grid.feeder.feeder import Feeder, list_feeders, read_feeder
from powergrid.grid.feeder.microgrid import MicrogridSpec
from powergrid.grid.feeder.network import FeederControl, Network
from powergrid.grid.fleets import find_device_problems
from powergrid.grid.outages import AnyEventSpec
from powergrid.grid.outages.effects import find_event_problems
from powergrid.grid.profiles.imported import is_imported, read_imported
from powergrid.grid.profiles.profiles import (
    Profiles,
    builtin_profiles,
    follow_loadshapes,
    read_profiles,
)
from powergrid.grid.simulation import Simulation, SimulationOptions
from powergrid.grid.telemetry import TelemetrySpec
from powergrid.scenario.identity import keys_that_matter
from powergrid.scenario.placement.place import place
from powergrid.scenario.ranges import Distribution, find_ranges
from powergrid.scenario.vocabulary import (
    GOALS,
    PRESETS,
    REWARD_WEIGHTS,
    SHIPPED_SOURCES,
    AgentSpec,
    CostsSpec,
    DivergenceSpec,
    GraphSpec,
    Mode,
    OutlookSpec,
    PlacementRecord,
    PlacementSpec,
    ProfilesSpec,
    ReconfigurationSpec,
    RewardSpec,
    SolverSpec,
    VoltageSpec,
    find_ownership_problems,
)

if TYPE_CHECKING:
    from powergrid.measurements import Imported


class Scenario(Spec):
    """Everything about an environment; every key can be overridden in ``env_config``."""

    name: str = Field(description="Short name.")
    description: str = Field(default="", description="What there is to decide.")
    version: int | None = Field(
        default=None, ge=0, description="Version of a shipped scenario, raised with every change of what is played."
    )
    feeder: str = Field(
        description="Name of a shipped feeder, or path of a master file; with `feeders`, the one that names are of."
    )
    feeders: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Feeders of which each episode draws one, as a list, or with their weights; see `placement`.",
    )
    placement: PlacementSpec = PlacementSpec()
    model_root: str | None = Field(
        default=None, description="Folder outside of which the feeder's files are not read; by default the one above."
    )
    trust: bool = Field(
        default=False,
        description="Whether the feeder may read, write, load and run what it says; not for a file to decide.",
    )
    ignore_case: bool = Field(
        default=False, description="Whether file names in the feeder may differ from those on the disk in letter case."
    )
    microgrids: dict[str, MicrogridSpec] = Field(
        default_factory=dict, description="Feeders tied to that one as microgrids, by name."
    )
    feeder_changes: FeederChanges = Field(
        default=FeederChanges(),
        description="Elements added to the feeder, and factors on its lines and loads, before it is compiled.",
    )
    mode: Mode = Field(default="distributed", description="Whether agents see their own zone or the whole network.")
    observations: Literal["full", "summary", "graph"] = Field(
        default="full",
        description="Whether the network is shown node by node, in numbers that every feeder has (`summary`, as with "
        "`feeders` if unset), or in these and as a graph of buses and branches.",
    )
    graph: GraphSpec | None = Field(
        default=None, description="Room for the graph, with `observations: graph`; to be given with `feeders`."
    )
    outlook: OutlookSpec | None = Field(
        default=None,
        description="What agents see of themselves, the season and the hours to come, `{}` for all; nothing if unset.",
    )
    proposals: Literal["rule_based"] | None = Field(
        default=None,
        description="Whose setpoints for the step to come agents see beside their devices: those of the baseline "
        "`rule_based`; nobody's if unset.",
    )
    telemetry: TelemetrySpec | None = Field(
        default=None,
        description="What agents are told and when, and when devices hear from them; all of it, at once, if unset.",
    )
    infos: Literal["none", "terms", "numbers", "full"] = Field(
        default="numbers",
        description="What infos hold: nothing, the reward's terms, all numbers, or names too, of the worst node, of "
        "events and of the feeder; few libraries take texts there.",
    )
    action_masks: Literal["none", "infos", "observations"] = Field(
        default="none",
        description="Where agents are told which positions they can have now: `action_mask` in infos, or observations "
        "of `observations` and `action_mask`.",
    )
    plain_discrete: bool = Field(
        default=False,
        description="Whether one position, where it is all that an agent decides, is a `Discrete` and no "
        "`MultiDiscrete` of one.",
    )
    episode_length: int = Field(default=96, ge=1, description="Steps of an episode.")
    step_minutes: int = Field(default=15, ge=1, le=1440, description="Length of a step [min].")
    split: Literal["train", "validation", "test", "all"] = Field(default="train", description="Days to draw from.")
    day_weights: dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="How often days of the split are drawn, by their number from the first of the profiles; 1 where "
        "none is given.",
    )
    seed: int | None = Field(default=None, ge=0, description="Seed of the first reset that is given none.")
    share_reward: bool = Field(
        default=False, description="Whether each agent gets the mean reward of all, and pays the mean of their `costs`."
    )
    penalty: float = Field(
        default=100.0, ge=0, description="Price of a violation: multiplies the voltage and overload terms [USD/pu]."
    )
    load_scale: float = Field(
        default=1.0, gt=0, le=100, description="Factor on every load's nominal demand, not on what was measured."
    )
    rating_scale: float = Field(default=1.0, gt=0, le=100, description="Factor on the normal rating of every branch.")
    start_hour: float = Field(
        default=0.0, ge=0, lt=24, description="Hour of the day that an episode starts at; rounded to a whole step [h]."
    )
    ranges: dict[str, Distribution] = Field(
        default_factory=dict,
        description="What each episode draws anew, by key; a distribution in place of a number says the same: see "
        "[Ranges](#ranges).",
    )
    taps: dict[str, int] = Field(default_factory=dict, description="Tap at the start by regulator control.")
    steps_on: dict[str, int] = Field(default_factory=dict, description="Steps on at the start by capacitor.")
    norm_amps: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Normal rating [A] by branch, where the feeder's own is not meant."
    )
    native_controls: bool = Field(
        default=False,
        description="Whether the feeder's own controls act on what is no device.",
    )
    never_worse_than: Literal["native"] | None = Field(
        default=None,
        description="`native`: in steps that the agents' actions would leave worse than the feeder's own controls do, "
        "devices are handed back to these.",
    )
    never_worse_in: tuple[Literal["voltages", "loadings"], ...] = Field(
        default=("voltages", "loadings"),
        min_length=1,
        description="What counts there, besides supply and convergence.",
    )
    release_steps: int | None = Field(
        default=None,
        ge=0,
        description="Steps that devices stay handed back after such a step, see `never_worse_than`; an hour if unset.",
    )
    profiles: ProfilesSpec = ProfilesSpec()
    voltage: VoltageSpec = VoltageSpec()
    divergence: DivergenceSpec = DivergenceSpec()
    reward: RewardSpec = RewardSpec()
    costs: CostsSpec | None = Field(
        default=None,
        description="Costs of constrained learning in infos, `{}` for node-hours and branch-hours; none if unset.",
    )
    solver: SolverSpec = SolverSpec()
    devices: dict[str, AnyDeviceSpec] = Field(min_length=1, description="Devices by name.")
    agents: dict[str, AgentSpec] = Field(min_length=1, description="Agents by name.")
    agent_names: Literal["as_written", "underscored"] = Field(
        default="as_written",
        description="`underscored`: agents are `MG_1` where they are written `MG1`, by which TorchRL groups them.",
    )
    events: dict[str, AnyEventSpec] = Field(default_factory=dict, description="What befalls the feeder, by name.")
    reconfiguration: ReconfigurationSpec | None = Field(
        default=None, description="Rules of switching; with any, or with events, who is fed is followed."
    )

    placed: PlacementRecord = PlacementRecord()

    @field_validator("feeders", mode="before")
    @classmethod
    def _equal_weights(cls, value: Any) -> Any:
        return dict.fromkeys(map(str, value), 1.0) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _references(self) -> Scenario:
        # Agents of several feeders need spaces that are equal on all of them.
        if self.feeders and self.mode == "centralized" and self.observations == "full":
            raise ValueError("observations: 'full' differs from feeder to feeder; with several feeders use 'summary'")
        owned = {name: {"devices": agent.devices} for name, agent in self.agents.items()}
        problems = find_ownership_problems({"devices": self.devices, "agents": owned})
        if self.microgrids and self.feeders:
            problems.append("microgrids: do not go with feeders; leave out one or the other")
        if self.telemetry is not None and self.telemetry.hops is not None:
            if self.mode == "centralized":
                problems.append("telemetry.hops: goes with mode: 'distributed'; in 'centralized' agents see every bus")
            if self.observations != "full":
                problems.append(f"telemetry.hops: goes with observations: 'full', not {self.observations!r}")
        if self.telemetry is not None and not self.telemetry.idle and self.proposals is not None:
            problems.append("proposals: rules see what telemetry keeps back; leave out one or the other")
        room = self.graph or GraphSpec()
        if self.graph is not None and self.observations != "graph":
            problems.append("graph: says how large a graph is shown; set observations: graph with it, or leave it out")
        if self.feeders and self.observations == "graph" and None in (room.max_buses, room.max_branches):
            problems.append("graph: with several feeders give max_buses and max_branches, room for the largest")
        problems += [f"ranges.{problem}" for problem in find_ranges(self, self.ranges)[1]]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    # -- building

    def read_feeder(self) -> Feeder:
        """Read the feeder's files, and tie its microgrids to it.

        Raises:
            FeederError: a feeder is wrong, or they do not fit each other.
        """
        host = self._read_one(self.feeder)
        read = functools.partial(read_feeder, trust=self.trust, ignore_case=self.ignore_case)
        return compose(host, self.microgrids, read) if self.microgrids else host

    def feeder_digests(self) -> dict[str, str]:
        """Return the digest of the feeder's files, of all of them where there are several, by feeder."""
        if not self.feeders:
            return {self.feeder: self.read_feeder().digest}
        return {name: self._read_one(name).digest for name in self.feeders}

    def _read_one(self, reference: str) -> Feeder:
        # A shipped feeder among a user's own lies outside of the user's model_root.
        root = None if self.feeders and reference in list_feeders() else self.model_root
        feeder = read_feeder(reference, model_root=root, trust=self.trust, ignore_case=self.ignore_case)
        if self.feeder_changes.is_empty:
            return feeder
        return change_feeder(feeder, self.feeder_changes, network_of(feeder))

    def read_profiles(self, feeder: Feeder | None = None) -> Profiles:
        """Read the exogenous series; the feeder is read for them where it is not given and they are of it."""
        source = self.profiles.source
        if self.profiles.map is not None:
            return self.import_measurements().profiles
        if callable(source):  # what this library makes of other profiles
            made: Profiles = source()
            return made
        if isinstance(source, str) and source in SHIPPED_SOURCES:
            if source == "builtin":
                return builtin_profiles()
            network = network_of(feeder or self.read_feeder())
            return follow_loadshapes(network, builtin_profiles(demand=False), self.profiles.shape_mode)
        if isinstance(source, str | Path) and is_imported(source):
            return read_imported(source)
        return read_profiles(source)

    def import_measurements(self) -> Imported:
        """Return the profiles that ``profiles.map`` makes of measured tables, and the report on the data.

        Raises:
            ScenarioError: the scenario has none, or with every problem of map and tables.
        """
        if self.profiles.map is None:
            raise ScenarioError(self.name, ["profiles.map is not given, so there are no tables to import"])
        from powergrid.measurements.kept import import_kept

        return import_kept(self.profiles.source, self.read_feeder(), self.profiles.map)

    def simulate(self, n_envs: int = 1) -> Simulation:
        """Build the simulation of n environments.

        Raises:
            ScenarioError: something refers to what the feeder or the profiles lack; all of it.
            FeederError: the feeder itself is wrong.
        """
        if self.feeders:
            several = f"has several feeders ({', '.join(self.feeders)}), of which this can play one: set feeder"
            raise ScenarioError(self.name, [several])
        feeder = self.read_feeder()
        network = network_of(feeder)
        problems = list(self._find_reference_problems(network))
        if problems:
            if self.placed.home and not self.placed.moves and not self.microgrids:
                # Made for another feeder: placing tells the same with what is most like it.
                place(self.model_dump(), self._read_one(self.placed.home), feeder, PlacementSpec(), self.name)
            raise ScenarioError(self.name, problems)
        played = feeder, self.devices, self.read_profiles(feeder), self._options(), n_envs
        if self.never_worse_than is None:
            return Simulation(*played)
        limits, hour = (self.voltage.v_min_pu, self.voltage.v_max_pu), max(1, round(60 / self.step_minutes))
        release_steps = hour if self.release_steps is None else self.release_steps
        beside = self._left_to_feeder(network).simulate(n_envs)
        return LimitedSimulation(beside, limits, release_steps, self.never_worse_in, *played)

    def _options(self) -> SimulationOptions:
        return SimulationOptions(
            step_minutes=self.step_minutes,
            horizon_steps=self.episode_length,
            split=self.split,
            day_weights=self.day_weights,
            tariff=self.profiles.tariff,
            load_scale=self.load_scale,
            price_scale=self.profiles.price_scale,
            start_hour=self.start_hour,
            latest_hour=max(self.ranges["start_hour"].ends) if "start_hour" in self.ranges else 0.0,
            line_scales=(self.feeder_changes.scale.line_r, self.feeder_changes.scale.line_x),
            load_classes=self.profiles.load_classes,
            shaped_loads=self.feeder_changes.shaped_loads(),
            load_seed=self.profiles.load_seed,
            taps=self.taps,
            steps_on=self.steps_on,
            norm_amps=self.norm_amps,
            rating_scale=self.rating_scale,
            native_controls=self.native_controls,
            divergence=self.divergence.policy,
            tolerance=self.solver.tolerance,
            max_iterations=self.solver.max_iterations,
            events=self.events,
            radial=None if self.reconfiguration is None else self.reconfiguration.radial == "keep",
            keep_served=self.reconfiguration is not None and self.reconfiguration.keep_served,
            # What a zone of some phases imports is read conductor by conductor, which nobody else asks for.
            conductor_flows=any(agent.zone.phases for agent in self.agents.values()),
        )

    def _left_to_feeder(self, network: Network) -> Scenario:
        """Return the scenario as the feeder's own controls play it, see :func:`leave_to_feeder`."""
        left = leave_to_feeder(self.devices, network.controls)
        devices = {name: spec.model_copy(update=left.get(name, {})) for name, spec in self.devices.items()}
        changes = {"never_worse_than": None, "native_controls": True, "devices": devices}
        return self.model_copy(update=changes | {"divergence": DivergenceSpec(policy="hold")})

    def _find_reference_problems(self, network: Network) -> Iterator[Problem]:
        """Yield what the scenario names and its feeder lacks, in the order of the keys."""
        yield from find_device_problems(self.devices, network, "devices.{}")
        for agent, spec in self.agents.items():
            for bus in (*spec.zone.names(), spec.pcc):
                yield from _missing(network.find_bus(bus, where=f"agents.{agent}"))
            own = spec.zone.microgrid
            if own is not None and own not in self.microgrids:
                unknown = describe_unknown("microgrid", own, self.microgrids)
                yield Problem("unknown-microgrid", f"agents.{agent}.zone", unknown)
        yield from _missing(*(network.find("regulator control", name, "taps") for name in self.taps))
        yield from _missing(*(network.find("capacitor", name, "steps_on") for name in self.steps_on))
        yield from _missing(*(network.find("branch", name, "norm_amps") for name in self.norm_amps))
        for path in find_ranges(self, self.ranges)[0]:
            what = {"norm_amps": "branch", "taps": "regulator control", "steps_on": "capacitor"}.get(path[0])
            yield from () if what is None else _missing(network.find(what, path[1], f"ranges.{path[0]}"))
        power = [n for n, d in self.devices.items() if issubclass(FLEETS[d.kind], PowerFleet)]
        taken = [str(d.element).lower() for d in self.devices.values() if d.element]
        hours = self.episode_length * self.step_minutes / 60.0
        if self.telemetry is not None:
            yield from self.telemetry.find_problems(network, self.step_minutes, 60.0 * hours)
        yield from find_event_problems(self.events, network, power, taken, self.step_minutes / 60.0, hours)

    def weight_of(self, term: str) -> float:
        """Return the weight of a reward term [USD per unit], ``penalty`` included where it applies."""
        if self.costs is not None and self.costs.leaves_out(term):
            return 0.0
        goal, preset = self.reward.goal, self.reward.preset
        named = GOALS[goal] if goal is not None else None if preset is None else PRESETS[preset]
        usual = REWARD_WEIGHTS[term] if named is None else named.get(term, 0.0)
        weight = float(self.reward.weights.get(term, usual))
        return weight * self.penalty if term in ("voltage_violation_pu", "overload_pu") else weight

    def find_free_moves(self) -> list[str]:
        """Return a line for each kind of devices that agents may move as often as they like at no cost.

        A policy that is trained with these moves them at every step where it gains the least by it.
        """
        free: dict[str, list[str]] = {}
        for agent in self.agents.values():
            for name in agent.devices:
                spec = self.devices[name]
                if isinstance(spec, SwitchgearSpec) and spec.control == "agent" and self._moves_freely(spec):
                    free.setdefault(spec.kind, []).append(name)
        return [
            f"moves of {list_names(names, 4)} cost nothing, so a policy may move them at every step: set "
            f"devices.{names[0]}.cost_usd_per_operation or moves_per_day, or a reward.goal that weighs wear"
            for names in free.values()
        ]

    def _moves_freely(self, spec: SwitchgearSpec) -> bool:
        priced = spec.cost_usd_per_operation * self.weight_of("switching_wear_usd") + self.weight_of("gear_moves") > 0.0
        return not priced and spec.moves_per_day is None

    # -- identity

    def to_dict(self) -> dict[str, Any]:
        """Return the whole scenario as plain data, as YAML would hold it."""
        data = self.model_dump(mode="json", exclude={"profiles": {"source"}})  # a DataFrame is no JSON
        source = self.profiles.source
        if isinstance(source, list | tuple):
            data["profiles"]["source"] = [str(each) for each in source]
        else:
            kind = "made of other profiles" if callable(source) else "a DataFrame"
            data["profiles"]["source"] = str(source) if isinstance(source, str | Path) else kind
        return data

    def to_yaml(self) -> str:
        """Write the whole scenario as YAML."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    @property
    def versioned_name(self) -> str:
        """The name with its version, as in ``ieee13_mg-v1``; the bare one where it has none."""
        return self.name if self.version is None else f"{self.name}-v{self.version}"

    def digest(self) -> str:
        """Return a SHA-256 over the scenario, its feeder's files and its profiles, wherever these lie."""
        told = self.to_dict()
        if self.telemetry is not None and self.telemetry.idle:
            told["telemetry"] = None
        data = keys_that_matter(told)
        data["feeder"] = self.read_feeder().digest
        if self.feeders:
            digests = self.feeder_digests()
            data["feeders"] = [[digests[name], weight] for name, weight in self.feeders.items()]
            data["placement"]["home"] = None
        data["profiles"]["source"] = self.read_profiles().digest()
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def leave_to_feeder(devices: Mapping[str, Any], controls: Sequence[FeederControl]) -> dict[str, dict[str, str]]:
    """Return what changes of the devices, by name, where a feeder is left to itself.

    Regulators and capacitors that no control of the feeder moves stay with their agents, and so does all that sets
    power and is added at a bus. A PVSystem, Storage or Generator of the feeder does what OpenDSS has it do.

    Args:
        devices: Spec of each device by name.
        controls: The feeder's own controls.
    """
    # A device that no control moves would stand still for good: it stays with its agent.
    moved = {(control.class_name, target) for control in controls if not control.idle for target in control.targets}
    left = {
        name: {"control": "opendss"}
        for name, spec in devices.items()
        if spec.kind in ("regulator", "capacitor")
        and any((class_name, target_of(spec)) in moved for class_name in CLASSES_OF_KIND[spec.kind])
    }
    return left | {
        name: {"control": "model"}
        for name, spec in devices.items()
        if spec.modelled and spec.element and spec.control == "agent"
    }


def _missing(*found: int | Problem) -> Iterator[Problem]:
    return (each for each in found if isinstance(each, Problem))
