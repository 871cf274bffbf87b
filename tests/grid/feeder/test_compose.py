"""Composing feeders: nothing changes what is not tied, and the whole equals what one would write by hand."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.errors import FeederError
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.compose import compose
from powergrid.grid.feeder.feeder import Feeder, list_feeders, models_folder, read_feeder
from powergrid.grid.feeder.microgrid import MicrogridSpec

EXACT_PU = 1e-9
TRANSFORMER = {"kind": "transformer", "s_max_kva": 1000, "x_percent": 5.0, "r_percent": 1.2}


def microgrid(feeder: str | Path = "ieee13", bus: str = "850", **keys: Any) -> MicrogridSpec:
    return MicrogridSpec.model_validate({"feeder": str(feeder), "bus": bus, "tie": TRANSFORMER} | keys)


def solve(feeder: Feeder) -> Circuit:
    """Solve a feeder with its own controls, far below the tolerance that is asked for."""
    return Circuit(feeder, tolerance=1e-10, max_iterations=300)


def voltages(circuit: Circuit) -> dict[str, complex]:
    """Return the phasor of each node over its base voltage."""
    pu = circuit.v[1:] / circuit.network.v_base
    return dict(zip(circuit.network.nodes, pu.tolist(), strict=True))


def largest_difference(one: Circuit, other: Circuit) -> float:
    a, b = voltages(one), voltages(other)
    assert a.keys() == b.keys()
    return max(abs(abs(a[node]) - abs(b[node])) for node in a)


@pytest.mark.parametrize("name", list_feeders())
def test_compose_with_nothing_changes_nothing(name: str) -> None:
    feeder = read_feeder(name)
    plain, composed = solve(feeder), solve(compose(feeder, {}))
    v, w = voltages(plain), voltages(composed)
    assert v.keys() == w.keys()
    # What floats behind a delta winding is held by almost nothing: there, only voltages between lines are defined.
    floating = {node for node in v if name == "ieee123" and node.startswith("610.")}
    assert max(abs(abs(v[n]) - abs(w[n])) for n in v.keys() - floating) < EXACT_PU
    for one in floating:
        for other in floating - {one}:
            assert abs(abs(v[one] - v[other]) - abs(w[one] - w[other])) < EXACT_PU
    np.testing.assert_array_equal(plain.taps, composed.taps)
    np.testing.assert_array_equal(plain.steps_on, composed.steps_on)
    assert plain.network.regulator_controls == composed.network.regulator_controls
    assert set(plain.network.branches.names) == set(composed.network.branches.names)
    assert dict(zip(plain.network.loads.names, plain.network.loads.kw, strict=True)) == dict(
        zip(composed.network.loads.names, composed.network.loads.kw, strict=True)
    )


def prefixed(folder: Path, prefix: str, load_scale: float) -> str:
    """Rewrite a shipped feeder's files the way a person would with search and replace."""
    text = "".join(
        (folder / f"{name}.dss").read_text() + "\n"
        for name in ("LineCodes", "Transformers", "Regulators", "Lines", "Loads", "Capacitors")
    )
    text = re.sub(r"!.*", "", text)
    text = re.sub(r"(?i)(New \w+\.)", rf"\g<1>{prefix}", text)
    text = re.sub(r"(?i)\b(Bus1|Bus2|LineCode|Transformer|Bank)=", rf"\g<1>={prefix}", text)
    text = re.sub(r"(?i)Buses=\[([\w.]+), *([\w.]+)\]", rf"Buses=[{prefix}\1, {prefix}\2]", text)

    def scale(match: re.Match[str]) -> str:
        return f"{match[1]}={float(match[2]) * load_scale!r}"

    lines = [re.sub(r"\b(kW|kvar)=([\d.]+)", scale, x) if " Load." in x else x for x in text.splitlines()]
    return "\n".join(line for line in lines if f"Transformer.{prefix}sub " not in line)


