"""RLlib's own SAC, with nothing of PowerGrid but the environment: one controller of all agents' devices."""

import ray
from ray.rllib.algorithms.sac import SACConfig
from ray.tune import register_env

import powergrid

register_env("grid", lambda context: powergrid.make_central("ieee13_mg", **context))
config = SACConfig().training(train_batch_size_per_learner=256, num_steps_sampled_before_learning_starts=768)
config.training(actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, gamma=0.9, tau=0.01, initial_alpha=0.1, n_step=1)
config.training(replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 20_000}).debugging(seed=0)
config.rl_module(model_config={"fcnet_hiddens": [128], "head_fcnet_hiddens": [128], "fcnet_activation": "relu"})
config.environment("grid").reporting(min_time_s_per_iteration=None, min_sample_timesteps_per_iteration=768)
tests = {"explore": False, "env_config": {"split": "test"}}
config.env_runners(num_env_runners=0, num_envs_per_env_runner=8, rollout_fragment_length=1)
config.evaluation(evaluation_duration=8, evaluation_config=tests)
algo = config.build_algo()
before = algo.evaluate()["env_runners"]["episode_return_mean"]
for _ in range(5):
    algo.train()
after = algo.evaluate()["env_runners"]["episode_return_mean"]
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
algo.stop()
ray.shutdown()
