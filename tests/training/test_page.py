"""Walk the Training page section by section: ours, and where it is at hand the page this project was started from.

Every line runs as it stands, but for the replacements below: smaller numbers, names that a page leaves to its reader,
and for the earlier page the import that ours says to change. Each must be found, so that none outlives its line.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from typer.main import get_command

from powergrid.cli import app
from tests.conftest import short_folder
from tests.training.nodes import Nodes, ray_nodes
from tests.training.toy import ToyGridEnv

ROOT = Path(__file__).parents[2]
OURS = ROOT / "docs" / "training.md"
SEEDS = [
    folder / "shared" / "seed" / "training.rst" for folder in (ROOT.parent, ROOT.parents[1]) if folder != folder.parent
]
EARLIER = next((page for page in SEEDS if page.is_file()), SEEDS[0])
SECTIONS = [
    "basic training", "mappo training", "independent policies", "ready-made configurations", "hyperparameters",
    "custom metrics", "checkpointing",
]  # fmt: skip

SMALLER = {
    "train_batch_size=4000": "train_batch_size=400",
    "'training_iteration': 100": "'training_iteration': 1",
    "range(10)": "range(2)",
}
IN_OURS = {
    **{old.replace("'", '"'): new for old, new in SMALLER.items()},
    "train_batch_size=3840": "train_batch_size=384",
    "sgd_minibatch_size=960": "sgd_minibatch_size=96",
}
IN_EARLIER = {
    **SMALLER,
    "from ray.rllib.algorithms.ppo import PPOConfig": "from powergrid.training import PPOConfig",
    "{...}": "{'env_name': 'ieee13_mg'}",
    "tune.run('PPO', config=config)": "tune.run('PPO', config=config, stop={'training_iteration': 1})",
}
# What the earlier page leaves to its reader.
GIVEN = """
from powergrid.envs import NetworkedGridEnv
env = NetworkedGridEnv({'env_name': 'ieee13_mg'})
obs_space = obs_space_mg1 = obs_space_mg2 = env.observation_spaces['MG1']
act_space = act_space_mg1 = act_space_mg2 = env.action_spaces['MG1']
env.close()
"""
START = """
import logging, sys, warnings
from pathlib import Path
warnings.simplefilter('ignore')
import ray
ray.init(address='local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
         object_store_memory=200 * 1024**2, _temp_dir=sys.argv[1])

def train_once(config, env=None):
    from powergrid.envs import NetworkedGridEnv
    config = config.copy(copy_frozen=False)
    if config.env is None or env is not None:
        config.environment(env or NetworkedGridEnv, env_config={'env_name': 'ieee13_mg'})
    algorithm = config.training(train_batch_size_per_learner=192, minibatch_size=96, num_epochs=1).rollouts(
        num_rollout_workers=0, num_envs_per_worker=1, rollout_fragment_length=96).build_algo()
    try:
        return algorithm.train()
    finally:
        algorithm.stop()
"""
# No processes: RLlib's default of two would hold both CPUs while the checkpoint's algorithm waits for its own.
BEFORE = {
    "checkpointing": "trainer = basic.rollouts(num_rollout_workers=0, rollout_fragment_length='auto').build_algo()\n"
    "trainer.train()"
}
# What must be true after a section.
AFTER = {
    "basic training": """
basic = config
(trial,) = [folder for folder in Path('~/ray_results').expanduser().glob('PPO_*/PPO_*') if folder.is_dir()]
assert list(trial.glob('events.out.tfevents.*'))
header = (trial / 'progress.csv').read_text().splitlines()[0].split(',')
assert {'episode_reward_mean', 'policy_loss', 'vf_loss', 'entropy'} <= set(header)
assert 'env_runners/custom/MG1/voltage_violations' in header
""",
    "mappo training": """
learners = train_once(config)['learners']
assert set(learners) == {'grid_policy', '__all_modules__'}, learners.keys()
""",
    "independent policies": """
learners = train_once(config)['learners']
assert set(learners) == {'MG1_policy', 'MG2_policy', '__all_modules__'}, learners.keys()
""",
    "ready-made configurations": """
assert result['training_iteration'] == 1 and result['learners']['MG1_policy']['entropy'] > 0
""",
    "hyperparameters": """
assert (config.lr, config.minibatch_size, config.num_epochs, config.gamma) == (3e-4, 128, 10, 0.99)
assert (config.lambda_, config.clip_param, config.vf_clip_param, config.entropy_coeff) == (0.95, 0.2, 10.0, 0.01)
assert config.num_env_runners in (2, 4) and config.rollout_fragment_length == 200
assert train_once(config)['env_runners']['num_env_steps_sampled'] >= 192
""",
    "custom metrics": """
from powergrid.training import PPOConfig
custom = train_once(PPOConfig(), env=CustomEnv)['env_runners']['custom']
assert custom['MG1']['voltage_violations'] == custom['MG1']['network_violations']
assert custom['MG2']['energy_cost'] == custom['energy_cost'] > 0
""",
    "checkpointing": """
