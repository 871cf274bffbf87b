"""Which transformers without a regulator control are proposed as tap changers, and how the others are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

import powergrid
from powergrid.check import check_feeder
from powergrid.errors import ScenarioError
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import Scenario, load_scenario, write_scenario
from powergrid.scenario.discovery import summarise

# From the source on: two substation transformers side by side, one with a tap range that is OpenDSS's own but written;
# a regulator without its control, a step-down of which nothing is said, service transformers with taps set off load.
FEEDER = """
Clear
New Circuit.town basekv=115 bus1=src pu=1.0 mvasc3=5000 mvasc1=5000
New Transformer.ltc phases=3 windings=2 buses=(src a) conns=(delta wye) kvs=(115 12.47) kvas=(9000 9000) xhl=7
~ wdg=2 numtaps=32 mintap=0.9 maxtap=1.1
New Transformer.plain phases=3 windings=2 buses=(src x) conns=(delta wye) kvs=(115 12.47) kvas=(9000 9000) xhl=7
New Line.l1 bus1=a bus2=b length=3 units=km r1=0.2 x1=0.4 r0=0.5 x0=1.1
New Transformer.vr phases=3 windings=2 buses=(b c) conns=(wye wye) kvs=(12.47 12.47) kvas=(4000 4000) xhl=0.1
New Transformer.boost phases=3 windings=2 buses=(c d) conns=(wye wye) kvs=(12.47 4.16) kvas=(3000 3000) xhl=5 wdg=1
~ tap=0.975
New Transformer.s1 phases=1 windings=2 buses=(d.1 s1.1) kvs=(2.4 0.24) kvas=(50 50) xhl=2 wdg=2 tap=1.025
New Transformer.s2 phases=1 windings=2 buses=(d.2 s2.2) kvs=(2.4 0.24) kvas=(25 25) xhl=2
New Load.d bus1=d kv=4.16 kw=900 kvar=300
New Load.s1 bus1=s1.1 phases=1 kv=0.24 kw=30 kvar=10
New Load.s2 bus1=s2.2 phases=1 kv=0.24 kw=15 kvar=5
New Load.x bus1=x kv=12.47 kw=2000 kvar=700
{more}
Set VoltageBases=[115 12.47 4.16 0.416]
CalcVoltageBases
"""


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "town.dss"
    path.write_text(FEEDER.format(more=""))
    return path


def elements(scenario: Scenario) -> dict[str, str]:
    return {name: str(spec.element) for name, spec in scenario.devices.items()}


def test_transformers_that_say_so_are_taken_and_others_are_told(master: Path) -> None:
    scenario = load_scenario(master)
    assert elements(scenario) == {
        "reg_ltc": "Transformer.ltc",
        "reg_vr": "Transformer.vr",
        "reg_boost": "Transformer.boost",
    }
    devices = scenario.model_dump()["devices"]
    assert (devices["reg_ltc"]["winding"], devices["reg_boost"]["winding"]) == (2, 1)
    notes = "\n".join(summarise(read_feeder(master)).notes)
    assert "Transformer.s1, Transformer.s2: taps without a RegControl stay (below 1 kV" in notes
    assert "Transformer.plain: taps without a RegControl stay (the model says nothing" in notes
    assert "discover.tap_changers" in notes


def test_control_of_a_transformer_is_taken_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "town.dss"
    path.write_text(FEEDER.format(more="New RegControl.rc transformer=vr winding=2 vreg=120 band=2 ptratio=60"))
    found = sorted(elements(load_scenario(path)).values())
    assert found == ["RegControl.rc", "Transformer.boost", "Transformer.ltc"]


@pytest.mark.parametrize(
    ("wish", "taken"),
    [
        ("all", {"ltc", "plain", "vr", "boost", "s1", "s2"}),
        (["s*"], {"s1", "s2"}),
        (["PLAIN"], {"plain"}),
    ],
)
def test_wishes_take_the_others(master: Path, wish: object, taken: set[str]) -> None:
    scenario = load_scenario({"name": "t", "feeder": str(master), "discover": {"tap_changers": wish}})
    assert {element.partition(".")[2] for element in elements(scenario).values()} == taken


def test_largest_are_taken_where_there_are_too_many(master: Path) -> None:
    discover = {"tap_changers": "all", "max_per_kind": 3}
    scenario = load_scenario({"name": "t", "feeder": str(master), "discover": discover})
    assert set(elements(scenario).values()) == {"Transformer.ltc", "Transformer.plain", "Transformer.vr"}


def test_name_that_is_no_transformer_is_refused_with_the_nearest(master: Path) -> None:
    with pytest.raises(ScenarioError, match=r"discover\.tap_changers.*did you mean 'boost'"):
        load_scenario({"name": "t", "feeder": str(master), "discover": {"tap_changers": ["bost"]}})


def test_feeder_with_taps_alone_says_how_to_take_them(master: Path) -> None:
    with pytest.raises(ScenarioError, match=r"discover: \{tap_changers: \[ltc\]\}"):
        load_scenario({"name": "t", "feeder": str(master), "discover": {"tap_changers": "none"}})


@pytest.mark.parametrize("layout", ["per_zone", "per_device", "per_class", "per_phase", "single"])
def test_every_layout_moves_the_taps(master: Path, layout: str) -> None:
    env = powergrid.make(master, agents=layout)
    env.reset(seed=0)
    assert sum(len(env.action_space(agent).nvec) for agent in env.agents) == 3
    _, _, _, _, infos = env.step({agent: env.action_space(agent).nvec - 1 for agent in env.agents})
    assert next(iter(infos.values()))["operations"] == 16 + 16 + 20  # boost stood at -4
    env.close()


def test_scenario_written_down_is_the_same(master: Path, tmp_path: Path) -> None:
    scenario = load_scenario(master)
    again = load_scenario(write_scenario(scenario, tmp_path / "town.yaml"))
    assert again.devices == scenario.devices
    assert again.agents == scenario.agents


def test_check_counts_tap_changers_and_forms_their_agents(master: Path) -> None:
    report = check_feeder(master)
    assert report.controllable["Transformer (taps)"] == ["ltc", "vr", "boost"]
    assert not [finding for finding in report.findings if finding.code == "not-controllable"]


def test_swap_brings_a_tap_changer_to_a_regulator_and_back(master: Path, tmp_path: Path) -> None:
    """On 13 nodes three regulators stand for the three tap changers; from there, three of the town's for them."""
    town = write_scenario(load_scenario(master), tmp_path / "town.yaml")
    there = load_scenario(town, {"feeder": "ieee13", "placement": {"rule": "distance"}})
    assert all(element.startswith("RegControl.") for element in elements(there).values())
    assert {spec.winding for spec in there.devices.values()} == {None}
    there.simulate().close()
    data = {
        "name": "thirteen",
        "feeder": "ieee13",
        "devices": {f"r{i}": {"kind": "regulator", "element": f"RegControl.reg{i}"} for i in (1, 2, 3)},
        "agents": {"A": {"devices": ["r1", "r2", "r3"], "zone": {"downstream_of": "rg60"}, "pcc": "rg60"}},
    }
    back = load_scenario(data, {"feeder": str(master), "placement": {"rule": "distance"}})
    assert set(elements(back).values()) == {"Transformer.ltc", "Transformer.vr", "Transformer.boost"}
    back.simulate().close()
