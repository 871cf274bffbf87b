"""The whole configuration vocabulary: one validated file says everything about an environment.

Unknown keys are forbidden and all problems are reported at once. Knows what YAML may say and how to build a
simulation from it; nothing of observations, rewards' arithmetic or learning.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.circuit import Circuit
from powergrid.grid.devices import SPECS, AnyDeviceSpec
from powergrid.grid.feeder import Feeder, read_feeder
from powergrid.grid.loadshapes import follow_loadshapes, shape_of_loads
from powergrid.grid.network import Network
from powergrid.grid.profiles import Profiles, builtin_profiles, read_profiles
from powergrid.grid.simulation import Simulation, SimulationOptions

Mode = Literal["distributed", "centralized"]
RewardTerm = Literal[
    "energy_cost_usd",
    "reference_cost_usd",
    "generation_cost_usd",
    "storage_wear_usd",
    "stored_energy_usd",
    "switching_wear_usd",
    "unserved_kwh",
    "curtailed_kwh",
    "losses_kwh",
    "voltage_violation_pu",
    "overload_pu",
]

#: What ``profiles.source`` may be besides a user's own table.
SHIPPED_SOURCES = ("builtin", "loadshapes")
#: Weight of each reward term where a scenario says nothing [USD per unit of the term].
REWARD_WEIGHTS: dict[str, float] = {
    "energy_cost_usd": 1.0,
    "reference_cost_usd": -1.0,
    "generation_cost_usd": 1.0,
    "storage_wear_usd": 1.0,
    "stored_energy_usd": 1.0,
    "switching_wear_usd": 1.0,
    "unserved_kwh": 2.0,
    "curtailed_kwh": 0.0,
    "losses_kwh": 0.0,
    "voltage_violation_pu": 1.0,
    "overload_pu": 1.0,
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ZoneSpec(_Part):
    """Which buses an agent may see."""

    buses: tuple[str, ...] = Field(default=(), description="Buses of the zone by name.")
    downstream_of: str | None = Field(default=None, description="Bus; the zone is all that is fed through it.")
    until: tuple[str, ...] = Field(default=(), description="Buses from which on the zone belongs to somebody else.")

    @model_validator(mode="after")
    def _one_way(self) -> ZoneSpec:
        if bool(self.buses) == (self.downstream_of is not None):
            raise ValueError("give exactly one of buses and downstream_of")
        return self

    def find_buses(self, network: Network) -> list[int]:
        """Give the bus indices of the zone."""
        if self.downstream_of is None:
            return sorted({network.bus_index[bus.lower()] for bus in self.buses})
        inside = set(network.downstream(self.downstream_of))
        for bus in self.until:
            inside -= set(network.downstream(bus))
        return sorted(inside)

    def names(self) -> Iterable[str]:
        """Name every bus that the zone refers to."""
        yield from self.buses
        yield from self.until
        if self.downstream_of is not None:
            yield self.downstream_of


class AgentSpec(_Part):
    """Who decides over what, and what it may see."""

    devices: tuple[str, ...] = Field(min_length=1, description="Devices that the agent decides over.")
    zone: ZoneSpec = Field(description="Buses that the agent may see.")
    pcc: str = Field(description="Point of common coupling: the bus where the zone meets the rest.")


class ProfilesSpec(_Part):
    """Where demand, sun and prices come from."""

    source: Any = Field(
        default="builtin",
        description="`builtin`, `loadshapes` (the feeder's own), a CSV or Parquet file, or a DataFrame.",
    )
    tariff: str = Field(default="time_of_use", description="Name of the price series.")
    load_classes: dict[str, str] = Field(
        default_factory=dict, description="Demand class by load name or pattern; others are drawn by `load_seed`."
    )
    load_seed: int = Field(default=0, ge=0, description="Seed of the draw of demand series for loads.")
    price_ahead_hours: tuple[float, ...] = Field(
        default=(1.0, 2.0, 4.0, 6.0, 9.0, 12.0), description="How far ahead agents know the price [h]."
    )

    @field_validator("price_ahead_hours")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.0 < hours <= 48.0 for hours in value):
            raise ValueError(f"hours {value} are not all within 0..48")
        return value


class VoltageSpec(_Part):
    """The band that node voltages shall stay in."""

    v_min_pu: float = Field(default=0.95, gt=0.5, lt=1.0, description="Lower limit [pu].")
    v_max_pu: float = Field(default=1.05, gt=1.0, lt=1.5, description="Upper limit [pu].")


class DivergenceSpec(_Part):
    """What happens when the power flow does not converge."""

    policy: Literal["terminate", "hold", "raise"] = Field(
        default="terminate", description="End the episode, hold the last state, or raise ConvergenceError."
    )
    penalty: float = Field(default=50.0, ge=0, description="Taken from every agent's reward at such a step.")


class RewardSpec(_Part):
    """How the named terms of the reward are weighed; each weight multiplies a cost, so it lowers the reward."""

    weights: dict[RewardTerm, float] = Field(
        default_factory=dict, description="Weight of each term [USD per unit of the term]; unnamed terms keep theirs."
    )
    scale: float = Field(default=0.01, gt=0, description="Factor that turns weighted USD into reward.")


class SolverSpec(_Part):
    """How the power flow is solved."""

    tolerance: float = Field(default=1e-5, gt=0, le=1e-2, description="Convergence tolerance [pu].")
    max_iterations: int = Field(default=100, ge=2, description="Limit of power-flow and of control iterations.")


class Scenario(_Part):
    """Everything about an environment; every key can be overridden in ``env_config``."""

    name: str = Field(description="Short name.")
    description: str = Field(default="", description="What there is to decide.")
    feeder: str = Field(description="Name of a shipped feeder, or path of a master file.")
    mode: Mode = Field(default="distributed", description="Whether agents see their own zone or the whole network.")
    episode_length: int = Field(default=96, ge=1, description="Steps of an episode.")
    step_minutes: int = Field(default=15, ge=1, le=1440, description="Length of a step [min].")
    split: Literal["train", "validation", "test", "all"] = Field(default="train", description="Days to draw from.")
    seed: int | None = Field(default=None, ge=0, description="Seed of the first reset that is given none.")
    share_reward: bool = Field(default=False, description="Whether each agent gets the mean reward of all.")
    penalty: float = Field(
        default=100.0, ge=0, description="Price of a violation: multiplies the voltage and overload terms [USD/pu]."
    )
    load_scale: float = Field(default=1.0, gt=0, le=100, description="Factor on every load's nominal demand.")
    taps: dict[str, int] = Field(default_factory=dict, description="Tap at the start by regulator control.")
    steps_on: dict[str, int] = Field(default_factory=dict, description="Steps on at the start by capacitor.")
    norm_amps: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Normal rating [A] by branch, where the feeder's own is not meant."
    )
    native_controls: bool = Field(default=False, description="Whether the feeder's own controls act.")
    profiles: ProfilesSpec = ProfilesSpec()
    voltage: VoltageSpec = VoltageSpec()
    divergence: DivergenceSpec = DivergenceSpec()
    reward: RewardSpec = RewardSpec()
    solver: SolverSpec = SolverSpec()
    devices: dict[str, AnyDeviceSpec] = Field(min_length=1, description="Devices by name.")
    agents: dict[str, AgentSpec] = Field(min_length=1, description="Agents by name.")

    @model_validator(mode="after")
    def _references(self) -> Scenario:
        problems = _find_ownership_problems(self.devices, {name: agent.devices for name, agent in self.agents.items()})
        if problems:
            raise ValueError("\n".join(problems))
        return self

    # -- building

    def read_feeder(self) -> Feeder:
        """Read the feeder's files."""
        return read_feeder(self.feeder)

    def read_profiles(self) -> Profiles:
        """Read the exogenous series."""
        source = self.profiles.source
        if isinstance(source, str) and source in SHIPPED_SOURCES:
            base = builtin_profiles()
            return base if source == "builtin" else follow_loadshapes(_network_of(self.read_feeder()), base)
        return read_profiles(source)

    def _load_classes(self, network: Network) -> dict[str, str]:
        """Give the demand class of loads: by the scenario, else by their LoadShape where these are the source."""
        own = shape_of_loads(network) if str(self.profiles.source) == "loadshapes" else {}
        return own | self.profiles.load_classes

    def simulate(self, n_envs: int = 1) -> Simulation:
        """Build the simulation.

        Raises:
            ScenarioError: something refers to what the feeder or the profiles lack; all of it.
            FeederError: the feeder itself is wrong.
        """
        feeder = self.read_feeder()
        network = _network_of(feeder)
        problems = list(self._find_reference_problems(network))
        if problems:
            raise ScenarioError(self.name, problems)
        options = SimulationOptions(
            step_minutes=self.step_minutes,
            horizon_steps=self.episode_length,
            split=self.split,
            tariff=self.profiles.tariff,
            load_scale=self.load_scale,
            load_classes=self._load_classes(network),
            load_seed=self.profiles.load_seed,
            taps=self.taps,
            steps_on=self.steps_on,
            norm_amps=self.norm_amps,
            native_controls=self.native_controls,
            divergence=self.divergence.policy,
            tolerance=self.solver.tolerance,
            max_iterations=self.solver.max_iterations,
        )
        return Simulation(feeder, self.devices, self.read_profiles(), options, n_envs)

    def _find_reference_problems(self, network: Network) -> Iterable[str]:
        at = {bus: set(network.node_phase[network.node_bus == i].tolist()) for i, bus in enumerate(network.buses)}
        for name, device in self.devices.items():
            bus, element = getattr(device, "bus", None), getattr(device, "element", None)
            if bus is not None and bus.lower() not in at:
                yield f"devices.{name}: {describe_unknown('bus', bus, network.buses)}"
            elif bus is not None:
                missing = sorted(set(getattr(device, "phases", ())) - at[bus.lower()])
                if missing:
                    yield f"devices.{name}: bus {bus!r} has phases {sorted(at[bus.lower()])}, not {missing}"
            if element is not None:
                class_name, _, element_name = element.partition(".")
                names = {c.lower(): n for c, n in network.elements.items()}.get(class_name.lower(), ())
                if element_name.lower() not in names:
                    yield f"devices.{name}: {describe_unknown(class_name, element_name, names)}"
        for agent, spec in self.agents.items():
            for bus in (*spec.zone.names(), spec.pcc):
                if bus.lower() not in at:
                    yield f"agents.{agent}: {describe_unknown('bus', bus, network.buses)}"
        for key, what, given, known in (
            ("taps", "regulator control", self.taps, network.regulator_controls),
            ("steps_on", "capacitor", self.steps_on, network.capacitors),
            ("norm_amps", "branch", self.norm_amps, network.branches.names),
        ):
            for name in given:
                if name.lower() not in known:
                    yield f"{key}: {describe_unknown(what, name, known)}"

    def weight_of(self, term: str) -> float:
        """Give the weight of a reward term [USD per unit], ``penalty`` included where it applies."""
        weight = float(self.reward.weights.get(term, REWARD_WEIGHTS[term]))  # type: ignore[call-overload]
        return weight * self.penalty if term in ("voltage_violation_pu", "overload_pu") else weight

    # -- identity

    def to_dict(self) -> dict[str, Any]:
        """Give the whole scenario as plain data, as YAML would hold it."""
        data = self.model_dump(mode="json", exclude={"profiles": {"source"}})
        source = self.profiles.source
        data["profiles"]["source"] = str(source) if isinstance(source, str | Path) else "a DataFrame"
        return data

    def to_yaml(self) -> str:
        """Write the whole scenario as YAML."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    def digest(self) -> str:
        """Give a SHA-256 over the scenario, its feeder's files and its profiles, wherever these lie."""
        data = self.to_dict()
        data["feeder"] = self.read_feeder().digest
        data["profiles"]["source"] = self.read_profiles().digest()
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def list_scenarios() -> list[str]:
    """Name the shipped scenarios."""
    folder = importlib.resources.files("powergrid") / "scenarios"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any] | None = None
) -> Scenario:
    """Load and validate a scenario.

    Args:
        source: Name of a shipped scenario, path of a YAML file, the data itself, or a scenario.
        overrides: Keys to change. Mappings are merged into what is there, everything else replaces it;
            ``"reward.scale"`` is short for ``{"reward": {"scale": ...}}``.

    Raises:
        ScenarioError: with every problem found.
    """
    where, data = _read(source)
    for key, value in (overrides or {}).items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        data = _merge(data, nested)
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = _explain(error)
        if all(entry["loc"] for entry in error.errors()):  # else the references are among them
            problems += [(("agents",), line) for line in _find_raw_ownership_problems(data)]
        problems.sort(key=lambda problem: _place_in(data, problem[0]))
        raise ScenarioError(where, [line for _, line in problems]) from None


