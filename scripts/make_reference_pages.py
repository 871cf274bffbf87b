"""Write the tables of docs/devices.md and docs/metrics.md: keys of devices, and every metric with unit and meaning.

Text between ``<!-- begin: name -->`` and ``<!-- end: name -->`` is replaced, all else is left as it is. A metric that
the code has and this file does not explain, or the other way round, is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from make_environment_page import describe, describe_default, describe_type, fill_page, write_table

from powergrid.envs.core import ISLAND_METRICS
from powergrid.evaluation import evaluate
from powergrid.grid.devices import SPECS
from powergrid.training.rllib.metrics import RETURN_ALIAS, over_episode
from powergrid.training.runs.records import LEARNER_METRICS, REPLAY_METRICS, RUNNER_METRICS

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLE = "ieee13_voltvar"

TRAINING: dict[str, tuple[str, str]] = {
    "iteration": ("iterations", "iterations done; in `progress.csv` only"),
    "time_s": ("s", "time trained, also before a resume"),
    "env_steps": ("steps", "environment steps sampled; what TensorBoard shows the others against"),
    "env_steps_per_s": ("steps/s", "environment steps of the iteration over its time"),
    "episodes": ("episodes", "episodes finished, also before a resume"),
    "episode_return_mean": ("reward", "return summed over agents, mean of the newest 100 episodes"),
    "episode_return_min": ("reward", "the lowest of them"),
    "episode_return_max": ("reward", "the highest of them"),
    "episode_len_mean": ("steps", "length of those episodes"),
    RETURN_ALIAS: ("reward", "`episode_return_mean`, as earlier versions of RLlib name it"),
    "agent_return/<agent>": ("reward", "the return of one agent, mean of those episodes"),
    "policy_loss": ("", "loss of the policy; mean over policies, as all down to `lr`"),
    "vf_loss": ("reward²", "loss of the value function"),
    "entropy": ("nat", "entropy of the actions' distribution: how much is explored"),
    "kl": ("nat", "divergence of the new policy from that which sampled"),
    "vf_explained_var": ("at most 1", "part of the returns' variance that the value function explains"),
    "lr": ("", "learning rate"),
    "qf_loss": ("", "loss of the Q networks; SAC and DQN"),
    "qf_mean": ("reward", "mean value of the actions in the batch; SAC and DQN"),
    "alpha": ("reward/nat", "weight of the entropy; SAC"),
    "<policy>/<name>": ("", "the same of one policy, where there are several"),
    "env_step_failures": ("failures", "how often environments raised and were made anew"),
    "env_runners": ("processes", "sampling processes at work"),
    "env_runner_losses": ("losses", "how often one was lost since the start or the resume"),
    "env_runner_restarts": ("restarts", "how often one came back since then"),
    "custom/<name>": ("", "an info over an episode (above), mean of the agents that report it and of 100 episodes"),
    "custom/<agent>/<name>": ("", "the same of one agent"),
    "validation/episode_return_mean": ("reward", "return without exploration, mean of the validation episodes"),
    "validation/<name>": ("", "an info over those episodes, mean of the agents; in iterations that validate"),
    "validation/<agent>/<name>": ("", "the same of one agent"),
}
EVALUATION: dict[str, tuple[str, str]] = {
    "policy": ("text", "who played"),
    "day": ("days", "day of the profiles, from their first"),
    "date": ("date", "that day's"),
    "hours": ("h", "time played"),
    "finished": ("true or false", "whether it was played to the end without divergence"),
    "reward": ("reward", "sum over the episode, mean over agents"),
    "reward:<agent>": ("reward", "that of one agent"),
    "cost_usd": ("USD", "money of all agents: energy bought less energy sold, fuel and starts, wear"),
    "violation_node_hours": ("node-h", "nodes outside the band, summed over time"),
    "violation_share": ("0 to 1", "part of all nodes and steps outside the band"),
    "violation_max_pu": ("pu", "farthest that a node came outside the band"),
    "worst_node": ("text", "the node that came farthest outside, or nearest to it"),
    "v_min_pu": ("pu", "lowest voltage of any node"),
    "v_max_pu": ("pu", "highest voltage of any node"),
    "overload_branch_hours": ("branch-h", "branches above their normal rating, summed over time"),
    "loading_max_pu": ("pu", "highest loading of any branch"),
    "import_kwh": ("kWh", "energy from the source, exports subtracted"),
    "import_peak_kw": ("kW", "its highest step"),
    "unbalance_max_pu": ("pu", "highest negative over positive sequence voltage of a three-phase bus"),
    "storage_cycles": ("cycles", "equivalent full cycles, mean over batteries"),
    "operations": ("positions", "moves of all switchgear, the feeder's own included"),
    "converged_share": ("0 to 1", "part of the steps whose power flow converged"),
    "projection_kwh": ("kWh", "how far setpoints were moved to be feasible, summed over devices and time"),
    "projection_kvarh": ("kvarh", "the same of reactive power"),
}


def make_device(kind: str) -> str:
    """Write the keys of a kind of device."""
    fields = [(name, info) for name, info in SPECS[kind].model_fields.items() if name != "kind"]
    rows = ((f"`{n}`", describe_type(f.annotation), describe_default(f), f.description or "") for n, f in fields)
    return write_table(("key", "value", "default", "meaning"), rows)


def make_step() -> str:
    """Write every number in infos: the reward's terms and all else."""
    table = describe().infos
    rows = [(row["name"], row["unit"], row["meaning"]) for row in table.to_dict("records")]
    rows += [(name, unit, f"{text}; where there are switches") for name, unit, text in ISLAND_METRICS]
    return write_table(
        ("name", "unit", "over an episode", "meaning"),
        ((f"`{name}`", unit, over_episode(name), text) for name, unit, text in rows),
    )


