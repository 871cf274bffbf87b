"""Train on a scenario with several seeds and tell how nodes outside range A and moves compare with its own controls.

What ``docs/results.md`` says of volt-var scenarios is what this prints, as a table in Markdown: means over days of the
test split, and differences from ``native`` paired by day, each with its 95 % interval (Student's t). A run that is
there already is not trained again, so that a call that was stopped goes on with the next one.

Usage::

    python scripts/record_voltvar.py ieee13_voltvar ieee34_voltvar ieee123_voltvar --seeds 0 1 2 --out runs
    python scripts/record_voltvar.py path/to/Master.dss --goal taps --days 63
    python scripts/record_voltvar.py ieee13_voltvar --seeds --search

``--search`` adds what a search gets that tries moves in every step, on the very state and demand of that step, and
takes those that gain most in its reward: no forecast, no batteries, but a perfect model. Where it moves less and keeps
more in the band than ``native``, so can a policy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from powergrid.envs.core import GridTask
from powergrid.errors import PowerGridError
from powergrid.evaluation import confidence_interval, evaluate, play_days
from powergrid.evaluation.report import as_markdown
from powergrid.scenario import scenario_from_config
from powergrid.training import load_policy, train

BASELINES = ["native", "no_control", "rule_based"]
#: Columns of an evaluation, what they are called, and how many decimals they have.
MEASURES = {
    "violation_node_hours": ("node-h outside", 1),
    "operations": ("moves", 1),
    "losses_kwh": ("losses, kWh", 0),
    "storage_cycles": ("battery cycles", 2),
}
#: Those whose difference from the feeder's own controls is told.
COMPARED = ("violation_node_hours", "operations")


def main() -> None:
    """Train what is not trained yet, evaluate, and print a table for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", help="scenarios or feeders, by name or file")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--days", type=int, default=63, help="days of the test split")
    parser.add_argument("--goal", help="aim by name; the scenario's own weights if unset")
    parser.add_argument("--search", action="store_true", help="add the search of each step")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    for scenario in asked.scenarios:
        env_config: dict[str, Any] = {"env_name": scenario}
        if asked.goal:
            env_config["reward.goal"] = asked.goal
        runs = [train_once(env_config, Path(scenario).stem, seed, asked.iterations, asked.out) for seed in asked.seeds]
        print(tell(env_config, runs, asked.days, search=asked.search), flush=True)


def train_once(env_config: dict[str, Any], name: str, seed: int, iterations: int, out: Path) -> Path:
    """Return the folder of a run, trained now unless it is there."""
    folder = out / f"{name}-{seed}"
    if not (folder / "checkpoints" / "best").is_file():
        train(env_config, {"seed": seed, "iterations": iterations}, out_dir=out, name=folder.name)
    return folder


class StepSearch:
    """Move by what gains most in the reward of the step to come, tried on copies of one environment.

    Every environment of the task is in the same state; each tries another move, and all play what was found.
    """

    def __init__(self, task: GridTask) -> None:
        moves = find_moves(task)
        self._places = np.array([place for place, _ in moves])
        self._by = np.array([by for _, by in moves], dtype=float)
        self._most = np.array([task.simulation.actions[place].n - 1 for place in self._places])

    def reset(self, task: GridTask, env: int) -> None:
        """Nothing to get ready."""

    def act(self, task: GridTask) -> npt.NDArray[np.float64]:
        """Return the actions found, the same for all environments, shape (n_envs, n_actions)."""
        state, tried = task.state(), np.arange(1, task.n_envs)
        chosen = task.simulation.neutral()
        while True:
            actions = chosen.copy()
            actions[tried, self._places] += self._by
            wanted = actions[tried, self._places]
            possible = np.concatenate([[True], (wanted >= 0) & (wanted <= self._most)])
            actions = np.where(possible[:, None], actions, chosen)
            task.action_buffer()[:] = actions
            task.step()
            gained = np.where(possible & ~task.terminated, task.rewards.mean(axis=1), -np.inf)
            task.restore(state)
            best = int(gained.argmax())
            if gained[best] <= gained[0] + 1e-9:  # the first has tried nothing
                return chosen
            chosen = np.tile(actions[best], (task.n_envs, 1))


def find_moves(task: GridTask) -> list[tuple[int, int]]:
    """Return what may be tried: the place of each switchgear's action, and by how many positions it moves."""
    places = [i for i, spec in enumerate(task.simulation.actions) if spec.name in ("steps_on", "tap", "closed")]
    return [(i, by) for i in places for by in ((-1, 1) if task.simulation.actions[i].n == 2 else (-3, -2, -1, 1, 2, 3))]


def search_days(env_config: dict[str, Any], days: list[int]) -> pd.DataFrame:
    """Return what the search comes to on each day, as rows of an evaluation."""
    scenario = scenario_from_config({**env_config, "split": "test"})
    probe = GridTask(scenario)
    copies = len(find_moves(probe)) + 1
    probe.close()
    task = GridTask(scenario, copies)
    rows = [play_days(task, StepSearch(task), [day] * copies)[0] for day in days]
    task.close()
    return pd.DataFrame({"policy": "search", **row} for row in rows)


def tell(env_config: dict[str, Any], runs: list[Path], days: int, *, search: bool = False) -> str:
    """Return the table of what runs and baselines come to on the same days."""
    players: list[Any] = [*BASELINES, *((run.name, load_policy(run)) for run in runs)]
    report = evaluate(env_config, players, split="test", days=days)
    frame = report.frame
    if search:
        frame = pd.concat([frame, search_days(env_config, frame["day"].drop_duplicates().tolist())])
    by_policy = dict(tuple(frame.groupby("policy", sort=False)))
    native = by_policy["native"].set_index("day")
    if not frame["finished"].all():
        raise PowerGridError("a day diverged; its sums are those of fewer hours, and nothing can be compared with them")
    heads = ["policy"]
    for column, (head, _) in MEASURES.items():
        heads += [head, "less native's"] if column in COMPARED else [head]
    rows = []
    for name, played in by_policy.items():
        row, own = [str(name)], played.set_index("day")
        for column, (_, decimals) in MEASURES.items():
            row.append(f"{own[column].mean():.{decimals}f}")
            if column in COMPARED:
                mean, half = confidence_interval(own[column] - native[column])
                row.append("" if name == "native" else f"{mean:+.{decimals}f} ± {half:.{decimals}f}")
        rows.append(row)
    return f"{env_config['env_name']}, {len(native)} test days, a day:\n\n{as_markdown(heads, rows, 1)}"


if __name__ == "__main__":
    main()
