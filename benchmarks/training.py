"""Compare training by powergrid with training by RLlib alone: environment steps per second of whole PPO iterations.

Three comparisons, each of which says what differs:

* page: the hyper-parameters of the Training page, RLlib's own PPOConfig against powergrid's runner and learner.
* best: powergrid's defaults against the best stock runners that can be found here, same network and optimisation.
* return: the time until the policy beats `rule_based` (``--to-return``; long).

Usage: python benchmarks/training.py [SCENARIO] [--only page best] [--rounds N]
       python benchmarks/training.py [SCENARIO] --to-return [--seeds N] [--stock-limit-s S] [--limit-s S]
       python benchmarks/training.py [SCENARIO] --curves [--seeds N] [--iterations N]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common import machine_line
from powergrid.evaluation import evaluate
from powergrid.scenario import as_env_config
from powergrid.training.policies.export import policy_of_algorithm
from powergrid.training.rllib.config import ppo_config
from powergrid.training.rllib.planning.env_config import default_env
from powergrid.training.rllib.planning.facts import probe_env
from powergrid.training.rllib.planning.policies import policy_names
from powergrid.training.runs.session import RaySession, build_algorithm, ray_session
from powergrid.training.runs.settings import TrainSettings, make_settings

PAGE_PROCESSES, PAGE_FRAGMENT = 4, 200
#: What the page leaves to RLlib, under powergrid's names.
RLLIB_DEFAULTS: dict[str, Any] = {
    "hidden": (256, 256),
    "use_kl_loss": True,
    "vf_loss_coeff": 1.0,
    "free_log_std": False,
}
#: Settings that go by RLlib's own names.
SAME_NAMES = (
    "lr", "minibatch_size", "num_epochs", "gamma", "lambda_", "clip_param", "vf_loss_coeff", "entropy_coeff",
    "use_kl_loss", "kl_coeff", "kl_target", "grad_clip",
)  # fmt: skip


def stock_config(
    scenario: str, settings: TrainSettings, runners: int, envs: int, fragment: int | str, seed: int = 0
) -> Any:
    """Return RLlib's own PPOConfig, runner, learner and network; of powergrid there is only the environment."""
    from ray.rllib.algorithms.ppo import PPOConfig

    env, env_config = default_env(), as_env_config(scenario)
    facts = probe_env(env, env_config)
    policy_of = policy_names("shared", facts.agents)
    same = {name: getattr(settings, name) for name in SAME_NAMES}
    if same["entropy_coeff"] is None:  # what suits the scenario's actions
        same["entropy_coeff"] = own_config(scenario).entropy_coeff
    (name,), agent = set(policy_of.values()), facts.agents[0]
    config: Any = PPOConfig()
    return (
        config.environment(env, env_config=env_config, disable_env_checking=True)
        .multi_agent(
            policies={name: (None, facts.observation_spaces[agent], facts.action_spaces[agent], {})},
            policy_mapping_fn=lambda agent_id, *args, **kwargs: "grid_policy",
        )
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=envs,
            rollout_fragment_length=fragment,
            num_cpus_per_env_runner=0,  # so that two algorithms find their processors, and take turns on them
            sample_timeout_s=settings.sample_timeout_s,
        )
        .rl_module(
            model_config={
                "fcnet_hiddens": list(settings.hidden),
                "fcnet_activation": settings.activation,
                "free_log_std": settings.free_log_std,
                "vf_share_layers": False,
            }
        )
        .training(
            train_batch_size_per_learner=settings.train_batch_size,
            vf_clip_param=math.inf if settings.vf_clip_param is None else settings.vf_clip_param,
            **same,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def own_config(scenario: str, **settings: Any) -> Any:
    """Return powergrid's configuration; its processes take turns with the stock ones."""
    config: Any = ppo_config(scenario, **settings)
    return config.env_runners(num_cpus_per_env_runner=0)


def iterate(algorithm: Any) -> tuple[float, float, float]:
    """Train one iteration; give environment steps per second, and the parts of sampling and learning in its time."""
    start = time.perf_counter()
    result = algorithm.train()
    took = time.perf_counter() - start
    timers = result["timers"]
    steps = float(result["env_runners"]["num_env_steps_sampled"])
    sampling, learning = (float(timers[f"{name}_timer"]) for name in ("env_runner_sampling", "learner_update"))
    return steps / took, sampling / took, learning / took


def measure(configs: Mapping[str, Any], rounds: int, warm_up: int = 1) -> dict[str, list[tuple[float, float, float]]]:
    """Train every configuration an iteration in turn, so that a drifting machine meets all alike."""
    algorithms = {name: build_algorithm(config, RaySession(None)) for name, config in configs.items()}
    try:
        for _ in range(warm_up):
            for algorithm in algorithms.values():
                iterate(algorithm)
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in algorithms}
        for _ in range(rounds):
            for name, algorithm in algorithms.items():
                taken[name].append(iterate(algorithm))
        return taken
    finally:
        for algorithm in algorithms.values():
            algorithm.stop()


