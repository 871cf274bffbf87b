"""What a stress is: changes of a scenario that make its days harder, by name, shipped or a user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from powergrid.errors import Problem, ScenarioError, describe_unknown
from powergrid.evaluation.stresses.readings import MissingReadings
from powergrid.files import path_of
from powergrid.grid.devices.spec import Spec
from powergrid.grid.outages import AnyEventSpec
from powergrid.grid.outages.connectivity import Connectivity
from powergrid.grid.outages.spec import Names
from powergrid.grid.profiles.profiles import Profiles, read_profiles
from powergrid.grid.profiles.table_files import open_table
from powergrid.plain import explain, keys_at, read_yaml
from powergrid.scenario import Scenario, load_scenario

#: In place of a line's name: the one that is loaded most among those that few depend on.
WORST = "worst"
#: Most of the nominal load that the outage of that line may leave in the dark.
MOST_DARK = 0.25
#: Days as they are, which all stresses are compared with.
UNDISTURBED = "undisturbed"


class Stress(Spec):
    """One way in which days are harder; what is not given stays as the scenario has it."""

    description: str = Field(default="", description="What it stands for.")
    load: float = Field(default=1.0, gt=0, le=100, description="Factor on the demand of every load, measured or not.")
    sun: float = Field(default=1.0, ge=0, le=2, description="Factor on the power that the sun offers.")
    sun_of: int | str | None = Field(
        default=None,
        description="Sun of other days: so many days later, or of a table (`time`, `pv_pu` or `irradiance_pu` and "
        "`temperature_c`), by date and hour, whichever its year.",
    )
    line_r: float = Field(default=1.0, gt=0, le=100, description="Factor on the resistance of every line.")
    line_x: float = Field(default=1.0, gt=0, le=100, description="Factor on the reactance of every line.")
    outage: Names | None = Field(
        default=None,
        description="Lines or transformers out of service all day, as `Line.name`; `worst` is the most loaded line "
        "whose outage leaves at least three quarters of the load fed.",
    )
    missing: MissingReadings | None = Field(default=None, description="How readings go missing before policies.")
    events: dict[str, AnyEventSpec] = Field(default_factory=dict, description="Events, as a scenario has them.")
    set: dict[str, Any] = Field(default_factory=dict, description="Keys of the scenario, as `--set` takes them.")

    @field_validator("sun_of", mode="before")
    @classmethod
    def _no_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("give a number of days or a table")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Stress:
        if not self.model_fields_set - {"description"}:
            raise ValueError("it changes nothing; give at least one of " + ", ".join(list(Stress.model_fields)[1:]))
        return self


def _shipped(description: str, **keys: Any) -> Stress:
    return Stress(description=description, **keys)


#: The stresses that come with us, by name.
STRESSES: dict[str, Stress] = {
    "load_up_10": _shipped("10 % more demand at every load", load=1.1),
    "load_up_20": _shipped("20 % more demand at every load", load=1.2),
    "lines_up_10": _shipped("R and X of all lines 10 % above the model's", line_r=1.1, line_x=1.1),
    "lines_down_10": _shipped("R and X of all lines 10 % below the model's", line_r=0.9, line_x=0.9),
    "line_out": _shipped("the most loaded line that a quarter of the load at most depends on is out", outage=(WORST,)),
    "other_sun": _shipped("sun and clouds of the day a week later", sun_of=7),
    "less_sun": _shipped("30 % less sun all day", sun=0.7),
    "missing_readings": _shipped(
        "each reading is missing for a tenth of the time, four steps on average; the last one is held",
        missing=MissingReadings(),
    ),
}


def find_stresses(asked: Sequence[str] | Mapping[str, Stress | Mapping[str, Any]] | None = None) -> dict[str, Stress]:
    """Return stresses by name: shipped ones by their names, those of YAML files by the files, all shipped if not asked.

    Args:
        asked: Names of shipped stresses and paths of YAML files; or stresses themselves by name.

    Raises:
        ScenarioError: a name is unknown, a file is no such file, or a key is wrong; all of it.
    """
    if asked is None:
        return dict(STRESSES)
    if isinstance(asked, Mapping):
        return _read("stresses", asked)
    found, unknown = dict[str, Stress](), list[str]()
    for each in asked:
        if each in STRESSES:
            found[each] = STRESSES[each]
        elif Path(each).suffix.lower() in (".yaml", ".yml"):
            found |= _read_stresses(each)
        else:
            unknown.append(f"{describe_unknown('stress', each, STRESSES)}; or give a YAML file of your own")
    if unknown:
        raise ScenarioError("stresses", unknown)
    return found


def _read_stresses(file: str | Path) -> dict[str, Stress]:
    """Read stresses from a YAML file: under each name its keys; tables of sun count from the file's folder.

    Raises:
        ScenarioError: it is no such file, or a key is wrong; all of it.
    """
    data = read_yaml(path_of(file))
    found = _read(str(file), data if isinstance(data, Mapping) else {})
    if not found:
        raise ScenarioError(str(file), ["holds no stresses; give each a name with its keys, as 'hot: {load: 1.3}'"])
    folder = Path(file).expanduser().resolve().parent
    return {
        name: each.model_copy(update={"sun_of": str(folder / each.sun_of)}) if isinstance(each.sun_of, str) else each
        for name, each in found.items()
    }


def _read(where: str, data: Mapping[str, Any]) -> dict[str, Stress]:
    problems = [Problem("taken", name, "is what days are called as they are") for name in data if name == UNDISTURBED]
    try:
        found = TypeAdapter(dict[str, Stress]).validate_python(
            {str(name): dict(each) if isinstance(each, Mapping) else each for name, each in data.items()}
        )
    except ValidationError as error:
        told = explain(error, data, lambda location: keys_at(location[1:], Stress))
        raise ScenarioError(where, [*problems, *(line for _, line in told)]) from None
    if problems:
        raise ScenarioError(where, problems)
    return found


def put_under(scenario: Scenario, stress: Stress, worst: str | None = None) -> Scenario:
    """Return a scenario under a stress.

    Args:
        scenario: The scenario.
        stress: The stress.
        worst: The line that ``outage: worst`` means, see :func:`find_worst_line`.

    Raises:
        ScenarioError: the stress does not fit the scenario; all of it.
    """
    if stress.set:
        scenario = load_scenario(scenario, stress.set)
    changes: dict[str, Any] = {}
    if (stress.line_r, stress.line_x) != (1.0, 1.0):
        scale = scenario.feeder_changes.scale
        changes["feeder_changes"] = {
            "scale": {"line_r": scale.line_r * stress.line_r, "line_x": scale.line_x * stress.line_x}
        }
    events: dict[str, Any] = {name: each.model_dump() for name, each in stress.events.items()}
    if stress.load != 1.0:
        events["stress_load"] = {"kind": "load_step", "factor": stress.load, "at_step": 0}
    if stress.sun != 1.0:
        events["stress_sun"] = {"kind": "pv_step", "factor": stress.sun, "at_step": 0}
    for i, line in enumerate(stress.outage or ()):
        element = worst if line == WORST else line
        events[f"stress_outage_{i + 1}"] = {"kind": "line_outage", "element": element, "at_step": 0}
    if events:
        changes["events"] = events
    scenario = load_scenario(scenario, changes) if changes else scenario
    if stress.sun_of is None:
        return scenario
    made = _with_sun(scenario.read_profiles(), stress.sun_of)  # what is wrong with it is told now
    source = functools.partial(_give, made)  # pydantic would take the dataclass apart
    profiles = scenario.profiles.model_copy(update={"source": source, "map": None})
    return scenario.model_copy(update={"profiles": profiles})


def _give(profiles: Profiles) -> Profiles:
    return profiles


def find_worst_line(scenario: Scenario, loading_pu: Mapping[str, float]) -> str:
    """Return the most loaded line whose outage leaves at least three quarters of the load fed.

    Where every line feeds more than a quarter, it is the one that feeds least.

    Args:
        scenario: The scenario.
        loading_pu: Highest loading of each branch by name, of days as they are.

    Raises:
        ScenarioError: the feeder has no line that is closed.
    """
    simulation = scenario.simulate()
    simulation.close()
    network = simulation.network
    look, closed = Connectivity(network).look, np.asarray(network.branches.closed)
    kw = np.maximum(network.loads.kw, 0.0)
    lines = [(name, i) for name, i in network.branch_index.items() if name.startswith("line.") and closed[i]]
    if not lines:
        raise ScenarioError(scenario.name, ["outage 'worst': the feeder has no line that is closed"])
    least, least_dark = "", np.inf
    for name, i in sorted(lines, key=lambda line: -loading_pu.get(line[0], 0.0)):
        without = closed.copy()
        without[i] = False
        dark = float(look(without).dead_share @ kw) / max(float(kw.sum()), 1e-9)
        if dark <= MOST_DARK:
            return name
        least, least_dark = (name, dark) if dark < least_dark else (least, least_dark)
    return least


def _with_sun(profiles: Profiles, sun_of: int | str) -> Profiles:
    """Return profiles with the sun of other days."""
    keys = ("pv_pu", "irradiance_pu", "temperature_c")
    if isinstance(sun_of, int):
        rows = sun_of * profiles.rows_per_day
        shifted = {key: np.roll(each, -rows) for key in keys if (each := getattr(profiles, key)) is not None}
        return replace(profiles, name=f"{profiles.name}, sun {sun_of:+d} days", **shifted)
    table = open_table(Path(sun_of), sun_of)
    if not any(str(column).startswith("demand_pu") for column in table.columns):
        table = table.assign(**{"demand_pu:none": 0.0})  # which a table of weather has none of
    other = read_profiles(table, Path(sun_of).name).resample(profiles.step_minutes)
    if other.pv_pu is None:
        raise ScenarioError(sun_of, ["has neither pv_pu nor irradiance_pu with temperature_c"])
    dates = [profiles.start.astype("datetime64[D]") + day for day in range(profiles.n_days)]
    place = {_date(other.start.astype("datetime64[D]") + day): day for day in range(other.n_days)}
    if lacking := [str(date) for date in dates if _date(date) not in place and _date(date) != "02-29"]:
        raise ScenarioError(
            sun_of, [f"has no sun of {lacking[0][5:]} and of {len(lacking) - 1} other days of the year"]
        )
    days = np.array([place.get(_date(date), place.get("02-28", 0)) for date in dates])
    at = (days[:, None] * other.rows_per_day + np.arange(other.rows_per_day)).ravel()
    taken = {key: each[at] for key in keys if (each := getattr(other, key)) is not None}
    return replace(profiles, name=f"{profiles.name}, sun of {other.name}", own_sun=True, **taken)


def _date(date: np.datetime64) -> str:
    return str(date)[5:]
