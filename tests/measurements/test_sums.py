"""Sums of several loads: what these take adds up to what was measured, by phase, reactive power and losses too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powergrid.errors import ScenarioError
from powergrid.measurements import Imported, import_profiles
from tests.measurements.conftest import make_kw, make_times

TIMES = make_times(days=3)
HEAD = """
Clear
New Circuit.head basekv=12.47 pu=1.0 phases=3 bus1=source
New Line.l1 bus1=source bus2=mid length=0.5 units=km r1=0.1 x1=0.2 r0=0.3 x0=0.6 c1=0 c0=0
New Transformer.t1 phases=3 windings=2 buses=(mid low) kvs=(12.47 0.4) kvas=(500 500) xhl=4
New Transformer.single phases=1 windings=3 buses=(mid.2 legs.1.0 legs.0.2) kvs=(7.2 0.12 0.12) kvas=(50 50 50)
New Load.three bus1=low phases=3 kv=0.4 kw=90 kvar=30
New Load.a1 bus1=low.1 phases=1 kv=0.231 kw=40 kvar=10
New Load.a2 bus1=low.1 phases=1 kv=0.231 kw=20 kvar=5
New Load.b bus1=legs.1.2 phases=1 kv=0.24 kw=30 kvar=9
New Load.c bus1=low.3 phases=1 kv=0.231 kw=25 kvar=-5
New Load.ca bus1=mid.3.1 phases=1 conn=delta kv=12.47 kw=45 kvar=20
Set VoltageBases=[12.47 0.4 0.208]
CalcVoltageBases
"""
#: Part of each load on phases 1, 2 and 3, by hand; both legs of the split winding hang on phase 2.
ON = {"three": [1, 1, 1], "a1": [3, 0, 0], "a2": [3, 0, 0], "b": [0, 3, 0], "c": [0, 0, 3], "ca": [1.5, 0, 1.5]}


@pytest.fixture
def head(tmp_path: Path) -> Path:
    (tmp_path / "head").mkdir()
    master = tmp_path / "head" / "head.dss"
    master.write_text(HEAD)
    return master


def powers(imported: Imported) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return kW and kvar that loads play, by load."""
    profiles = imported.profiles
    kw, kvar = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for load, series in profiles.load_series.items():
        column = profiles.demand_names.index(series)
        reactive = profiles.demand_pu if profiles.demand_kvar_pu is None else profiles.demand_kvar_pu
        kw[load] = profiles.demand_pu[:, column] * profiles.load_base[load][0]
        kvar[load] = reactive[:, column] * profiles.load_base[load][1]
    return kw, kvar


def phase_sums(of_loads: dict[str, np.ndarray]) -> np.ndarray:
    return np.sum([np.outer(np.array(ON[load]) / 3, values) for load, values in of_loads.items()], axis=0)


def by_phase(unit: str, quantity: str, numbers: list[np.ndarray]) -> tuple[pd.DataFrame, dict[str, Any]]:
    names = [f"{quantity}_{phase}" for phase in "abc"]
    table = pd.DataFrame({"time": TIMES} | dict(zip(names, numbers, strict=True)))
    return table, {name: {"head": True, "phase": i, "unit": unit} for i, name in enumerate(names, 1)}


def test_head_by_phase_is_met_on_each_phase_in_kw_and_kvar(head: Path) -> None:
    kw = [make_kw(TIMES, 120, 1) + 60, make_kw(TIMES, 60, 2) + 30, make_kw(TIMES, 90, 3) + 40]
    kvar = [make_kw(TIMES, 40, 4) + 20, make_kw(TIMES, 20, 5) + 10, make_kw(TIMES, 30, 6) + 10]
    table, columns = by_phase("kW", "P", kw)
    other, more = by_phase("kvar", "Q", kvar)
    own = make_kw(TIMES, 10, 7)
    table["a2 [kW]"] = own
    imported = import_profiles([table, other.set_index("time")], head, {"columns": columns | more, "losses_percent": 4})
    p, q = powers(imported)
    assert p["a2"] == pytest.approx(own, abs=1e-9)
    assert phase_sums(p) == pytest.approx(np.array(kw) * 0.96, abs=1e-9)
    # loads on several phases follow reactive power as far as its sign on each phase allows; the sum is met always
    assert sum(q.values()) == pytest.approx(np.sum(kvar, axis=0) * 0.96, abs=1e-9)
    assert p["c"].min() > 0.0


