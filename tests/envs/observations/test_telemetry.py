"""What agents are told, and when, and what devices hear of them: as the scenario says, and nothing else changes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import powergrid
from powergrid.envs import GridVectorEnv
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.evaluation.replay.recorder import record_day
from powergrid.evaluation.rollout import evaluate
from powergrid.evaluation.studies.report import describe_facts
from powergrid.grid.telemetry.links import Link
from powergrid.grid.telemetry.spec import LinkSpec
from powergrid.scenario import load_scenario

STEPS = 24
#: Everything that can be said at once.
ROUGH: dict[str, Any] = {
    "metered_buses": ["671", "634", "680", "675"],
    "readings": {
        "field": {"channels": ["ess_*", "pv_*"], "delay_minutes": 30, "loss": 0.3, "on_loss": "both", "age": True},
        "meters": {"channels": ["*v_*_pu"], "every_minutes": 60, "accuracy": "class_1_0", "bias": 0.01},
        "rest": {"delay_spread_minutes": 60, "loss": 0.1, "on_loss": "mask", "resolution": 0.01},
    },
    "messages": {"talk": {"sender": "MG1", "channels": ["MG1.v_*"], "loss": 0.3, "delay_minutes": 15, "bits": 6}},
    "setpoints": {"all": {"every_minutes": 30, "delay_spread_minutes": 45, "loss": 0.2, "fallback": "neutral"}},
}
Seen = dict[str, npt.NDArray[np.float64]]


def make_task(telemetry: Any, n_envs: int = 1, name: str = "ieee13_mg", **keys: Any) -> GridTask:
    return GridTask(load_scenario(name, {"episode_length": STEPS, "telemetry": telemetry, **keys}), n_envs)


def start(task: GridTask, seed: int = 3) -> None:
    generators = [np.random.default_rng([seed, env]) for env in range(task.n_envs)]
    task.reset_all(range(task.n_envs), generators, {"day": 171})


def ask(task: GridTask, step: int) -> None:
    """Ask for something else in each step."""
    buffer = task.action_buffer()
    buffer[:] = np.sin(1.7 * step + np.arange(buffer.shape[1]))
    for column, action in enumerate(task.simulation.actions):
        if action.discrete:
            buffer[:, column] = (step + column) % action.n


def play(telemetry: Any, **keys: Any) -> tuple[Seen, Seen, npt.NDArray[np.float64]]:
    """Play a day; return what the numbers are, what is told of them, each by channel, and what devices were asked."""
    task = make_task(telemetry, **keys)
    try:
        start(task)
        channels, rows, asked = task.channels, [], []
        for step in range(STEPS + 1):
            results = task.metrics.results[0]
            rows.append((results[channels.places], results[channels.told]))
            if step < STEPS:
                ask(task, step)
                task.step()
                asked.append(task.simulation.requested[:, 0].copy())
        names = [channel.name for channel in channels.table]
        true, told = (dict(zip(names, np.array(each).T, strict=True)) for each in zip(*rows, strict=True))
        return true, told, np.array(asked)
    finally:
        task.close()


def all_bits(task: GridTask) -> list[bytes]:
    return [array.tobytes() for array in (*task.observe(), task.rewards, task.infos(), task.simulation.setpoints)]


@pytest.mark.parametrize(
    "zeros", [{}, {"readings": {"all": {}}, "setpoints": {"all": {"delay_minutes": 0, "loss": 0}}}]
)
def test_block_of_zeros_changes_no_bit(zeros: Any) -> None:
    plain, zero = make_task(None, 2), make_task(zeros, 2)
    try:
        start(plain)
        start(zero)
        for step in range(STEPS):
            assert all_bits(plain) == all_bits(zero)
            for task in (plain, zero):
                ask(task, step)
                task.step()
        start(plain, 9)
        start(zero, 9)
        assert all_bits(plain) == all_bits(zero)
    finally:
        plain.close()
        zero.close()


def test_telemetry_of_readings_changes_what_is_told_and_nothing_that_is() -> None:
    true, _, asked = play(None, outlook={})
    rough, told, same = play({"readings": ROUGH["readings"]}, outlook={})
    assert all(rough[name].tobytes() == true[name].tobytes() for name in true)
    assert same.tobytes() == asked.tobytes()
    assert not np.array_equal(told["ess_1.soc"], true["ess_1.soc"])
    assert told["world.time_of_day_sin"].tobytes() == true["world.time_of_day_sin"].tobytes()


@pytest.mark.parametrize(("minutes", "steps"), [(15, 1), (45, 3), (20, 2)])
def test_delayed_reading_is_that_of_so_many_steps_before(minutes: float, steps: int) -> None:
    true, told, _ = play({"readings": {"late": {"channels": ["ess_1.*", "MG1.*"], "delay_minutes": minutes}}})
    for name in ("ess_1.soc", "MG1.v_min_pu", "MG1.demand_kw"):
        assert np.array_equal(told[name][steps:], true[name][:-steps])
        assert np.all(told[name][:steps] == true[name][0])  # what the day began with
    assert np.array_equal(told["ess_2.soc"], true["ess_2.soc"])


def test_reading_now_and_then_stays_between() -> None:
    true, told, _ = play({"readings": {"hourly": {"every_minutes": 60, "age": True}}})
    for name in ("ess_1.soc", "network.losses_kw"):
        assert np.array_equal(told[name], np.repeat(true[name][::4], 4)[: STEPS + 1])
    assert told["ess_1.hourly_age_min"].tolist() == [15.0 * (step % 4) for step in range(STEPS + 1)]


@pytest.mark.parametrize("on_loss", ["hold", "mask", "both"])
def test_lost_reading_is_held_or_masked(on_loss: str) -> None:
    true, told, _ = play({"readings": {"air": {"loss": 0.5, "on_loss": "both"}}})
    missing = told["ess_1.air_missing"].astype(bool)
    assert 4 < missing.sum() < 20
    _, seen, _ = play({"readings": {"air": {"loss": 0.5, "on_loss": on_loss}}})
    assert ("ess_1.air_missing" in seen) == (on_loss != "hold")
    soc, wanted = seen["ess_1.soc"], true["ess_1.soc"].copy()
    for step in np.flatnonzero(missing):
        wanted[step] = 0.5 if on_loss == "mask" else wanted[step - 1]
    assert np.array_equal(soc, wanted)
    # what a device sends, it sends at once; others fare otherwise
    assert not np.array_equal(missing, told["ess_2.air_missing"].astype(bool))


def test_noise_bias_and_resolution_are_as_stated() -> None:
    keys = {"observations": "full", "mode": "centralized"}
    nodes = ["*.v_pu"]
    true, told, _ = play({"readings": {"m": {"channels": nodes, "accuracy": "class_1_0"}}}, **keys)
    errors = np.array([told[name] / true[name] - 1.0 for name in told if name.endswith(".v_pu")])
    assert errors.std() == pytest.approx(0.01 / 3.0, rel=0.1)
    assert abs(errors.mean()) < 4 * 0.01 / 3.0 / np.sqrt(errors.size)
    _, told, _ = play({"readings": {"m": {"channels": nodes, "bias": 0.02}}}, **keys)
    errors = np.array([told[name] / true[name] - 1.0 for name in told if name.endswith(".v_pu")])
    assert np.ptp(errors, axis=1).max() < 1e-12  # all day the same
    assert errors[:, 0].std() == pytest.approx(0.02, rel=0.4)
    _, told, _ = play({"readings": {"m": {"channels": nodes, "resolution": 0.005}}}, **keys)
    steps = np.array([told[name] for name in told if name.endswith(".v_pu")]) / 0.005
    assert np.abs(steps - np.rint(steps)).max() < 1e-9
    assert 0.001 < np.abs(steps * 0.005 - np.array([true[n] for n in told if n.endswith(".v_pu")])).max() <= 0.0025001


def test_voltages_of_zones_are_those_of_metered_buses() -> None:
    buses = ["671", "634", "675"]
    task = make_task({"metered_buses": buses}, mode="centralized")
    try:
        start(task)
        names = [channel.name for channel in task.channels.table]
        true, told = (
            dict(zip(names, task.metrics.results[0, p], strict=True))
            for p in (task.channels.places, task.channels.told)
        )
        own = [true[f"network.{bus}.{phase}.v_pu"] for bus in ("671", "675") for phase in (1, 2, 3)]
        assert told["MG1.v_min_pu"] == min(own)
        assert told["MG1.v_max_pu"] == max(own)
        assert told["MG1.v_mean_pu"] == pytest.approx(np.mean(own), abs=1e-12)
        assert told["network.v_max_pu"] == max(*own, *(true[f"network.634.{phase}.v_pu"] for phase in (1, 2, 3)))
        assert (
            told["MG1.pcc_v_pu"] == true["MG1.pcc_v_pu"]
        )  # where a zone is tied to the rest it has a meter of its own
        shown = {names[i] for agent in task.agents for i in agent.observed if names[i].endswith(".v_pu")}
        assert {name.split(".")[1] for name in shown} == set(buses)
    finally:
        task.close()


def test_summary_is_of_metered_nodes_alone() -> None:
    """Three nodes of each of two buses: the median lies between the third and the fourth voltage, and so on."""
    buses = {"metered_buses": ["634", "671"]}
    task = make_task(buses, 2, mode="centralized", observations="summary", voltage={"v_max_pu": 1.033})
    try:
        start(task)
        ask(task, 0)
        task.step()
        names = [channel.name for channel in task.channels.table]
        nodes = [task.simulation.network.nodes.index(f"{bus}.{phase}") for bus in ("634", "671") for phase in (1, 2, 3)]
        for env in range(2):
            told = dict(zip(names, task.metrics.results[env, task.channels.told], strict=True))
            v = sorted(task.simulation.snapshot.v_pu[env, nodes])
            assert told["network.v_05_percent_pu"] == pytest.approx(0.75 * v[0] + 0.25 * v[1], abs=1e-12)
            assert told["network.v_25_percent_pu"] == pytest.approx(0.75 * v[1] + 0.25 * v[2], abs=1e-12)
            assert told["network.v_50_percent_pu"] == pytest.approx(0.5 * v[2] + 0.5 * v[3], abs=1e-12)
            assert told["network.v_95_percent_pu"] == pytest.approx(0.25 * v[4] + 0.75 * v[5], abs=1e-12)
            assert told["network.v_mean_pu"] == pytest.approx(sum(v) / 6, abs=1e-12)
            over = sum(each > 1.033 for each in v)
            assert 0 < over < 6
            assert told["network.violation_share"] == pytest.approx(over / 6, abs=1e-12)
    finally:
        task.close()


def test_agents_see_so_many_hops_from_their_devices() -> None:
    found = []
    for hops in (0, 1, 2):
        env = powergrid.make("ieee13_mg", telemetry={"hops": hops})
        table = env.describe().observations.query("agent == 'MG1'")
        env.close()
        assert not table.name.str.startswith("MG1.").any()
        assert (table.owner == "ess_1").any()
        found.append(set(table.name[table.name.str.endswith(".v_pu")].str.split(".").str[1]))
    devices = load_scenario("ieee13_mg").devices
    assert found[0] == {str(devices[name].bus) for name in ("ess_1", "pv_1", "gen_1")}
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("mode", ["distributed", "centralized"])
def test_graph_shows_what_has_arrived_and_flags_of_each_bus(mode: str) -> None:
    buses = ["671", "634", "680", "675"]
    air = {"delay_minutes": 15, "loss": 0.4, "on_loss": "both", "age": True}
    keys = {"observations": "graph", "mode": mode, "episode_length": STEPS}
    env = powergrid.make("ieee13_mg", telemetry={"metered_buses": buses, "readings": {"air": air}}, **keys)
    try:
        seen, _ = env.reset(seed=1)
        description = env.describe()
        graph, form = description.graphs["MG1"]
        assert form.flags == ("measured", "air_age_min", "air_missing")
        table = description.observations.query("agent == 'MG1'")
        most = table.high[table.name.str.endswith("node_0.air_age_min")].item()
        network, simulation = env.task.simulation.network, env.task.simulation
        past, ages = list[Any](), list[Any]()
        for step in range(STEPS):
            past.append(simulation.snapshot.v_pu[0].copy())
            parts = form.split(seen["MG1"])
            flags = (parts["flags"] + 1.0) / 2.0
            assert [flags[i, 0] == 1.0 for i in range(len(graph.nodes))] == [bus in buses for bus in graph.nodes]
            ages.append(flags[:, 1] * most)
            for i, bus in enumerate(graph.nodes):
                for node in network.nodes_of([network.bus_index[bus]]):
                    sent = step - round(ages[-1][i] / 15.0)
                    v_pu = np.clip(past[sent][node], 0.85, 1.15) if bus in buses else 1.0
                    assert parts["nodes"][i, network.node_phase[node]] * 0.15 + 1.0 == pytest.approx(v_pu, abs=1e-6)
            seen, *_ = env.step({agent: space.sample() for agent, space in env.action_spaces.items()})
        own = [i for i, bus in enumerate(graph.nodes) if bus in ("671", "675")]
        assert np.ptp(np.array(ages)[:, own], axis=1).any()  # each bus fares for itself
    finally:
        env.close()


# -- setpoints


def test_setpoint_that_is_late_is_that_of_so_many_steps_before() -> None:
    _, _, plain = play(None)
    _, _, late = play({"setpoints": {"some": {"devices": ["ess_1", "generator"], "delay_minutes": 30}}})
    own, others = [0, 4, 5], [1, 2, 3]  # storage, inverters, generators
    assert np.array_equal(late[2:, :, own], plain[:-2, :, own])
    assert not late[:2, :, own].any()  # left to itself
    assert np.array_equal(late[:, :, others], plain[:, :, others])
    assert np.all(np.ptp(plain, axis=0)[0, own] > 0.0)


@settings(max_examples=40, deadline=None)
@given(
    every=st.integers(1, 5), delay=st.integers(0, 90), spread=st.sampled_from([0.0, 40.0]),
    loss=st.sampled_from([0.0, 0.4]), first=st.sampled_from([0, -1]), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_has_arrived_was_sent_and_is_the_newest(
    every: int, delay: int, spread: float, loss: float, first: int, seed: int
) -> None:
    spec = LinkSpec(every_minutes=15 * every, delay_minutes=delay, delay_spread_minutes=spread, loss=loss)
    newest, missing = Link(spec, 15).draw(np.random.default_rng(seed), 50, 3, first=first)
    again, _ = Link(spec, 15).draw(np.random.default_rng(seed), 50, 3, first=first)
    assert newest.tobytes() == again.tobytes()
    steps = np.arange(50)[:, None]
    arrived = newest > max(first, 0)
    assert np.all(newest >= first)
    assert np.all(np.diff(newest, axis=0) >= 0)  # never back to an older one
    assert np.all(newest[arrived] % every == 0)
    late = (steps - newest)[arrived]
    assert np.all(15 * late >= delay - 1e-6)
    if not loss:
        assert np.all(15 * (steps - newest)[newest >= 0] < delay + spread + 15 * every + 15)
        assert not missing.any()


def test_devices_of_other_periods_act_in_one_episode() -> None:
    groups = {"taps": {"devices": ["regulator"], "every_minutes": 240}, "banks": {"devices": ["capacitor"]}}
    task = make_task({"setpoints": groups}, name="ieee13_voltvar")
    try:
        start(task)
        names = [channel.name for channel in task.channels.table]
        taps = [name for name, spec in task.simulation.devices.items() if spec.kind == "regulator"]
        seen = {names[i] for agent in task.agents for i in agent.observed}
        assert {f"{name}.decides" for name in taps} <= seen
        fleet = next(fleet for fleet in task.simulation.fleets if fleet.kind == "regulator")
        asked, decides = [], []
        for step in range(STEPS):
            told = dict(zip(names, task.channels.values[0], strict=True))
            decides.append(told[f"{taps[0]}.decides"])
            ask(task, step)
            task.step()
            asked.append(fleet.requested_position[0].copy())
        assert decides == [float(step % 4 == 0) for step in range(STEPS)]  # hours
        assert all(np.array_equal(asked[step], asked[step - step % 4]) for step in range(STEPS))
        assert not np.array_equal(asked[0], asked[4])
    finally:
        task.close()


def test_device_falls_back_where_setpoints_are_lost() -> None:
    def lost(fallback: str) -> npt.NDArray[np.float64]:
        return play({"setpoints": {"air": {"devices": ["gen_2"], "loss": 0.6, "fallback": fallback}}})[2][:, 0, 5]

    held, left = lost("hold"), lost("neutral")
    assert np.count_nonzero(left == 0.0) > np.count_nonzero(held == 0.0)


# -- messages


def test_message_is_what_its_sender_is_told_some_steps_later() -> None:
    talk = {"sender": "MG2", "channels": ["MG2.v_min_pu", "ess_2.soc"], "delay_minutes": 30, "age": True}
    late = {"own": {"channels": ["ess_2.*"], "delay_minutes": 15}}
    true, told, _ = play({"readings": late, "messages": {"talk": talk}})
    assert np.array_equal(told["MG1.talk_ess_2_soc"][3:], true["ess_2.soc"][:-3])  # what was told a step late
    assert np.array_equal(told["MG1.talk_MG2_v_min_pu"][2:], true["MG2.v_min_pu"][:-2])
    assert told["MG1.talk_age_min"][2:].tolist() == [30.0] * (STEPS - 1)
    _, coarse, _ = play({"messages": {"talk": talk | {"delay_minutes": 0, "bits": 4}}})
    steps = coarse["MG1.talk_ess_2_soc"] * 15.0  # 16 values from 0 to 1
    assert np.abs(steps - np.rint(steps)).max() < 1e-9
    env = powergrid.make("ieee13_mg", telemetry={"messages": {"talk": talk}})
    seen = env.describe().observations
    env.close()
    assert set(seen.agent[seen.name.str.contains("talk")]) == {"MG1"}


# -- copies, faces


@pytest.mark.parametrize("n_envs", [1, 3])
def test_state_put_back_goes_on_to_the_same_bits(n_envs: int) -> None:
    task, other = make_task(ROUGH, n_envs), make_task(ROUGH, n_envs)
    try:
        start(task)
        start(other, 8)

        def go_on(which: GridTask) -> list[list[bytes]]:
            seen = []
            for step in range(9, STEPS):
                ask(which, step)
                which.step()
                seen.append(all_bits(which))
            return seen

        for step in range(9):
            ask(task, step)
            task.step()
        kept = pickle.loads(pickle.dumps(task.state()))
        now, after = all_bits(task), go_on(task)
        for each in (task, other):
            each.restore(kept)
            assert all_bits(each) == now
            assert go_on(each) == after
    finally:
        task.close()
        other.close()


def test_copies_play_the_same_next_episode_too() -> None:
    env = powergrid.make("ieee13_mg", telemetry=ROUGH, outlook={}, episode_length=STEPS)
    copies = []
    try:
        env.reset(seed=5)
        env.reset()
        copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        seen = [each.reset()[0]["MG1"].tobytes() for each in (env, *copies)]
        middle = {agent: np.zeros(5, np.float32) for agent in env.agents}
        for _ in range(5):
            seen = [each.step(middle)[0]["MG1"].tobytes() for each in (env, *copies)]
            assert len(set(seen)) == 1
    finally:
        for each in (env, *copies):
            each.close()


def test_single_and_vector_environments_are_told_the_same() -> None:
    keys = {"telemetry": ROUGH, "episode_length": STEPS}
    envs = GridVectorEnv(load_scenario("ieee13_mg", keys), 2)
    alone = [powergrid.make("ieee13_mg", **keys) for _ in range(2)]
    try:
        seen, _ = envs.reset(seed=4)
        each = [env.reset(seed=4 + i)[0] for i, env in enumerate(alone)]
        for step in range(STEPS + 3):  # into the next day
            assert all(seen["MG1"][i].tobytes() == each[i]["MG1"].tobytes() for i in range(2))
            action = np.full(5, np.sin(step), np.float32)
            seen = envs.step({agent: np.tile(action, (2, 1)) for agent in ("MG1", "MG2")})[0]
            for i, env in enumerate(alone):
                stepped = env.step(dict.fromkeys(("MG1", "MG2"), action))
                each[i] = env.reset()[0] if any(stepped[3].values()) else stepped[0]
    finally:
        for env in (envs, *alone):
            env.close()


def test_central_view_leaves_out_what_nobody_measures() -> None:
    env = powergrid.make_central("ieee13_mg", telemetry=ROUGH)
    try:
        seen, _ = env.reset(seed=0)
        table = env.task.channels.table
        nodes = [c.name for c in table if c.name.endswith(".v_pu")]
        measured = [name for name in nodes if name.split(".")[1] in ROUGH["metered_buses"]]
        assert len(seen) == len(table) - len(nodes) + len(measured) == env.observation_space.shape[0]
        assert env.observation_space.contains(seen)
    finally:
        env.close()


def test_evaluation_and_replay_say_what_lies_between() -> None:
    block = {"metered_buses": ["671", "634"], "setpoints": {"field": {"loss": 0.05}},
             "readings": {"a": {"delay_minutes": 15, "delay_spread_minutes": 30, "accuracy": "pmu"}}}  # fmt: skip
    said = "2 metered buses; readings a (15 to 45 min late, noise 0.033 %); setpoints field (5 % lost)"
    keys = {"env_name": "ieee13_mg", "episode_length": 4, "telemetry": block}
    report = evaluate(keys, ["native"], days=1)
    assert report.notes[0] == f"telemetry: {said}"
    (recording,) = record_day(keys, ["native"], 171)
    assert recording.notes == (f"Telemetry: {said}.",)
    idle = evaluate(keys | {"telemetry": {}}, ["native"], days=1)
    assert not any("telemetry" in note for note in idle.notes)
    facts, no_facts = (
        describe_facts(load_scenario("ieee13_mg", {"telemetry": each}), 0, "")
        for each in (block, {"readings": {"a": {}}})
    )
    assert facts["telemetry"] == said
    assert no_facts == describe_facts(load_scenario("ieee13_mg"), 0, "")


# -- what cannot be


@pytest.mark.parametrize(
    ("telemetry", "keys", "told"),
    [
        ({"readings": {"a": {"every_minutes": 20}, "b": {"delay_minutes": 1440}}}, {},
         ["readings.a: every_minutes 20 is no multiple of step_minutes 15; take 15", "readings.b: a delay of 1440"]),
        ({"metered_buses": ["67", "671"]}, {}, ["telemetry.metered_buses: unknown bus '67' (did you mean '675' or"]),
        ({"metered_buses": [1.5]}, {}, ["metered_buses.0: input should be a valid string, not 1.5"]),
        ({"metered_buses": "671"}, {}, ["metered_buses: input should be a list, not '671'"]),
        ({"metered_buses": []}, {}, ["metered_buses: has none; give at least 1"]),
        ({"hops": 1}, {"mode": "centralized"}, ["telemetry.hops: goes with mode: 'distributed'"]),
        ({"readings": {"a": {"accuracy": "pmu", "noise": 0.1}}}, {}, ["accuracy 'pmu' and noise 0.1 both say"]),
        ({"readings": {"a": {"los": 0.1, "noise": -1}}}, {}, ["unknown key 'los' (did you mean 'loss'", "noise"]),
        ({"messages": {"m": {"sender": "MG3", "channels": ["*"]},
                       "n": {"sender": "MG1", "channels": ["ess_2.soc"]}}}, {},
         ["messages.m: unknown agent 'MG3'", "messages.n: unknown channel 'ess_2.soc' (did you mean 'ess_1.soc'"]),
        ({"readings": {"a": {"channels": ["ess_3.*"], "loss": 0.1}, "b": {}, "c": {}}, "metered_buses": ["671"],
          "setpoints": {"s": {"devices": ["tap"]}}}, {},
         ["no bus in the zone of agent 'MG2' is metered; add one of", "readings.a: unknown channel 'ess_3.*' (did you",
          "readings.c: other groups", "setpoints.s: unknown device 'tap'"]),
    ],
)  # fmt: skip
def test_impossible_block_is_told_with_all_its_problems(
    telemetry: Any, keys: Mapping[str, Any], told: Sequence[str]
) -> None:
    with pytest.raises(ScenarioError) as caught:
        make_task(telemetry, **keys)
    for each in told:
        assert each in str(caught.value)
    assert len(caught.value.problems) == len(told)
    assert all(problem.code for problem in caught.value.details) or "unknown key" in str(caught.value) or len(told) == 1
