from __future__ import annotations

import numpy as np
import pytest

from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.circuit.flows import BranchLayout
from powergrid.grid.feeder.feeder import read_feeder


def solve_at(circuit: Circuit, rng: np.random.Generator, *, whole: bool) -> bytes:
    """Move taps and capacitors at random, solve, and give the voltages bit for bit."""
    loads = circuit.network.loads
    circuit.write_demand(loads.kw * rng.uniform(0.3, 1.1, len(loads.kw)), loads.kvar)
    circuit.write_injections(np.zeros(0), np.zeros(0))
    circuit.write_taps(rng.integers(-8, 9, len(circuit.taps)))
    circuit.write_steps(rng.integers(0, circuit.switchgear.steps_max + 1))
    if whole:
        circuit.admittance.build()
    assert circuit.solve()
    return circuit.engine.voltages(len(circuit.network.nodes)).tobytes()


@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_taps_and_steps_brought_in_give_the_solutions_of_a_matrix_built_whole(name: str) -> None:
    found = []
    for whole in (False, True):
        circuit, rng = Circuit(read_feeder(name)), np.random.default_rng(0)
        found.append([solve_at(circuit, rng, whole=whole) for _ in range(12)])
        circuit.close()
    assert found[0] == found[1]
    assert len(set(found[0])) == 12


def test_solution_does_not_depend_on_a_line_that_was_open_before() -> None:
    circuit = Circuit(read_feeder("ieee123"))
    first = solve_at(circuit, np.random.default_rng(1), whole=False)
    closed = circuit.closed.copy()
    closed[3] = 0
    circuit.write_closed(closed)
    circuit.solve()
    circuit.reset()
    assert solve_at(circuit, np.random.default_rng(1), whole=False) == first
    circuit.close()


def test_line_opened_alone_and_with_taps_moved_there_and_back_gives_equal_bits() -> None:
    found = []
    for taps_move in (False, True):  # without, the engine builds its matrix once; with it, until nothing waits
        circuit = Circuit(read_feeder("ieee123"))
        taps, closed = circuit.taps.copy(), circuit.closed.copy()
        closed[3] = 0
        for positions in (taps + 2, taps) if taps_move else ():
            circuit.write_taps(positions)
        circuit.write_closed(closed)
        assert circuit.solve()
        found.append(circuit.v.tobytes())
        circuit.close()
    assert found[0] == found[1]


def test_capacitor_that_alone_ties_two_phases_is_built_in_whole() -> None:
    circuit = Circuit(read_feeder("ieee13"))
    branches, entries = circuit.network.branches, circuit.admittance.entries
    capacitors = [i for i, name in enumerate(branches.names) if name.startswith("capacitor.")]
    ties = BranchLayout(branches).find_ties(capacitors)
    assert ties
    assert all(entries[places].any() for places in ties)
    circuit.close()


def tapped_branch(circuit: Circuit) -> int:
    """Return the branch of the first regulator."""
    first = circuit.regulators[0]
    return circuit.network.branch_index[f"{first.class_name}.{first.transformer}".lower()]


def flow_entries(circuit: Circuit, branch: int) -> tuple[bytes, bytes]:
    """Return a branch's admittance as the flows have it, and as the engine does now."""
    kept = circuit.admittance.entries[BranchLayout(circuit.network.branches).entries_of(branch)]
    now = circuit.engine.yprim(circuit.regulators[0].handle)
    return kept.tobytes(), (1e-3 * now.conj().ravel()).tobytes()


def test_flows_at_a_position_seen_before_have_the_admittance_of_the_engine() -> None:
    circuit = Circuit(read_feeder("ieee13"))
    branch = tapped_branch(circuit)
    seen = []
    for tap in (4, -3, 4, 0, -3):
        circuit.write_taps(np.full(len(circuit.taps), tap))
        assert circuit.solve()
        kept, now = flow_entries(circuit, branch)
        assert kept == now
        seen.append(now)
    assert seen[0] == seen[2] != seen[1] == seen[4]
    circuit.close()


def test_flows_at_a_position_seen_while_open_are_read_anew_when_closed() -> None:
    circuit = Circuit(read_feeder("ieee13"))
    branch, handle = tapped_branch(circuit), circuit.regulators[0].handle
    taps = circuit.taps.copy()
    seen = []
    for is_open in (False, True, False):
        circuit.engine.set_open(handle, is_open=is_open)
        circuit.admittance.note_change(branch, handle)
        for tap in (2, 5, 2):
            taps[0] = tap
            circuit.write_taps(taps)
            circuit.solve()
            kept, now = flow_entries(circuit, branch)
            assert kept == now
        seen.append(now)
    assert seen[0] == seen[2] != seen[1]
    circuit.close()