def test_compose_three_microgrids_on_34_nodes_equals_the_text_written_by_hand(tmp_path: Path) -> None:
    ties, text = {"MG1": "850", "MG2": "858", "MG3": "834"}, [f'Redirect "{models_folder()}/ieee34/Master.dss"']
    for name, bus in ties.items():
        prefix = f"{name.lower()}_"
        text.append(prefixed(models_folder() / "ieee13", prefix, 0.125))
        text.append(
            f"""New Transformer.{prefix}tie Phases=3 Windings=2 Buses=[{bus} {prefix}tie] Conns=[wye wye]
~ kVs=[24.9 4.16] kVAs=[1000 1000] XHL=5 %Rs=[0.6 0.6]
New Line.{prefix}tie Bus1={prefix}tie Bus2={prefix}650 R1=0.001 X1=0.001 R0=0.001 X0=0.001 C1=0 C0=0 Length=1"""
        )
    text.append("Set VoltageBases=[69, 24.9, 4.16, 0.48]\nCalcVoltageBases")
    master = tmp_path / "by_hand.dss"
    master.write_text("\n".join(text))
    by_hand = solve(read_feeder(master))
    specs = {name: microgrid(bus=bus, entry="650", load_scale=0.125) for name, bus in ties.items()}
    composed = solve(compose(read_feeder("ieee34"), specs))
    assert largest_difference(by_hand, composed) < EXACT_PU
    order = [by_hand.network.regulator_controls.index(name) for name in composed.network.regulator_controls]
    np.testing.assert_array_equal(by_hand.taps[order], composed.taps)
    assert len(composed.network.nodes) == 138 + 3 * (41 - 3 + 3)
    assert composed.network.loads.kw.sum() == pytest.approx(1769 + 3 * 0.125 * 3466, abs=0.5)