def print_rows(title: str, taken: Mapping[str, Sequence[tuple[float, float, float]]], against: str) -> None:
    """Print one comparison: steps per second, where an iteration goes, and the ratio to one of the rows."""
    print(f"\n{title}\n{'':56s} {'steps/s':>8s} {'sampling':>9s} {'learning':>9s} {'ratio':>6s}")
    for name, rows in taken.items():
        speed, sampling, learning = (statistics.median(row[i] for row in rows) for i in range(3))
        ratio = statistics.median(a[0] / b[0] for a, b in zip(rows, taken[against], strict=True))
        print(f"{name:56s} {speed:8.0f} {sampling:9.0%} {learning:9.0%} {ratio:6.2f}")


def compare_page(scenario: str, rounds: int) -> None:
    """Compare at the page's hyper-parameters."""
    settings = make_settings("ppo", {"preset": "page", **RLLIB_DEFAULTS})
    runners = min(PAGE_PROCESSES, os.cpu_count() or 1)
    names = (
        f"RLlib: {runners} processes of 1 environment",
        f"powergrid: {runners} processes of 1 environment",
        "powergrid: 16 environments in the learner's process",
    )
    own = {"preset": "page", **RLLIB_DEFAULTS}
    configs = (
        stock_config(scenario, settings, runners, 1, PAGE_FRAGMENT),
        own_config(scenario, **own, num_env_runners=runners),
        own_config(scenario, **own, num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length="auto"),
    )
    taken = measure(dict(zip(names, configs, strict=True)), rounds)
    print_rows(
        "page: batch 4000, minibatch 128, 10 passes, network (256, 256); runner, learner, tanh, first weights differ",
        taken,
        names[0],
    )


def compare_best(scenario: str, rounds: int, runners: Sequence[int], envs: Sequence[int]) -> None:
    """Search the best stock runners for powergrid's default optimisation, and compare with powergrid's default."""
    settings = TrainSettings()
    found: dict[tuple[int, int], float] = {}
    print(f"\nRLlib at powergrid's batch, minibatch, passes and network; steps/s\n{'processes':>9s}", end="")
    print("".join(f" {f'{n} envs':>9s}" for n in envs))
    for processes in runners:
        print(f"{processes:9d}", end="", flush=True)
        for n in envs:
            config = stock_config(scenario, settings, processes, n, "auto")
            (rows,) = measure({"stock": config}, min(rounds, 3)).values()
            found[processes, n] = statistics.median(row[0] for row in rows)
            print(f" {found[processes, n]:9.0f}", end="", flush=True)
        print()
    processes, n = max(found, key=lambda key: found[key])
    best = f"RLlib: {processes} processes of {n} environments, the best found"
    taken = measure(
        {best: stock_config(scenario, settings, processes, n, "auto"), "powergrid: its defaults": own_config(scenario)},
        rounds,
    )
    print_rows(
        f"best: batch {settings.train_batch_size}, minibatch {settings.minibatch_size}, {settings.num_epochs} passes, "
        f"network {settings.hidden}; runner, learner, tanh and first weights differ",
        taken,
        best,
    )


def time_to_return(
    config: Any, scenario: str, goal: float, days: int, limit_s: float, check_s: float
) -> tuple[float | None, float, int, float]:
    """Train until the greedy policy beats a return; what checking takes is not counted.

    Returns:
        Seconds of training until then, None where the limit came first; seconds trained, environment steps and the
        best return seen.
    """
    algorithm = build_algorithm(config, RaySession(None))
    spent, steps, best, next_check = 0.0, 0, -math.inf, check_s
    try:
        while spent < limit_s:
            start = time.perf_counter()
            result = algorithm.train()
            spent += time.perf_counter() - start
            steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
            if spent >= next_check:
                next_check = spent + check_s
                best = max(best, greedy_return(algorithm, scenario, days))
                if best > goal:
                    return spent, spent, steps, best
        return None, spent, steps, best
    finally:
        algorithm.stop()


def greedy_return(algorithm: Any, scenario: str, days: int) -> float:
    """Return the mean return of the policy's means over days of the validation split."""
    report = evaluate(
        as_env_config(scenario), [("trained", policy_of_algorithm(algorithm))], split="validation", days=days
    )
    return float(report.frame["reward"].mean())


