"""Everything a user can get wrong, each with the message that says where, what came and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ActionError, FeederError, ScenarioError
from tests.envs.worlds import fill_actions

MakeEnv = Callable[..., NetworkedGridEnv]


def small(**keys: Any) -> dict[str, Any]:
    """One battery, one agent, 13 nodes."""
    return {
        "name": "small",
        "feeder": "ieee13",
        "devices": {"ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40}},
        "agents": {"A": {"devices": ["ess"], "zone": {"downstream_of": "671"}, "pcc": "671"}},
    } | keys


def battery(**keys: Any) -> dict[str, Any]:
    return {"devices": {"ess": small()["devices"]["ess"] | keys}}


def agent(**keys: Any) -> dict[str, Any]:
    return {"agents": {"A": small()["agents"]["A"] | keys}}


def exactly(message: str) -> str:
    return rf"^{re.escape(message)}$"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"episode_lenght": 4}, "small: unknown key 'episode_lenght' (did you mean 'episode_length'?)"),
        ({"mode": "central"}, "small: mode: input should be 'distributed' or 'centralized', not 'central'"),
        ({"episode_length": 0}, "small: episode_length: input should be greater than or equal to 1, not 0"),
        (
            {"episode_length": "long"},
            (
                "small: episode_length: input should be a valid integer, unable to parse string as "
                "an integer, not 'long'"
            ),
        ),
        ({"penalty": True}, "small: penalty: input should be a valid number, not true"),
        (
            {"load_scale": {"unifrom": [1, 2]}},
            "small: load_scale: unknown key 'unifrom' (did you mean 'uniform' or 'loguniform'?)",
        ),
        ({"load_scale": {"uniform": 2}}, "small: load_scale: uniform: input should be a list, not 2"),
        ({"load_scale": {"uniform": [1, 2, 3]}}, "small: load_scale: uniform: has 3; give at most 2"),
        (
            {"load_scale": {"uniform": [1, 2]}, "ranges": {"load_scale": {"uniform": [1, 3]}}},
            "small: load_scale: is drawn in its place and under ranges; leave out one",
        ),
        (
            {
                "devices": small()["devices"] | {"pv": {"kind": "inverter", "bus": "675", "p_max_kw": 40}},
                "ranges": {"devices.*.soc_initial": {"uniform": [0.3, 0.4]}},
            },
            (
                "small: ranges.devices.*.soc_initial: 'pv' fits it too: unknown key 'soc_initial'; "
                "allowed: p_max_kw, s_max_kva, p_limit_kw, power_factor_min"
            ),
        ),
        ({"telemetry": "late"}, "small: telemetry: input should be a mapping of keys to values, not 'late'"),
        (
            {"telemetry": {"readings": {5: {"loss": 0.1}}}},
            "small: telemetry.readings: name 5 is no text; write it in quotes",
        ),
        ({"seed": -1}, "small: seed: input should be greater than or equal to 0, not -1"),
        ({"split": "tests"}, "small: split: input should be 'train', 'validation', 'test' or 'all', not 'tests'"),
        (
            {"reward": {"weights": {"loss_kwh": 1}}},
            (
                "small: reward.weights: unknown key 'loss_kwh' "
                "(did you mean 'losses_kwh' or 'losses_share' or 'unserved_kwh'?)"
            ),
        ),
        ({"reward": {"scale": 0}}, "small: reward.scale: input should be greater than 0, not 0"),
        ({"voltage": {"v_min_pu": 1.2}}, "small: voltage.v_min_pu: input should be less than 1, not 1.2"),
        (
            {"divergence": {"policy": "ignore"}},
            "small: divergence.policy: input should be 'terminate', 'hold' or 'raise', not 'ignore'",
        ),
        (
            {"profiles": {"price_ahead_hours": [1, 60]}},
            "small: profiles.price_ahead_hours: hours (1.0, 60.0) are not all within 0..48",
        ),
        ({"feeder": None}, "small: feeder: input should be a valid string, not None"),
        (
            {"devices": {}},
            (
                "small has 2 problems\n"
                "  devices: has none; give at least 1\n"
                "  agents.A: unknown device 'ess'; there is none"
            ),
        ),
        (
            battery(soc_init=0.2),
            "small: devices.ess: unknown key 'soc_init' (did you mean 'soc_initial' or 'soc_min' or 'soc_max'?)",
        ),
        (battery(soc_min=0.8, soc_max=0.2), "small: devices.ess: soc_min 0.8 is not below soc_max 0.2"),
        (battery(soc_initial=0.05), "small: devices.ess: soc_initial 0.05 is outside soc_min..soc_max = 0.1..0.9"),
        (battery(s_max_kva=30), "small: devices.ess: p_max_kw 40 is above s_max_kva 30; allowed is at most that"),
        (
            battery(e_max_kwh="big"),
            (
                "small: devices.ess.e_max_kwh: input should be a valid number, unable to parse string "
                "as a number, not 'big'"
            ),
        ),
        (battery(e_max_kwh=-5), "small: devices.ess.e_max_kwh: input should be greater than 0, not -5"),
        (battery(e_max_kwh=None), "small: devices.ess: e_max_kwh is required at a bus"),
        (battery(kind="storge"), "small: devices.ess: unknown kind 'storge' (did you mean 'storage'?)"),
        (battery(element="Storage.s1"), "small: devices.ess: give exactly one of bus and element, not both"),
        (
            {"devices": {"ess": {"bus": "675"}}},
            (
                "small: devices.ess: kind is required; one of storage, inverter, generator, "
                "flexible_load, ev_charger, building, capacitor, regulator, switch"
            ),
        ),
        (agent(devices=["es"]), "small: agents.A: unknown device 'es' (did you mean 'ess'?)"),
        (agent(devices=["ess", "ess"]), "small: agents.A: device 'ess' belongs to 'A' already"),
        (
            {"agents": small()["agents"] | {"B": small()["agents"]["A"]}},
            "small: agents.B: device 'ess' belongs to 'A' already",
        ),
        (agent(zone={}), "small: agents.A.zone: give exactly one of buses, downstream_of and microgrid"),
        (
            agent(zone={"buses": ["675"], "downstream_of": "671"}),
            "small: agents.A.zone: give exactly one of buses, downstream_of and microgrid",
        ),
        ({"agents": {"A": {"devices": ["ess"], "pcc": "671"}}}, "small: agents.A.zone: is required"),
        # what only the feeder can tell
        (battery(bus="676"), "small: devices.ess: unknown bus '676' (did you mean '675' or '671' or '670'?)"),
        (battery(bus="611"), "small: devices.ess: bus '611' has phases [3], not [1, 2]"),
        (agent(pcc="r60"), "small: agents.A: unknown bus 'r60' (did you mean 'rg60' or '680' or '670'?)"),
        (
            agent(zone={"buses": ["675", "6711"]}),
            "small: agents.A: unknown bus '6711' (did you mean '671' or '611' or '675'?)",
        ),
        (agent(zone={"downstream_of": "671", "until": ["671"]}), "small: agents.A: its zone has no bus"),
        (
            {"taps": {"reg9": 3}},
            "small: taps: unknown regulator control 'reg9' (did you mean 'reg3' or 'reg2' or 'reg1'?)",
        ),
        (
            {"norm_amps": {"line.650633": 3}},
            (
                "small: norm_amps: unknown branch 'line.650633' (did you mean 'line.650632' or 'line.632633' or "
                "'line.670671'?)"
            ),
        ),
        (
            {"devices": {"ess": {"kind": "capacitor", "element": "Capacitor.cap3"}}},
            "small: devices.ess: unknown Capacitor 'cap3' (did you mean 'cap2' or 'cap1'?)",
        ),
        (
            {"devices": {"ess": {"kind": "switch", "element": "Lines.671692"}}},
            "small: devices.ess: element 'Lines.671692' is not Line.<name>",
        ),
        # what only the profiles can tell
        (
            {"profiles": {"tariff": "time_of_day"}},
            "profiles 'builtin': unknown tariff 'time_of_day' (did you mean 'time_of_use'?); profiles.tariff names it",
        ),
        ({"step_minutes": 7}, None),
        ({"profiles": {"load_classes": {"671": "shops"}}}, None),
        ({"episode_length": 9999}, None),
    ],
)
def test_scenario_wrong_key_or_value_says_where_and_what(
    keys: dict[str, Any], message: str | None, make_env: MakeEnv
) -> None:
    expected = {
        "step_minutes": "step_minutes 7 does not fit rows of 15 min; allowed: 1, 3, 5, 15, 30",
        "profiles": "'671': unknown class 'shops'",
        "episode_length": "9999 steps of 15 min cover 105 days, more than any block of split 'train'",
    }
    with pytest.raises(ScenarioError, match=exactly(message) if message else expected[next(iter(keys))]):
        make_env(small(**keys))


def test_scenario_with_many_problems_lists_them_all_in_reading_order(make_env: MakeEnv) -> None:
    scenario = small(
        episode_length=-1,
        reward={"scal": 1},
        devices={
            "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40, "soc_init": 0.1},
            "storage": {"kind": "storage", "bus": "675", "e_max_kwh": 0, "p_max_kw": "x"},
        },
        agents={"A": {"devices": ["ess", "pv"], "zone": {"bus": "671"}, "pcc": "671"}},
    )
    with pytest.raises(ScenarioError) as caught:
        make_env(scenario)
    assert str(caught.value).splitlines() == [
        "small has 7 problems",
        "  devices.ess: unknown key 'soc_init' (did you mean 'soc_initial' or 'soc_min' or 'soc_max'?)",
        "  devices.storage.e_max_kwh: input should be greater than 0, not 0",
        "  devices.storage.p_max_kw: input should be a valid number, unable to parse string as a number, not 'x'",
        "  agents.A: unknown device 'pv'; allowed: ess, storage",
        "  agents.A.zone: unknown key 'bus' (did you mean 'buses'?)",
        "  episode_length: input should be greater than or equal to 1, not -1",
        "  reward: unknown key 'scal' (did you mean 'scale' or 'goal'?)",
    ]
    assert len(caught.value.problems) == 7


def test_scenario_with_many_wrong_references_lists_them_all(make_env: MakeEnv) -> None:
    scenario = small(taps={"nope": 1}, steps_on={"cap7": 1}) | battery(bus="nowhere") | agent(pcc="632x")
    with pytest.raises(ScenarioError, match="small has 4 problems"):
        make_env(scenario)


# env_config ------------------------------------------------------------------------------------------------------


def test_env_config_neither_name_nor_scenario_lists_the_shipped() -> None:
    for config in (None, {}, {"mode": "distributed"}, {"env_name": "ieee13_mg", "scenario": small()}):
        with pytest.raises(
            ScenarioError, match=r"env_config: give exactly one of 'env_name' \(shipped: .*ieee13_mg.*\) and 'scenario'"
        ):
            NetworkedGridEnv(config)


def test_env_config_unknown_name_says_the_nearest(make_env: MakeEnv) -> None:
    with pytest.raises(ScenarioError, match=r"ieee13_m: unknown scenario 'ieee13_m' \(did you mean 'ieee13_mg'"):
        make_env("ieee13_m")


def test_env_config_missing_file_says_the_nearest(tmp_path: Path, make_env: MakeEnv) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(ScenarioError, match=r"unknown file 'mein.yaml' \(did you mean 'mine.yaml'\?\)"):
        make_env(str(tmp_path / "mein.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML: while parsing a flow node"),
        ("- 1\n- 2\n", "holds a list, not keys with values"),
        ("name: a\nname: b\n", "is not YAML: key 'name' comes twice"),
        ("devices: {ess: {kind: storage}, ess: {kind: storage}}", "is not YAML: key 'ess' comes twice"),
        ("", "holds a NoneType, not keys with values"),
    ],
)
def test_scenario_file_that_is_no_mapping_says_so(text: str, message: str, tmp_path: Path, make_env: MakeEnv) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=re.escape(message)):
        make_env(str(tmp_path / "mine.yaml"))


# feeders ---------------------------------------------------------------------------------------------------------


def test_feeder_missing_file_names_the_nearest(tmp_path: Path, make_env: MakeEnv) -> None:
    (tmp_path / "Master.dss").write_text("New Circuit.x\n")
    with pytest.raises(FeederError, match=r"unknown file 'Mster.dss' \(did you mean 'Master.dss'\?\)"):
        make_env(small(feeder=str(tmp_path / "Mster.dss")))
    with pytest.raises(FeederError, match=r"unknown feeder 'ieee14' \(did you mean 'ieee34' or 'ieee13'"):
        make_env(small(feeder="ieee14"))


def test_feeder_missing_redirect_names_file_and_line(tmp_path: Path, make_env: MakeEnv) -> None:
    (tmp_path / "Lines.dss").write_text("")
    (tmp_path / "Master.dss").write_text("New Circuit.x\n\nRedirect lines2.dss\n")
    with pytest.raises(FeederError, match=r"Master.dss:3: redirect of a missing file 'lines2.dss' \(did you mean 'L"):
        make_env(small(feeder=str(tmp_path / "Master.dss")))


def test_feeder_refused_by_opendss_names_file_line_and_its_words(tmp_path: Path, make_env: MakeEnv) -> None:
    (tmp_path / "Master.dss").write_text("New Circuit.x\nNew Lin.l1 Bus1=a Bus2=b\n")
    with pytest.raises(FeederError, match=r"Master.dss:2: 'New Lin.l1 Bus1=a Bus2=b': (?s:.*)OpenDSS error \d+"):
        make_env(small(feeder=str(tmp_path / "Master.dss")))


def test_scenario_that_does_not_converge_at_its_start_says_what_to_change(make_env: MakeEnv) -> None:
    # With more iterations its voltages collapse, which is a solution.
    env = make_env(small(load_scale=60, solver={"max_iterations": 2}))
    with pytest.raises(
        ScenarioError,
        match=r"feeder 'ieee13': the power flow does not converge at the start of day 40 \(load_scale 60\)",
    ):
        env.reset(seed=0, options={"day": 40})


def test_taps_out_of_range_say_the_range(make_env: MakeEnv) -> None:
    with pytest.raises(FeederError, match=r"regulator control 'reg1': 40 is outside -16\.\.16"):
        make_env(small(taps={"reg1": 40}))


# playing ---------------------------------------------------------------------------------------------------------


def test_step_before_reset_raises(make_env: MakeEnv) -> None:
    env = make_env()
    with pytest.raises(
        ScenarioError, match=exactly("ieee13_mg: no episode is being played; call reset() before step()")
    ):
        env.step(fill_actions(env, 0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dya": 3}, "options: unknown option 'dya' (did you mean 'day'?)"),
        ({"day": 365}, "options: day 365 is outside the profiles; allowed: 0..364"),
        ({"day": -1}, "options: day -1 is outside the profiles; allowed: 0..364"),
        ({"day": 1.5}, "options: day 1.5 is not a whole number"),
        ({"day": True}, "options: day True is not a whole number"),
        ({"day": "1"}, "options: day '1' is not a whole number"),
        (
            {"day": 1.5, "x": 0},
            (
                "options has 2 problems\n  unknown option 'x'; allowed: day, load_scale, start_hour, "
                "profiles.price_scale, rating_scale, feeder_changes.scale.line_r, feeder_changes.scale.line_x, "
                "penalty, reward.scale, divergence.penalty, norm_amps.<branch>, taps.<control>, ... (16 in all)\n"
                "  day 1.5 is not a whole number"
            ),
        ),
    ],
)
def test_reset_wrong_option_says_what_is_allowed(options: dict[str, Any], message: str, make_env: MakeEnv) -> None:
    env = make_env()
    with pytest.raises(ScenarioError, match=exactly(message)):
        env.reset(seed=0, options=options)
    env.reset(seed=0)


def test_reset_day_of_a_long_episode_must_leave_room_for_it(make_env: MakeEnv) -> None:
    env = make_env(episode_length=96 * 3)
    with pytest.raises(ScenarioError, match=r"day 363 is outside the profiles; allowed: 0\.\.362"):
        env.reset(options={"day": 363})
    env.reset(options={"day": 362})


GOOD = {"continuous": np.zeros(2), "discrete": np.array([3, 1])}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (GOOD | {"continuous": [np.nan, 0.0]}, "agent 'B': continuous: action[0] is nan; allowed is -1..1"),
        (GOOD | {"continuous": [0.0, np.inf]}, "agent 'B': continuous: action[1] is inf; allowed is -1..1"),
        (GOOD | {"continuous": [0.0, 1.2]}, "agent 'B': continuous: action[1] is 1.2; allowed is -1..1"),
        (GOOD | {"continuous": [0.0]}, "agent 'B': continuous: action has shape (1,), expected (2,)"),
        (GOOD | {"continuous": [[0.0, 0.0]]}, "agent 'B': continuous: action has shape (1, 2), expected (2,)"),
        (GOOD | {"continuous": ["a", "b"]}, "agent 'B': continuous: action is not numbers but ['a', 'b']"),
        (
            GOOD | {"continuous": [10**400, 0]},
            f"agent 'B': continuous: action is not numbers but [1{'0' * 58}",  # beyond all floats
        ),
        (GOOD | {"continuous": None}, "agent 'B': continuous: action has shape (), expected (2,)"),
        (GOOD | {"discrete": [3, 2]}, "agent 'B': discrete: action[1] is 2; allowed are the whole numbers 0..1"),
        (GOOD | {"discrete": [-1, 1]}, "agent 'B': discrete: action[0] is -1; allowed are the whole numbers 0..32"),
        (GOOD | {"discrete": [0.5, 1]}, "agent 'B': discrete: action[0] is 0.5; allowed are the whole numbers 0..32"),
        (
            GOOD | {"discrete": [np.nan, 1]},
            "agent 'B': discrete: action[0] is nan; allowed are the whole numbers 0..32",
        ),
        (
            np.zeros(4),
            ("agent 'B': action is not a mapping with keys 'continuous' and 'discrete' but array([0., 0., 0., 0.])"),
        ),
        (
            {"continuous": np.zeros(2)},
            (
                "agent 'B': action is not a mapping with keys 'continuous' and 'discrete' but "
                "{'continuous': array([0., 0.])}"
            ),
        ),
        (
            {"continuous": [2.0, 0.0], "discrete": [99, 1]},
            (
                "actions has 2 problems\n  agent 'B': continuous: action[0] is 2; allowed is -1..1\n"
                "  agent 'B': discrete: action[0] is 99; allowed are the whole numbers 0..32"
            ),
        ),
    ],
)
def test_step_wrong_action_says_where_and_what(action: Any, message: str, make_env: MakeEnv) -> None:
    scenario = small(
        devices={
            "ess": {"kind": "storage", "bus": "675", "e_max_kwh": 100, "p_max_kw": 40, "reactive": True},
            "reg": {"kind": "regulator", "element": "RegControl.reg1"},
            "sw": {"kind": "switch", "element": "Line.684652"},
        },
        agents={"B": {"devices": ["ess", "reg", "sw"], "zone": {"buses": ["675"]}, "pcc": "675"}},
    )
    env = make_env(scenario)
    env.reset(seed=0)
    message = message if message.startswith("actions") else f"actions: {message}"
    with pytest.raises(ActionError, match=exactly(message)):
        env.step({"B": action})
    env.step({"B": GOOD})  # nothing was played meanwhile
    assert env.task.simulation.step_index[0] == 1


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"MG1": np.zeros(5)}, "actions: agent 'MG2' has no action"),
        ({}, "actions has 2 problems\n  agent 'MG1' has no action\n  agent 'MG2' has no action"),
        (
            {"MG1": np.zeros(5), "MG2": np.zeros(5), "MG3": np.zeros(5)},
            "actions: unknown agent 'MG3'; agents are MG1, MG2",
        ),
        (
            {"MG1": np.zeros(5), "mg2": np.zeros(5)},
            "actions has 2 problems\n  agent 'MG2' has no action\n  unknown agent 'mg2'; agents are MG1, MG2",
        ),
        (
            {"MG1": np.full(5, np.nan), "MG2": np.zeros(4)},
            (
                "actions has 2 problems\n  agent 'MG1': action[0] is nan; allowed is -1..1\n"
                "  agent 'MG2': action has shape (4,), expected (5,)"
            ),
        ),
        (None, "actions: expected one action for each agent by its name, not None"),
        (7, "actions: expected one action for each agent by its name, not 7"),
    ],
)
def test_step_wrong_agents_lists_all(actions: Any, message: str, make_env: MakeEnv) -> None:
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(ActionError, match=exactly(message)):
        env.step(actions)


def test_two_devices_on_one_element_are_refused(make_env: MakeEnv) -> None:
    scenario = small(
        devices={
            "reg": {"kind": "regulator", "element": "RegControl.reg1"},
            "twin": {"kind": "regulator", "element": "Transformer.reg1"},
        },
        agents={"A": {"devices": ["reg", "twin"], "zone": {"buses": ["675"]}, "pcc": "675"}},
    )
    with pytest.raises(FeederError) as caught:
        make_env(scenario)
    assert caught.value.problems == ("device 'twin': Transformer.reg1 already belongs to device 'reg'",)