#: What stands in the small feeder, and in what it becomes a part of, with a prefix to its names there.
CODES = """New LoadShape.{p}day npts=4 interval=6 mult=[0.2 0.6 1.0 0.7]
New Spectrum.{p}mine numharm=1 harmonic=[1] %mag=[100] angle=[0]
New XYcurve.{p}vv npts=4 xarray=[0.5 0.95 1.05 1.5] yarray=[1 1 -1 -1]
New WireData.{p}w Rac=0.19 Runits=km GMRac=8 GMRunits=mm Radius=10 Radunits=mm NormAmps=300
New LineGeometry.{p}g nconds=3 nphases=3
~ cond=1 wire={p}w x=-1 h=9 units=m
~ cond=2 wire={p}w x=0 h=10 units=m
~ cond=3 wire={p}w x=1 h=9 units=m
New XfmrCode.{p}x Phases=3 Windings=2 kVs=[12.47 0.48] kVAs=[500 500] XHL=4 %Rs=[0.5 0.5]
"""
GEAR = """New Transformer.{p}t XfmrCode={p}x Buses=[{p}b3 {p}lv]
New Transformer.{p}reg1 Phases=3 Buses=[{p}b2 {p}b4] kVs=[12.47 12.47] kVAs=[2000 2000] XHL=0.5
~ wdg=2 tap=1.0125
New RegControl.{p}reg1 Transformer={p}reg1 Winding=2 VReg=121 Band=2 PTRatio=60 Bus={p}b5.1
New Line.{p}l5 Bus1={p}b4 Bus2={p}b5 Geometry={p}g Length=2 Units=km
New Line.{p}l6 Bus1={p}b5 Bus2={p}b6 Geometry={p}g Length=2 Units=km
New Reactor.{p}coil Bus1={p}b5 Bus2={p}b7 RMatrix=[0.1 | 0.02 0.1 | 0.02 0.02 0.1] XMatrix=[0.9 | 0.1 0.9 | 0.1 0.1 0.9]
New Capacitor.{p}coupled Bus1={p}b7 kV=12.47 CMatrix=[2 | -0.2 2 | -0.2 -0.2 2]
New Fault.{p}leak Bus1={p}b7 GMatrix=[1e-5 | 0 2e-5 | 0 0 3e-5]
"""
#: A feeder with what the engine's own data lose or mean differently among others: states, opened and disabled elements,
#: multipliers, a control that names nothing, names that repeat the host's.
SMALL = f"""New Circuit.small Bus1=grid Phases=3 BasekV=12.47 pu=1.0 MVAsc3=500 MVAsc1=500
{CODES.format(p="")}New Line.l1 Bus1=grid Bus2=b1 Geometry=g Length=3 Units=km
New Line.l2 Bus1=b1 Bus2=b2 Geometry=g Length=2 Units=km
New Line.l3 Bus1=b2 Bus2=b3 Geometry=g Length=1 Units=km
New Line.spare Bus1=b1 Bus2=b3 Geometry=g Length=1 Units=km Enabled=no
New Line.loop Bus1=b1 Bus2=b3 Geometry=g Length=4 Units=km
{GEAR.format(p="")}New Load.far Bus1=b6.2 Phases=1 kV=7.2 kW=50
New Load.zip Bus1=lv.1 Phases=1 kV=0.277 kW=40 kvar=10 Model=8 ZIPV=[0.5 0.3 0.2 0.4 0.3 0.3 0.8] Yearly=day
New Load.house Bus1=lv kV=0.48 PF=0.95 XfkVA=100 AllocationFactor=0.6 Spectrum=mine
New Load.mill Bus1=b5 Conn=delta kV=12.47 kW=400 PF=0.85 Status=fixed
New Load.gone Bus1=b5 kV=12.47 kW=900 Enabled=no
New Capacitor.bank Bus1=b5 kV=12.47 kvar=450 Numsteps=3 States=[1 0 0]
MakeBusList
New CapControl.bank Capacitor=bank Element=Line.l5 Terminal=1 Type=voltage PTRatio=60 OnSetting=118 OffSetting=126
~ VBus=b4
New PVSystem.roof Bus1=lv kV=0.48 Pmpp=120 kVA=130 Irradiance=0.8
New InvControl.all Mode=voltvar VVC_Curve1=vv
New SwtControl.loop SwitchedObj=Line.loop SwitchedTerm=1 State=open Normal=open
New EnergyMeter.m Element=Line.l1
Set LoadMult=0.8
Set VoltageBases=[12.47, 0.48]
CalcVoltageBases
Open Line.l6 1 3
"""
#: The host has an element of each kind that takes whatever it finds.
HOST_ELEMENTS = """New Circuit.host Bus1=src Phases=3 BasekV=12.47 pu=1.03 MVAsc3=900 MVAsc1=900
New LineCode.g R1=0.3 X1=0.4 R0=0.7 X0=1.2 C1=10 C0=5 Units=km
New Line.l1 Bus1=src Bus2=a LineCode=g Length=2 Units=km
New Load.house Bus1=a kV=12.47 kW=700 PF=0.9
New PVSystem.roof Bus1=a kV=12.47 Pmpp=300 kVA=300 Irradiance=0.5
"""
HOST = HOST_ELEMENTS + "Set VoltageBases=[12.47]\nCalcVoltageBases\n"
#: What the composed circuit should be, element by element.
HOST_AND_SMALL = f"""{HOST_ELEMENTS}
New Line.s_tie Bus1=a Bus2=s_b1 R1=0.2 X1=0.3 R0=0.6 X0=0.9 C1=0 C0=0 Length=1.5 Units=km
{CODES.format(p="s_")}New Line.s_l2 Bus1=s_b1 Bus2=s_b2 Geometry=s_g Length=2 Units=km
New Line.s_l3 Bus1=s_b2 Bus2=s_b3 Geometry=s_g Length=1 Units=km
New Line.s_loop Bus1=s_b1 Bus2=s_b3 Geometry=s_g Length=4 Units=km
{GEAR.format(p="s_")}New Load.s_far Bus1=s_b6.2 Phases=1 kV=7.2 kW=20
New Load.s_zip Bus1=s_lv.1 Phases=1 kV=0.277 kW=16 kvar=4 Model=8 ZIPV=[0.5 0.3 0.2 0.4 0.3 0.3 0.8]
New Load.s_house Bus1=s_lv kV=0.48 kW=22.8 PF=0.95
New Load.s_mill Bus1=s_b5 Conn=delta kV=12.47 kW=200 PF=0.85 Status=fixed
New Capacitor.s_bank Bus1=s_b5 kV=12.47 kvar=450 Numsteps=3 States=[1 0 0]
MakeBusList
New CapControl.s_bank Capacitor=s_bank Element=Line.s_l5 Terminal=1 Type=voltage PTRatio=60 OnSetting=118 OffSetting=126
~ VBus=s_b4
New PVSystem.s_roof Bus1=s_lv kV=0.48 Pmpp=120 kVA=130 Irradiance=0.8
New InvControl.s_all Mode=voltvar VVC_Curve1=s_vv DERList=[PVSystem.s_roof]
New SwtControl.s_loop SwitchedObj=Line.s_loop SwitchedTerm=1 State=open Normal=open
Set VoltageBases=[12.47, 0.48]
CalcVoltageBases
Open Line.s_l6 1 3
"""
LINE = {
    "kind": "line", "length_km": 1.5, "r1_ohm_per_km": 0.2, "x1_ohm_per_km": 0.3, "r0_ohm_per_km": 0.6,
    "x0_ohm_per_km": 0.9, "norm_amps": 300,
}  # fmt: skip


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.dss"
    path.write_text(text)
    return path


