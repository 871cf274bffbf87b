"""What becomes of each class of the engine's schema, for the table of docs/as_played.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from powergrid.grid.engine import property_tables

PLAYED, COMPILED, NOT = "played", "taken over at compile", "not played"


class Fate(NamedTuple):
    """What becomes of a class.

    Attributes:
        how: ``played``: it moves in time as the model says; ``taken over at compile``: the engine has it, nothing of it
            moves in time; ``not played``: it takes no part.
        why: How, or the reason.
        but: Properties that are not so, in groups: the reason by names with blanks between them.
    """

    how: str
    why: str
    but: Mapping[str, str] = {}


_WAITS = "counts with `Set ControlMode=time`; else no time passes in a step"
_LIBRARY = "never loaded: a program library"
_DYNAMICS = "for dynamics, which is never solved"
_HARMONICS = "for harmonics, which are never solved"
_INVERTER_DYNAMICS = "kvdc kp pitol safevoltage safemode dynamiceq dynout controlmode amplimit amplimitgain"

FATES: dict[str, Fate] = {
    "linecode": Fate(COMPILED, "impedances and ratings of lines", {"seasons ratings": "the first rating counts"}),
    "loadshape": Fate(PLAYED, "as the engine takes its points, in every mode",
        {"action csvfile sngfile dblfile pqcsvfile": "`action=dblsave` and `sngsave` write files and are left out; "
         "files are read inside the model's root", "memorymapping": "the engine misreads text; "
         "the values of the file are played", "mean stddev": "only shown"}),
    "tshape": Fate(PLAYED, "temperature of PVSystems that no agent has", {"mean stddev": "only shown"}),
    "priceshape": Fate(PLAYED, "Generators with `DispMode=price`; what energy costs is of the scenario's profiles",
        {"mean stddev": "only shown"}),
    "xycurve": Fate(COMPILED, "curves of PVSystems, Storage, controls and Reactors",
        {"points": "ends the engine's process in this version"}),
    "growthshape": Fate(COMPILED, "growth of loads in the model's year (`Set Year`)"),
    "tcc_curve": Fate(COMPILED, "times of Fuses, Relays and Reclosers: which trips, not after how many seconds"),
    "spectrum": Fate(NOT, _HARMONICS),
    "wiredata": Fate(COMPILED, "impedances and ratings of lines"),
    "cndata": Fate(COMPILED, "impedances and ratings of lines"),
    "tsdata": Fate(COMPILED, "impedances and ratings of lines"),
    "linespacing": Fate(COMPILED, "impedances of lines"),
    "linegeometry": Fate(COMPILED, "impedances and ratings of lines", {"seasons ratings": "the first rating counts"}),
    "xfmrcode": Fate(COMPILED, "impedances, taps and ratings of transformers",
        {"thermal n m flrise hsrise": "no thermal model"}),
    "line": Fate(PLAYED, "in the admittance matrix; a switch is an agent's, or its own control's",
        {"seasons ratings": "the first rating counts", "faultrate pctperm repair": "outages are events of a scenario"}),
    "vsource": Fate(PLAYED, "its pu by its shape, else it stands; the first enabled one is the feeder's head",
        {"model": _HARMONICS, "spectrum": _HARMONICS}),
    "isource": Fate(PLAYED, "its amps by its shape, else they stand", {"spectrum": _HARMONICS}),
    "vccs": Fate(COMPILED, "at the current of its steady state", {"spectrum": _HARMONICS, "fsample rmsmode imaxpu "
        "vrmstau irmstau": _DYNAMICS}),
    "load": Fate(PLAYED, "by its shape, growth, status and model; else by the scenario's profiles",
        {"cvrcurve": "in yearly mode alone, as the engine does", "%mean %stddev": "no random demand",
         "spectrum puxharm xrharm %seriesrl": _HARMONICS,
         "relweight numcust": "for reliability, which is not counted"}),
    "transformer": Fate(PLAYED, "in the admittance matrix; taps are an agent's, or its RegControl's",
        {"thermal n m flrise hsrise": "no thermal model",
         "faultrate pctperm repair": "outages are events of a scenario",
         "seasons ratings": "the first rating counts"}),
    "regcontrol": Fate(PLAYED, "until it rests, in each step; delays order what acts",
        {"delay tapdelay inversetime": _WAITS, "debugtrace eventlog": "nothing is written"}),
    "capacitor": Fate(PLAYED, "in the admittance matrix; steps are an agent's, or its CapControl's",
        {"faultrate pctperm repair": "outages are events of a scenario"}),
    "reactor": Fate(COMPILED, "in the admittance matrix", {"rcurve lcurve": _HARMONICS,
        "faultrate pctperm repair": "outages are events of a scenario"}),
    "capcontrol": Fate(PLAYED, "until it rests, in each step; by time at the hour that a step ends at",
        {"delay delayoff deadtime": _WAITS, "usermodel userdata": _LIBRARY,
         "eventlog": "nothing is written"}),
    "fault": Fate(COMPILED, "on as the model has it; faults that come and go are events of a scenario",
        {"ontime temporary minamps": "no time passes in the engine", "%stddev": "no random faults"}),
    "dynamicexp": Fate(NOT, _DYNAMICS),
    "generator": Fate(PLAYED, "by its shape, its level of demand or price and its fuel; as a device by its agent",
        {"usermodel userdata shaftmodel shaftdata": _LIBRARY,
         "xd xdp xdpp h d xrdp dutystart dynamiceq dynout": _DYNAMICS,
         "dispmode dispvalue forceon usefuel fuelkwh %fuel %reserve":
         "not of devices: an agent decides, and fuel has its price",
         "refuel": "an action, not a state", "spectrum": _HARMONICS}),
    "gendispatcher": Fate(PLAYED, "of generators that are left to it; what it set them to, times their shapes, is "
        "where the next step begins"),
    "storage": Fate(PLAYED, "by its shape, triggers or StorageController, with its energy; as a device by its agent",
        {"usermodel userdata dynadll dynadata": _LIBRARY, _INVERTER_DYNAMICS: _DYNAMICS, "spectrum": _HARMONICS}),
    "storagecontroller": Fate(PLAYED, "of batteries that are left to it, from step to step as in the engine",
        {"inhibittime": "reckoned in steps", "seasons seasontargets seasontargetslow": "the first target counts",
         "eventlog": "nothing is written"}),
    "relay": Fate(PLAYED, "opens its line in the step whose flow trips it; what it opened stays open for the day",
        {"delay breakertime reset recloseintervals": f"{_WAITS}; ends where its last shot leaves it",
         "eventlog debugtrace": "nothing is written"}),
    "recloser": Fate(PLAYED, "opens its line in the step whose flow locks it out",
        {"delay reset recloseintervals": f"{_WAITS}; ends where its last shot leaves it"}),
    "fuse": Fate(PLAYED, "blows in the step whose flow melts it", {"delay": _WAITS,
        "action": "ends the engine's process in this version where it comes first"}),
    "swtcontrol": Fate(PLAYED, "puts its line where the model says; a locked one keeps it there",
        {"delay": _WAITS, "reset": "an action, not a state"}),
    "pvsystem": Fate(PLAYED, "by its shape and TShape, else the sun of the profiles; as a device by its agent",
        {"usermodel userdata": _LIBRARY, _INVERTER_DYNAMICS: _DYNAMICS, "dutystart": "not followed",
         "spectrum": _HARMONICS}),
    "upfc": Fate(COMPILED, "at the state that the engine finds as the model stands", {"spectrum": _HARMONICS}),
    "upfccontrol": Fate(NOT, "its UPFC stays in the state it was found in"),
    "espvlcontrol": Fate(NOT, "what it would dispatch follows its shape, or is an agent's"),
    "indmach012": Fate(PLAYED, "its kW by its shape, else they stand; the slip is what the engine finds for them",
        {"h d maxslip": _DYNAMICS, "spectrum": _HARMONICS}),
    "gicsource": Fate(COMPILED, "but for geomagnetic currents, whose frequency is never solved"),
    "autotrans": Fate(PLAYED, "in the admittance matrix; taps are an agent's, or its RegControl's",
        {"thermal n m flrise hsrise": "no thermal model",
         "faultrate pctperm repair": "outages are events of a scenario"}),
    "invcontrol": Fate(PLAYED, "of panels and batteries that are left to it; goes from step to step as in the engine",
        {"eventlog": "nothing is written"}),
    "expcontrol": Fate(PLAYED, "of panels that are left to it; its `vreg` follows the steps",
        {"eventlog": "nothing is written"}),
    "gicline": Fate(COMPILED, "in the admittance matrix at the circuit's frequency"),
    "gictransformer": Fate(COMPILED, "in the admittance matrix",
        {"varcurve k": "no reactive power by geomagnetic current"}),
    "vsconverter": Fate(NOT, "refused: the engine computes it from memory that it never fills"),
    "monitor": Fate(NOT, "left out: only records"),
    "energymeter": Fate(NOT, "left out: only records"),
    "sensor": Fate(NOT, "left out: only estimates"),
}  # fmt: skip


def rows() -> list[tuple[str, str, str, str]]:
    """Return class, what becomes of it, how or why, and its properties that are not so.

    Raises:
        ValueError: the engine has a class or property that this file does not, or the other way round.
    """
    tables = property_tables()
    if set(tables) != set(FATES):
        raise ValueError(f"classes that only one of engine and table has: {sorted(set(tables) ^ set(FATES))}")
    wrong = [f"{c}.{p}" for c, fate in FATES.items() for group in fate.but for p in group.split() if p not in tables[c]]
    if wrong:
        raise ValueError(f"properties that the engine lacks: {wrong}")
    return [
        (
            f"`{name}`",
            fate.how,
            fate.why,
            "; ".join(f"{', '.join(f'`{p}`' for p in group.split())}: {why}" for group, why in fate.but.items()),
        )
        for name, fate in sorted(FATES.items())
    ]