def test_phases_that_loads_on_several_cannot_follow_keep_their_sum_and_are_told(feeder: Path) -> None:
    table, columns = by_phase("kW", "P", [make_kw(TIMES, 90), make_kw(TIMES, 40, 1), make_kw(TIMES, 10, 2)])
    columns = {name: {**entry, "head": False, "site": "west"} for name, entry in columns.items()}
    imported = import_profiles(table, feeder, {"columns": columns})
    p, _ = powers(imported)
    assert sum(p.values()) == pytest.approx(table.iloc[:, 1:].sum(axis=1), abs=1e-9)
    assert all((values >= 0.0).all() for values in p.values())
    assert "bus west: loads on several phases cannot follow its phases" in imported.report.as_text().replace(
        "\n      ", " "
    )


def test_phase_that_is_not_given_is_told_with_what_is_on_it(head: Path) -> None:
    table, columns = by_phase("kW", "P", [make_kw(TIMES, 90), make_kw(TIMES, 40, 1), make_kw(TIMES, 10, 2)])
    with pytest.raises(ScenarioError, match="phase 2 is not among its columns of kW, and 2 of its loads are on it"):
        import_profiles(table.drop(columns="P_b"), head, {"columns": {k: v for k, v in columns.items() if k != "P_b"}})


@pytest.mark.parametrize(("unit", "ratio"), [("kV", 1.0), ("V", 1000.0), ("kV", 1 / np.sqrt(3))])
def test_amperes_are_at_the_voltage_that_was_measured_beside_them(head: Path, unit: str, ratio: float) -> None:
    amps = [make_kw(TIMES, 15, 1) + 8, make_kw(TIMES, 8, 2) + 4, make_kw(TIMES, 11, 3) + 6]
    kvar = [np.full(len(TIMES), 20.0), np.full(len(TIMES), 9.0), np.full(len(TIMES), 12.0)]
    kv = 12.6 + 0.1 * np.sin(TIMES.hour.to_numpy())
    table, columns = by_phase("A", "I", amps)
    for i, name in enumerate("abc"):
        table[f"Q_{name} [kvar]"] = kvar[i]
        columns[f"Q_{name} [kvar]"] = {"head": True, "phase": i + 1}
    table["U"] = kv * ratio
    columns["U"] = {"head": True, "unit": unit}
    p, q = powers(import_profiles(table, head, {"columns": columns}))
    wanted = [np.sqrt((amps[i] * kv / np.sqrt(3)) ** 2 - kvar[i] ** 2) for i in range(3)]
    assert phase_sums(p) == pytest.approx(np.array(wanted), abs=1e-9)
    assert sum(q.values()) == pytest.approx(np.sum(kvar, axis=0), abs=1e-9)
    with pytest.raises(ScenarioError, match=r"'U': .* kV is its median, where feeder head has 12\.47 kV line to line"):
        import_profiles(table.assign(U=table["U"] * 1.5), head, {"columns": columns})
    alone = {name: entry for name, entry in columns.items() if not name.startswith("I")}
    with pytest.raises(ScenarioError, match="feeder head has kvar and kV and no kW or A"):
        import_profiles(table, head, {"columns": alone})


