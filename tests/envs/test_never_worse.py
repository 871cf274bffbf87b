"""A limit that hands devices back to the feeder's own controls: no step is worse than these would leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.envs import GridTask
from powergrid.evaluation import evaluate, record_day
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.opendss.export import export_day
from powergrid.evaluation.studies.report import report_days
from powergrid.grid.metrics import Metrics
from powergrid.scenario import load_scenario
from tests.envs.worlds import every_kind, shaky

LIMITED = {"never_worse_than": "native"}
#: How far sums over nodes and branches, and the worst of each, may differ between two solves of one state [pu].
NOTICED_PU = np.array([1e-4, 1e-3, 2e-5, 1e-3])[:, None]
MakeTask = Callable[..., GridTask]


@pytest.fixture
def make_task() -> Iterator[MakeTask]:
    """Make tasks and start a day in all of their environments; they are closed at the end."""
    made: list[GridTask] = []

    def make(source: Any, n_envs: int = 1, day: int = 99, **keys: Any) -> GridTask:
        made.append(task := GridTask(load_scenario(source, keys), n_envs))
        task.reset_all(range(n_envs), [np.random.default_rng([env, 5]) for env in range(n_envs)], {"day": day})
        return task

    yield make
    for task in made:
        task.close()


def native_of(source: Any, **keys: Any) -> dict[str, Any]:
    return dict(BASELINES["native"].overrides(load_scenario(source, keys)))


def steps(task: GridTask, seed: int | None, n_steps: int | None = None) -> Iterator[int]:
    """Play random actions, all that moves anywhere in its range, up to the end of the day; none without a seed."""
    rng = np.random.default_rng(seed)
    sizes = np.array([action.n for action in task.simulation.actions])
    for step in range(n_steps or task.simulation.options.horizon_steps):
        drawn = rng.random((task.n_envs, len(sizes)))
        random = np.where(sizes > 0, np.floor(drawn * sizes), 2.0 * drawn - 1.0)
        task.action_buffer()[:] = task.simulation.neutral() if seed is None else random
        task.step()
        yield step


def measure(metrics: Metrics) -> tuple[np.ndarray, np.ndarray]:
    """Return what is counted, nodes and branches, and by how much these are beyond their limits [pu]."""
    counted = np.array([metrics.violation_count, metrics.overload_count])
    farthest = metrics.violation_pu.max(axis=1), metrics.zone_loading_pu.max(axis=1).clip(min=1.0)
    return counted, np.array([metrics.violation_sum_pu, metrics.overload_sum_pu, *farthest])


@pytest.mark.parametrize(
    ("name", "day", "keys"),
    [
        ("ieee13_voltvar", 300, {}),
        ("ieee34_voltvar", 99, {}),
        ("ieee123_voltvar", 200, {}),
        ("ieee13_mg", 19, {}),  # whose regulators are no devices
        ("ieee13_voltvar", 56, {"devices.regulator_1.control": "opendss", "devices.capacitor_1": None}),
        ("ieee13_mg", 337, {"native_controls": True}),
    ],
)
def test_no_step_of_a_random_day_is_worse_than_the_feeder_s_own_controls(
    make_task: MakeTask, name: str, day: int, keys: dict[str, Any]
) -> None:
    native_keys = keys | native_of(name, **keys)
    limited, free, native = (make_task(name, day=day, **own) for own in (keys | LIMITED, keys, native_keys))
    nodes = np.zeros(3)
    for step, _, _ in zip(steps(limited, 1), steps(free, 1), steps(native, None), strict=True):
        counted, beyond_pu = measure(limited.metrics)
        theirs, theirs_pu = measure(native.metrics)
        assert np.all(counted <= theirs), (step, counted, theirs)
        assert np.all(beyond_pu <= theirs_pu + NOTICED_PU), (step, beyond_pu, theirs_pu)
        assert limited.simulation.snapshot.converged.all()
        nodes += [float(measure(task.metrics)[0][0, 0]) for task in (limited, free, native)]
    assert nodes[0] <= nodes[2] < nodes[1]  # without the limit the same actions are worse


def test_devices_that_are_handed_back_stand_where_the_own_controls_have_them_and_that_is_counted(
    make_task: MakeTask,
) -> None:
    task = make_task("ieee13_voltvar", release_steps=2, **LIMITED)
    native = make_task("ieee13_voltvar", **native_of("ieee13_voltvar"))
    told, column = task.simulation.handed_back, {name: i for i, name in enumerate(task.info_names)}
    assert told is not None
    left, handed_back = 0, 0
    free = np.array([spec.name == "world.handed_back_steps" for spec in task.channels.table]).nonzero()[0]
    for _, _ in zip(steps(task, 3), steps(native, None), strict=True):
        if told.active[0]:
            for mine, theirs in zip(task.simulation.circuits, native.simulation.circuits, strict=True):
                assert mine.taps.tolist() == theirs.taps.tolist()
                assert mine.steps_on.tolist() == theirs.steps_on.tolist()
            assert task.simulation.powers.p_kw.tolist() == [[0.0]]  # the battery idles
            assert task.simulation.snapshot.v_pu == pytest.approx(native.simulation.snapshot.v_pu, abs=1e-5)
        assert told.active[0] or not left  # still handed back
        left = int(told.steps_left[0, 0])
        assert task.channels.values[0, free].tolist() == [left]
        infos = task.infos()[0]
        assert infos[:, column["handed_back"]].tolist() == [float(told.active[0])] * len(task.agents)
        assert infos[:, column["handed_back_devices"]].sum() == told.changed[0].sum()
        handed_back += int(told.active[0])
    assert handed_back > 3


def test_what_counts_as_worse_can_be_voltages_or_loadings_alone() -> None:
    config, days = {"env_name": "ieee34_voltvar", **LIMITED}, 2
    native = evaluate(config, ["native"], days=days).frame
    both, of_voltages, of_loadings = (
        evaluate(config | {"never_worse_in": what}, ["rule_based"], days=days).frame
        for what in (["voltages", "loadings"], ["voltages"], ["loadings"])
    )
    assert np.all(of_voltages["violation_node_hours"] <= native["violation_node_hours"])
    assert np.all(of_loadings["overload_branch_hours"] <= native["overload_branch_hours"])
    assert of_loadings["violation_node_hours"].sum() > native["violation_node_hours"].sum()  # nobody minds
    assert of_loadings["handed_back"].sum() < both["handed_back"].sum()
    assert of_voltages["handed_back"].sum() <= both["handed_back"].sum()


def test_a_step_that_would_diverge_is_handed_back(make_task: MakeTask) -> None:
    task = make_task(shaky(), **LIMITED)
    task.action_buffer()[:] = 1.0  # all that the giant battery can give
    task.step()
    told = task.simulation.handed_back
    assert told is not None
    assert told.active.tolist() == [True]
    assert task.simulation.snapshot.converged.all()
    assert not task.terminated.any()
    assert task.simulation.setpoints.tolist() == np.zeros((2, 1, 2)).tolist()
    assert task.simulation.requested[0, 0, 0] == 60000.0  # what was asked is still told
    names = task.simulation.device_names
    assert dict(zip(names, told.changed[0].tolist(), strict=True)) == {"giant": 1.0, "small": 1.0}


def test_load_that_an_agent_would_cut_off_is_fed(make_task: MakeTask, tmp_path: Path) -> None:
    world = every_kind("ieee13", tmp_path)
    for keys, cut_off in (({}, True), (LIMITED, False)):
        task = make_task(world, day=40, **keys)
        action = task.simulation.neutral()
        action[:, [spec.device == "sw" for spec in task.simulation.actions]] = 0.0  # open
        task.action_buffer()[:] = action
        task.step()
        assert task.simulation.islands is not None
        assert bool(task.simulation.islands.total_unserved_kw()[0] > 1.0) is cut_off


@pytest.mark.parametrize("keys", [{}, {"native_controls": True, "devices.reg.control": "opendss"}])
def test_with_devices_that_remember_the_better_of_both_is_kept(
    make_task: MakeTask, tmp_path: Path, keys: dict[str, Any]
) -> None:
    world, events = every_kind("ieee13", tmp_path), {"out": {"kind": "line_outage", "element": "Line.671692"}}
    task = make_task(world, 2, day=40, events=events, reconfiguration={}, **keys, **LIMITED)
    told, n_steps = task.simulation.handed_back, 0
    assert told is not None
    for _ in steps(task, 2, 30):
        assert task.simulation.snapshot.converged.all()
        soc = next(fleet.soc for fleet in task.simulation.fleets if fleet.kind == "storage")
        assert np.all((soc >= 0.1 - 1e-9) & (soc <= 0.9 + 1e-9))
        n_steps += int(told.active.sum())
    assert n_steps > 0


def test_days_do_not_depend_on_how_many_play_and_when_they_start(make_task: MakeTask) -> None:
    pair, alone = (make_task("ieee13_voltvar", n, **LIMITED) for n in (2, 1))
    steady = [row.tolist() for row in play_rewards(alone, 12)]
    together = [row.tolist() for row in play_rewards(pair, 5)]
    pair.reset(0, np.random.default_rng(0), {"day": 120})  # the other one goes on
    together += [row.tolist() for row in play_rewards(pair, 7, first=5)]
    assert [row[1] for row in together] == [row[0] for row in steady]


def play_rewards(task: GridTask, n_steps: int, first: int = 0) -> Iterator[np.ndarray]:
    for step in range(first, first + n_steps):
        rng = np.random.default_rng([7, step])
        task.action_buffer()[:] = [np.floor(rng.random() * (spec.n or 1)) for spec in task.simulation.actions]
        task.step()
        yield task.rewards.copy()


def test_what_is_handed_back_stands_in_evaluations_recordings_and_notes() -> None:
    config = {"env_name": "ieee13_voltvar", **LIMITED}
    report = evaluate(config, ["native", "no_control", "random", "rule_based"], days=4)
    frame = report.frame.set_index("policy")
    devices = [f"handed_back:{name}" for name in load_scenario("ieee13_voltvar").devices]
    of_random = frame.loc["random"]
    assert set(devices) <= set(frame.columns)
    assert frame.loc[["native", "no_control"], ["handed_back", *devices]].isna().all(axis=None)  # no limit for these
    noticed = {"violation_node_hours": 0.0, "overload_branch_hours": 0.0, "violation_max_pu": 2e-5}
    for name in ("random", "rule_based"):  # also where agents are nearly as good
        for column, tolerance in noticed.items():
            assert np.all(frame.loc[name, column] <= frame.loc["native", column].to_numpy() + tolerance)
    assert of_random["handed_back"].min() > 0
    assert np.all(of_random[devices].max(axis=1) <= of_random["handed_back"])
    per_day = report.summary()["random"]["handed_back_per_day"]
    assert per_day == pytest.approx(of_random["handed_back"].mean())
    assert any(f"{per_day:.1f} steps a day" in note for note in report.notes)
    day = record_day(config, ["random"], day=int(of_random["day"].iloc[0]))[0]
    totals = day.totals()
    assert {name: totals[name] for name in ("handed_back", *devices)} == {
        name: of_random[name].iloc[0] for name in ("handed_back", *devices)
    }


def test_an_export_marks_the_steps(tmp_path: Path) -> None:
    exported = export_day({"env_name": "ieee13_voltvar", **LIMITED}, "rule_based", 99, tmp_path)
    marked = [line for line in (tmp_path / "Day.dss").read_text().splitlines() if "handed back" in line]
    assert [int(line.split()[2].rstrip(",")) for line in marked] == list(exported.day.handed_back)
    assert 0 < len(marked) < exported.day.n_steps
    assert f"in {len(marked)} of {exported.day.n_steps} steps" in "\n".join(exported.lines())


def test_reports_say_how_often_and_which_devices() -> None:
    limited = report_days({"env_name": "ieee13_voltvar", **LIMITED}, ["random"], days=2, against=["native"])
    told = limited.tables()["handed_back"]
    assert set(told["device"]) == set(load_scenario("ieee13_voltvar").devices)
    days = limited.days.query("policy == 'random'")
    assert told["steps_per_day"].tolist() == [days[f"handed_back:{name}"].mean() for name in told["device"]]
    said = f"handed back to the feeder's own controls in {days['handed_back'].mean():.1f} steps a day"
    assert any(said in str(sentence) for sentence in limited.verdicts()["random"])
    assert "Handed back to the feeder" in limited.as_html()
    free = report_days({"env_name": "ieee13_voltvar"}, ["random"], days=2, against=["native"])
    assert "handed_back" not in free.tables()
    assert not any("handed back" in str(sentence) for sentence in free.verdicts()["random"])


@pytest.mark.parametrize("face", ["networked", "central", "vector", "parallel"])
def test_every_environment_tells_it(face: str, request: pytest.FixtureRequest) -> None:
    maker = {"networked": "make_env", "central": "make_central", "vector": "make_vector", "parallel": "make_parallel"}
    limited, make = load_scenario("ieee13_voltvar", LIMITED).to_dict(), request.getfixturevalue(maker[face])
    env = make(limited, 2) if face == "vector" else make(limited)
    env.reset(seed=0)
    if face == "vector":
        assert "handed_back" in env.info_names
        return
    infos: Any = {}
    for _ in range(6):
        if face == "central":
            infos = env.step(env.action_space.sample())[-1]
        else:
            infos = env.step({agent: space.sample() for agent, space in env.action_spaces.items()})[-1]
    told = infos if face == "central" else next(iter(infos.values()))
    assert told["handed_back"] == 1.0


def test_a_scenario_without_the_limit_is_what_it_was() -> None:
    plain, limited = (load_scenario("ieee13_voltvar", keys) for keys in ({}, LIMITED))
    assert plain.digest() == load_scenario("ieee13_voltvar", {"release_steps": 3}).digest() != limited.digest()
    with pytest.raises(Exception, match="never_worse_than"):
        load_scenario("ieee13_voltvar", {"never_worse_than": "rule_based"})
