"""RLlib's own PPO, runner and learner, with nothing of PowerGrid but the environment."""

import ray
from ray.rllib.algorithms.ppo import PPOConfig

from powergrid.envs import NetworkedGridEnv

config = PPOConfig().training(train_batch_size=1536, minibatch_size=256, num_epochs=6, lr=3e-3, gamma=0.9)
config.environment(NetworkedGridEnv, env_config={"env_name": "ieee13_mg"}).debugging(seed=0)
config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **kwargs: "shared")
tests = {"explore": False, "env_config": {"env_name": "ieee13_mg", "split": "test"}}
config.env_runners(num_env_runners=0).evaluation(evaluation_duration=10, evaluation_config=tests)
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(6):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