def make_training() -> str:
    """Write the names in ``progress.csv`` and TensorBoard, with RLlib's own where it has one."""
    theirs = {name: f"`env_runners/{name}`" for name in RUNNER_METRICS}
    theirs |= {name: f"`learners/<policy>/{each}`" for name, each in {**LEARNER_METRICS, **REPLAY_METRICS}.items()}
    _match("training", theirs, set(TRAINING), also=True)
    rows = ((f"`{name}`", unit, text, theirs.get(name, "")) for name, (unit, text) in TRAINING.items())
    return write_table(("name", "unit", "meaning", "RLlib's name"), rows)


def make_evaluation() -> str:
    """Write the columns of an evaluation, read from a real one."""
    frame = evaluate({"env_name": EXAMPLE}, ["no_control"], split="test", days=1).frame
    terms = {row["term"]: (row["unit"], row["meaning"]) for row in describe().rewards.to_dict("records")}
    told = {
        **EVALUATION,
        **{name: (unit, f"{text}; summed over steps and agents") for name, (unit, text) in terms.items()},
    }
    columns = dict.fromkeys("reward:<agent>" if name.startswith("reward:") else name for name in frame.columns)
    _match("evaluation", columns, told)
    return write_table(("column", "unit", "meaning"), ((f"`{name}`", *told[name]) for name in columns))


def _match(what: str, found: Iterable[str], told: Iterable[str], *, also: bool = False) -> None:
    """Refuse a metric that is not explained and, but for ``also``, an explanation without a metric."""
    missing, idle = set(found) - set(told), set() if also else set(told) - set(found)
    if missing or idle:
        raise ValueError(f"{what}: explain {sorted(missing)}, and drop {sorted(idle)}")


PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "devices.md": {kind: partial(make_device, kind) for kind in SPECS},
    "metrics.md": {"step": make_step, "training": make_training, "evaluation": make_evaluation},
}


def main() -> int:
    """Write the pages, or with ``--check`` only tell whether they are in sync."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where a page is out of date")
    check, status = parser.parse_args().check, 0
    for name, sections in PAGES.items():
        old = (DOCS / name).read_text(encoding="utf-8")
        new = fill_page(old, sections)
        status |= int(check and new != old)
        if not check:
            (DOCS / name).write_text(new, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
