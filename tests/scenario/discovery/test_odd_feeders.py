"""Feeders in every style: each becomes environments, pictures and files, or says what is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import powergrid
from powergrid.check import check_feeder
from powergrid.cli import main
from powergrid.errors import FeederError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.grid.circuit.circuit import Circuit, network_of
from powergrid.grid.feeder.feeder import read_feeder
from powergrid.scenario import load_scenario, write_scenario
from powergrid.scenario.discovery import LAYOUTS
from tests.scenario.discovery.odd_feeders import FEEDERS, SYNTAX, write_feeder

BARE = "least"
CONTROLLED = [name for name in FEEDERS if name != BARE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with blanks and letters beyond ASCII in its name."""
    return tmp_path / "modèle x"


def play(master: Path, steps: int, **keys: Any) -> Mapping[str, Any]:
    """Play random actions, reset to the same start and play the first of them again."""
    with_env = powergrid.make(master, **keys)
    try:
        trials: list[list[float]] = []
        lowest: list[float] = []
        diverged = 0
        for length in (steps, 3):
            with_env.reset(seed=3)
            for agent in with_env.possible_agents:
                with_env.action_space(agent).seed(1)
            totals = []
            for _ in range(length):
                actions = {agent: with_env.action_space(agent).sample() for agent in with_env.agents}
                observations, rewards, terminations, _, infos = with_env.step(actions)
                diverged += any(terminations.values())
                for agent, seen in observations.items():
                    assert with_env.observation_space(agent).contains(seen)
                totals.append(sum(rewards.values()))
                lowest.append(float(next(iter(infos.values()))["network_v_min_pu"]))
            trials.append(totals)
        again = pickle.loads(pickle.dumps(with_env))
        again.close()
        return {"diverged": diverged, "lowest": min(lowest), "rewards": trials}
    finally:
        with_env.close()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CONTROLLED)
def test_odd_feeder_plays_96_random_steps_and_resets(name: str, layout: str, folder: Path) -> None:
    played = play(write_feeder(name, folder), 96, agents=layout)
    assert played["diverged"] == 0
    assert played["lowest"] > 0.7  # neither a neutral nor a node that nothing feeds counts as a voltage
    first, second = played["rewards"]
    # The slip of an induction machine is the engine's own and is not set back.
    assert second == (pytest.approx(first[:3], rel=1e-6) if name == "six_wires" else first[:3])


@pytest.mark.parametrize("name", FEEDERS)
def test_odd_feeder_with_added_der_and_every_switch_plays(name: str, folder: Path) -> None:
    master = write_feeder(name, folder)
    assert play(master, 24, agents="per_device", add_der={"penetration": 0.5})["diverged"] == 0
    assert play(master, 24, agents="per_zone", discover={"switches": "all", "flexible_loads": 3})["diverged"] == 0


@pytest.mark.parametrize("name", CONTROLLED)
def test_odd_feeder_is_evaluated_described_drawn_and_written(name: str, folder: Path, tmp_path: Path) -> None:
    master = write_feeder(name, folder)
    before = sorted(file.name for file in folder.rglob("*"))
    assert len(evaluate({"feeder": str(master)}, ["no_control", "native", "rule_based", "random"], days=1).frame) == 4
    for options in (
        (), ("--draw", tmp_path / "a.svg", "--profile", tmp_path / "b.png"),
        ("--agents", "per_zone", "--draw", tmp_path / "c.png"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main(["describe", str(master), *map(str, options)])
        assert left.value.code == 0
    written = write_scenario(load_scenario(str(master)), tmp_path / "mine.yaml")
    assert load_scenario(str(written)).model_dump() == load_scenario(str(master)).model_dump()
    assert sorted(file.name for file in folder.rglob("*")) == before


@pytest.mark.parametrize("name", FEEDERS)
def test_odd_feeder_is_found_usable_without_false_alarms(name: str, folder: Path) -> None:
    report = check_feeder(write_feeder(name, folder))
    assert report.exit_code() == 0, [finding.message for finding in report.errors]
    assert not report.of_code("base-kv")
    assert not report.of_code("unknown-name")


@pytest.mark.parametrize("name", FEEDERS)
def test_every_control_of_an_odd_feeder_finds_what_it_moves(name: str, folder: Path) -> None:
    network = network_of(read_feeder(write_feeder(name, folder)))
    assert all(control.targets for control in network.controls)
    regulated = {control.targets[0] for control in network.controls if control.class_name == "RegControl"}
    assert regulated == {f"regcontrol.{each}" for each in network.regulator_controls}
    devices = load_scenario(str(folder / "Master.dss")).devices.values() if name != BARE else ()
    assert regulated <= {str(spec.element).lower() for spec in devices}


def test_feeder_of_one_bus_says_what_to_add(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="--add-der"):
        powergrid.make(write_feeder(BARE, folder))


def test_neutral_conductors_are_no_violations(folder: Path) -> None:
    for name, expected in (("rural", 8), ("europe", 7), ("six_wires", 1)):
        circuit = Circuit(read_feeder(write_feeder(name, folder / name)))
        network = circuit.network
        circuit.close()
        assert len(network.neutrals) == expected
        assert (network.node_phase[network.neutrals] >= 4).all()
    env = powergrid.make(folder / "europe" / "Master.dss", agents="single")
    try:
        env.reset(seed=0)
        assert env.task.metrics.violation_count.tolist() == [0.0]
        assert env.task.metrics.v_min_pu[0] > 0.95
        assert not np.isin(env.task.metrics.worst_node, env.task.simulation.network.neutrals).any()
    finally:
        env.close()


def test_added_device_returns_by_the_neutral_where_loads_do(folder: Path) -> None:
    env = powergrid.make(write_feeder("rural", folder), add_der={"penetration": 0.5, "sites": 3}, agents="single")
    try:
        env.reset(seed=0)
        direct = env.task.simulation.circuits[0].engine.direct
        added = [name for name in direct.Circuit.AllElementNames() if ".powergrid_" in name]
        buses = []
        for name in added:
            direct.Circuit.SetActiveElement(name)
            buses += direct.CktElement.BusNames()
        assert buses
        assert all(bus.endswith(".4") for bus in buses)
    finally:
        env.close()


def test_capacitor_to_the_neutral_of_its_own_bus_is_no_series_capacitor(folder: Path) -> None:
    for name, device in (("rural", "cap_pfc"), ("six_wires", "cap_ung")):
        assert device in load_scenario(str(write_feeder(name, folder / name))).devices
    assert "cap_ser" not in load_scenario(str(write_feeder("planning", folder / "planning"))).devices


def test_sensor_with_powers_keeps_them_and_the_engine_alive(folder: Path) -> None:
    feeder = read_feeder(write_feeder("planning", folder))
    circuit = Circuit(feeder)
    direct = circuit.engine.direct
    direct.Sensors.Name("s1")
    assert direct.Text.Command("? Sensor.s1.kWs") is None
    assert [float(kw) for kw in direct.Text.Result().strip("[]() ").replace(",", " ").split()] == [1000.0] * 3
    circuit.close()


def test_quoted_names_with_blanks_are_not_called_disabled(folder: Path) -> None:
    report = check_feeder(write_feeder("names", folder))
    assert not report.of_code("disabled")


def test_refused_command_is_told_on_one_line(folder: Path) -> None:
    master = write_feeder("syntax", folder)
    master.write_text(SYNTAX.replace("(4.16 3 sqrt /) 40", "(4.16 3 squirt /) 40"))
    with pytest.raises(FeederError) as told:
        powergrid.make(master)
    (problem,) = told.value.problems
    assert "squirt" in problem
    assert "\n" not in problem