def test_compose_everything_the_data_could_lose_equals_the_text_written_by_hand(tmp_path: Path) -> None:
    host, small = read_feeder(write(tmp_path, "host", HOST)), write(tmp_path, "small", SMALL)
    composed = solve(compose(host, {"S": microgrid(small, "a", entry="b1", load_scale=0.5, tie=LINE)}))
    by_hand = solve(read_feeder(write(tmp_path, "by_hand", HOST_AND_SMALL)))
    assert largest_difference(by_hand, composed) < EXACT_PU
    assert composed.taps.tolist() == by_hand.taps.tolist() != [2]  # the control moved on from the tap as written
    assert composed.steps_on.tolist() == by_hand.steps_on.tolist()
    network = composed.network
    closed = dict(zip(network.switches, composed.closed.tolist(), strict=True))
    assert closed["s_loop"] == 0  # by its SwtControl
    assert closed["s_tie"] == closed["s_l6"] == 1  # open in one phase only
    assert "s_spare" not in network.switches  # disabled
    assert "s_l1" not in network.switches  # between the source and the entry
    assert network.loads.kw[network.loads.names.index("s_house")] == pytest.approx(100 * 0.6 * 0.95 * 0.8 * 0.5)
    assert network.loads.kw[network.loads.names.index("s_mill")] == pytest.approx(400 * 0.5)  # fixed: no LoadMult
    followed = network.followed_by("Load")[network.loads.names.index("s_zip")]
    assert network.shapes.names[followed] == "s_day"


def test_compose_capacitor_states_and_taps_survive_without_controls(tmp_path: Path) -> None:
    text = "\n".join(line for line in SMALL.splitlines() if "Control." not in line and "VBus" not in line)
    feeder = read_feeder(write(tmp_path, "held", text))
    plain, composed = solve(feeder), solve(compose(feeder, {}))
    assert largest_difference(plain, composed) < EXACT_PU
    assert composed.steps_on.tolist() == [1, 1]
    assert (
        composed.engine.get_floats(composed.engine.handles("Transformer")["reg1"], "Transformer", "Taps")[1] == 1.0125
    )


@pytest.mark.parametrize(
    "demand",
    [
        "XfkVA=100 AllocationFactor=0.6 PF=0.95",
        "PF=0.95 XfkVA=100",
        "kWh=500 kWhDays=3 CFactor=2 PF=0.9",
        "kVA=70 PF=0.9",
    ],
)
def test_compose_demand_in_any_form_keeps_its_value(demand: str, tmp_path: Path) -> None:
    text = SMALL.replace("PF=0.95 XfkVA=100 AllocationFactor=0.6", demand).replace("Set LoadMult=0.8\n", "")
    feeder = read_feeder(write(tmp_path, "asked", text))
    plain, composed = solve(feeder), solve(compose(feeder, {}))
    assert largest_difference(plain, composed) < EXACT_PU
    np.testing.assert_allclose(plain.network.loads.kw, composed.network.loads.kw, rtol=1e-12)
    np.testing.assert_allclose(plain.network.loads.kvar, composed.network.loads.kvar, rtol=1e-12)


def test_compose_forming_source_is_open_and_carries_nothing_while_tied() -> None:
    tied = solve(compose(read_feeder("ieee34"), {"MG1": microgrid(entry="650", load_scale=0.1)}))
    forming = {"p_max_kw": 400, "v_pu": 1.02}
    former = solve(compose(read_feeder("ieee34"), {"MG1": microgrid(entry="650", load_scale=0.1, forming=forming)}))
    assert largest_difference(tied, former) < EXACT_PU
    assert former.feeder.microgrids[0].source == "mg1_forming"


def test_compose_result_pickles_and_has_a_digest_of_all_its_parts(tmp_path: Path) -> None:
    host = read_feeder(write(tmp_path, "host", HOST))
    small = write(tmp_path, "small", SMALL)
    one = compose(host, {"S": microgrid(small, "a", entry="b1", tie=LINE)})
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert one.settings == host.settings != {}
    assert largest_difference(solve(one), solve(again)) == 0.0
    scaled = compose(host, {"S": microgrid(small, "a", entry="b1", tie=LINE, load_scale=0.9)})
    small.write_text(SMALL.replace("kW=400", "kW=401"))
    edited = compose(host, {"S": microgrid(small, "a", entry="b1", tie=LINE)})
    assert len({host.digest, one.digest, scaled.digest, edited.digest}) == 4
    small.write_text(SMALL)
    assert compose(host, {"S": microgrid(small, "a", entry="b1", tie=LINE)}).digest == one.digest


