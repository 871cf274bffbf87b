"""RLlib's own APPO, with nothing of PowerGrid but the environment: a thread of its own learns."""

import ray
from ray.rllib.algorithms.appo import APPOConfig

from powergrid.envs import NetworkedGridEnv

config = APPOConfig().training(train_batch_size_per_learner=768, lr=2e-3, gamma=0.9, entropy_coeff=0.0)
config.environment(NetworkedGridEnv, env_config={"env_name": "ieee13_mg"}).debugging(seed=0)
config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **kwargs: "shared")
config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=96)
config.reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=768)
tests = {"explore": False, "env_config": {"env_name": "ieee13_mg", "split": "test"}}
config.evaluation(evaluation_duration=8, evaluation_config=tests)
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(8):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
