"""All kinds side by side: one reading of all actions asks of each fleet what its own reading asks."""

from __future__ import annotations

import numpy as np

from powergrid.grid.devices import FLEETS, PowerFleet
from powergrid.grid.devices.fleet import Requests
from tests.grid.devices.test_devices import draw_actions, make

KINDS = [kind for kind, cls in FLEETS.items() if issubclass(cls, PowerFleet)]
N_ENVS = 3


def test_requests_of_fleets_side_by_side_are_those_of_each_alone() -> None:
    fleets = [make(kind, N_ENVS) for kind in KINDS]
    ends = np.cumsum([len(fleet.actions) for fleet in fleets]).tolist()
    columns = [slice(end - len(fleet.actions), end) for end, fleet in zip(ends, fleets, strict=True)]
    together = Requests([fleet.request for fleet in fleets], columns, N_ENVS, ends[-1])
    rng = np.random.default_rng(5)
    for _ in range(10):
        action = np.concatenate([draw_actions(fleet, rng) for fleet in fleets], axis=1)
        alone = [
            Requests([fleet.request], [slice(0, len(fleet.actions))], N_ENVS, len(fleet.actions)).read(action[:, own])
            for fleet, own in zip(fleets, columns, strict=True)
        ]
        assert np.array_equal(together.read(action), np.concatenate(alone, axis=2))
    assert np.ptp(together.read(action)[0]) > 10.0


def test_requests_without_any_action_ask_for_what_is_nobodys() -> None:
    fleet = make("inverter", 2)
    request = fleet.request._replace(columns=np.full((2, fleet.n), -1.0))
    asked = Requests([request], [slice(0, 0)], 2, 0).read(np.zeros((2, 0)))
    assert np.array_equal(asked[0], np.tile(fleet.request.offset[0], (2, 1)))