def compare_to_return(
    scenario: str, seeds: int, days: int, limit_s: float, stock_limit_s: float, check_s: float
) -> None:
    """Print, for each seed, when powergrid's defaults and when stock RLlib at the page's settings beat `rule_based`."""
    goal = float(
        evaluate(as_env_config(scenario), ["rule_based"], split="validation", days=days).frame["reward"].mean()
    )
    settings = make_settings("ppo", {"preset": "page", **RLLIB_DEFAULTS})
    runners = min(PAGE_PROCESSES, os.cpu_count() or 1)
    print(
        f"\nreturn: seconds of training until the greedy policy beats rule_based ({goal:.3f}) on {days} days of the "
        f"validation split;\nenvironment, days and goal are the same, all of the training differs"
    )
    print(f"{'seed':>4s} {'':10s} {'reached s':>10s} {'trained s':>10s} {'steps':>10s} {'best':>8s}")
    ratios: list[float] = []
    for seed in range(seeds):
        taken: dict[str, tuple[float | None, float, int, float]] = {}
        for name, limit in (("powergrid", limit_s), ("RLlib", stock_limit_s)):
            config = (
                own_config(scenario, seed=seed)
                if name == "powergrid"
                else stock_config(scenario, settings, runners, 1, PAGE_FRAGMENT, seed)
            )
            taken[name] = reached, trained, steps, best = time_to_return(config, scenario, goal, days, limit, check_s)
            shown = "not" if reached is None else f"{reached:.0f}"
            print(f"{seed:4d} {name:10s} {shown:>10s} {trained:10.0f} {steps:10d} {best:8.3f}", flush=True)
        own, stock = taken["powergrid"], taken["RLlib"]
        if own[0] is not None:
            ratios.append(stock[1] / own[0])
            print(f"{'':16s}{'at least ' if stock[0] is None else ''}{ratios[-1]:.1f} times sooner", flush=True)
        else:
            print(f"{'':16s}powergrid did not reach it: no ratio", flush=True)
    if len(ratios) == seeds:
        print(f"median over {seeds} seeds: {statistics.median(ratios):.1f} times sooner (a bound where RLlib did not)")


def compare_curves(scenario: str, seeds: int, iterations: int) -> None:
    """Print the learning curves of the stock runner and powergrid's, other things equal, over several seeds."""
    curves: dict[str, list[list[float]]] = {"stock": [], "grid": []}
    for seed in range(seeds):
        for runner, found in curves.items():
            algorithm = build_algorithm(
                own_config(scenario, env_runner=runner, seed=seed, num_env_runners=0), RaySession(None)
            )
            found.append([float(algorithm.train()["env_runners"]["episode_return_mean"]) for _ in range(iterations)])
            algorithm.stop()
    stock, grid = (np.array(found) for found in curves.values())
    print(f"\ncurves: mean return of the sampled episodes, {seeds} seeds, mean and standard error")
    print(f"{'iteration':>9s} {'stock':>16s} {'grid':>16s} {'difference':>18s}")
    for i in sorted({*range(0, iterations, max(1, iterations // 10)), iterations - 1}):
        cells = [f"{values.mean():8.3f} +- {_error(values):5.3f}" for values in (stock[:, i], grid[:, i])]
        apart = grid[:, i] - stock[:, i]
        print(f"{i + 1:9d} {cells[0]:>16s} {cells[1]:>16s} {apart.mean():9.3f} +- {_error(apart):5.3f}")


def _error(values: Any) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", default="ieee13_mg")
    parser.add_argument("--only", nargs="+", choices=["page", "best"], default=["page", "best"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runners", type=int, nargs="+", default=[0, 1, 2], help="processes to search")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 4, 16, 32], help="environments each to search")
    parser.add_argument("--to-return", action="store_true")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40, help="of --curves")
    parser.add_argument("--days", type=int, default=16, help="of the validation split, for --to-return")
    parser.add_argument("--limit-s", type=float, default=900.0, help="longest training of powergrid")
    parser.add_argument("--stock-limit-s", type=float, default=3600.0, help="longest training of RLlib")
    parser.add_argument("--check-s", type=float, default=5.0, help="seconds of training between two checks")
    parser.add_argument("--quick", action="store_true", help="one round, one seed, seconds of training: shows it runs")
    args = parser.parse_args()
    if args.quick:
        args.only, args.rounds, args.runners, args.envs = ["best"], 1, [0], [4]
        args.seeds, args.iterations, args.limit_s, args.stock_limit_s = 1, 2, 2.0, 2.0
    print(f"{args.scenario}; {machine_line('ray', 'torch')}")
    with ray_session():
        if args.to_return:
            compare_to_return(args.scenario, args.seeds, args.days, args.limit_s, args.stock_limit_s, args.check_s)
        elif args.curves:
            compare_curves(args.scenario, args.seeds, args.iterations)
        else:
            if "page" in args.only:
                compare_page(args.scenario, args.rounds)
            if "best" in args.only:
                compare_best(args.scenario, args.rounds, args.runners, args.envs)


if __name__ == "__main__":
    main()
