"""RLlib's own DQN, with nothing of PowerGrid but the environment: an agent and a policy for each device."""

import ray
from ray.rllib.algorithms.dqn import DQNConfig

from powergrid.envs import NetworkedGridEnv

task = {"env_name": "ieee13_voltvar", "agents": "per_device", "plain_discrete": True}
agents = NetworkedGridEnv(task).possible_agents
config = DQNConfig().training(train_batch_size_per_learner=64, num_steps_sampled_before_learning_starts=768)
config.training(lr=1e-3, gamma=0.5, num_atoms=1, double_q=True, dueling=True, n_step=1, target_network_update_freq=200)
config.training(replay_buffer_config={"type": "MultiAgentEpisodeReplayBuffer", "capacity": 20_000})
config.training(epsilon=[(0, 1.0), (1500, 0.05)])
config.environment(NetworkedGridEnv, env_config=task).debugging(seed=0)
config.multi_agent(policies=set(agents), policy_mapping_fn=lambda agent, episode, **kwargs: agent)
config.reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=768)
config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=1)
config.evaluation(evaluation_duration=8, evaluation_config={"explore": False, "env_config": {**task, "split": "test"}})
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(4):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
