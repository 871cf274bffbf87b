"""What each key of a scenario may say, and how what is wrong is told. Plain validated data; builds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from powergrid import plain
from powergrid.errors import ScenarioError, describe_unknown
from powergrid.grid.devices import SPECS
from powergrid.grid.devices.spec import Phase, Spec
from powergrid.grid.feeder.changes import ADDED
from powergrid.grid.feeder.microgrid import LineTie, MicrogridSpec, TransformerTie
from powergrid.grid.feeder.network import Network
from powergrid.grid.feeder.network.shapes import ShapeMode
from powergrid.grid.outages import EVENTS
from powergrid.grid.profiles.outlook import ForecastName, Forecasts, PriceForecastName
from powergrid.plain import Location
from powergrid.quantities import REWARD_TERMS

Mode = Literal["distributed", "centralized"]
Layout = Literal["per_zone", "per_device", "per_class", "per_phase", "single"]
#: How agents may be formed.
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Rule = Literal["load", "distance", "phase"]
#: By what rules devices and zones may be placed on another feeder.
RULES: tuple[Rule, ...] = get_args(Rule)
Patterns = tuple[str, ...]

_TIES = {"transformer": TransformerTie, "line": LineTie}
_KINDS = {"devices": list(SPECS), "events": list(EVENTS), "microgrids": list(_TIES), "feeder_changes": list(ADDED)}
#: What ``profiles.source`` may be besides a user's own table.
SHIPPED_SOURCES = ("builtin", "loadshapes")
#: Weight of each reward term where a scenario says nothing [USD per unit of the term].
REWARD_WEIGHTS = {term.name: term.weight for term in REWARD_TERMS if term.weight is not None}
#: What every goal keeps: limits, supply and wear; energy counts only where it is what is aimed at.
_LIMITS = {
    "voltage_violation_pu": 1.0,
    "overload_pu": 1.0,
    "unserved_kwh": 2.0,
    "storage_wear_usd": 1.0,
    "switching_wear_usd": 1.0,
    "generation_cost_usd": 1.0,
    "discomfort_k2h": 1.0,
}
#: Sun that is not used costs a little where it has no price, or a goal would be met by wasting it.
_HOLD = _LIMITS | {"curtailed_kwh": 0.05}
_BILL = {"energy_cost_usd": 1.0, "reference_cost_usd": -1.0, "stored_energy_usd": 1.0}
#: Losses at about what a kWh costs, a kW of a day's peak at a fair part of a month's demand charge.
_LOSSES_USD_PER_KWH, _PEAK_USD_PER_KW = 0.1, 0.5
#: Where energy has no price, batteries shall end the day as they began it.
_KEEP_CHARGE = {"soc_deviation_kwh": _LOSSES_USD_PER_KWH}
CostName = Literal["node_hours", "branch_hours", "voltage_violation_pu", "overload_pu", "unserved_kwh"]
#: Reward terms of what is beyond limits.
_VIOLATIONS = ("voltage_violation_pu", "overload_pu", "connection_violation_pu", "bus_extremes_pu")
Goal = Literal["voltage", "taps", "losses", "peak", "cost", "balanced"]
#: Weight of each reward term by goal [USD per unit of the term]; terms that are not named weigh nothing.
GOALS: dict[Goal, dict[str, float]] = {
    "voltage": _HOLD | _KEEP_CHARGE,
    "taps": _HOLD | _KEEP_CHARGE | {"switching_wear_usd": 5.0},
    "losses": _HOLD | _KEEP_CHARGE | {"losses_kwh": 10 * _LOSSES_USD_PER_KWH},
    "peak": _HOLD | _KEEP_CHARGE | {"peak_rise_kw": _PEAK_USD_PER_KW},
    "cost": _LIMITS | _BILL,
    "balanced": _LIMITS | _BILL | {"losses_kwh": _LOSSES_USD_PER_KWH, "peak_rise_kw": _PEAK_USD_PER_KW / 10},
}
#: By name of a system: weight of the ratio of losses, then of discharge and of the state of charge at the day's end in
#: its own variant and in that with ``_soc``; in 33rds, but for the first.
_POWERGYM = {
    "13bus": (10.0, (6, 0), (1, 20)),
    "34bus": (1.0, (10, 0), (4, 500)),
    "123bus": (10.0, (7, 0), (5, 500)),
    "8500node": (1.0, (200, 0), (100, 10_000)),
}
#: Weights of each term in the reward of another library, by its name and that of the system there; all others are 0.
#: Source: Fan, Lee and Wang, PowerGym, arXiv 2109.03970, and the constants of its repository, siemens/powergym.
#: Biagioni et al., PowerGridworld, arXiv 2111.05969, and NREL/PowerGridworld: for each of three agents and step of five
#: minutes 0.1 for a kWh of cooling, 0.8 for a squared kelvin, a third of 10,000 for a pu outside the band at the bus.
PRESETS: dict[str, dict[str, float]] = {
    f"powergym_{system}{variant}": {
        "bus_extremes_pu": 1.0,
        "losses_share": losses,
        "gear_moves": 1 / 33,
        "discharge_share": discharge / 33,
        "soc_deviation_share": charge / 33,
    }
    for system, (losses, *variants) in _POWERGYM.items()
    for variant, (discharge, charge) in zip(("", "_soc"), variants, strict=True)
} | {
    "powergridworld_buildings": {"hvac_kwh": 0.1, "discomfort_k2h": 0.8 * 12, "connection_violation_pu": 1e4 / 3},
}
if TYPE_CHECKING:
    RewardTerm = str
    Preset = str
else:  # pydantic refuses any other key; a type checker wants names spelt out, and they are told once, in the table
    RewardTerm = Literal[tuple(REWARD_WEIGHTS)]
    Preset = Literal[tuple(PRESETS)]


class ZoneSpec(Spec):
    """Which buses an agent may see."""

    buses: tuple[str, ...] = Field(default=(), description="Buses of the zone by name.")
    downstream_of: str | None = Field(default=None, description="Bus; the zone is all that is fed through it.")
    until: tuple[str, ...] = Field(default=(), description="Buses from which on the zone belongs to somebody else.")
    phases: tuple[Phase, ...] = Field(
        default=(), description="Phases of the source, 1 to 3, whose nodes are of the zone; all if unset."
    )
    microgrid: str | None = Field(default=None, description="Microgrid by name; the zone is all its buses.")

    @model_validator(mode="after")
    def _one_way(self) -> ZoneSpec:
        if bool(self.buses) + (self.downstream_of is not None) + (self.microgrid is not None) != 1:
            raise ValueError("give exactly one of buses, downstream_of and microgrid")
        return self

    def find_buses(self, network: Network) -> list[int]:
        """Return the bus indices of the zone."""
        if self.microgrid is not None:
            own = next(m for m in network.microgrids if m.name == self.microgrid)
            return sorted(network.bus_index[bus] for bus in own.buses)
        if self.downstream_of is None:
            return sorted({network.bus_index[bus.lower()] for bus in self.buses})
        inside = set(network.downstream(self.downstream_of))
        for bus in self.until:
            inside -= set(network.downstream(bus))
        return sorted(inside)

    def names(self) -> list[str]:
        """Name every bus that the zone refers to."""
        return [*self.buses, *([] if self.downstream_of is None else [self.downstream_of]), *self.until]


class AgentSpec(Spec):
    """Who decides over what, and what it may see."""

    devices: tuple[str, ...] = Field(min_length=1, description="Devices that the agent decides over.")
    zone: ZoneSpec = Field(description="Buses that the agent may see.")
    pcc: str = Field(description="Point of common coupling: the bus where the zone meets the rest.")


class LayoutSpec(Spec):
    """How agents are formed."""

    layout: Layout = Field(description="One agent a zone, a device, a kind of devices, a phase, or one in all.")
    zones: int | None = Field(
        default=None, ge=1, description="Most zones, with `per_zone`; by the size of the feeder if unset."
    )


class DiscoverSpec(Spec):
    """Which of the feeder's elements become devices.

    ``true`` takes all of a kind, the largest ``max_per_kind`` of them; a list of names or patterns takes just these,
    however many.
    """

    regulators: bool | Patterns = Field(default=True, description="Windings that a RegControl moves.")
    # OpenDSS gives every transformer 33 taps, so that one has some says nothing.
    tap_changers: Literal["auto", "all", "none"] | Patterns = Field(
        default="auto",
        description="Transformers with taps and no RegControl: `auto` takes those between medium voltages for which "
        "the model gives a tap range or a tap off nominal, or whose sides have the same voltage.",
    )
    capacitors: bool | Patterns = Field(default=True, description="Shunt capacitors, with a CapControl or without.")
    storage: bool | Patterns = Field(default=True, description="Storage elements.")
    pv: bool | Patterns = Field(default=True, description="PVSystem elements.")
    generators: bool | Patterns = Field(default=True, description="Generator elements.")
    switches: Literal["auto", "all", "none"] | Patterns = Field(
        default="auto",
        description="Switchable lines: `auto` takes those that can be opened, all together, without an outage, and "
        "open ties that may be closed.",
    )
    # None by default: OpenDSS marks no load as interruptible.
    flexible_loads: Annotated[int, Field(ge=0)] | Patterns = Field(
        default=0, description="Loads that may defer demand: the number of the largest, or names."
    )
    max_per_kind: int = Field(default=32, ge=1, description="Most devices of a kind; those with the highest rating.")


class AddDerSpec(Spec):
    """How much sun and storage is placed on a feeder."""

    penetration: float = Field(gt=0, le=5, description="Rated power of all panels over the feeder's nominal demand.")
    storage_share: float = Field(
        default=0.5, ge=0, le=5, description="Rated power of each battery over that of the panels beside it."
    )
    storage_hours: float = Field(default=4.0, gt=0, le=48, description="Hours a battery lasts at its rated power [h].")
    sites: int | None = Field(
        default=None,
        ge=1,
        description="Number of buses that get panels; the root of the number of load buses if unset.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw of buses.")


class PlacementSpec(Spec):
    """How devices and zones are placed on a feeder that they were not made for."""

    rule: Rule | None = Field(
        default=None,
        description="`load` (where demand is), `distance` (as far from the source) or `phase` (same phases); if unset, "
        "names must fit.",
    )
    map: dict[str, str | None] = Field(
        default_factory=dict,
        description="What a bus or `Class.name` of the old feeder is on the new one; null leaves a device out. Goes "
        "before the rule.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of what a rule draws.")
    scale_ratings: bool | None = Field(
        default=None,
        description="Whether ratings are multiplied by the ratio of the feeders' nominal demand; if unset, where a "
        "rule places.",
    )
    scale_rewards: bool | None = Field(
        default=None,
        description="Whether `reward.scale` and `penalty` follow nominal demand and number of nodes; if unset, where a "
        "rule places.",
    )
    home: str | None = Field(
        default=None, description="Feeder that the names are of; if unset, the one that `feeder` replaces."
    )

    @field_validator("map", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # YAML gives numbers for buses that are written without quotes.
        plain = [(k, v) for k, v in value.items()]
        return {str(k) if type(k) is int else k: str(v) if type(v) is int else v for k, v in plain}


class PlacementRecord(Spec):
    """What came of placing a scenario on another feeder: a record, which nothing reads."""

    home: str = Field(default="", description="Feeder that the scenario was made for; empty where it is this one.")
    load_ratio: float = Field(default=1.0, gt=0, description="Nominal demand of this feeder over that one's.")
    moves: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="By key: what stood there, what stands there now, and why."
    )
    left_over: tuple[str, ...] = Field(default=(), description="What has no counterpart on either feeder.")


class ProfilesSpec(Spec):
    """Where demand, sun and prices come from."""

    # Any, for pydantic knows no DataFrame; read_profiles tells what is wrong with one.
    source: Any = Field(
        default="builtin",
        description="`builtin`, `loadshapes` (the feeder's own), a table (CSV, Parquet, Excel or a DataFrame), or the "
        "folder that `powergrid profiles import` made of your measurements; with `map`, these themselves.",
    )
    map: Any = Field(
        default=None,
        description="What the columns of measured tables are: keys as `powergrid profiles import` takes them, `{}` "
        "where all are known by name, or a YAML file of them.",
    )
    shape_mode: ShapeMode | None = Field(
        default=None,
        description="Which LoadShapes elements follow: those of OpenDSS's `daily`, `yearly` or `duty` mode, or their "
        "`own`: yearly where the model writes one, else daily. By default the mode that the model sets, else `own`.",
    )
    tariff: str = Field(default="time_of_use", description="Name of the price series.")
    price_scale: float = Field(default=1.0, ge=0, le=1000, description="Factor on that price.")
    load_classes: dict[str, str] = Field(
        default_factory=dict, description="Demand class by load name or pattern; others are drawn by `load_seed`."
    )
    load_seed: int = Field(default=0, ge=0, description="Seed of the draw of demand series for loads.")
    price_ahead_hours: tuple[float, ...] = Field(
        default=(1.0, 2.0, 4.0, 6.0, 9.0, 12.0), description="How far ahead agents know the price [h]."
    )

    @field_validator("map")
    @classmethod
    def _right(cls, value: Any) -> Any:
        if value is None:
            return value
        from powergrid.measurements.vocabulary import read_map  # with pandas, which nobody else waits for

        try:
            read = read_map(value, "")
        except ScenarioError as error:
            where = f"{error.where}: " if error.where else ""
            raise ValueError("\n".join(f"{where}{problem}" for problem in error.problems)) from None
        plain_already = isinstance(value, str | Path | Mapping)
        return value if plain_already else read.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @model_validator(mode="after")
    def _source_fits_map(self) -> ProfilesSpec:
        if self.map is not None and isinstance(self.source, str) and self.source in SHIPPED_SOURCES:
            raise ValueError(f"map: goes with tables of measurements as 'source', not with {self.source!r}")
        if isinstance(self.source, list | tuple):
            if self.map is None:
                raise ValueError("source: several tables are measurements; 'map' says what their columns are")
            wrong = [each for each in self.source if not isinstance(each, str | Path)]
            if wrong or not self.source:
                came = repr(wrong[0]) if wrong else "an empty list"
                raise ValueError(f"source: {came} is no path of a table; give files, or one DataFrame")
        return self

    @field_validator("price_ahead_hours")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.0 < hours <= 48.0 for hours in value):
            raise ValueError(f"hours {value} are not all within 0..48")
        return value


class OutlookSpec(Spec):
    """What agents see beyond the present: who they are, the season, and the hours to come."""

    hours: tuple[Annotated[float, Field(gt=0, le=48)], ...] = Field(
        default=(1.0, 3.0, 6.0, 12.0), max_length=24, description="Means are told over the next so many hours [h]."
    )
    forecast: ForecastName = Field(
        default="day_ahead",
        description="Of sun and demand: `day_ahead`, what comes times an error, `persistence`, the day before, or "
        "`perfect`, what comes.",
    )
    sun_error: float = Field(
        default=0.15, ge=0, le=2, description="Standard deviation of the error of sun, of what comes."
    )
    demand_error: float = Field(
        default=0.05, ge=0, le=2, description="Standard deviation of the error of a zone's demand, of what comes."
    )
    error_hours: float = Field(
        default=3.0, gt=0, le=168, description="Time in which an error falls to 1/e of itself [h]."
    )

    price_forecast: PriceForecastName = Field(
        default="known", description="Of the price: `known`, what comes times its error, or `persistence`."
    )
    price_error: float = Field(
        default=0.0, ge=0, le=2, description="Standard deviation of the error of the price, of what comes."
    )

    @property
    def forecasts(self) -> Forecasts:
        """How the hours to come are foreseen."""
        of_price = self.price_forecast, self.price_error
        return Forecasts(self.hours, self.forecast, self.sun_error, self.demand_error, self.error_hours, *of_price)


class GraphSpec(Spec):
    """How large a graph agents are shown, see `observations`; what there is less of is filled up with zeros."""

    max_buses: int | None = Field(default=None, ge=1, le=100_000, description="Buses; as many as there are if unset.")
    max_branches: int | None = Field(
        default=None, ge=1, le=100_000, description="Branches; as many as there are if unset."
    )


class VoltageSpec(Spec):
    """The band that node voltages shall stay in."""

    v_min_pu: float = Field(default=0.95, gt=0.5, lt=1.0, description="Lower limit [pu].")
    v_max_pu: float = Field(default=1.05, gt=1.0, lt=1.5, description="Upper limit [pu].")


class DivergenceSpec(Spec):
    """What happens when the power flow does not converge."""

    policy: Literal["terminate", "hold", "raise"] = Field(
        default="terminate", description="End the episode, hold the last state, or raise ConvergenceError."
    )
    penalty: float = Field(default=50.0, ge=0, description="Taken from every agent's reward at such a step.")


class RewardSpec(Spec):
    """How the named terms of the reward are weighed; each weight multiplies a cost, so it lowers the reward."""

    goal: Goal | None = Field(
        default=None, description="What is aimed at by name: sets all weights that `weights` does not name."
    )
    preset: Preset | None = Field(
        default=None,
        description="Reward of another library by its name there, in place of a goal: sets all weights that `weights` "
        "does not name, and a `scale` of 1.",
    )
    weights: dict[RewardTerm, float] = Field(
        default_factory=dict, description="Weight of each term [USD per unit of the term]; unnamed terms keep theirs."
    )
    scale: float = Field(default=0.01, gt=0, description="Factor that turns weighted USD into reward.")

    @model_validator(mode="before")
    @classmethod
    def _scale_of_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") is not None:
            return {"scale": 1.0, **data}
        return data

    @model_validator(mode="after")
    def _one_aim(self) -> RewardSpec:
        if self.goal is not None and self.preset is not None:
            raise ValueError(f"goal {self.goal!r} and preset {self.preset!r} both set all weights; leave out one")
        return self


class ReconfigurationSpec(Spec):
    """Rules for switch devices; a move against them does not happen, and infos count it as held."""

    radial: Literal["keep", "free"] = Field(
        default="keep", description="Keep the network radial, or let switches close loops."
    )
    keep_served: bool = Field(default=False, description="Refuse to open what feeds load; only with `radial: keep`.")


class CostsSpec(Spec):
    """What constrained learning keeps to a limit: told in infos beside the reward, as `cost` and each by itself."""

    of: tuple[CostName, ...] = Field(
        default=("node_hours", "branch_hours"),
        min_length=1,
        description="What is a cost: `node_hours` outside the band, `branch_hours` above the rating, or a reward term.",
    )
    in_reward: bool = Field(
        default=True,
        description="Whether violations, overloads and what `of` names keep their weight in the reward; `false`: 0.",
    )

    @field_validator("of")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"{', '.join(value)} names one twice")
        return value

    def leaves_out(self, term: str) -> bool:
        """Whether a reward term has no weight, whatever is said of it elsewhere."""
        return not self.in_reward and term in (*_VIOLATIONS, *self.of)


class SolverSpec(Spec):
    """How the power flow is solved."""

    tolerance: float = Field(default=1e-5, gt=0, le=1e-2, description="Convergence tolerance [pu].")
    max_iterations: int = Field(default=100, ge=2, description="Limit of power-flow and of control iterations.")


def explain(error: ValidationError, whole: type[BaseModel], data: Mapping[str, Any]) -> list[tuple[Location, str]]:
    """Turn what pydantic found wrong in ``data`` into places and lines: the key, what came and what is allowed."""
    return plain.explain(error, data, lambda location: _allowed_keys(location, whole), _KINDS)


def find_ownership_problems(data: Mapping[str, Any]) -> list[str]:
    """List agents' devices that do not exist or belong to two, as far as data that may not be valid can be read."""
    devices, agents = data.get("devices"), data.get("agents")
    if not isinstance(devices, Mapping) or not isinstance(agents, Mapping):
        return []
    problems, owner = [], dict[Any, str]()
    for agent, spec in agents.items():
        owned = spec.get("devices") if isinstance(spec, Mapping) else None
        for device in owned if isinstance(owned, list | tuple) else ():
            if not isinstance(device, str | int | float) or device not in devices:
                problems.append(f"agents.{agent}: {describe_unknown('device', device, list(devices))}")
            elif device in owner:
                problems.append(f"agents.{agent}: device {device!r} belongs to {owner[device]!r} already")
            else:
                owner[device] = agent
    return problems


def _allowed_keys(location: Location, whole: type[BaseModel]) -> list[str]:
    """List the keys that may stand at a place of the scenario, as pydantic names places."""
    model: Any = whole
    if location[:1] in (("devices",), ("events",)):
        known: Mapping[str, Any] = SPECS if location[0] == "devices" else EVENTS
        model, location = known.get(str(location[2])) if len(location) > 2 else None, ()
    elif location[:1] == ("agents",):
        model, location = AgentSpec, location[2:]
    elif location[:1] == ("microgrids",):
        model, location = MicrogridSpec, location[2:]
        if location[:1] == ("tie",):
            model, location = _TIES.get(str(location[1])) if len(location) > 1 else None, ()
    elif location[:2] == ("feeder_changes", "add"):
        model, location = ADDED.get(str(location[3])) if len(location) > 3 else None, ()
    return plain.keys_at(location, model)
