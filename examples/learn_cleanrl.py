"""In CleanRL's manner: one file, plain torch, Gymnasium's vector environments; learns from whole days."""

import gymnasium as gym
import torch
from torch.distributions import Categorical

torch.manual_seed(0)
name = "powergrid.envs:powergrid/ieee13_voltvar-v1"
envs, tests = gym.make_vec(name, 16), gym.make_vec(name, 16, split="test")
sizes, n = envs.single_action_space.nvec.tolist(), envs.single_observation_space.shape[0]
net = torch.nn.Sequential(torch.nn.Linear(n, 64), torch.nn.Tanh(), torch.nn.Linear(64, sum(sizes) + 1))
optimizer, returns = torch.optim.Adam(net.parameters(), 3e-3), []
weights = 0.9 ** (torch.arange(24) - torch.arange(24)[:, None]).clamp(0)
for test in (True, *[False] * 59, True):
    seen, steps = (tests if test else envs).reset(seed=0 if test else None)[0], []
    for _ in range(24):
        *logits, value = net(torch.as_tensor(seen)).split([*sizes, 1], dim=-1)
        spreads = [Categorical(logits=each) for each in logits]
        actions = [each.mode if test else each.sample() for each in spreads]
        seen, reward, *_ = (tests if test else envs).step(torch.stack(actions, dim=1).numpy())
        log_prob = sum(each.log_prob(action) for each, action in zip(spreads, actions, strict=True))
        steps.append((log_prob, value[:, 0], torch.as_tensor(reward, dtype=torch.float32)))
    log_probs, values, rewards = (torch.stack(each) for each in zip(*steps, strict=True))
    returns += [float(rewards.sum(dim=0).mean())] if test else []
    gain = weights.triu() @ rewards - values
    loss = (gain**2).mean() - (log_probs * (gain / gain.std()).detach()).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
before, after = returns
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
