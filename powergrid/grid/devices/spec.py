"""The vocabulary every device kind shares: spec parts, action and state tables.

It knows no engine and no kind: each kind's spec and physics live in a module of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticUndefined

from powergrid.plain import Foreign

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Columns = slice | IntArray
#: Some environments, as the first index of arrays.
Rows = slice | IntArray

Control = Literal["agent", "opendss", "model", "frozen"]
Phase = Annotated[int, Field(ge=1, le=3)]


#: Largest number of a scenario, and least that is not 0: beyond, powers and prices overflow or mean nothing.
MOST, LEAST = 1e9, 1e-12
#: Largest seed of anything but training.
MOST_SEED = 2**63 - 1


class Spec(BaseModel):
    """A part of what a user writes: unknown keys are refused, values do not change, numbers are of this world."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, data: Any) -> Any:
        # pydantic takes true for 1, and YAML reads yes and on as true
        if isinstance(data, Mapping) and any(type(value) is bool for value in data.values()):
            return {key: cls._refuse_truth(key, value) if type(value) is bool else value for key, value in data.items()}
        return data

    @classmethod
    def _refuse_truth(cls, key: str, value: bool) -> Any:
        taken = _kinds_in(cls.model_fields[key].annotation) if key in cls.model_fields else set()
        return Foreign(str(value).lower()) if taken & {int, float} and bool not in taken else value

    @field_validator("*")
    @classmethod
    def _of_this_world(cls, value: Any, info: ValidationInfo) -> Any:
        if type(value) is not str:  # most are
            _require_size(value, MOST_SEED if str(info.field_name).endswith("seed") else MOST)
        return value


def _kinds_in(annotation: Any) -> set[Any]:
    """Return what a value may be, looked for in unions alone."""
    if get_origin(annotation) in (Union, UnionType):
        return set[Any]().union(*map(_kinds_in, get_args(annotation)))
    return _kinds_in(get_args(annotation)[0]) if get_origin(annotation) is Annotated else {annotation}


def _require_size(value: Any, most: float) -> None:
    """Raise where a number is too large or too small, also within what a key holds."""
    match value:
        case bool():
            pass
        case int() | float():
            if not (value == 0 or LEAST <= abs(value) <= most):
                raise ValueError(f"{str(value)[:40]} is neither 0 nor of a size within {LEAST:g}..{most:g}")
        case tuple() | list():
            for each in value:
                _require_size(each, most)
        case dict():
            for each in value.values():
                _require_size(each, most)


