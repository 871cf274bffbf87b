"""skrl's own PPO, on Gymnasium's vector environments: one controller of all agents' devices."""

import gymnasium as gym
import torch
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from skrl.utils.model_instantiators.torch import deterministic_model, gaussian_model


def play_test_days():
    """Return the return of ten test days, their mean."""
    seen, total = tests.reset(seed=0)[0], 0.0
    for _ in range(96):
        inputs = {"observations": torch.as_tensor(seen)}
        actions = policy.act(inputs, role="policy")[1]["mean_actions"].detach().numpy()
        seen, reward, *_ = tests.step(actions.clip(-1.0, 1.0))
        total += reward.mean()
    return total


set_seed(0)
name = "powergrid.envs:powergrid/ieee13_mg-v1"
env, tests = wrap_env(gym.make_vec(name, 16), wrapper="gymnasium"), gym.make_vec(name, 10, split="test")
spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
net = [{"name": "net", "input": "OBSERVATIONS", "layers": [128], "activations": "tanh"}]
policy = gaussian_model(**spaces, network=net, output="ACTIONS", clip_actions=True, initial_log_std=-0.7)
value = deterministic_model(**spaces, network=net, output="ONE")
how = PPO_CFG(rollouts=96, learning_epochs=6, mini_batches=6, discount_factor=0.9, learning_rate=3e-3)
how.experiment.write_interval = how.experiment.checkpoint_interval = 0
kept = RandomMemory(memory_size=96, num_envs=16)
agent = PPO(models={"policy": policy, "value": value}, memory=kept, cfg=how, **spaces)
before = play_test_days()
SequentialTrainer(env=env, agents=agent, cfg={"timesteps": 960, "headless": True}).train()
after = play_test_days()
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