def test_compose_wrong_in_many_ways_says_all_at_once(tmp_path: Path) -> None:
    carson = write(tmp_path, "carson", SMALL.replace("Set LoadMult", "Set EarthModel=Carson\nSet LoadMult"))
    specs = {
        "MG1": microgrid(bus="805"),
        "MG2": microgrid(bus="810"),  # one phase
        "MG3": microgrid(bus="850", entry="671", tie=LINE),
        "MG4": microgrid(bus="850", entry="633x"),
        "MG5": microgrid(bus="834", entry="675"),
        "MG6": microgrid(carson, bus="858"),
        "mg1": microgrid(bus="858", entry="650"),
        "6-x": microgrid(bus="858", entry="650"),
    }
    with pytest.raises(FeederError) as caught:
        compose(read_feeder("ieee34"), specs)
    text = str(caught.value)
    for expected in (
        "microgrids.MG1.bus: unknown bus '805' (did you mean",
        "microgrids.MG2.bus: '810' has phases [2], not [1, 3] of the microgrid's 'sourcebus'",
        "microgrids.MG3.tie: a line between 24.9 kV at '850' and 4.16 kV at '671'; use 'kind: transformer'",
        "microgrids.MG4.entry: unknown bus '633x' (did you mean '633'",
        "microgrids.MG5.entry: '675' would leave out Load.634a",
        "microgrids.MG6: feeder 'carson' has earthmodel=Carson, feeder 'ieee34' has Deri; both need the same",
        "microgrids.mg1: differs from 'MG1' in letter case only",
        "microgrids.6-x: a name is letters, digits and '_'",
    ):
        assert expected in text
    assert "(did you mean '680'" not in text
    assert {problem.code for problem in caught.value.details} == {
        *("unknown-bus", "missing-phase", "levels-differ", "entry-too-far", "options-differ", "bad-name")
    }


def test_compose_names_that_are_taken_are_an_error(tmp_path: Path) -> None:
    host = write(tmp_path, "host", HOST.replace("Load.house", "Load.s_house"))
    small = write(
        tmp_path,
        "small",
        SMALL.replace("Line.loop", "Line.tie").replace("SwitchedObj=Line.loop", "SwitchedObj=Line.tie"),
    )
    with pytest.raises(FeederError, match=r"microgrids\.S: its names are taken already: .*Load\.s_house") as caught:
        compose(read_feeder(host), {"S": microgrid(small, "a", entry="b1", tie=LINE)})
    kept = "microgrids.S: feeder 'small' has Line.tie, a name that is kept for its tie; rename it in the feeder"
    assert kept in caught.value.problems


def test_compose_bus_that_is_called_as_the_tie_is_an_error_and_not_joined_to_it(tmp_path: Path) -> None:
    host = write(tmp_path, "host", HOST)
    small = write(tmp_path, "small", SMALL.replace("Bus2=b3", "Bus2=tie").replace("Bus1=b3", "Bus1=tie"))
    with pytest.raises(FeederError, match=r"microgrids\.S: feeder 'small' has Bus\.tie, a name that is kept"):
        compose(read_feeder(host), {"S": microgrid(small, "a", entry="b1", tie=TRANSFORMER)})
    assert (
        "s_tie" in solve(compose(read_feeder(host), {"S": microgrid(small, "a", entry="b1", tie=LINE)})).network.buses
    )


def test_compose_microgrids_are_drawn_near_their_bus_and_apart_from_all_else() -> None:
    parts = {name: microgrid(bus=bus, entry="650", load_scale=0.1) for name, bus in (("MG1", "858"), ("MG2", "834"))}
    network = solve(compose(read_feeder("ieee34"), parts)).network
    at = {bus: network.bus_xy[i] for bus, i in network.bus_index.items()}
    group = {name: np.array([xy for bus, xy in at.items() if bus.startswith(name)]) for name in ("mg1_", "mg2_")}
    host = np.array([xy for bus, xy in at.items() if not bus.startswith("mg")])
    reach = np.ptp(host, axis=0).max()
    for own, others, bus in (
        (group["mg1_"], [host, group["mg2_"]], "858"),
        (group["mg2_"], [host, group["mg1_"]], "834"),
    ):
        assert np.ptp(own, axis=0).max() == pytest.approx(0.2 * reach, rel=0.3)  # the tie's bus may lie outside
        assert np.linalg.norm(own - at[bus], axis=1).min() < 0.3 * reach
        for other in others:
            gaps = np.linalg.norm(own[:, None] - other[None], axis=2)
            assert gaps.min() > 0.03 * reach
