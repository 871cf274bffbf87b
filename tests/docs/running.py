"""Run the commands of README and docs, shortened where they would take long, and only so."""

from __future__ import annotations

import pytest

from powergrid.cli import main

TINY = "num_env_runners=0 rollout_fragment_length=auto num_envs_per_env_runner=2 hidden=[8,8] validation_episodes=1"
ON_POLICY = f"{TINY} train_batch_size=192 minibatch_size=96 num_epochs=1"
OFF_POLICY = f"{TINY} steps_per_iteration=192 learning_starts=96 train_batch_size=32"
#: Options that replace a command's own, or are added to them.
SHORTER: dict[str, dict[str, str]] = {
    "train": {"--iterations": "1", "--test-days": "1"},
    "tune": {"--iterations": "1", "--samples": "1"},
    "evaluate": {"--days": "2"},
    "record": {"--days": "1"},
    "study": {"--from": "2018-01-31", "--to": "2018-02-01", "--workers": "1"},
    "hosting": {"--days": "1", "--workers": "1"},
    "export": {"--days": "1"},
    "report": {"--days": "2", "--replays": "1"},
    "stress": {"--days": "1", "--workers": "1"},
}
HEAVY = {"train", "tune"}


def run_command(words: list[str]) -> None:
    """Run a ``powergrid`` command, shortened; it must end well."""
    name, arguments = words[1], list(words[2:])
    options = dict(SHORTER.get(name, {}))
    if "--resume" in arguments:
        options["--iterations"] = "2"  # one more than the run has
    for option, value in options.items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
        else:
            arguments += [option, value]
    if name in HEAVY and "--resume" not in arguments:
        off_policy = {"sac", "dqn"} & set(arguments)
        settings = (OFF_POLICY if off_policy else ON_POLICY).split()
        arguments += [word for setting in settings for word in ("--setting", setting)]
    with pytest.raises(SystemExit) as ended:
        main([name, *arguments])
    assert not ended.value.code, " ".join(words)
