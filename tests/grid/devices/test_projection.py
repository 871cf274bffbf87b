"""All kinds side by side: one pass over a shared ledger does what each fleet does alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from powergrid.grid.devices import FLEETS, Exogenous, PowerFleet
from powergrid.grid.devices.fleet import POWER_NUMBERS
from powergrid.grid.devices.ledger import Ledger, find_places
from powergrid.grid.devices.projection import Projection
from tests.grid.devices.test_devices import draw_actions, make

KINDS = [kind for kind, cls in FLEETS.items() if issubclass(cls, PowerFleet)]
N_ENVS = 3


def test_project_of_fleets_side_by_side_sets_what_each_sets_alone() -> None:
    alone, beside = [make(kind, N_ENVS) for kind in KINDS], [make(kind, N_ENVS) for kind in KINDS]
    names = [*POWER_NUMBERS, *(name for fleet in beside for name in fleet.numbers)]
    ledger = Ledger(names, N_ENVS, sum(fleet.n for fleet in beside))
    columns: list[slice] = []
    for fleet in beside:
        first, at = sum(other.n for other in beside[: beside.index(fleet)]), columns[-1].stop if columns else 0
        columns.append(slice(at, at + len(fleet.actions)))
        fleet.allocate(N_ENVS, ledger.part(slice(first, first + fleet.n)))
        for env in range(N_ENVS):
            fleet.reset(env, np.random.default_rng(env))
    block = ledger.block(POWER_NUMBERS)
    projection = Projection(beside, columns, block[:4], columns[-1].stop)
    rng = np.random.default_rng(5)
    for step in range(40):
        exo = make_world(beside, step, rng)
        action = np.concatenate([draw_actions(fleet, rng) for fleet in alone], axis=1)
        projection.project(action, exo)
        for one, other, own in zip(alone, beside, columns, strict=True):
            one.project(action[:, own], exo)
            for number in POWER_NUMBERS[:4]:
                assert np.array_equal(getattr(one, number), getattr(other, number)), (one.kind, number)
            delivered = one.p_kw * 0.98, one.q_kvar.copy()
            one.advance(*delivered, exo)
            other.advance(*delivered, exo)
            states = np.zeros((2, N_ENVS, len(one.states)))
            one.observe(states[0])
            other.observe(states[1])
            assert np.array_equal(*states)
            assert np.array_equal(ledger.values.take(other.find_states(ledger)), states[0])
    assert np.ptp(block[0]) > 10.0


def make_world(fleets: list[Any], step: int, rng: np.random.Generator) -> Exogenous:
    n = {fleet.kind: fleet.n for fleet in fleets}
    return Exogenous(
        step=np.full(N_ENVS, step),
        sun_kw=rng.uniform(0.0, 40.0, (N_ENVS, n["inverter"])),
        demand_kw=rng.uniform(0.0, 20.0, (N_ENVS, n["flexible_load"])),
    )


def test_find_places_of_views_gather_their_numbers() -> None:
    whole = np.random.default_rng(0).random((4, 5, 6))
    for view in (whole[2], whole[1:3, :, 4], whole[:, ::2, 5:1:-2], whole[3, :, :0]):
        assert np.array_equal(whole.take(find_places(whole, view)), view)
    phasors = whole[0].reshape(5, 6).view(np.complex128)
    assert np.array_equal(whole.take(find_places(whole, phasors.imag)), phasors.imag)


def test_block_of_rows_that_are_apart_is_refused() -> None:
    ledger = Ledger(["a", "b", "a", "c"], 1, 2)
    ledger["b"][...] = 7.0
    assert ledger.block(["a", "b"])[1, 0].tolist() == [7.0, 7.0]
    with pytest.raises(ValueError, match="a, c do not follow"):
        ledger.block(["a", "c"])


def test_find_of_a_quantity_nobody_has_reads_zero() -> None:
    ledger = Ledger(["a", "b"], 1, 2)
    ledger.values[:2] = 3.0
    assert ledger.values.take(ledger.find(["b", "x"]), axis=0).tolist() == [[[3.0, 3.0]], [[0.0, 0.0]]]
