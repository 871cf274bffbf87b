"""sb3-contrib: PPO that draws only positions that taps and banks can reach, by the masks of the environments."""

from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy

from powergrid.adapters.sb3 import GridVecEnv

kept = {f"devices.regulator_{i}.dwell_steps": 3 for i in (1, 2, 3)}  # a tap that moved rests three hours
envs = GridVecEnv("ieee13_voltvar", 16, **kept)
tests = GridVecEnv("ieee13_voltvar", 10, split="test", **kept)
model = MaskablePPO("MlpPolicy", envs, n_steps=48, batch_size=256, gamma=0.9, learning_rate=1e-3, seed=0, device="cpu")
tests.seed(0)
before, _ = evaluate_policy(model, tests, n_eval_episodes=10)
model.learn(3072)
tests.seed(0)
after, _ = evaluate_policy(model, tests, n_eval_episodes=10)
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
