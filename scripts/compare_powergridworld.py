"""Play the episode that PowerGridworld trains its three buildings on, as far as it is public, and print what it costs.

    python scripts/compare_powergridworld.py
    python scripts/compare_powergridworld.py --write FOLDER
    powergrid train FOLDER/replica.yaml --preset fast --seed 0 --minutes 9 --workers 0 --test-days 0
    python scripts/compare_powergridworld.py --draw curve.png runs/...

Its episode: 25 steps of five minutes from midnight of 12 August 2021 on, with its load shape of those hours and its
demand on the feeder shipped here. Its weather is in a file that is not text, so the episode is played at several
outdoor temperatures, without sun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
import yaml

from powergrid.envs.core import GridTask
from powergrid.grid.devices.building import DISCHARGE_C
from powergrid.scenario import Scenario, load_scenario

FloatArray = npt.NDArray[np.float64]

SCENARIO = Path(__file__).parents[1] / "docs" / "ieee13_buildings.yaml"
#: Hours 5352 to 5354 of its annual load shape, which are 12 August from midnight on, and its factor on them.
LOAD_SHAPE, LOAD_FACTOR = (0.561533044481651, 0.505017336757319, 0.47156793010996), 1.2
#: Its demand over that of the feeder shipped here, kW and kvar, by load; loads that it does not have are 0.
DEMAND = {
    "634c": (150 / 120, 110 / 90), "675b": (368 / 68, 250 / 60), "670c": (57 / 117, 28 / 68),
    "646": (0.0, 0.0), "692": (0.0, 0.0), "611": (0.0, 0.0), "652": (0.0, 0.0),
}  # fmt: skip
N_STEPS, STEPS_AN_HOUR = 25, 12


def make_profiles(days: int = 28) -> pd.DataFrame:
    """Return days that all begin as that one, so that a split has some: demand by load, night, a price of 0."""
    hours = np.minimum(np.arange(288) // STEPS_AN_HOUR, len(LOAD_SHAPE) - 1)
    # step k is solved with the load of its end
    demand = np.roll(np.array(LOAD_SHAPE)[hours], -1)
    columns: dict[str, Any] = {"time": pd.date_range("2021-08-02", periods=288 * days, freq="5min")}
    for name, (kw, kvar) in {"base": (1.0, 1.0), **{f"l{name}": both for name, both in DEMAND.items()}}.items():
        columns[f"demand_pu:{name}"] = np.tile(demand * kw, days)
        columns[f"demand_kvar_pu:{name}"] = np.tile(demand * kvar, days)
    return pd.DataFrame({**columns, "pv_pu": 0.0, "price_usd_per_kwh:time_of_use": 0.0})


def replicate(outdoor_c: float) -> Scenario:
    """Return the scenario of its training at an outdoor temperature."""
    classes = {**{name: f"l{name}" for name in DEMAND}, "*": "base"}
    weather = {f"office_{i}": {"outdoor_max_c": outdoor_c, "outdoor_range_k": 0.0} for i in (1, 2, 3)}
    return load_scenario(
        SCENARIO,
        {
            "episode_length": N_STEPS,
            "load_scale": LOAD_FACTOR,
            "profiles": {"source": make_profiles(), "load_classes": classes},
            "devices": weather,
        },
    )


def play(scenario: Scenario, act: Callable[[GridTask, int], FloatArray]) -> dict[str, float]:
    """Return the cost of an episode, its parts, and what the common node was outside the band, summed over steps."""
    task = GridTask(scenario)
    task.reset(0, np.random.default_rng(0))
    names = list(task.info_names)
    totals = dict.fromkeys(("cost", "energy", "comfort", "voltage", "v_sum", "v_min"), 0.0) | {"v_min": 2.0}
    node = task.simulation.network.nodes.index("675.3")
    for step in range(N_STEPS):
        task.action_buffer()[:] = act(task, step)
        task.step()
        infos = task.infos()[0]
        term = {name: infos[:, names.index(name)] for name in ("hvac_kwh", "discomfort_k2h", "connection_violation_pu")}
        totals["cost"] -= float(task.rewards.sum())
        totals["energy"] += 0.1 * term["hvac_kwh"].sum()
        totals["comfort"] += 0.8 * STEPS_AN_HOUR * term["discomfort_k2h"].sum()
        totals["voltage"] += 1e4 / 3 * term["connection_violation_pu"].sum()
        totals["v_sum"] += term["connection_violation_pu"][0]
        totals["v_min"] = min(totals["v_min"], float(task.simulation.snapshot.v_pu[0, node]))
    task.close()
    return totals


def thermostats(task: GridTask, step: int) -> FloatArray:
    """Leave all to itself: thermostats cool, batteries idle."""
    return task.simulation.neutral()


def least(task: GridTask, step: int) -> FloatArray:
    """Cool as little as there can be, and let batteries give as much as they can for the whole episode."""
    action, hours = task.simulation.neutral(), N_STEPS / STEPS_AN_HOUR
    for column, spec in enumerate(task.simulation.actions):
        if spec.name.startswith("flow"):
            action[:, column] = -1.0
        elif spec.name == "discharge":
            action[:, column] = 2.0 * (16.0 - DISCHARGE_C[0]) / (DISCHARGE_C[1] - DISCHARGE_C[0]) - 1.0
        elif spec.device.startswith("ess"):
            action[:, column] = min(1.0, (30.0 - 3.0) * 0.9 / hours / 15.0)
    return action


def draw(seed: int) -> Callable[[GridTask, int], FloatArray]:
    """Return a policy of random actions."""
    rng = np.random.default_rng(seed)
    return lambda task, step: rng.uniform(-1.0, 1.0, (1, len(task.simulation.actions)))


def write(folder: Path, outdoor_c: float = 25.0) -> None:
    """Write the scenario of its training and its days as files, with rewards of a size that learns well."""
    folder.mkdir(parents=True, exist_ok=True)
    make_profiles().to_csv(folder / "days.csv", index=False)
    data = replicate(outdoor_c).to_dict()
    data["profiles"]["source"] = "days.csv"
    data["reward"]["scale"] = 0.01
    (folder / "replica.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def draw_curves(runs: Sequence[Path], picture: Path) -> None:
    """Draw the total cost of an episode and the violation of the common node over episodes, as its figure 2 does."""
    figure, axes = plt.subplots(2, 1, figsize=(7, 5), sharex=True)
    for run in runs:
        rows = pd.read_csv(run / "progress.csv")
        axes[0].plot(rows["episodes"], -100.0 * rows["episode_return_mean"], label=run.name)
        axes[1].plot(rows["episodes"], rows["custom/connection_violation_pu"])
        last = rows.iloc[-1]
        print(f"{run.name}: {len(rows)} iterations, {last['episodes']:.0f} episodes, {last['time_s']:.0f} s, cost "
              f"{-100.0 * rows['episode_return_mean'].iloc[0]:.0f} -> {-100.0 * last['episode_return_mean']:.1f}, "
              f"violation {rows['custom/connection_violation_pu'].iloc[0]:.3f} -> "
              f"{last['custom/connection_violation_pu']:.4f} pu")  # fmt: skip
    axes[0].axhline(play(replicate(25.0), least)["cost"], color="0.5", linestyle="--", label="least cooling, by hand")
    axes[0].set(yscale="log", ylabel="cost of an episode")
    axes[1].set(xlabel="episodes of 25 steps", ylabel="outside the band,\nsum over steps [pu]")
    axes[0].legend(frameon=False)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def main(
    runs: Annotated[list[Path] | None, typer.Argument()] = None,
    write_to: Annotated[Path | None, typer.Option("--write")] = None,
    draw_to: Annotated[Path | None, typer.Option("--draw")] = None,
) -> None:
    """Print the table of docs/peers.md, write the scenario of the training, or draw trainings."""
    if write_to is not None:
        write(write_to)
        return
    if draw_to is not None:
        draw_curves(runs or [], draw_to)
        return
    rows = []
    for outdoor_c in (15.0, 20.0, 25.0, 30.0, 35.0):
        scenario = replicate(outdoor_c)
        for name, act in (("random", draw(0)), ("thermostats", thermostats), ("least", least)):
            rows.append({"outdoor_c": outdoor_c, "policy": name, **play(scenario, act)})
    print(pd.DataFrame(rows).round(4).to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
