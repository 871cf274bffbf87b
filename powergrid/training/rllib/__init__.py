"""Where RLlib is touched: through the doors that it documents, one file each, and these few private names.

The doors: ``config`` (a configuration, from an environment and settings), ``ppo`` and ``off_policy`` (algorithms),
``env_runner``, ``learner``, ``modules``, ``metrics`` (callbacks). Behind them: ``planning`` (what is settled before
anything is built), ``sampling`` (what episodes are played on and how they are kept), ``learning`` (limits, days that
are alike, imitation). ``layers`` are those of the modules' networks.
"""

from __future__ import annotations

#: The Ray whose private names these are.
RAY_VERSION = "2.60."

#: Every name of Ray and RLlib that is used and not documented, by its owner, with why. A test fails where one of them
#: is gone, and where another one is used.
PRIVATE_NAMES: dict[str, dict[str, str]] = {
    "ray.rllib.env.multi_agent_env_runner.MultiAgentEnvRunner": {
        "_sample": "what sample() calls to play: timers, callbacks and counts around it stay RLlib's",
        "_callbacks": "the callbacks' objects; config.callbacks_class has only their classes",
        "_seed": "the worker's seed, also in evaluation",
    },
    "ray.rllib.algorithms.ppo.torch.ppo_torch_learner.PPOTorchLearner": {
        "_create_iterator_if_necessary": "minibatches as slices of tensors: a fifth of an iteration",
        "_make_batch_if_necessary": "the batch that the learner's connectors make of episodes",
        "_learner_connector": "what episodes go through; ours comes behind the estimate of advantages",
        "_grad_scalers": "mixed precision, which is left to RLlib",
        "_lr_scheduler_classes": "torch's schedules of the learning rate, which are left to RLlib",
    },
    "ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module.DefaultPPOTorchRLModule": {
        "_forward": "the hook that RLlib's guide to modules names: act without the value network",
        "_forward_exploration": "the same: draw the actions in the module",
        "_forward_train": "the same: learn without the value network of the own observation",
    },
    "ray.rllib.algorithms.algorithm_config.AlgorithmConfig": {
        "_is_frozen": "whether a configuration is of a built algorithm, whose processes are counted already",
    },
    "ray.rllib.env.env_runner_group.EnvRunnerGroup": {
        "_worker_manager": "the actors by their numbers: one that hangs is killed, and nothing else of RLlib's does so",
    },
    "ray.tune.trainable.Trainable": {
        "_TrainingResult": "what save() returns and Tune asks for",
    },
    "ray.init": {
        "_temp_dir": "where Ray keeps its files: a path short enough for its sockets",
    },
}