assert result['training_iteration'] == 3, result['training_iteration']
trainer.stop()
import powergrid
assert set(powergrid.load_policy(checkpoint_dir).policy_of) == {'MG1', 'MG2'}
print('walked')
""",
}


def blocks_of(page: Path, language: str, *, also_marked: bool = False) -> dict[str, str]:
    """Return the code of each section in a language; blocks marked as not run only if asked for."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".rst":
        text = re.sub(r"^(.+)\n([=~-])\2+$", r"# \1", text, flags=re.MULTILINE)
        pattern = rf"^# (?P<title>[^\n]+)$|\.\. code-block:: {language}\n\n(?P<code>(?:(?:   [^\n]*)?\n)+)"
    else:
        pattern = rf"^#+ (?P<title>[^\n]+)$|(?P<skip><!-- not run[^\n]*\n)?```{language}\n(?P<code>.*?)```"
        text = re.sub(
            r"```(?!" + language + r"\b)\w+\n.*?```", "", text, flags=re.DOTALL
        )  # a comment in another language's block is no title
    sections: dict[str, str] = {}
    title = ""
    for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        if found["title"]:
            title = found["title"].lower()
        elif also_marked or not found.groupdict().get("skip"):
            sections[title] = sections.get(title, "") + textwrap.dedent(found["code"]) + "\n"
    return sections


def walk_of(page: Path, replacements: dict[str, str]) -> tuple[str, str]:
    """Return the programs that a page amounts to: all but its last section, and that one on a cluster."""
    code = blocks_of(page, "python")
    whole = "\n".join(code.values())
    for old in replacements:
        assert old in whole, f"{page.name} has no {old} any more"

    def written(section: str) -> str:
        text = code[section]
        for old, new in replacements.items():
            text = text.replace(old, new)
        return text

    parts = [START, GIVEN if page.suffix == ".rst" else ""]
    for section in SECTIONS:
        if section in code:
            parts += [BEFORE.get(section, ""), written(section), AFTER[section]]
    basic = re.sub(r"tune\.run\(.*?\)\n", "", written("basic training"), flags=re.DOTALL)
    nodes = "assert sum(node['Alive'] for node in ray.nodes()) == 2\n"
    distributed = written("distributed training").replace("# Training auto", f"{nodes}# Training auto")
    return "\n".join(parts), f"import warnings\nwarnings.simplefilter('ignore')\n{basic}{distributed}print('walked')\n"


PAGES = [
    pytest.param(OURS, IN_OURS, id="ours"),
    pytest.param(
        EARLIER, IN_EARLIER, id="earlier",
        marks=pytest.mark.skipif(not EARLIER.is_file(), reason="the earlier page is not at hand"),
    ),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a process with a home of its own and a short folder for Ray's sockets."""
    with short_folder() as short:
        (tmp_path / "home").mkdir()
        yield {
            **os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "RAY_TMPDIR": short,
            "PYTHONWARNINGS": "ignore", "RAY_AIR_NEW_OUTPUT": "1",
        }  # fmt: skip


def run_script(text: str, tmp_path: Path, place: dict[str, str]) -> None:
    script = tmp_path / "walk.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, str(script), place["RAY_TMPDIR"]], cwd=tmp_path, env=place, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert done.stdout.strip().endswith("walked")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "replacements"), PAGES)
def test_page_runs_section_by_section(
    page: Path, replacements: dict[str, str], tmp_path: Path, place: dict[str, str]
) -> None:
    run_script(walk_of(page, replacements)[0], tmp_path, place)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes, started with the lines of the pages, which are the same in each."""
    with short_folder() as folder, ray_nodes(folder) as nodes:
        env = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "PYTHONPATH": str(ROOT)}
        for command in ray_commands(OURS):
            written = command.replace("6379", str(nodes.port)).replace("<head-node-ip>", "127.0.0.1")
            here = ["--include-dashboard=false", f"--temp-dir={folder}"] if "--head" in command else []
            nodes.start(env, cpus=2, arguments=[*shlex.split(written)[2:], *here])
        yield nodes


def ray_commands(page: Path) -> list[str]:
    lines = blocks_of(page, "bash", also_marked=True)["distributed training"].splitlines()
    return [line for line in lines if line.startswith("ray start ")]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "replacements"), PAGES)
def test_last_section_of_the_page_runs_on_a_cluster_of_two_nodes(
    page: Path, replacements: dict[str, str], cluster: Nodes, tmp_path: Path, place: dict[str, str]
) -> None:
    assert ray_commands(page) == ray_commands(OURS)
    run_script(walk_of(page, replacements)[1], tmp_path, {**place, "RAY_ADDRESS": cluster.address})
    assert (len(cluster.processes), cluster.alive()) == (2, 2)  # the run took its leave and left it running


@pytest.mark.parametrize("command", [line for text in blocks_of(OURS, "bash").values() for line in text.splitlines()
                                     if line.startswith("powergrid ")])  # fmt: skip
def test_command_of_the_page_is_one_the_tool_takes(command: str) -> None:
    group = get_command(app)
    _, name, *arguments = shlex.split(command)
    assert isinstance(group, typer.core.TyperGroup)
    assert group.commands[name].make_context(name, arguments).command is group.commands[name]


def test_page_says_what_rllib_says_to_earlier_code(ray_session: None, tmp_path: Path) -> None:
    told = OURS.read_text(encoding="utf-8")
    with pytest.raises(TypeError) as without_policies:
        PPOConfig().environment(ToyGridEnv).env_runners(num_env_runners=0).build_algo()
    assert f"TypeError: {without_policies.value}" in told
    with pytest.raises(Exception, match="URI has empty scheme: 'runs/x'") as relative:
        PPO.from_checkpoint("runs/x")
    assert f"{type(relative.value).__name__}: {relative.value}" in told
    config = (
        PPOConfig()
        .environment(ToyGridEnv)
        .env_runners(num_env_runners=0)
        .multi_agent(policies={"p"}, policy_mapping_fn=lambda agent_id, *args, **kwargs: "p")
    )
    algorithm = config.build_algo()
    try:
        saved = algorithm.save(str(tmp_path))
    finally:
        algorithm.stop()
    with pytest.raises(TypeError) as no_path:
        PPO.from_checkpoint(saved)
    assert f"TypeError: {no_path.value}" in told
