"""Units of measured quantities, by their names, and how a column's own name says one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kw", "kvar", "kva", "kwh", "kvarh", "a", "kv", "pu", "irradiance", "temperature", "price"]


@dataclass(frozen=True)
class UnitSpec:
    """A unit.

    Attributes:
        name: As it is written.
        kind: What it measures: of one kind are those that a factor turns into each other.
        factor: What turns a number into the kind's own unit: kW, kvar, kVA, kWh, kvarh, A, kV, pu, 1000 W/m2, deg C or
            USD/kWh.
        offset: What is added before the factor; of temperatures only.
    """

    name: str
    kind: Kind
    factor: float
    offset: float = 0.0


_ALL = (
    *(UnitSpec(p + "W", "kw", f) for p, f in (("", 1e-3), ("k", 1.0), ("M", 1e3))),
    *(UnitSpec(p + "var", "kvar", f) for p, f in (("", 1e-3), ("k", 1.0), ("M", 1e3))),
    *(UnitSpec(p + "VA", "kva", f) for p, f in (("", 1e-3), ("k", 1.0), ("M", 1e3))),
    *(UnitSpec(p + "Wh", "kwh", f) for p, f in (("", 1e-3), ("k", 1.0), ("M", 1e3))),
    *(UnitSpec(p + "varh", "kvarh", f) for p, f in (("", 1e-3), ("k", 1.0), ("M", 1e3))),
    UnitSpec("A", "a", 1.0),
    UnitSpec("kA", "a", 1e3),
    UnitSpec("V", "kv", 1e-3),
    UnitSpec("kV", "kv", 1.0),
    UnitSpec("pu", "pu", 1.0),
    UnitSpec("%", "pu", 0.01),
    UnitSpec("W/m2", "irradiance", 1e-3),
    UnitSpec("kW/m2", "irradiance", 1.0),
    UnitSpec("C", "temperature", 1.0),
    UnitSpec("F", "temperature", 5.0 / 9.0, -32.0),
    UnitSpec("K", "temperature", 1.0, -273.15),
    UnitSpec("USD/kWh", "price", 1.0),
    UnitSpec("USD/MWh", "price", 1e-3),
    UnitSpec("ct/kWh", "price", 1e-2),
    UnitSpec("ct/MWh", "price", 1e-5),
)
#: Every unit by its name in lower case; mW, in which nobody measures demand, is MW.
UNITS = {unit.name.lower(): unit for unit in _ALL}
_ALIASES = {
    "p.u.": "pu",
    "per unit": "pu",
    "percent": "%",
    "w/m²": "w/m2",
    "w/m^2": "w/m2",
    "kw/m²": "kw/m2",
    "degc": "c",
    "°c": "c",
    "deg c": "c",
    "degf": "f",
    "°f": "f",
    "amp": "a",
    "amps": "a",
    "ampere": "a",
    "volt": "v",
    "volts": "v",
    "$/kwh": "usd/kwh",
    "$/mwh": "usd/mwh",
    "cent/kwh": "ct/kwh",
    "cents/kwh": "ct/kwh",
    "cent/mwh": "ct/mwh",
    "cents/mwh": "ct/mwh",
}
_IN_BRACKETS = re.compile(r"^(?P<stem>.*?)\s*[\[(]\s*(?P<unit>[^\[\]()]+?)\s*[\])]\s*$")
_AT_END = re.compile(r"^(?P<stem>.+?)[\s_.,:/-]+(?P<unit>[^\s_,:]+)$")
_PRICE_AT_END = re.compile(
    r"^(?P<stem>.+?)[\s_]+(?P<money>usd|ct|cents?|\$)[_ ](?:per[_ ])(?P<energy>[km]wh)$", re.IGNORECASE
)


#: Nearest units that are 1,000 times smaller, and those that are larger.
SMALLER = {"kW": "W", "MW": "kW", "kWh": "Wh", "MWh": "kWh", "kvar": "var", "kVA": "VA", "kA": "A"}
LARGER = {smaller: unit for unit, smaller in SMALLER.items()} | {"kW": "MW", "kWh": "MWh", "kVA": "MVA"}


def find_unit(text: str) -> UnitSpec | None:
    """Return the unit of a name, letter case ignored; None where there is none."""
    key = text.strip().lower()
    return UNITS.get(_ALIASES.get(key, key))


def split_unit(label: str) -> tuple[str, UnitSpec | None]:
    """Return what a column's name is without the unit at its end, and the unit: ``"671 [kWh]"`` is 671 in kWh."""
    text = label.strip()
    bracket = _IN_BRACKETS.match(text)
    if bracket and (unit := find_unit(bracket["unit"])):
        return bracket["stem"].strip(), unit
    price = _PRICE_AT_END.match(text)
    if price:
        return price["stem"], find_unit(f"{price['money']}/{price['energy']}")
    whole = find_unit(text)
    if whole and len(text) > 1:
        return "", whole
    end = _AT_END.match(text)
    # A letter alone is a phase or a number of houses more often than amperes, degrees or kelvin.
    if end and len(end["unit"]) > 1 and (unit := find_unit(end["unit"])):
        return end["stem"].strip(" _.,:/-"), unit
    return text, None
