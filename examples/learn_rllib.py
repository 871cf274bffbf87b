"""RLlib's own classes, with nothing of PowerGrid but the environment: PPO, or APPO or SAC where asked for."""

import sys

import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig

from powergrid.envs import NetworkedGridEnv

configs = {
    "PPO": PPOConfig().training(train_batch_size=1536, minibatch_size=256, num_epochs=6, lr=3e-3, gamma=0.9),
    "APPO": APPOConfig().training(train_batch_size=384, lr=1e-3, gamma=0.9),
    "SAC": SACConfig().training(num_steps_sampled_before_learning_starts=768, train_batch_size=128, gamma=0.9),
}
config = configs[sys.argv[1] if len(sys.argv) > 1 else "PPO"]
config.environment(NetworkedGridEnv, env_config={"env_name": "ieee13_mg"}).debugging(seed=0)
config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **kwargs: "shared")
tests = {"explore": False, "env_config": {"env_name": "ieee13_mg", "split": "test"}}
config.env_runners(num_env_runners=0).evaluation(evaluation_duration=10, evaluation_config=tests)
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(6 if "PPO" in config.algo_class.__name__ else 1200):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