@pytest.mark.parametrize("allocate", ["kva", "energy"])
@pytest.mark.parametrize("losses", [0.0, 6.0])
def test_customers_meters_of_transformers_and_sites_add_up_to_1e9(feeder: Path, allocate: str, losses: float) -> None:
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"time": TIMES} | {f"M{i}": rng.uniform(2, 9, len(TIMES)) for i in range(9)})
    table = table.assign(**{f"R{i}": rng.uniform(-1, 3, len(TIMES)) for i in range(3)})
    columns: dict[str, Any] = {f"M{i}": {"transformer": "t1"} for i in range(5)} | {"M5": {"site": "west"}}
    columns |= {f"M{i}": {"site": "WEST"} for i in (6, 7)} | {"M8": "w1"}
    columns |= {f"R{i}": {"transformer": "T1", "unit": "kvar"} for i in range(2)}
    columns |= {"R2": {"site": "west", "unit": "kvar"}}
    keys: dict[str, Any] = {"unit": "kW", "columns": columns, "losses_percent": losses, "allocate": allocate}
    keys["energy_kwh"] = {"e1": 3, "e2": 5, "w2": 2, "zero": 1}
    with pytest.raises(ScenarioError, match="or 'same_target: add' where they add up, as customers' meters do"):
        import_profiles(table, feeder, keys)
    p, q = powers(import_profiles(table, feeder, {**keys, "same_target": "add"}))
    left = 1 - losses / 100
    assert p["e1"] + p["e2"] == pytest.approx(left * table[[f"M{i}" for i in range(5)]].sum(axis=1), abs=1e-9)
    assert q["e1"] + q["e2"] == pytest.approx(left * (table["R0"] + table["R1"]), abs=1e-9)
    west = table[["M5", "M6", "M7"]].sum(axis=1)  # customers on the bus itself: nothing is lost before them
    assert p["w1"] + p["w2"] + p["zero"] == pytest.approx(west, abs=1e-9)
    assert q["w1"] + q["w2"] + q["zero"] == pytest.approx(table["R2"], abs=1e-9)
    assert p["w1"] == pytest.approx(table["M8"], abs=1e-9)
    ratio = 3 / 5 if allocate == "energy" else np.hypot(60, 20) / np.hypot(30, 10)
    assert p["e1"] == pytest.approx(ratio * p["e2"], abs=1e-9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), scale=st.floats(0.2, 5), losses=st.sampled_from([0.0, 3.0]), q_too=st.booleans())
def test_any_head_by_phase_keeps_its_sum(head: Path, seed: int, scale: float, losses: float, q_too: bool) -> None:
    rng = np.random.default_rng(seed)
    times = TIMES[:24]
    table = pd.DataFrame({"time": times} | {f"P{i}": rng.uniform(1, 100, 24) * scale for i in (1, 2, 3)})
    columns: dict[str, Any] = {f"P{i}": {"head": True, "phase": i, "unit": "kW"} for i in (1, 2, 3)}
    if q_too:
        table = table.assign(**{f"Q{i}": rng.uniform(-20, 60, 24) for i in (1, 2, 3)})
        columns |= {f"Q{i}": {"head": True, "phase": i, "unit": "kvar"} for i in (1, 2, 3)}
    keys = {"columns": columns, "losses_percent": losses}
    p, q = powers(import_profiles(table, head, keys))
    assert sum(p.values()) == pytest.approx(table[["P1", "P2", "P3"]].sum(axis=1) * (1 - losses / 100), abs=1e-9)
    assert min(values.min() for values in p.values()) >= -1e-12
    if q_too:
        assert sum(q.values()) == pytest.approx(table[["Q1", "Q2", "Q3"]].sum(axis=1) * (1 - losses / 100), abs=1e-9)


def test_head_in_a_larger_unit_and_phases_without_loads_are_told(feeder: Path) -> None:
    table = pd.DataFrame({"time": TIMES, "e1_kW": make_kw(TIMES, 50), "h": (make_kw(TIMES, 60) + 60) / 1000})
    with pytest.raises(ScenarioError, match=r"by .* kW at most; is its unit MW\?"):
        import_profiles(table, feeder, {"columns": {"h": {"head": True, "unit": "kW"}}})
    with pytest.raises(ScenarioError, match="'h': load w1 is on phase 1, and 'phase' says 2"):
        import_profiles(table, feeder, {"columns": {"h": {"load": "w1", "unit": "MW", "phase": 2}}})


@pytest.mark.parametrize("phase", [None, 1])
def test_kvar_that_no_kva_have_are_told(feeder: Path, phase: int | None) -> None:
    table = pd.DataFrame({"time": TIMES, "s": make_kw(TIMES, 20) + 5, "q": make_kw(TIMES, 9) * 1000})
    entry = {"load": "w1"} | ({} if phase is None else {"phase": phase})
    columns = {"s": {**entry, "unit": "kVA"}, "q": {**entry, "unit": "kvar"}}
    limits = {"demand_pu": 1e6}
    with pytest.raises(ScenarioError, match=r"kvar of load w1 are more than its kVA in 72 of 72 rows, as .*\d; "):
        import_profiles(table, feeder, {"columns": columns, "limits": limits})
    columns["q"]["unit"] = "var"
    p, q = powers(import_profiles(table, feeder, {"columns": columns, "limits": limits}))
    assert np.hypot(p["w1"], q["w1"]) == pytest.approx(table["s"])
