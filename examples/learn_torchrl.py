"""TorchRL: PPO with weights that all agents of the group share, on environments that are stepped in lockstep."""

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch.nn import Linear, Sequential, Tanh
from torchrl.envs import ExplorationType, set_exploration_type
from torchrl.modules import NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from powergrid.adapters.torchrl import TorchGridEnv


def play(env: TorchGridEnv) -> TensorDictBase:
    """Play a day in every environment and return what each agent met, shape (num_envs, 96, n_agents)."""
    with torch.no_grad():
        day = env.rollout(96, lambda tensordict: tensordict.set("agents", actor(tensordict["agents"])))
    return day["agents"].set("next", day["next", "agents"])


torch.manual_seed(0)
envs, tests = TorchGridEnv("ieee13_mg", 16), TorchGridEnv("ieee13_mg", 10, split="test")
net = Sequential(Linear(28, 64), Tanh(), Linear(64, 2 * 5), NormalParamExtractor("biased_softplus_0.3"))
spread = TensorDictModule(net, ["observation"], ["loc", "scale"])
actor = ProbabilisticActor(spread, in_keys=["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True)
critic = ValueOperator(Sequential(Linear(28, 64), Tanh(), Linear(64, 1)))
loss, gae = (
    ClipPPOLoss(actor, critic, entropy_bonus=False, normalize_advantage=True),
    GAE(gamma=0.9, lmbda=0.9, value_network=critic, time_dim=1),
)
optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
returns = []
for iteration in range(10):
    if iteration in (0, 9):
        tests.set_seed(0)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            returns.append(float(play(tests)["next", "reward"].sum() / 10))
    batch = gae(play(envs)).reshape(-1)
    for rows in torch.randperm(len(batch)).repeat(6).split(256):
        optimizer.zero_grad()
        terms = loss(batch[rows])
        (terms["loss_objective"] + terms["loss_critic"]).backward()
        optimizer.step()
before, after = returns
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
envs.close()
tests.close()
