"""BenchMARL's own MAPPO on the agents of a scenario; it wants TorchRL below 0.12, in an environment of its own."""

from benchmarl.algorithms import MappoConfig
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models import MlpConfig

from powergrid.adapters.benchmarl import GridTaskClass

config = ExperimentConfig.get_from_yaml()
config.sampling_device = config.train_device = "cpu"
config.loggers, config.create_json, config.render, config.checkpoint_at_end = [], False, False, False
config.gamma, config.lr, config.share_policy_params = 0.9, 1e-3, True
config.on_policy_n_envs_per_worker, config.evaluation = 8, False
config.on_policy_collected_frames_per_batch, config.on_policy_minibatch_size = 768, 256
config.on_policy_n_minibatch_iters, config.max_n_frames = 6, 15 * 768
how = {"algorithm_config": MappoConfig.get_from_yaml(), "model_config": MlpConfig.get_from_yaml()}
how |= {"critic_model_config": MlpConfig.get_from_yaml(), "seed": 0, "config": config}
returns = []


class Note(Callback):
    """Note what a day brings while it learns."""

    def on_batch_collected(self, batch):
        """Take the mean of the batch's days."""
        returns.append(float(batch["next", "agents", "reward"].sum() / 8))


Experiment(task=GridTaskClass("ieee13_mg"), callbacks=[Note()], **how).run()
before, after = returns[0], returns[-1]
print(f"return of a day: {before:.2f} before, {after:.2f} after")
