"""All kinds side by side: one reading of all actions asks of each fleet what its own reading asks."""

from __future__ import annotations

import numpy as np

from powergrid.grid.devices import FLEETS, PowerFleet
from powergrid.grid.devices.fleet import PowerTable
from tests.grid.devices.fleets import make_exogenous
from tests.grid.devices.test_devices import draw_actions, make

KINDS = [kind for kind, cls in FLEETS.items() if issubclass(cls, PowerFleet)]
N_ENVS = 3


def test_powers_of_fleets_side_by_side_are_those_of_each_alone() -> None:
    fleets, singles = [make(kind, N_ENVS) for kind in KINDS], [make(kind, N_ENVS) for kind in KINDS]
    ends = np.cumsum([len(fleet.actions) for fleet in fleets]).tolist()
    columns = [slice(end - len(fleet.actions), end) for end, fleet in zip(ends, fleets, strict=True)]
    together = PowerTable(fleets, columns, N_ENVS, ends[-1])
    rng, exo = np.random.default_rng(5), make_exogenous(N_ENVS, sun_kw=30.0, demand_kw=15.0, n=3)
    exo.demand_kw = exo.demand_kw[:, :2].copy()
    for _ in range(10):
        action = np.concatenate([draw_actions(fleet, rng) for fleet in fleets], axis=1)
        together.project(action, exo)
        for single, own in zip(singles, columns, strict=True):
            single.project(action[:, own], exo)
        for name in ("p_kw", "q_kvar", "requested_p_kw", "requested_q_kvar"):
            for fleet, single in zip(fleets, singles, strict=True):
                assert np.array_equal(getattr(fleet, name), getattr(single, name)), (fleet.kind, name)
    assert np.ptp(together.requested[0]) > 10.0


def test_powers_without_any_action_are_what_is_nobodys() -> None:
    fleet = make("inverter", 2)
    fleet.request = fleet.request._replace(columns=np.full((2, fleet.n), -1.0))
    table = PowerTable([fleet], [slice(0, 0)], 2, 0)
    table.read(np.zeros((2, 0)))
    assert np.array_equal(fleet.requested_p_kw, np.tile(fleet.request.offset[0], (2, 1)))
    assert np.array_equal(table.requested[0], fleet.requested_p_kw)
