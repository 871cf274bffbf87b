"""Numbers of a scenario that each episode draws anew: how they are written, which may be, and what one draw gives.

Data alone: who draws is an environment, what a drawn number changes is the grid's to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model, model_serializer, model_validator

from powergrid.errors import Problem, ScenarioError, describe_unknown, show_briefly
from powergrid.grid.devices.spec import Spec
from powergrid.grid.feeder.network import fits
from powergrid.plain import explain

#: Where a number of a scenario stands: the parts of its key, of which a name may hold dots.
Path = tuple[str, ...]
#: Where normal distributions are cut where nothing else is said, in deviations.
_CUT = 4.0
_SHAPES = ("uniform", "loguniform", "normal", "choice")

#: Numbers that an episode may have of its own, and which one the scenario is built with: the largest of a range where
#: spaces are scaled by it, else the middle.
_SINGLE: dict[Path, Literal["largest", "middle"]] = {
    ("load_scale",): "largest",
    ("start_hour",): "largest",
    ("profiles", "price_scale"): "largest",
    ("rating_scale",): "middle",
    ("feeder_changes", "scale", "line_r"): "middle",
    ("feeder_changes", "scale", "line_x"): "middle",
    ("penalty",): "middle",
    ("reward", "scale"): "middle",
    ("divergence", "penalty"): "middle",
}
#: The same of what has a name, by the keys before it.
_NAMED = {"norm_amps": "middle", "taps": "middle", "steps_on": "middle", "reward.weights": "middle"}
#: Keys of events that an episode may have of its own.
OF_EVENTS = ("probability", "rate_per_day", "factor", "at_step", "at_hour")
#: What can be drawn, as errors list it.
DRAWABLE = (
    *(".".join(path) for path in _SINGLE),
    *("norm_amps.<branch>", "taps.<control>", "steps_on.<capacitor>", "reward.weights.<term>"),
    *("devices.<name>.<number>", "events.<name>.<number>"),
)
#: Why others cannot, by the first parts of the key.
_REASONS = {
    "feeder_changes.scale.load": "it is compiled into the circuit; load_scale does the same at reset",
    "feeder_changes": "it is compiled into the circuit",
    "microgrids": "it is compiled into the circuit",
    "feeder": "it is another circuit; feeders draws one of several",
    "feeders": "an episode draws one by these weights already",
    **dict.fromkeys(("outlook", "proposals"), "it says what agents see"),
    "voltage": "reports count by it",
    "solver": "it is the engine's for all episodes",
    "seed": "it starts the draws",
    **dict.fromkeys(("split", "day_weights"), "reset draws the day, or takes it as its option 'day'"),
    **dict.fromkeys(("profiles", "placement", "placed"), "it says where the series and names come from"),
    **dict.fromkeys(
        ("step_minutes", "episode_length", "mode", "observations", "agents", "infos", "reconfiguration"),
        "spaces and days are laid out by it",
    ),
}


class Distribution(Spec):
    """What a number is drawn from: exactly one of the shapes."""

    uniform: tuple[float, float] | None = Field(default=None, description="Least and most; whole numbers with both.")
    loguniform: tuple[float, float] | None = Field(default=None, description="The same, its logarithm evenly spread.")
    normal: tuple[float, float] | None = Field(default=None, description="Mean and standard deviation.")
    within: tuple[float, float] | None = Field(
        default=None, description="Where `normal` is cut; four deviations on either side if unset."
    )
    choice: tuple[float | bool, ...] | None = Field(default=None, description="One of these.")
    weights: tuple[float, ...] | None = Field(default=None, description="How likely each of `choice` is; all alike.")

    @model_validator(mode="after")
    def _check(self) -> Distribution:
        problems = list(self._find_problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _find_problems(self) -> Iterator[str]:
        given = [shape for shape in _SHAPES if getattr(self, shape) is not None]
        if len(given) != 1:
            yield f"give exactly one of {', '.join(_SHAPES)}, not {' and '.join(given) or 'none'}"
        for key in ("uniform", "loguniform", "within"):
            value = getattr(self, key)
            if value is not None and not value[0] <= value[1]:
                yield f"{key} {list(value)} does not go from the least to the most"
        if self.loguniform is not None and self.loguniform[0] <= 0.0:
            yield f"loguniform {list(self.loguniform)} is not above 0"
        if self.normal is not None and self.normal[1] < 0.0:
            yield f"normal {list(self.normal)}: the deviation is below 0"
        if self.within is not None and (self.normal is None or not self.within[0] <= self.normal[0] <= self.within[1]):
            yield "within goes with normal, and holds its mean"
        if self.choice is not None and not self.choice:
            yield "choice has nothing to choose from"
        if self.weights is not None:
            if len(self.weights) != len(self.choice or ()):
                yield f"weights are {len(self.weights)}, and there are {len(self.choice or ())} to choose from"
            elif min(self.weights) < 0.0 or not sum(self.weights):
                yield f"weights {list(self.weights)} are not all at least 0, and one above"

    @model_serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: list(value) for name, value in given.items() if value is not None}

    @property
    def ends(self) -> tuple[float, ...]:
        """The least and the most that is drawn; of a choice all of it."""
        if self.normal is not None:
            mean, deviation = self.normal
            return self.within or (mean - _CUT * deviation, mean + _CUT * deviation)
        return self.choice or self.uniform or self.loguniform or ()

    @property
    def middle(self) -> float:
        """The mean of what is drawn, of a logarithm's of the logarithm; the middle one of a choice."""
        if self.normal is not None:
            return self.normal[0]
        if self.choice is not None:
            return sorted(self.choice)[len(self.choice) // 2]
        low, high = self.ends
        return math.sqrt(low * high) if self.loguniform is not None else (low + high) / 2.0

    def draw(self, luck: float, *, whole: bool) -> float:
        """Return one draw.

        Args:
            luck: A number drawn evenly from 0..1.
            whole: Whether it is to be a whole number.
        """
        if self.choice is not None:
            weights = np.array(self.weights or [1.0] * len(self.choice))
            place = int(np.searchsorted(np.cumsum(weights) / weights.sum(), luck, side="right"))
            return int(self.choice[place]) if whole else self.choice[place]
        low, high = self.ends
        if whole and self.normal is None:
            return int(low) + int(luck * (int(high) - int(low) + 1))
        if self.loguniform is not None:
            return float(low * (high / low) ** luck)
        if self.normal is None:
            return float(low + luck * (high - low))
        drawn = self._draw_normal(luck, low, high)
        return round(drawn) if whole else drawn

    def _draw_normal(self, luck: float, low: float, high: float) -> float:
        from scipy.special import ndtr, ndtri  # where anything is normal

        mean, deviation = self.normal or (0.0, 0.0)
        if deviation == 0.0:
            return mean
        below, up_to = (float(ndtr((end - mean) / deviation)) for end in (low, high))
        return float(np.clip(mean + deviation * ndtri(below + luck * (up_to - below)), low, high))


# -- as it is written


def is_distribution(value: Any) -> bool:
    """Whether a value of a scenario's data is meant as a distribution."""
    if not isinstance(value, Mapping):
        return False
    listed = [key for key in _SHAPES if isinstance(value.get(key), list | tuple)]
    return bool(listed) and set(value) <= set(Distribution.model_fields)


def take_out(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a scenario's data with a number in place of each distribution, and what is drawn by key.

    Raises:
        ScenarioError: a distribution is wrong; all of them.
    """
    found, problems = dict[str, Any](), list[str]()
    given = data.get("ranges")
    for key, value in given.items() if isinstance(given, Mapping) else ():
        found[str(key)] = value

    def walk(value: Any, path: Path) -> Any:
        if is_distribution(value) or (path in _SINGLE and isinstance(value, Mapping)):
            if ".".join(path) in found:
                problems.append(f"{'.'.join(path)}: is drawn in its place and under ranges; leave out one")
            try:
                drawn = Distribution.model_validate(value)
            except ValidationError as error:
                problems.extend(f"{'.'.join(path)}: {line}" for _, line in _explain_distribution(error, value))
                return value
            found[".".join(path)] = drawn.model_dump()
            largest = _SINGLE.get(path, _NAMED.get(path[0], "largest")) == "largest"
            number = max(drawn.ends) if largest else drawn.middle
            return round(number) if path[0] in ("taps", "steps_on") else number
        if isinstance(value, Mapping) and path not in _NOT_LOOKED_INTO:
            return {key: walk(each, (*path, str(key))) for key, each in value.items()}
        return value

    plain = {key: walk(value, (str(key),)) for key, value in data.items() if key != "ranges"}
    if problems:
        raise ScenarioError(where, problems)
    if found or (given is not None and not isinstance(given, Mapping)):
        plain["ranges"] = found or given
    return plain, found


_NOT_LOOKED_INTO = frozenset({("profiles", "source"), ("profiles", "map"), ("placed",), ("placement",)})


def _explain_distribution(error: ValidationError, value: Any) -> list[tuple[Any, str]]:
    """Turn what pydantic found wrong with a distribution into lines."""
    return explain(error, value if isinstance(value, Mapping) else {}, lambda _: list(Distribution.model_fields))


def forget_given(ranges: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is drawn without what a change of the scenario's data gives a number, or takes away."""
    leaves = list(_leaves({key: value for key, value in change.items() if key != "ranges"}))
    kept = {}
    for key, value in ranges.items():
        parts = key.split(".")
        if not any(all(map(fits, map(str.lower, parts), leaf)) for leaf in leaves if len(leaf) <= len(parts)):
            kept[key] = value
    return kept


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, Mapping):  # an empty one changes nothing
        for key, each in value.items():
            yield from _leaves(each, (*path, *str(key).split(".")))
    else:
        yield path


# -- what a key means


def resolve(scenario: Any, key: str) -> list[Path] | Problem:
    """Return where the numbers stand that a key means, several where names in it are patterns; or why there are none.

    Args:
        scenario: The scenario.
        key: As in ``devices.ess_1.soc_initial``, ``devices.ess_*.soc_initial`` or ``norm_amps.Line.650632``.
    """
    parts = tuple(key.split("."))
    if parts in _SINGLE:
        return [parts]
    head, _, name = key.partition(".")
    if key.startswith("reward.weights."):
        return [("reward", "weights", key.removeprefix("reward.weights."))]
    if head in ("norm_amps", "taps", "steps_on") and name:
        return [(head, name)]
    if head in ("devices", "events") and "." in name:
        things: Mapping[str, Any] = scenario.devices if head == "devices" else scenario.events
        name, _, number = name.rpartition(".")
        fitting = [each for each in things if fits(each.lower(), name)]
        if not fitting:
            unknown = describe_unknown(head[:-1], name, things)
            return Problem("unknown-name", key, unknown)
        allowed = [_list_drawable(things[each], head) for each in fitting]
        misfits = [each for each, own in zip(fitting, allowed, strict=True) if number not in own]
        if not misfits:
            return [(head, each, number) for each in fitting]
        refused = _refuse(key, head, number, things[misfits[0]])
        return refused if len(fitting) == 1 else replace(refused, text=f"{misfits[0]!r} fits it too: {refused.text}")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    reason = next((_REASONS[prefix] for prefix in prefixes if prefix in _REASONS), None)
    if reason is None and parts[0] not in type(scenario).model_fields:
        return Problem("unknown-key", key, describe_unknown("key", key, DRAWABLE))
    reason = reason or "it is no number that an episode can have of its own"
    return Problem("not-drawable", key, f"cannot be drawn: {reason}", f"what can: {', '.join(DRAWABLE)}")


def _list_drawable(thing: Any, section: str) -> tuple[str, ...]:
    """Return the keys of a device or an event that an episode may have of its own."""
    if section == "events":
        return tuple(key for key in OF_EVENTS if key in type(thing).model_fields)
    own: tuple[str, ...] = thing.drawn if thing.control in ("agent", "frozen") else ()
    return own


def _refuse(key: str, section: str, number: str, thing: Any) -> Problem:
    own = _list_drawable(thing, section)
    if number not in type(thing).model_fields:
        return Problem("unknown-key", key, describe_unknown("key", number, own))
    if not own:
        text = f"cannot be drawn: control is {thing.control!r}, and what moves it knows the model's numbers alone"
        return Problem("not-drawable", key, text, "use control: agent")
    text = "cannot be drawn: what it says is built in, or told by spaces"
    return Problem("not-drawable", key, text, f"what can of {thing.kind}: {', '.join(own)}")


def is_whole(scenario: Any, path: Path) -> bool:
    """Whether a number is a whole one."""
    if path[0] in ("taps", "steps_on"):
        return True
    if path[0] not in ("devices", "events"):
        return False
    thing = (scenario.devices if path[0] == "devices" else scenario.events)[path[1]]
    kinds = get_args(type(thing).model_fields[path[2]].annotation) or (type(thing).model_fields[path[2]].annotation,)
    return int in kinds and float not in kinds


def find_value_problems(scenario: Any, path: Path, value: Any, *, alone: bool = False) -> list[str]:
    """Say what is wrong with a value where a number of the scenario stands; without the key.

    Args:
        scenario: The scenario.
        path: Where it stands.
        value: The value.
        alone: Whether it is looked at by itself, and not beside the scenario's other numbers of the same thing.
    """
    model: type[BaseModel]
    match path:
        case ("devices" | "events" as section, name, key):
            thing = getattr(scenario, section)[name]
            if alone:
                return _try_alone(type(thing), key, value)
            model, data = type(thing), {**thing.model_dump(), key: value}
            if section == "events" and key in ("at_step", "at_hour"):
                data |= {other: None for other in ("at_step", "at_hour", "between_hours") if other != key}
        case ("norm_amps" | "taps" | "steps_on" as section, name):
            mapping: Any = type(scenario).model_fields[section].annotation
            return _try(lambda: TypeAdapter(mapping).validate_python({name: value}), section, value)
        case ("reward", "weights", term):
            model, data = type(scenario.reward), {**scenario.reward.model_dump(), "weights": {term: value}}
        case (*before, key) if before:
            owner: Any = scenario
            for part in before:
                owner = getattr(owner, part)
            model, data = type(owner), {**owner.model_dump(), key: value}
        case _:
            return _try_alone(type(scenario), path[0], value)
    return _try(lambda: model.model_validate(data), path[-1], value)


def _try_alone(model: type[BaseModel], key: str, value: Any) -> list[str]:
    info = model.model_fields[key]
    single: Any = create_model("Number", **{key: (info.annotation, info)})  # type: ignore[call-overload]
    return _try(lambda: single.model_validate({key: value}), key, value)


def _try(validate: Any, key: str, value: Any) -> list[str]:
    if isinstance(value, bool) and key not in ("closed_initial", "initially_on"):
        return [f"{value} is no number"]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{value} is no number"]
    try:
        validate()
    except ValidationError as error:
        return [_say(entry, value) for entry in error.errors(include_url=False)]
    return []


def _say(entry: Any, value: Any) -> str:
    if entry["type"] == "value_error":
        return " and ".join(str(entry["ctx"]["error"]).splitlines())
    return f"{show_briefly(value)}: {entry['msg'][0].lower()}{entry['msg'][1:]}"


def find_ranges(scenario: Any, ranges: Mapping[str, Any]) -> tuple[dict[Path, Distribution], list[Problem]]:
    """Return what each number is drawn from, and what is wrong with any.

    Args:
        scenario: The scenario.
        ranges: Distributions by key, see :func:`resolve`.
    """
    found, problems = dict[Path, Distribution](), list[Problem]()
    for key, given in ranges.items():
        paths = resolve(scenario, key)
        if isinstance(paths, Problem):
            problems.append(paths)
            continue
        try:
            drawn = given if isinstance(given, Distribution) else Distribution.model_validate(given)
        except ValidationError as error:
            problems += [Problem("bad-value", key, line) for _, line in _explain_distribution(error, given)]
            continue
        for path in paths:
            whole = is_whole(scenario, path)
            wrong = [
                line for end in drawn.ends for line in find_value_problems(scenario, path, _cast(end, whole, drawn))
            ]
            problems += [Problem("bad-value", key, line) for line in dict.fromkeys(wrong)]
            found[path] = drawn
    return found, problems


def _cast(value: Any, whole: bool, drawn: Distribution) -> Any:
    if whole and drawn.normal is not None:
        return round(value)
    return int(value) if whole and float(value).is_integer() else value
