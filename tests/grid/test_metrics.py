"""Metrics of a small network by hand.

::

    source --line a-- one --line b-- two     three phases; bus "tail" hangs at "two" by phase 1 only
                                      |
                                    line c
                                      |
                                     tail
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.snapshot import Snapshot
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.grid.feeder.network import Branches, Loads, Network, count_once
from powergrid.grid.metrics import Metrics

NODES = ("source.1", "source.2", "source.3", "one.1", "one.2", "one.3", "two.1", "two.2", "two.3", "tail.1")
BUSES = ("source", "one", "two", "tail")


@pytest.fixture
def network() -> Network:
    """Lines a (source to one), b (one to two), c (two to tail) and a capacitor at two."""
    return Network(
        nodes=NODES,
        node_bus=np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3]),
        node_phase=np.array([1, 2, 3] * 3 + [1]),
        v_base=np.full(10, 2400.0),
        buses=BUSES,
        bus_xy=np.full((4, 2), np.nan),
        source_bus=0,
        branches=Branches(
            names=("line.a", "line.b", "line.c", "capacitor.k"),
            norm_amps=np.array([100.0, 100.0, 50.0, 0.0]),
            phases=np.array([3, 3, 1, 3]),
            row_node=np.array([1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9, 7, 10, 7, 8, 9, 0, 0, 0]),
            branch_rows=np.array([0, 6, 12, 14]),
            terminal_rows=np.array([0, 3, 6, 9, 12, 13, 14, 17]),
            terminal_branch=np.array([0, 0, 1, 1, 2, 2, 3, 3]),
            terminal_bus=np.array([0, 1, 1, 2, 2, 3, 2, -1]),
            closed=np.ones(4, dtype=bool),
            length_km=np.zeros(4),
            has_length_unit=np.ones(4, dtype=bool),
            is_switch=np.zeros(4, dtype=bool),
        ),
        loads=Loads(("l",), np.array([3]), np.array([10.0]), np.array([0.0]), ("",)),
        regulators=(),
        regulator_controls=(),
        capacitors=("k",),
        switches=("a", "b", "c"),
        elements={},
        tapped=np.array([0, 1, 2, 3]),
    )


def take(network: Network, zones: list[list[int]], n_envs: int = 1, **arrays: object) -> Metrics:
    """Measure a snapshot of flat voltages with some arrays replaced."""
    snapshot = Snapshot.allocate(n_envs, network, 0)
    snapshot.v_pu[:] = 1.0
    for name, values in arrays.items():
        getattr(snapshot, name)[:] = values
    metrics = Metrics(network, zones, 0.95, 1.05, n_envs)
    metrics.take(snapshot)
    return metrics


def test_violations_by_hand_count_and_sum_what_is_outside(network: Network) -> None:
    v_pu = [1.0, 1.0, 1.0, 1.05, 0.95, 1.06, 0.94, 0.9, 1.0, 1.10]
    metrics = take(network, [[1], [2, 3]], v_pu=v_pu)
    assert metrics.violation_count.tolist() == [4]  # limits themselves are inside
    assert metrics.violation_sum_pu == pytest.approx([0.01 + 0.01 + 0.05 + 0.05])
    assert metrics.zone_violation_count.tolist() == [[1, 3]]
    assert metrics.zone_violation_pu == pytest.approx(np.array([[0.01, 0.11]]))
    assert (metrics.v_min_pu, metrics.v_max_pu) == (0.9, 1.10)
    assert metrics.zone_v_min_pu.tolist() == [[0.95, 0.9]]
    assert metrics.zone_v_max_pu.tolist() == [[1.06, 1.10]]
    assert metrics.zone_v_mean_pu == pytest.approx(np.array([[3.06 / 3, 3.94 / 4]]))


def test_worst_node_is_farthest_outside_or_nearest_to_a_limit(network: Network) -> None:
    v_pu = np.full((3, 10), 1.0)
    v_pu[0, 4], v_pu[0, 6] = 0.90, 1.06
    v_pu[1, 7] = 1.04
    v_pu[2, 9] = 0.96
    assert take(network, [[1]], 3, v_pu=v_pu).worst_node.tolist() == [4, 7, 9]


def test_lines_in_series_count_once_at_the_least_rating(network: Network) -> None:
    apart = network.branches
    network = replace(
        network, tapped=np.array([0, 2, 3]), branches=replace(apart, norm_amps=np.array([90.0, 80, 50, 0]))
    )
    loading = [80.0 / 90.0 * 1.5, 1.5, 1.25, 0.0]  # one current through a and b, which meet at "one" and nothing else
    metrics = take(network, [[1], [2, 3]], loading_pu=loading)
    assert metrics.overload_sum_pu == pytest.approx([0.5 + 0.25])
    assert metrics.overload_count.tolist() == [2]
    assert metrics.shared_overload_pu == pytest.approx(np.array([[0.5, 0.25]]))
    assert count_once(network).tolist() == [False, True, True, True]
    assert count_once(network, ["ONE"]).all()  # a device there parts them


def test_nodes_are_counted_from_levels_on(network: Network) -> None:
    v_pu = [1.0, 1.0, 1.0, 1.0505, 1.052, 1.061, 0.9498, 0.93, 1.0, 1.0]
    metrics = take(network, [[1], [2, 3]], v_pu=v_pu)
    assert metrics.count_beyond(np.array([0.0, 0.001, 0.01])).tolist() == [[5.0], [3.0], [2.0]]


def test_shared_terms_give_what_is_in_no_zone_to_all_in_equal_parts(network: Network) -> None:
    v_pu = [0.92, 1.0, 1.0, 1.0, 1.0, 0.94, 1.0, 1.0, 1.0, 1.08]  # source in no zone: 0.03
    metrics = take(network, [[1], [2, 3]], v_pu=v_pu, loading_pu=[1.4, 1.1, 0.9, 0.0])
    assert metrics.shared_violation_pu == pytest.approx(np.array([[0.01 + 0.015, 0.03 + 0.015]]))
    assert metrics.shared_violation_pu.sum() == pytest.approx(metrics.violation_sum_pu.sum())
    # line a starts at the source, in no zone; line b starts at "one"
    assert metrics.shared_overload_pu == pytest.approx(np.array([[0.2 + 0.1, 0.2]]))
    assert metrics.overload_count.tolist() == [2]
    assert metrics.overload_sum_pu == pytest.approx([0.5])
    assert metrics.zone_overload_count.tolist() == [[1, 0]]


def test_zones_that_overlap_count_a_node_in_each(network: Network) -> None:
    metrics = take(network, [[1, 2], [2, 3]], v_pu=[1.0] * 6 + [0.9, 1.0, 1.0, 1.0])
    assert metrics.zone_violation_count.tolist() == [[1, 1]]
    assert metrics.shared_violation_pu == pytest.approx(np.array([[0.05, 0.05]]))


def test_loading_of_a_zone_is_that_of_branches_that_start_in_it(network: Network) -> None:
    loading = [[0.9, 0.4, 0.3, 0.0], [0.1, 0.2, 1.5, 0.0]]
    metrics = take(network, [[1], [2, 3], [3]], 2, loading_pu=loading)
    assert metrics.zone_loading_pu.tolist() == [[0.4, 0.3, 0.0], [0.2, 1.5, 0.0]]  # none starts at the tail


def test_import_of_a_zone_is_what_crosses_its_boundary(network: Network) -> None:
    # into line a at the source 30 kW, out of it at "one" 29, and so on; the capacitor gives 5 kvar
    flows = [30 + 9j, -29 - 8j, 20 + 5j, -19 - 4j, 12 + 3j, -11 - 2j, -5j, 0]
    metrics = take(network, [[1], [2, 3], [1, 2, 3], [3]], terminal_kva=flows)
    assert metrics.zone_kva.tolist() == [[29 + 8j - (20 + 5j), 19 + 4j, 29 + 8j, 11 + 2j]]


def test_unbalance_by_hand_is_negative_over_positive_sequence(network: Network) -> None:
    a = np.exp(2j * np.pi / 3)
    balanced, reversed_ = np.array([1, a**2, a]), np.array([1, a, a**2])
    v = np.zeros(11, dtype=complex)
    v[1:4] = 2400 * balanced
    v[4:7] = 2400 * (balanced + 0.02 * reversed_)
    v[7:10] = 2400 * (0.95 * balanced + 0.038 * reversed_ + 0.5)  # zero sequence does not count
    v[10] = 100.0  # nor does a bus with one phase
    metrics = take(network, [[1]], v=v)
    assert metrics.unbalance_pu == pytest.approx([0.04])
    assert metrics.three_phase_buses.tolist() == [0, 1, 2]
    assert metrics.sequence_unbalance_pu == pytest.approx(np.array([[0.0, 0.02, 0.04]]))


def test_unbalance_by_hand_is_what_a_line_voltage_is_from_the_mean(network: Network) -> None:
    # in a triangle of 460, 467 and 450 V, NEMA MG 1's own example: mean 459, farthest 9, 1.96 %
    ab, bc, ca = 460.0, 467.0, 450.0
    c = (ab**2 + ca**2 - bc**2) / (2 * ab) + 1j * 0.0
    v = np.zeros(11, dtype=complex)
    v[1:4] = 0.0, ab, c.real + 1j * np.sqrt(ca**2 - c.real**2)
    assert take(network, [[1]], v=v).line_unbalance_pu[0, 0] == pytest.approx(9 / 459)


def test_unbalance_of_every_bus_is_the_engines_own() -> None:
    circuit = Circuit(read_feeder("ieee34"))
    try:
        circuit.solve()
        snapshot = Snapshot.allocate(1, circuit.network, 0)
        circuit.read(snapshot)
        metrics = Metrics(circuit.network, [[0]], 0.95, 1.05, 1)
        metrics.take(snapshot)
        bus = circuit.engine.direct.Bus
        ratios = zip(metrics.sequence_unbalance_pu[0], metrics.line_unbalance_pu[0], strict=True)
        for place, (sequence, line) in zip(metrics.three_phase_buses.tolist(), ratios, strict=True):
            circuit.engine.direct.Circuit.SetActiveBus(circuit.network.buses[place])
            _, positive, negative = bus.SeqVoltages()
            assert sequence == pytest.approx(negative / positive, rel=1e-6)
            lines = np.abs(np.array(bus.VLL()).view(complex))
            assert line == pytest.approx(np.abs(lines - lines.mean()).max() / lines.mean(), rel=1e-6)
        assert len(metrics.three_phase_buses) > 20
    finally:
        circuit.close()


def test_metrics_zone_without_a_node_raises(network: Network) -> None:
    with pytest.raises(ValueError, match="a zone has no node"):
        Metrics(network, [[1], []], 0.95, 1.05, 1)