def _read(source: str | Path | Mapping[str, Any] | Scenario) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Scenario):
        return source.name, source.model_dump()
    if isinstance(source, Mapping):
        return str(source.get("name", "scenario")), dict(source)
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
            raise ScenarioError(str(path), [describe_unknown("file", path.name, names)])
        text, where = path.read_text(encoding="utf-8"), str(path)
    else:
        if str(source) not in list_scenarios():
            raise ScenarioError(str(source), [describe_unknown("scenario", source, list_scenarios())])
        entry = importlib.resources.files("powergrid") / "scenarios" / f"{source}.yaml"
        text, where = entry.read_text(encoding="utf-8"), f"{source}.yaml"
    try:
        data = yaml.load(text, _Loader)  # a safe loader that minds repeated keys
    except yaml.YAMLError as error:
        raise ScenarioError(where, [f"is not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(data, dict):
        raise ScenarioError(where, [f"holds a {type(data).__name__}, not keys with values"])
    if path.is_file():
        _resolve_paths(data, path.absolute().parent)
    return where, data


class _Loader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error, not the loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Let paths of a scenario file count from its own folder."""
    feeder, profiles = data.get("feeder"), data.get("profiles")
    if isinstance(feeder, str) and feeder.lower().endswith(".dss"):
        data["feeder"] = str(folder / Path(feeder).expanduser())
    if (
        isinstance(profiles, dict)
        and isinstance(profiles.get("source"), str)
        and profiles["source"] not in SHIPPED_SOURCES
    ):
        profiles["source"] = str(folder / Path(profiles["source"]).expanduser())


def _merge(base: Any, change: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in change.items()}}
    return change


Location = tuple[int | str, ...]


def _explain(error: ValidationError) -> list[tuple[Location, str]]:
    """Turn pydantic's findings into places and lines that name the key, what came and what is allowed."""
    found: list[tuple[Location, str]] = []
    for entry in error.errors(include_url=False):
        location, came = entry["loc"], entry.get("input")
        if location[:1] == ("devices",):  # after the device's name comes its kind
            location = location[:2] + location[3:]
        where = ".".join(str(part) for part in location)
        lines = []
        if entry["type"] == "extra_forbidden":
            owner = ".".join(str(part) for part in location[:-1])
            known = _allowed_keys(entry["loc"][:-1])
            lines.append((f"{owner}: " if owner else "") + describe_unknown("key", location[-1], known))
        elif location[-1:] == ("[key]",):
            lines.append(f"{'.'.join(map(str, location[:-2]))}: {describe_unknown('key', came, REWARD_WEIGHTS)}")
        elif entry["type"] == "missing":
            lines.append(f"{where}: is required")
        elif entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
            kind = came.get("kind") if isinstance(came, Mapping) else None
            unknown = describe_unknown("kind", kind, SPECS)
            lines.append(f"{where}: {unknown if kind is not None else 'kind is required; one of ' + ', '.join(SPECS)}")
        elif entry["type"] == "value_error":
            prefix = f"{where}: " if where else ""
            lines += [prefix + line for line in str(entry["ctx"]["error"]).splitlines()]
        else:
            shown = repr(came) if len(repr(came)) < 60 else f"{repr(came)[:57]}..."
            lines.append(f"{where}: {entry['msg'][0].lower()}{entry['msg'][1:]}, not {shown}")
        found += [(location, line) for line in lines]
    return found


def _place_in(data: Any, location: Location) -> tuple[int, ...]:
    """Give where a location stands in the data, so that problems can be listed in reading order."""
    place: list[int] = []
    for part in location:
        keys = list(data) if isinstance(data, Mapping) else list(range(len(data))) if isinstance(data, list) else []
        place.append(keys.index(part) if part in keys else len(keys))
        data = data[part] if part in keys else None
    return tuple(place)


def _find_ownership_problems(devices: Iterable[str], agents: Mapping[str, Iterable[str]]) -> list[str]:
    """List devices that do not exist or belong to two agents."""
    problems, owner, known = [], dict[str, str](), list(devices)
    for agent, owned in agents.items():
        for device in owned:
            if device not in known:
                problems.append(f"agents.{agent}: {describe_unknown('device', device, known)}")
            elif device in owner:
                problems.append(f"agents.{agent}: device {device!r} belongs to {owner[device]!r} already")
            owner[device] = agent
    return problems


def _find_raw_ownership_problems(data: Mapping[str, Any]) -> list[str]:
    """Check ownership in data that is not valid otherwise, as far as it can be read."""
    devices, agents = data.get("devices"), data.get("agents")
    if not isinstance(devices, Mapping) or not isinstance(agents, Mapping):
        return []
    owned = {name: a.get("devices") for name, a in agents.items() if isinstance(a, Mapping)}
    return _find_ownership_problems(devices, {n: d for n, d in owned.items() if isinstance(d, list | tuple)})


def _allowed_keys(location: Location) -> list[str]:
    """List the keys that may stand at a place of the scenario, as pydantic names places."""
    model: Any = Scenario
    if location[:1] == ("devices",):
        model, location = SPECS.get(str(location[2])) if len(location) > 2 else None, ()
    elif location[:1] == ("agents",):
        model, location = AgentSpec, location[2:]
    for part in location:
        model = getattr(model, "model_fields", {})[part].annotation if part in model.model_fields else None
    return list(getattr(model, "model_fields", {}))


@functools.lru_cache(maxsize=32)
def _network_by_digest(master: str, digest: str) -> Network:
    circuit = Circuit(read_feeder(master))
    try:
        return circuit.network
    finally:
        circuit.close()


def _network_of(feeder: Feeder) -> Network:
    return _network_by_digest(str(feeder.master), feeder.digest)
