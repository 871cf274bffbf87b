"""A feeder as data: what hangs together, what lies behind a bus, what flows into a zone."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from powergrid.errors import Problem
from powergrid.grid.circuit.circuit import Circuit, Snapshot
from powergrid.grid.feeder.feeder import list_feeders, read_feeder
from powergrid.grid.feeder.network import Network

# IEEE 13, from its drawing:
#
#            646 - 645 - 632 - 633 = 634
#                         |
#                        670
#                         |
#     611 - 684 -------- 671 -/- 692 - 675
#            |            |
#           652          680
BEHIND = {
    "671": {"671", "680", "684", "611", "652", "692", "675"},
    "692": {"692", "675"},
    "633": {"633", "634"},
    "632": {"632", "633", "634", "645", "646", "670", "671", "680", "684", "611", "652", "692", "675"},
    "652": {"652"},
}


@pytest.fixture(scope="module")
def ieee13() -> Circuit:
    return Circuit(read_feeder("ieee13"), tolerance=1e-9)


def solved(circuit: Circuit) -> Snapshot:
    snapshot = Snapshot.allocate(1, circuit.network, len(circuit.injections))
    assert circuit.solve()
    circuit.read(snapshot, 0)
    return snapshot


def names(network: Network, buses: list[int]) -> set[str]:
    return {network.buses[bus] for bus in buses}


@pytest.mark.parametrize("bus", BEHIND)
def test_downstream_on_ieee13_is_what_the_drawing_shows(ieee13: Circuit, bus: str) -> None:
    assert names(ieee13.network, ieee13.network.downstream(bus)) == BEHIND[bus]


def test_downstream_of_the_source_is_everything(ieee13: Circuit) -> None:
    network = ieee13.network
    assert network.buses[network.source_bus] == "sourcebus"
    assert names(network, network.downstream("SourceBus")) == set(network.buses)


def test_downstream_of_an_unknown_bus_names_the_nearest(ieee13: Circuit) -> None:
    with pytest.raises(KeyError, match=r"unknown bus '617' \(did you mean '6"):
        ieee13.network.downstream("617")


def test_downstream_stops_at_a_switch_that_is_open_as_compiled(tmp_path: Path) -> None:
    folder = read_feeder("ieee13").master.parent
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    master = tmp_path / "Master.dss"
    master.write_text(master.read_text() + "\nOpen Line.671692 term=1\n")
    circuit = Circuit(read_feeder(master))
    assert names(circuit.network, circuit.network.downstream("671")) == BEHIND["671"] - BEHIND["692"]
    assert names(circuit.network, circuit.network.downstream("675")) == {"675"}


def test_line_open_in_one_phase_still_joins_its_buses(tmp_path: Path) -> None:
    master = tmp_path / "m.dss"
    master.write_text(
        "New Circuit.x basekv=12.47\nNew Line.a bus1=sourcebus bus2=b\n"
        "New Line.b bus1=b bus2=c\nNew Line.d bus1=c bus2=d\n"
        "New Load.c bus1=c kV=12.47 kW=10\nNew Load.d bus1=d kV=12.47 kW=10\n"
        "Set VoltageBases=[12.47]\nCalcVoltageBases\nOpen Line.b 2 1\nOpen Line.d 2\n"
    )
    network = Circuit(read_feeder(master)).network
    assert dict(zip(network.switches, network.branches.closed.tolist(), strict=True)) == {
        "a": True,
        "b": True,
        "d": False,
    }
    assert names(network, network.downstream("b")) == {"b", "c"}


def test_zone_import_of_ieee13_is_what_enters_671_through_its_line(ieee13: Circuit) -> None:
    snapshot, network, b = solved(ieee13), ieee13.network, ieee13.network.branches
    zone = network.downstream("671")
    weights = network.boundary(zone)
    crossing = {b.names[branch] for branch in b.terminal_branch[weights != 0]}
    assert len(crossing) == 1
    # By hand: what the zone's loads draw and its branches lose, less nothing, is what comes in.
    inside = np.isin(b.terminal_bus, zone) | (b.terminal_bus < 0)
    within = np.bincount(b.terminal_branch, weights=inside, minlength=len(b.names)) == np.bincount(b.terminal_branch)
    lost = snapshot.terminal_kva[0].real[within[b.terminal_branch]].sum()
    drawn = sum(
        load_kw
        for name, load_kw in loads_as_drawn(ieee13).items()
        if network.loads.bus[network.loads.names.index(name)] in zone
    )
    assert weights @ snapshot.terminal_kva[0].real == pytest.approx(drawn + lost, rel=1e-6)


def loads_as_drawn(circuit: Circuit) -> dict[str, float]:
    direct = circuit.engine.direct
    drawn = {}
    for name in direct.Loads.AllNames():
        direct.Circuit.SetActiveElement(f"Load.{name}")
        drawn[name.lower()] = float(sum(direct.CktElement.Powers()[::2]))
    return drawn


@pytest.mark.parametrize("name", list_feeders())
def test_import_of_everything_but_the_source_is_what_the_source_gives(name: str) -> None:
    circuit = Circuit(read_feeder(name), tolerance=1e-9)
    snapshot, network = solved(circuit), circuit.network
    zone = [bus for bus in range(len(network.buses)) if bus != network.source_bus]
    imported = network.boundary(zone) @ snapshot.terminal_kva[0]
    # Between the two lies the only branch that leaves the source: its losses.
    b = network.branches
    leaving = np.unique(b.terminal_branch[network.boundary(zone) != 0])
    lost = snapshot.terminal_kva[0][np.isin(b.terminal_branch, leaving)].sum()
    assert imported + lost == pytest.approx(snapshot.source_kva[0], rel=1e-5)


@pytest.mark.parametrize("name", list_feeders())
def test_imports_of_two_halves_cancel_but_for_the_losses_between(name: str) -> None:
    circuit = Circuit(read_feeder(name))
    snapshot, network, b = solved(circuit), circuit.network, circuit.network.branches
    here = network.downstream(network.buses[len(network.buses) // 2])
    there = [bus for bus in range(len(network.buses)) if bus not in here]
    between = np.unique(b.terminal_branch[network.boundary(here) != 0])
    lost = snapshot.terminal_kva[0][np.isin(b.terminal_branch, between)].sum()
    both = (network.boundary(here) + network.boundary(there)) @ snapshot.terminal_kva[0]
    assert both == pytest.approx(-lost, abs=1e-9)


@pytest.mark.parametrize("name", list_feeders())
def test_every_shipped_feeder_hangs_together_and_lies_in_the_plane(name: str) -> None:
    network = Circuit(read_feeder(name)).network
    reached = nx.node_connected_component(network.graph, network.source_bus)
    assert reached == set(range(len(network.buses)))
    assert len(set(network.nodes)) == len(network.nodes)
    assert np.isfinite(network.bus_xy).any()
    assert (network.nodes_of([network.source_bus]) == np.flatnonzero(network.node_bus == network.source_bus)).all()


def test_bases_of_ieee13_are_line_to_neutral() -> None:
    network = Circuit(read_feeder("ieee13")).network
    base = {network.nodes[i]: network.v_base[i] for i in range(len(network.nodes))}
    assert base["671.1"] == pytest.approx(4160 / 3**0.5, rel=1e-6)
    assert base["634.2"] == pytest.approx(480 / 3**0.5, rel=1e-6)


def test_find_returns_the_index_whatever_the_letter_case(ieee13: Circuit) -> None:
    network = ieee13.network
    assert network.find("bus", "SourceBus") == network.source_bus
    assert network.find_bus("611", phases=[3]) == network.buses.index("611")
    assert network.find_element("CAPACITOR.Cap1") == network.capacitors.index("cap1")
    assert network.find("branch", "Line.650632") == network.branches.names.index("line.650632")
    assert network.find("regulator control", "reg2") == network.regulator_controls.index("reg2")


@pytest.mark.parametrize(
    ("kind", "name", "code", "nearest"),
    [
        ("bus", "61l", "unknown-bus", "'611'"),
        ("branch", "line.65063", "unknown-branch", "'line.650632'"),
        ("regulator control", "reg", "unknown-regulator-control", "'reg1'"),
        ("Storage", "ess", "unknown-storage", "there is none"),
    ],
)
def test_find_of_what_is_not_there_is_a_problem(ieee13: Circuit, kind: str, name: str, code: str, nearest: str) -> None:
    problem = ieee13.network.find(kind, name, "devices.a")
    assert isinstance(problem, Problem)
    assert (problem.code, problem.where) == (code, "devices.a")
    assert f"unknown {kind} {name!r}" in problem.text
    assert nearest in problem.text


def test_find_bus_without_a_phase_is_a_problem(ieee13: Circuit) -> None:
    problem = ieee13.network.find_bus("611", phases=[1, 3], where="devices.a")
    assert problem == Problem("missing-phase", "devices.a", "bus '611' has phases [3], not [1]")
