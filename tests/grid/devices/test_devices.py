"""What holds for every kind: specs refuse nonsense, tables are complete, batches equal single environments."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from powergrid.grid.devices import FLEETS, SPECS, AnyDeviceSpec, spec_table
from tests.grid.devices.fleets import make_exogenous, make_fleet, projected

DEVICES: dict[str, list[dict[str, Any]]] = {
    "storage": [
        {"bus": "1", "e_max_kwh": 40, "p_max_kw": 20, "reactive": True, "wear_usd_per_kwh": 0.1},
        {"bus": "2", "e_max_kwh": 80, "p_max_kw": 30, "p_charge_max_kw": 20, "standby_loss_kw": 0.2},
        {"element": "Storage.b", "e_max_kwh": 60, "p_max_kw": 25, "reactive": True},
    ],
    "inverter": [
        {"bus": "1", "p_max_kw": 50, "reactive": "category_a", "power_factor_min": 0.9},
        {"element": "PVSystem.x", "p_max_kw": 40, "reactive": "kva", "priority": "var", "s_max_kva": 40},
        {"bus": "2", "p_max_kw": 30, "curtailable": False},
    ],
    "generator": [
        {"bus": "1", "p_min_kw": 10, "p_max_kw": 50, "ramp_kw_per_min": 1, "reactive": True, "start_cost_usd": 4},
        {"element": "Generator.g", "p_max_kw": 30, "cost_a_usd_per_kw2h": 0.01, "initially_on": True},
    ],
    "flexible_load": [
        {"element": "Load.a", "owed_max_kwh": 10},
        {"element": "load.b", "share_min": 0.2, "owed_max_kwh": 5},
    ],
    "ev_charger": [
        {"element": "Load.ev", "ports": 3, "p_max_kw": 7.4, "arrival_hour_mean": 4, "v2g": True},
        {"bus": "1", "ports": 1, "p_max_kw": 50, "sessions_per_day": 5, "arrival_hour_std": 6, "stay_hours_mean": 2},
    ],
    "building": [
        {"bus": "1", "phases": [3], "scale": 2.0, "power_factor": 0.9},
        {"element": "Load.b", "cop": 3.0, "temp_min_c": 20, "temp_max_c": 24, "outdoor_max_c": 30},
    ],
    "capacitor": [
        {"element": "Capacitor.a", "steps": 1, "steps_initial": 0},
        {"element": "Capacitor.b", "steps": 4, "steps_initial": 2, "dwell_steps": 2, "moves_per_step": 1},
    ],
    "regulator": [
        {"element": "RegControl.r", "tap_initial": 5, "cost_usd_per_operation": 0.2},
        {"element": "Transformer.t", "tap_initial": 0, "dwell_steps": 1, "tap_min": -8, "tap_max": 8},
    ],
    "switch": [{"element": "Line.s", "closed_initial": True}, {"element": "Line.t", "closed_initial": False}],
}
ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyDeviceSpec)


def make(kind: str, n_envs: int) -> Any:
    specs = {f"{kind}_{i}": ADAPTER.validate_python({"kind": kind} | keys) for i, keys in enumerate(DEVICES[kind])}
    return make_fleet(specs, dt_h=0.25, horizon=48, n_envs=n_envs)


def draw_actions(fleet: Any, rng: np.random.Generator) -> Any:
    columns = [
        rng.integers(0, a.n, fleet.n_envs) if a.discrete else rng.uniform(-1, 1, fleet.n_envs) for a in fleet.actions
    ]
    return np.stack(columns, axis=1).astype(float)


def play(fleet: Any, action: Any, step: int, weather: Any) -> dict[str, Any]:
    """Take one step and give everything that can be seen of it."""
    exo = make_exogenous(fleet.n_envs, step, sun_kw=weather * 50, demand_kw=weather * 20, n=fleet.n)
    fleet.project(action, exo)
    if hasattr(fleet, "p_kw"):
        fleet.advance(fleet.p_kw, fleet.q_kvar, exo)
    else:
        fleet.advance(exo)
    out = np.full((fleet.n_envs, len(fleet.states)), np.nan)
    fleet.observe(out)
    setpoints = {name: getattr(fleet, name) for name in ("p_kw", "q_kvar", "position") if hasattr(fleet, name)}
    seen = {"states": out, "projected": projected(fleet)} | setpoints | fleet.terms
    return {name: np.array(array) for name, array in seen.items()}


def test_fleets_and_specs_name_the_same_kinds_in_order() -> None:
    assert list(FLEETS) == list(SPECS) == list(DEVICES)
    assert all(get_args(spec.model_fields["kind"].annotation) == (kind,) for kind, spec in SPECS.items())


@pytest.mark.parametrize("kind", FLEETS)
def test_spec_table_describes_every_key(kind: str) -> None:
    rows = spec_table(SPECS[kind])
    assert [row.name for row in rows] == list(SPECS[kind].model_fields)
    assert all(row.description.endswith(".") and row.type for row in rows)
    for row in rows:
        if "_kw" in row.name or "_kva" in row.name or "usd" in row.name:
            assert row.unit, row.name


@pytest.mark.parametrize("kind", FLEETS)
def test_any_kind_stays_finite_and_within_the_bounds_it_states(kind: str) -> None:
    fleet, rng = make(kind, 3), np.random.default_rng(1)
    low, high = np.array([[row.low, row.high] for row in fleet.states]).T
    for step in range(48):
        seen = play(fleet, draw_actions(fleet, rng), step, rng.random((3, 1)))
        assert all(np.isfinite(array).all() for array in seen.values())
        assert (seen["states"] >= low - 1e-9).all()
        assert (seen["states"] <= high + 1e-9).all()


@pytest.mark.parametrize("kind", FLEETS)
def test_every_action_of_any_kind_moves_the_setpoints(kind: str) -> None:
    rest = {"states", "projected", *make(kind, 1).terms}
    for column, spec in enumerate(make(kind, 1).actions):
        histories = []
        for value in (0, spec.n - 1) if spec.discrete else (-1.0, 1.0):
            fleet = make(kind, 1)
            action = np.zeros((1, len(fleet.actions)))
            action[0, column] = value
            seen = [play(fleet, action, step, np.ones((1, 1))) for step in range(48)]
            histories.append([row[name] for row in seen for name in row if name not in rest])
        assert not np.allclose(histories[0], histories[1]), (spec.device, spec.name)


@pytest.mark.parametrize("kind", FLEETS)
def test_batch_of_three_equals_three_single_environments(kind: str) -> None:
    batch, singles = make(kind, 3), [make(kind, 1) for _ in range(3)]
    for env, single in enumerate(singles):
        single.reset(0, np.random.default_rng(env))
    rng = np.random.default_rng(2)
    for step in range(48):
        action, weather = draw_actions(batch, rng), rng.random((3, 1))
        together = play(batch, action, step, weather)
        alone = [play(s, action[env : env + 1], step, weather[env : env + 1]) for env, s in enumerate(singles)]
        for name, array in together.items():
            np.testing.assert_array_equal(array, np.concatenate([seen[name] for seen in alone]), err_msg=name)
        if step == 20:
            batch.reset(1, np.random.default_rng(9))
            singles[1].reset(0, np.random.default_rng(9))


@pytest.mark.parametrize("kind", FLEETS)
def test_state_dict_restored_elsewhere_replays_the_same_future(kind: str) -> None:
    fleet, other, rng = make(kind, 2), make(kind, 2), np.random.default_rng(3)
    actions = [draw_actions(fleet, rng) for _ in range(30)]
    for step in range(10):
        play(fleet, actions[step], step, np.full((2, 1), 0.7))
    saved = fleet.state_dict()
    first = [play(fleet, actions[step], step, np.full((2, 1), 0.4)) for step in range(10, 30)]
    other.load_state_dict(saved)
    second = [play(other, actions[step], step, np.full((2, 1), 0.4)) for step in range(10, 30)]
    for before, after in zip(first, second, strict=True):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "storage", "e_max_kwh": 1, "p_max_kw": 1}, "exactly one of bus and element, not neither"),
        ({"kind": "storage", "bus": "1", "element": "Storage.x", "e_max_kwh": 1, "p_max_kw": 1}, "not both"),
        ({"kind": "storage", "bus": "1", "p_max_kw": 1}, "e_max_kwh is required at a bus"),
        ({"kind": "storage", "element": "Load.x"}, "element 'Load.x' is not Storage.<name>"),
        ({"kind": "storage", "element": "Storage."}, "is not Storage.<name>"),
        ({"kind": "storage", "element": "Storage.x", "phases": [1]}, "phases goes with bus"),
        ({"kind": "storage", "element": "Storage.x", "soc_initial": 0.05}, "soc_min..soc_max = 0.1..0.9"),
        ({"kind": "storage", "element": "Storage.x", "soc_min": 0.9, "soc_max": 0.2}, "is not below soc_max 0.2"),
        ({"kind": "storage", "element": "Storage.x", "p_max_kw": 9, "s_max_kva": 5}, "p_max_kw 9 is above s_max_kva 5"),
        ({"kind": "storage", "element": "Storage.x", "soc_init": 0.5}, "Extra inputs are not permitted"),
        ({"kind": "inverter", "bus": "1", "p_max_kw": 5, "phases": [1, 1]}, "repeats a phase"),
        ({"kind": "inverter", "bus": "1", "p_max_kw": 5, "phases": [4]}, "less than or equal to 3"),
        ({"kind": "inverter", "bus": "1", "p_max_kw": 5, "phases": [2], "connection": "delta"}, "needs two or three"),
        ({"kind": "generator", "bus": "1", "p_min_kw": 9, "p_max_kw": 5}, "p_min_kw 9 is above p_max_kw 5"),
        ({"kind": "flexible_load", "element": "Load.x", "share_min": 1, "share_max": 1, "owed_max_kwh": 1}, "not "),
        ({"kind": "flexible_load", "element": "Load.x"}, "Field required"),
        ({"kind": "capacitor", "element": "Capacitor.x", "steps": 2, "steps_initial": 3}, "steps_initial 3 is outside"),
        ({"kind": "regulator", "element": "RegControl.x", "tap_initial": 17}, "tap_initial 17 is outside"),
        ({"kind": "regulator", "element": "Line.x"}, "Transformer.<name> or RegControl.<name>"),
        ({"kind": "windmill"}, "does not match any of the expected tags"),
    ],
)  # fmt: skip
def test_spec_that_contradicts_itself_is_refused_with_what_is_allowed(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(keys)
    assert says in str(caught.value)


def test_spec_with_several_problems_names_them_all() -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python({"kind": "storage", "bus": "1", "soc_initial": 0.95})
    assert all(word in str(caught.value) for word in ("e_max_kwh", "p_max_kw", "soc_initial 0.95"))


@pytest.mark.parametrize("kind", FLEETS)
def test_spec_survives_a_round_trip_through_plain_data(kind: str) -> None:
    for keys in DEVICES[kind]:
        spec = ADAPTER.validate_python({"kind": kind} | keys)
        assert ADAPTER.validate_python(spec.model_dump(mode="json")) == spec


#: By kind: an element of the feeder, and the keys without which a device that is one cannot be played.
MISSING = {
    "storage": ("Storage.x", "e_max_kwh, p_max_kw"),
    "inverter": ("PVSystem.x", "p_max_kw"),
    "generator": ("Generator.x", "p_max_kw"),
    "capacitor": ("Capacitor.x", "steps, steps_initial"),
    "regulator": ("Transformer.x", "tap_initial"),
    "switch": ("Line.x", "closed_initial"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_fleet_with_a_rating_missing_names_device_and_key(kind: str) -> None:
    element, missing = MISSING[kind]
    spec = ADAPTER.validate_python({"kind": kind, "element": element})
    with pytest.raises(ValueError, match=f"{kind} 'd7': {missing} missing"):
        FLEETS[kind]({"d7": spec}, 0.25, 96)
