"""RLlib's own behaviour cloning learns from days of engineers' rules that Minari keeps; it never acts as it learns."""

from pathlib import Path

import minari
import numpy as np
import pandas as pd
import ray
from ray.rllib.algorithms.bc import BCConfig
from ray.tune import register_env

import powergrid
from powergrid.evaluation.datasets import record_dataset

place = record_dataset({"env_name": "ieee13_mg"}, "datasets", "rule_based", days=24)
rows = [
    {"eps_id": str(day.id), "obs": seen, "actions": done, "rewards": 0.0, "new_obs": then, "terminateds": False}
    for day in minari.MinariDataset(place / "data")
    for seen, done, then in zip(day.observations[:-1], day.actions, day.observations[1:], strict=True)
]
pd.DataFrame(rows).assign(truncateds=np.arange(len(rows)) % 96 == 95).to_parquet("days.parquet")
register_env("grid", lambda context: powergrid.make_central("ieee13_mg", **context))
config = BCConfig().environment("grid").training(train_batch_size_per_learner=256, lr=1e-3).debugging(seed=0)
config.offline_data(input_=[str(Path("days.parquet").resolve())], dataset_num_iters_per_learner=50)
config.offline_data(map_batches_kwargs={"concurrency": 1, "num_cpus": 0}, iter_batches_kwargs={"prefetch_batches": 0})
config.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
tests = {"explore": False, "env_config": {"split": "test"}}
config.evaluation(evaluation_interval=100, evaluation_duration=8, evaluation_config=tests)
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(4):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
