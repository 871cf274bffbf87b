from __future__ import annotations

import numpy as np
import pytest

from powergrid.grid.circuit.admittance import BranchLayout
from powergrid.grid.circuit.circuit import Circuit
from powergrid.grid.feeder.feeder import read_feeder


def solve_at(circuit: Circuit, rng: np.random.Generator, *, whole: bool) -> bytes:
    """Move taps and capacitors at random, solve, and give the voltages bit for bit."""
    loads = circuit.network.loads
    circuit.write_demand(loads.kw * rng.uniform(0.3, 1.1, len(loads.kw)), loads.kvar)
    circuit.write_injections(np.zeros(0), np.zeros(0))
    circuit.switchgear.write_taps(rng.integers(-8, 9, len(circuit.taps)))
    circuit.switchgear.write_steps(rng.integers(0, circuit.switchgear.steps_max + 1))
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
    circuit.switchgear.write_closed(closed)
    circuit.solve()
    circuit.reset()
    assert solve_at(circuit, np.random.default_rng(1), whole=False) == first
    circuit.close()


def test_line_opened_alone_and_with_taps_moved_there_and_back_gives_equal_bits() -> None:
    found = []
    for taps_move in (False, True):
        circuit = Circuit(read_feeder("ieee123"))
        taps, closed = circuit.taps.copy(), circuit.closed.copy()
        closed[3] = 0
        for positions in (taps + 2, taps) if taps_move else ():
            circuit.switchgear.write_taps(positions)
        circuit.switchgear.write_closed(closed)
        assert circuit.solve()
        found.append(circuit.v.tobytes())
        circuit.close()
    assert found[0] == found[1]


def tapped_branch(circuit: Circuit) -> int:
    """Return the branch of the first regulator."""
    first = circuit.switchgear.regulators[0]
    return circuit.network.branch_index[f"{first.class_name}.{first.transformer}".lower()]


def flow_entries(circuit: Circuit, branch: int) -> bytes:
    """Return a branch's admittance as the flows have it."""
    return circuit.admittance.entries[BranchLayout(circuit.network.branches).entries_of(branch)].tobytes()


def engine_entries(circuit: Circuit) -> bytes:
    """Return the first regulator's admittance as the engine has it once it has built the matrix."""
    circuit.admittance.build()
    return (1e-3 * circuit.engine.yprim(circuit.switchgear.regulators[0].handle).conj().ravel()).tobytes()


def test_flows_at_a_position_seen_before_have_the_admittance_of_the_engine() -> None:
    circuit, built = Circuit(read_feeder("ieee13")), Circuit(read_feeder("ieee13"))
    seen = []
    for tap in (4, -3, 4, 0, -3):
        for each in (circuit, built):
            each.switchgear.write_taps(np.full(len(circuit.taps), tap))
            assert each.solve()
        seen.append(flow_entries(circuit, tapped_branch(circuit)))
        assert seen[-1] == engine_entries(built)
    assert seen[0] == seen[2] != seen[1] == seen[4]
    circuit.close()
    built.close()


def test_flows_at_a_position_seen_while_open_are_read_anew_when_closed() -> None:
    circuit, built = Circuit(read_feeder("ieee13")), Circuit(read_feeder("ieee13"))
    branch, taps = tapped_branch(circuit), circuit.taps.copy()
    seen = []
    for is_open in (False, True, False):
        for each in (circuit, built):
            each.engine.set_open(each.switchgear.regulators[0].handle, is_open=is_open)
            each.admittance.note_change(branch, each.switchgear.regulators[0].handle)
        for taps[0] in (2, 5, 2):
            for each in (circuit, built):
                each.switchgear.write_taps(taps)
                each.solve()
            assert flow_entries(circuit, branch) == engine_entries(built)
        seen.append(flow_entries(circuit, branch))
    assert seen[0] == seen[2] != seen[1]
    circuit.close()
    built.close()


def test_engine_looked_at_by_hand_knows_the_position_that_entries_were_put_back_for() -> None:
    circuit = Circuit(read_feeder("ieee13"))
    for tap in (4, -3, 4):
        circuit.switchgear.write_taps(np.full(len(circuit.taps), tap))
        assert circuit.solve()
    direct = circuit.engine.direct
    direct.Transformers.Name(circuit.switchgear.regulators[0].transformer)
    losses = direct.CktElement.Losses()[0]
    drawn = sum(direct.CktElement.Powers()[::2])
    assert losses == pytest.approx(1000.0 * drawn, rel=1e-6)
    assert 0.0 < losses < 50e3  # of a position that is not there it would be thousands of kW
    circuit.close()