class DeviceSpec(Spec):
    """What YAML may say about any device; each kind adds its own keys.

    ``element_classes`` are the OpenDSS classes the kind may be bound to; ``ratings`` are the keys that
    may stay out of a device bound to an element, because its element has them; ``native`` says whether a
    feeder may have a control of its own for it, ``modelled`` whether OpenDSS moves it by itself; ``drawn`` are the keys
    that an episode may have a number of its own for.
    """

    element_classes: ClassVar[tuple[str, ...]] = ()
    ratings: ClassVar[tuple[str, ...]] = ()
    native: ClassVar[bool] = False
    modelled: ClassVar[bool] = False
    drawn: ClassVar[tuple[str, ...]] = ()

    control: Control = Field(
        default="agent",
        description="Who moves it: an agent, the feeder's own control of its element, the model (as OpenDSS plays an "
        "element: by its shape, by its controls, or not at all), or nobody.",
    )

    @model_validator(mode="after")
    def _check(self) -> DeviceSpec:
        problems = list(self.find_problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def find_problems(self) -> Iterable[str]:
        """Yield everything wrong between the keys; kinds extend it."""
        if self.control == "opendss" and not self.native:
            yield "control 'opendss' is for what a feeder has controls for; here it is agent or frozen"
        if self.control == "model" and not (self.modelled and getattr(self, "element", None)):
            yield "control 'model' is for a PVSystem, Storage or Generator of the feeder; here it is agent or frozen"

    def find_element_problems(self, element: str | None) -> Iterable[str]:
        """Yield what is wrong with the name of the element the device is bound to."""
        allowed = " or ".join(f"{name}.<name>" for name in self.element_classes)
        if element is not None:
            owner, _, name = element.partition(".")
            if not name or owner.lower() not in {c.lower() for c in self.element_classes}:
                yield f"element {element!r} is not {allowed}"


class BoundSpec(DeviceSpec):
    """A device that is an element of the feeder already."""

    element: str = Field(description="Element of the feeder that the device is, as `Class.name`.")

    def find_problems(self) -> Iterable[str]:
        """Yield what is wrong with the element's name."""
        yield from super().find_problems()
        yield from self.find_element_problems(self.element)


class PlacedSpec(DeviceSpec):
    """A device that is either added at a bus or bound to an element of the feeder."""

    bus: str | None = Field(default=None, description="Bus where the device is added; or give `element`.")
    phases: tuple[Phase, ...] = Field(
        default=(1, 2, 3), min_length=1, max_length=3, description="Phases of the bus it connects to; only with `bus`."
    )
    connection: Literal["wye", "delta"] = Field(
        default="wye", description="Connection between those phases; only with `bus`."
    )
    element: str | None = Field(
        default=None, description="Element of the feeder that the device is, as `Class.name`; or give `bus`."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield what is wrong with where the device sits and with ratings nothing can fill."""
        yield from super().find_problems()
        if self.control == "opendss" and self.native and self.element is None:
            yield "control 'opendss' needs an element of the feeder; for a device added at a bus it is agent or frozen"
        yield from self.find_element_problems(self.element)
        if (self.bus is None) == (self.element is None):
            yield f"give exactly one of bus and element, not {'neither' if self.bus is None else 'both'}"
        if len(set(self.phases)) != len(self.phases):
            yield f"phases {self.phases} repeats a phase; allowed are different ones of 1, 2, 3"
        if self.connection == "delta" and len(self.phases) == 1:
            yield f"connection 'delta' needs two or three phases, not {self.phases}"
        if self.element is not None:
            for key in ("phases", "connection"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"{key} goes with bus; an element has its own"
        elif self.bus is not None:
            yield from (f"{key} is required at a bus" for key in self.ratings if getattr(self, key) is None)


class PowerSpec(PlacedSpec):
    """A device with reactive power of its own, which its rating and, if given, limits on either side bound."""

    q_inject_max_kvar: float | None = Field(
        default=None, ge=0, description="Most reactive power injected; what the kVA rating leaves if unset."
    )
    q_absorb_max_kvar: float | None = Field(
        default=None, ge=0, description="Most reactive power absorbed; what the kVA rating leaves if unset."
    )

    def find_problems(self) -> Iterable[str]:
        """Yield what contradicts between the keys."""
        yield from super().find_problems()
        if self.q_inject_max_kvar == self.q_absorb_max_kvar == 0.0 and self.decides_reactive:
            yield "q_inject_max_kvar and q_absorb_max_kvar are both 0; then no agent decides reactive power"

    @property
    def decides_reactive(self) -> bool:
        """Whether an agent decides reactive power."""
        return getattr(self, "reactive", "none") not in (False, "none")

    def q_range(self, absorb_kvar: float, inject_kvar: float) -> tuple[float, float]:
        """Return the least and the largest reactive power [kvar], of what the rating would allow."""
        absorb = absorb_kvar if self.q_absorb_max_kvar is None else min(absorb_kvar, self.q_absorb_max_kvar)
        inject = inject_kvar if self.q_inject_max_kvar is None else min(inject_kvar, self.q_inject_max_kvar)
        return -absorb, inject


@dataclass(frozen=True)
class ActionSpec:
    """One scalar that an agent decides.

    Continuous actions arrive normalised in [-1, 1] and stand for ``low..high`` in ``unit``, linearly;
    discrete ones arrive as the integers 0..n-1 and stand for n evenly spaced values, ``low`` first and ``high`` last.
    """

    device: str
    name: str
    unit: str
    low: float
    high: float
    n: int = 0

    @property
    def discrete(self) -> bool:
        """Whether the action is an integer position."""
        return self.n > 0

    @property
    def gain(self) -> float:
        """How much of ``unit`` one step of the action is."""
        return (self.high - self.low) / (self.n - 1 if self.discrete else 2)

    @property
    def offset(self) -> float:
        """What an action of 0 stands for."""
        return self.low if self.discrete else (self.high + self.low) / 2


@dataclass(frozen=True)
class StateSpec:
    """One observable number of a device: bounds are physical, in ``unit``."""

    device: str
    name: str
    unit: str
    low: float
    high: float


@dataclass
class Exogenous:
    """The outside world during one step, for every environment.

    Attributes:
        step: Step of the episode, 0-based, shape (n_envs,).
        sun_kw: Power the sun offers each inverter [kW], shape (n_envs, n_inverters).
        demand_kw: What each flexible load would take untouched [kW], >= 0, shape (n_envs, n_flexible_loads).
        demand_kvar_per_kw: Its kvar over that, same shape; None where each keeps its own power factor.
        supplied_kw: Most that the shape of each generator's own element lets it give [kW], infinite where it has none,
            shape (n_envs, n_generators); None where none has any.
        sun_pu: What the sun offers, in parts of the panels' rating, shape (n_envs,); None where nobody asks.
    """

    step: IntArray
    sun_kw: FloatArray
    demand_kw: FloatArray
    demand_kvar_per_kw: FloatArray | None = None
    supplied_kw: FloatArray | None = None
    sun_pu: FloatArray | None = None


class SpecRow(NamedTuple):
    """One key of a spec, as the documentation shows it."""

    name: str
    type: str
    unit: str
    default: str
    description: str


_UNITS = {
    "_usd_per_kw2h": "USD/(kW²·h)",
    "_usd_per_kwh": "USD/kWh",
    "_usd_per_operation": "USD/operation",
    "_usd_per_h": "USD/h",
    "_kw_per_min": "kW/min",
    "_kwh": "kWh",
    "_kvar": "kvar",
    "_kva": "kVA",
    "_kw": "kW",
    "_usd": "USD",
    "_steps": "steps",
    "_c": "°C",
    "_k": "K",
}
_UNIT_PREFIXES = {
    "soc_": "pu",
    "eta_": "pu",
    "share_": "pu",
    "arrival_hour": "h",
    "stay_hours": "h",
    "energy_kwh": "kWh",
}


def spec_table(spec: type[DeviceSpec]) -> list[SpecRow]:
    """List the keys of a kind with type, unit, default and description, for the documentation."""
    rows = []
    for name, info in spec.model_fields.items():
        unit = next((u for suffix, u in _UNITS.items() if name.endswith(suffix)), "")
        unit = unit or next((u for prefix, u in _UNIT_PREFIXES.items() if name.startswith(prefix)), "")
        default = "required" if info.default is PydanticUndefined else "" if info.default is None else str(info.default)
        rows.append(SpecRow(name, _describe_type(info.annotation), unit, default, info.description or ""))
    return rows


def _describe_type(annotation: Any) -> str:
    """Write a field's type the way a reader of YAML thinks of it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin is tuple:
        return f"list of {_describe_type(args[0])}"
    if origin is Annotated:
        return _describe_type(args[0])
    if args:
        return " | ".join(_describe_type(a) for a in args if a is not type(None))
    return str(getattr(annotation, "__name__", annotation))
