"""TorchRL: TD3 with behaviour cloning learns offline, from days that Minari keeps; it never acts as it learns."""

import minari
import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.nn import Linear, ReLU, Sequential, Tanh
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import SoftUpdate, TD3BCLoss

from powergrid.adapters.torchrl import TorchGridEnv
from powergrid.evaluation.datasets import record_dataset

torch.manual_seed(0)
place = record_dataset({"env_name": "ieee13_mg"}, "datasets", "rule_based", days=24)
days, parts = list(minari.MinariDataset(place / "data")), ("actions", "rewards", "terminations", "truncations")
action, reward, over, cut = (torch.as_tensor(np.concatenate([getattr(day, part) for day in days])) for part in parts)
seen = torch.as_tensor(np.concatenate([day.observations[:-1] for day in days]))
then = torch.as_tensor(np.concatenate([day.observations[1:] for day in days]))
ends = {"reward": reward.float()[:, None], "terminated": over[:, None], "done": (over | cut)[:, None]}
data = TensorDict({"observation": seen, "action": action, "next": {"observation": then, **ends}}, len(seen))
tests = TorchGridEnv("ieee13_mg", 10, view="central", split="test")
actor = TensorDictModule(Sequential(Linear(91, 128), ReLU(), Linear(128, 10), Tanh()), ["observation"], ["action"])
value = ValueOperator(MLP(101, 1, num_cells=[128]), ["observation", "action"])
loss = TD3BCLoss(actor, value, bounds=(-1.0, 1.0))
loss.make_value_estimator(gamma=0.97)
targets, optimizer, returns = SoftUpdate(loss, tau=0.005), torch.optim.Adam(loss.parameters(), 1e-3), []
for rows in (*torch.randperm(len(seen)).repeat(40).split(128), None):
    if not returns or rows is None:
        tests.set_seed(0)
        returns.append(float(tests.rollout(96, actor)["next", "reward"].sum() / 10))
    if rows is not None:
        optimizer.zero_grad()
        sum(loss(data[rows]).select("loss_actor", "loss_qvalue").values()).backward()
        optimizer.step()
        targets.step()
before, after = returns
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
