"""Tianshou's own PPO, on single environments in a row: one controller of all agents' devices."""

import torch
from gymnasium.spaces.utils import flatdim
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Independent, Normal

import powergrid

torch.manual_seed(0)
envs = DummyVectorEnv([lambda: powergrid.make_central("ieee13_mg")] * 16)
tests = DummyVectorEnv([lambda: powergrid.make_central("ieee13_mg", split="test")] * 10)
seen, acts = envs.observation_space[0], envs.action_space[0]
body, judge = (Net(state_shape=seen.shape, hidden_sizes=(128,), activation=torch.nn.Tanh) for _ in range(2))
actor = ContinuousActorProbabilistic(preprocess_net=body, action_shape=flatdim(acts), unbounded=True)
torch.nn.init.constant_(actor.sigma_param, -0.7)
spread = {"dist_fn": lambda both: Independent(Normal(*both), 1), "deterministic_eval": True}
policy = ProbabilisticActorPolicy(actor=actor, action_space=acts, **spread)
how = {"optim": AdamOptimizerFactory(lr=3e-3), "gamma": 0.9, "ent_coef": 0.0}
learner = PPO(policy=policy, critic=ContinuousCritic(preprocess_net=judge), **how)
tried = Collector(learner, tests)
days = {"n_episode": 10, "reset_before_collect": True, "gym_reset_kwargs": {"seed": 0}}
before = tried.collect(**days).returns.mean()
train = Collector(learner, envs, VectorReplayBuffer(16 * 96, 16))
size = {"max_epochs": 1, "epoch_num_steps": 10 * 16 * 96, "collection_step_num_env_steps": 16 * 96}
steps = {"batch_size": 256, "update_step_num_repetitions": 6, "verbose": False, "show_progress": False}
learner.run_training(OnPolicyTrainerParams(training_collector=train, **size, **steps))
after = tried.collect(**days).returns.mean()
print(f"return of a test day: {before:.2f} before, {after:.2f} after")
