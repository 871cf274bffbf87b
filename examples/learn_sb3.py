"""Stable-Baselines3: PPO runs taps, capacitors and a battery of environments that are stepped in lockstep."""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from powergrid.adapters.sb3 import GridVecEnv

envs = GridVecEnv("ieee13_voltvar", 16)
tests = GridVecEnv("ieee13_voltvar", 10, split="test")
model = PPO("MlpPolicy", envs, n_steps=48, batch_size=256, gamma=0.9, learning_rate=1e-3, seed=0, device="cpu")
tests.seed(0)
before, _ = evaluate_policy(model, tests, n_eval_episodes=10)
model.learn(3072)
tests.seed(0)
after, _ = evaluate_policy(model, tests, n_eval_episodes=10)
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
