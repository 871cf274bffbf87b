"""What sources feed and whether it is radial, against the drawings of the feeders and against the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import powergrid
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import list_feeders, read_feeder
from powergrid.grid.outages.connectivity import Connectivity


@pytest.fixture(scope="module")
def ieee13() -> Circuit:
    return Circuit(read_feeder("ieee13"))


def without(circuit: Circuit, *branches: str) -> np.ndarray:
    closed = circuit.network.branches.closed.copy()
    for branch in branches:
        closed[circuit.network.branches.names.index(branch)] = False
    return closed


@pytest.mark.parametrize(
    ("branch", "dead"),
    [
        ("line.671684", {"684.1", "684.3", "611.3", "652.1"}),
        ("transformer.xfm1", {"634.1", "634.2", "634.3"}),
        ("line.684652", {"652.1"}),
        ("line.632645", {"645.2", "645.3", "646.2", "646.3"}),
    ],
)
def test_look_ieee13_with_a_branch_out_names_the_nodes_behind_it(ieee13: Circuit, branch: str, dead: set[str]) -> None:
    network = ieee13.network
    topology = Connectivity(network).look(without(ieee13, branch))
    assert {network.nodes[i] for i in np.flatnonzero(~topology.energised)} == dead
    behind = {name for name, share in zip(network.loads.names, topology.dead_share, strict=True) if share == 1.0}
    buses = {node.partition(".")[0] for node in dead}
    assert behind == {
        n for n, bus in zip(network.loads.names, network.loads.bus, strict=True) if network.buses[bus] in buses
    }
    assert len(set(topology.island[~topology.energised].tolist())) == len({n.partition(".")[2] for n in dead})


def test_look_one_phase_lost_leaves_the_others_of_a_load_served(ieee13: Circuit) -> None:
    network = ieee13.network
    regulators = [n for n in network.branches.names if n.startswith("transformer.reg")]
    assert len(regulators) == 3
    topology = Connectivity(network).look(without(ieee13, regulators[0]))
    dead_phases = {network.node_phase[i] for i in np.flatnonzero(~topology.energised)}
    assert len(dead_phases) == 1
    assert topology.dead_share[network.loads.names.index("671")] == pytest.approx(1 / 3)


@pytest.mark.parametrize("feeder", sorted(set(list_feeders()) - {"ieee8500"}))
def test_look_of_a_feeder_as_compiled_feeds_what_has_voltage(feeder: str) -> None:
    circuit = Circuit(read_feeder(feeder))
    topology = Connectivity(circuit.network).look(circuit.network.branches.closed)
    v_pu = np.abs(circuit.engine.voltages(len(circuit.network.nodes))[1:]) / circuit.network.v_base
    np.testing.assert_array_equal(topology.energised, v_pu > 0.1)
    circuit.close()


def test_look_tells_what_the_engine_solves_when_branches_open(ieee13: Circuit) -> None:
    network, rng = ieee13.network, np.random.default_rng(0)
    connectivity = Connectivity(network)
    lines = [network.branches.names.index(f"line.{name}") for name in network.switches]
    for _ in range(20):
        positions = (rng.random(len(lines)) > 0.15).astype(np.int64)
        ieee13.switchgear.write_closed(positions)
        assert ieee13.solve()
        closed = network.branches.closed.copy()
        closed[lines] = positions
        v_pu = np.abs(ieee13.engine.voltages(len(network.nodes))[1:]) / network.v_base
        np.testing.assert_array_equal(connectivity.look(closed).energised, v_pu > 0.2)
        ieee13.reset()


def test_look_counts_loops_and_further_sources() -> None:
    circuit = Circuit(read_feeder("ieee123"))
    network = circuit.network
    closed = network.branches.closed
    connectivity = Connectivity(network)
    assert connectivity.look(closed).loops == 0
    opened = without(circuit, "line.sw3")
    dead = np.flatnonzero(~connectivity.look(opened).energised)
    assert len(dead)
    formed = Connectivity(network, [*network.source_nodes, *network.nodes_of([network.bus_index["151"]])])
    assert formed.look(opened).energised[dead].all()
    assert formed.look(closed).loops == 3  # both sources on the same three phases
    circuit.close()


def test_look_again_gives_the_same_kept_answer(ieee13: Circuit) -> None:
    connectivity = Connectivity(ieee13.network)
    first = connectivity.look(without(ieee13, "line.671684"))
    assert connectivity.look(without(ieee13, "line.671684")) is first
    with pytest.raises(ValueError, match="read-only"):
        first.energised[0] = True


PARTLY_OPEN = """
Clear
New Circuit.partly basekv=12.47
New Line.head bus1=sourcebus bus2=b length=1 units=km r1=0.3 x1=0.4 c1=0 c0=0
New Line.tail bus1=b bus2=c length=1 units=km r1=0.3 x1=0.4 c1=0 c0=0
New Load.one bus1=c.1 phases=1 kv=7.2 kw=20
New Load.two bus1=c.2 phases=1 kv=7.2 kw=20
New PVSystem.p bus1=sourcebus kv=12.47 kva=10 pmpp=8
{}
Set VoltageBases=[12.47]
CalcVoltageBases
"""


@pytest.mark.parametrize(
    ("line", "dead"),
    [
        ("Open Line.tail 1 1", {"c.1"}),
        ("Open Line.tail 2 1", {"c.1"}),
        ("Open Line.tail 1 3", {"c.3"}),
        ("Open Line.head 1 2", {"b.2", "c.2"}),
        ("New Fuse.f monitoredobj=Line.tail ratedcurrent=9 state=[closed open closed]", {"c.2"}),
        ("New Transformer.t buses=(c d) kvs=(12.47 12.47)\nOpen Transformer.t 1 1", {"d.1"}),
        ("New Transformer.t buses=(c d) kvs=(12.47 12.47) conns=(delta wye)\nOpen Transformer.t 1 1", set()),
    ],
)
def test_phase_that_is_open_as_compiled_feeds_nothing_and_lowers_no_metric(
    tmp_path: Path, line: str, dead: set[str]
) -> None:
    master = tmp_path / "Master.dss"
    master.write_text(PARTLY_OPEN.replace("{}", line))
    env = powergrid.make(str(master), episode_length=2)
    try:
        network = env.task.simulation.network
        topology = Connectivity(network).look(network.branches.closed)
        assert {network.nodes[i] for i in np.flatnonzero(~topology.energised)} == dead
        env.reset(seed=0)
        *_, infos = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        assert all(info["network_v_min_pu"] > (0.9 if dead else 0.3) for info in infos.values())
    finally:
        env.close()
