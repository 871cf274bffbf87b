"""Minari: days of engineers' rules are kept as a data set, and a network clones them; it never acts as it learns."""

import gymnasium as gym
import minari
import numpy as np
import torch

from powergrid.evaluation.datasets import record_dataset


def play_test_days() -> float:
    """Return the return of ten test days, their mean."""
    seen, total = tests.reset(seed=0)[0], 0.0
    for _ in range(96):
        seen, reward, *_ = tests.step(net(torch.as_tensor(seen)).detach().numpy())
        total += reward.mean()
    return total


torch.manual_seed(0)
place = record_dataset({"env_name": "ieee13_mg"}, "datasets", "rule_based", days=24)
days = list(minari.MinariDataset(place / "data"))
seen = torch.as_tensor(np.concatenate([day.observations[:-1] for day in days]))
done = torch.as_tensor(np.concatenate([day.actions for day in days]))
tests = gym.make_vec("powergrid.envs:powergrid/ieee13_mg-v1", 10, split="test")
net = torch.nn.Sequential(torch.nn.Linear(91, 128), torch.nn.Tanh(), torch.nn.Linear(128, 10), torch.nn.Tanh())
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
before = play_test_days()
for rows in torch.randperm(len(seen)).repeat(40).split(128):
    loss = ((net(seen[rows]) - done[rows]) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = play_test_days()
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
