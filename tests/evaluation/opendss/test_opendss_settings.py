"""Settings of OpenDSS's own controls: they are found again where they were known, and what is lost is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from powergrid.cli import main
from powergrid.evaluation import evaluate
from powergrid.evaluation.opendss import Comparison, compare_settings, export_settings, play_alone
from powergrid.evaluation.opendss.curves import fit_band, fit_hours, fit_threshold, fit_volt_var, jump
from powergrid.evaluation.opendss.export import export_day


def test_volt_var_curve_is_found_again_from_what_it_did() -> None:
    rng = np.random.default_rng(0)
    v = rng.uniform(0.94, 1.06, 4000)
    q = np.interp(v, [0.96, 0.99, 1.01, 1.04], [0.44, 0.0, 0.0, -0.44])
    curve = fit_volt_var(v, q + rng.normal(0.0, 0.01, v.shape))
    assert (np.diff(curve.v_pu) > 0).all()
    assert (np.diff(curve.q_pu) <= 0).all()
    asked = np.array([0.96, 1.0, 1.03])
    told = np.interp(asked, curve.v_pu, curve.q_pu)
    assert told == pytest.approx(np.interp(asked, [0.96, 0.99, 1.01, 1.04], [0.44, 0.0, 0.0, -0.44]), abs=0.06)
    assert curve.explained > 0.97


def test_reactive_power_that_rises_with_voltage_becomes_its_mean() -> None:
    v = np.linspace(0.95, 1.05, 200)
    curve = fit_volt_var(v, (v - 1.0) * 4.0)
    assert curve.q_pu == pytest.approx(0.0, abs=1e-9)
    assert curve.explained == pytest.approx(0.0, abs=1e-9)


def test_band_with_compensation_is_found_again() -> None:
    rng = np.random.default_rng(1)
    amps = rng.uniform(0.0, 300.0, 2000)
    volts = 120.0 + 0.02 * amps + rng.uniform(-1.0, 1.0, amps.shape)
    found = fit_band(volts, amps, np.zeros_like(amps), 0.75)
    assert found.r == pytest.approx(0.02, rel=0.05)
    assert found.vreg == pytest.approx(120.0, abs=0.2)
    assert found.band == pytest.approx(1.8, abs=0.1)
    assert fit_band(volts - 0.02 * amps, amps, np.zeros_like(amps), 0.75).r == 0.0


@pytest.mark.parametrize("kind", ["voltage", "kvar"])
def test_thresholds_of_a_bank_that_moves_what_it_measures_are_found_again(kind: str) -> None:
    rng = np.random.default_rng(2)
    sign, effect = (1.0, 1.5) if kind == "voltage" else (-1.0, 100.0)
    on, off = (118.0, 123.0) if kind == "voltage" else (150.0, -60.0)
    low, high = (114.0, 126.0) if kind == "voltage" else (-250.0, 250.0)
    signal, states = [], []
    for _ in range(6):
        bare = np.clip(np.cumsum(rng.normal(0.0, (high - low) / 20, 200)) + (low + high) / 2, low, high)
        state, did = 0, []
        for value in bare:
            now = value + sign * effect * state
            state = (
                int(now < on if not state else now <= off) if sign > 0 else int(now > on if not state else now >= off)
            )
            did.append(state)
        states.append(np.array(did))
        signal.append(bare + sign * effect * np.array(did))
    found = fit_threshold(kind, signal, states, [0] * 6, effect)
    assert found.agreed > 0.9
    assert abs(sign * jump(signal, states) - effect) < (high - low) / 10


def test_hours_of_a_clock_are_found_again() -> None:
    hours = [(np.arange(96) + 1.0) / 4.0 % 24.0] * 2
    states = [((each >= 17) & (each < 22)).astype(np.int64) for each in hours]
    found = fit_hours(hours, states)
    assert (found.on, found.off, found.agreed) == (17.0, 22.0, 1.0)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare_settings({"env_name": "ieee13_voltvar"}, "native", 2)


def test_settings_of_a_feeders_own_regulators_act_nearly_as_they_do(compared: Comparison) -> None:
    assert set(compared.settings.fits) == {"battery_1", "regulator_1", "regulator_2", "regulator_3"}
    assert "on in all steps" in compared.settings.left["capacitor_1"]
    assert not set(compared.fitted) & set(compared.told)
    assert compared.apart_pu() < 0.02
    moves = compared.totals()["moves"]
    assert moves["settings"] == pytest.approx(moves["policy"], rel=0.5)


def test_table_says_of_the_policy_what_an_evaluation_says(compared: Comparison) -> None:
    # Days are chosen alike, and the engine's own numbers are those of the environment.
    row = evaluate({"env_name": "ieee13_voltvar"}, ["native"], days=2).frame
    told = compared.frame[compared.frame["player"] == "policy"]
    assert told["date"].tolist() == row["date"].tolist()
    assert told["node_hours_outside"].tolist() == pytest.approx(row["violation_node_hours"].tolist())
    assert told["moves"].tolist() == row["operations"].tolist()
    assert told["losses_kwh"].to_numpy() == pytest.approx(row["losses_kwh"].to_numpy(), rel=1e-3)
    assert told["import_kwh"].to_numpy() == pytest.approx(row["import_kwh"].to_numpy(), rel=1e-3)
    difference = compared.totals()["node_hours_outside"]
    assert f"{difference['settings']:.1f} node-hours outside" in compared.sentence()


def test_written_settings_are_what_was_told(tmp_path: Path) -> None:
    config = {"env_name": "ieee13_mg", "profiles": {"source": "builtin"}}
    day = export_day(config, "rule_based", None, tmp_path).day
    found, files = export_settings(config, "rule_based", day, tmp_path / "fitted", 1)
    played = play_alone(tmp_path / "fitted")
    assert played.converged.all()
    assert {file.name for file in files} >= {"Master.dss", "Settings.dss", "Sun.dss", "comparison.csv"}
    assert "InvControl.powergrid_ess_1" in (tmp_path / "fitted" / "Settings.dss").read_text()
    # The day written is the day told, of one day in the test split.
    if day.date in found.told:
        told = found.frame[found.frame["player"] == "settings"].set_index("date").loc[day.date]
        assert played.losses_kw.sum() * day.step_minutes / 60.0 == pytest.approx(told["losses_kwh"], rel=1e-6)


def test_command_prints_difference_and_refuses_what_does_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "no_control", "ieee13_mg", "--opendss", "--day", "20", "--out", str(tmp_path), "--verify"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "OpenDSS alone gives the same voltages within" in said
    with pytest.raises(SystemExit) as ended:
        main(["export", "no_control", "ieee13_mg", "--day", "20"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(["export", "no_control", "--opendss"])
    assert ended.value.code == 1
    assert "name one after it" in capsys.readouterr().err
