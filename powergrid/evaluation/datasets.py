"""Days as a policy plays them, kept as a Minari data set: for behaviour cloning and learning offline.

What a policy saw, did and got, in the spaces of ``powergrid.make_central`` or, agent by agent, of ``powergrid.make``.
For actions alone, whatever is seen, see ``demonstrations``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

import powergrid
from powergrid.envs.agents import ActionForm, ActionWriter, CentralActions, find_form_problems
from powergrid.envs.core import GridTask
from powergrid.envs.observations.view import View
from powergrid.errors import PowerGridError, ScenarioError, describe_unknown, find_number_problems
from powergrid.evaluation.baselines import BASELINES, Baseline
from powergrid.evaluation.players import Policy, find_players, seat_players
from powergrid.evaluation.rollout import play_steps, read_scenario
from powergrid.files import make_folder, path_of, write_whole
from powergrid.grid.profiles.profiles import pick_days
from powergrid.scenario import Scenario

ViewName = Literal["central", "agents"]

#: Seeds of a recording's episodes are this many times its own, plus the day.
_SEEDS = 10_000


def record_dataset(
    env_config: Mapping[str, Any] | Scenario,
    folder: str | Path,
    policy: str | tuple[str, Policy] = "rule_based",
    *,
    view: ViewName = "central",
    actions: ActionForm = "auto",
    split: str = "train",
    days: int = 30,
    seed: int = 0,
    n_envs: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Play days with a policy and keep them as a Minari data set, with a card that says what they are.

    Every episode has the seed and the options that play it again: ``env.reset(seed=..., options={"day": ...})``.

    Args:
        env_config: As for :func:`powergrid.evaluation.evaluate`.
        folder: Minari's folder of data sets, what ``MINARI_DATASETS_PATH`` names; the data set is
            ``powergrid/SCENARIO/POLICY-vN`` there, N the scenario's version, with ``-agents`` where several act.
        policy: Name of a baseline, or a name with an object that has ``act``.
        view: ``central``, one controller that sees all, or ``agents``, with a Dict of what each sees and does; the
            reward is the sum in both, and ``rewards`` of infos hold that of each agent.
        actions: Form of the central action space, see ``powergrid.make_central``; not ``multidiscrete`` where actions
            are numbers, which no level is.
        split: Which days.
        days: How many, spread evenly over the split.
        seed: Seed of what is random in an episode.
        n_envs: Episodes played at once.
        progress: Called with the number of days done and in all.

    Returns:
        The folder of the data set; its card is ``README.md``.

    Raises:
        ScenarioError: The settings or the policy's name are wrong, or the policy's doings are no actions (``native``).
        PowerGridError: Minari is not installed, there is such a data set, or the folder cannot be written.
    """
    minari = _import_minari()
    scenario = read_scenario(env_config, split)
    [(name, loaded)] = find_players([policy])
    problems = find_number_problems(1, days=days, n_envs=n_envs) + find_number_problems(0, seed=seed)
    problems += find_form_problems(actions, 2)
    if view not in ("central", "agents"):
        problems.append(f"view: {describe_unknown('view', view, ('central', 'agents'))}")
    if loaded is None and "native_controls" in BASELINES[name].overrides(scenario):
        problems.append(f"policy {name!r} leaves the feeder to its own controls: there are no actions to keep")
    if problems:
        raise ScenarioError("record", problems)
    label = re.sub(r"[^\w.-]", "_", f"{Path(name).name}{'-agents' if view == 'agents' else ''}")
    identity = f"powergrid/{scenario.name}/{label}-v{scenario.version or 0}"
    root = path_of(folder).absolute()  # of a relative one Minari makes another below
    place = root / identity
    if place.exists():
        raise PowerGridError(f"{place}: there is such a data set; delete it, or choose another folder")
    make_folder(root)  # before hours of play that could not be kept
    n_envs = min(n_envs, days)  # an environment without a day would plan one for nothing
    for _, task, player in seat_players(scenario, [(name, loaded)], n_envs, seed):
        recorder = _Recorder(task, view, actions)
        chosen = [int(day) for day in pick_days(task.simulation.days, days)]
        episodes: list[dict[str, Any]] = []
        for batch in (chosen[i : i + n_envs] for i in range(0, len(chosen), n_envs)):
            episodes += recorder.play(player, batch, seed)
            if progress is not None:
                progress(len(episodes), len(chosen))
        card = _make_card(identity, task.scenario, recorder, episodes, (name, split, seed))
        _write(minari, place, root, identity, recorder, episodes, card)
    return place


class _Recorder:
    """Play days and keep what was seen, done and got.

    Args:
        task: What is played.
        view: Who sees and decides: ``central`` or ``agents``.
        form: Form of the central action space.
    """

    def __init__(self, task: GridTask, view: ViewName, form: ActionForm) -> None:
        self.task, self.view, self.form = task, view, form
        self.agents = [agent.name for agent in task.agents]
        Dict = gym.spaces.Dict
        if view == "agents":
            self._actions: Any = ActionWriter(task.agents, task.n_envs)
            self.observation_space: Any = Dict({agent.name: agent.observation_space for agent in task.agents})
            self.action_space: Any = Dict({agent.name: agent.action_space for agent in task.agents})
        else:
            if form == "multidiscrete" and any(len(agent.continuous) for agent in task.agents):
                raise ScenarioError("record", ["actions: 'multidiscrete' has no level for each number; use 'auto'"])
            self._actions = CentralActions(task.agents, form, 2, task.n_envs)
            n = len(task.channels.table)
            self.observation_space = gym.spaces.Box(-1.0, 1.0, (n,), np.float32)
            self.action_space = self._actions.space
            self._whole = View(task.channels, [np.arange(n)], task.n_envs)

    def play(self, player: Baseline, days: Sequence[int], seed: int) -> list[dict[str, Any]]:
        """Return an episode for each day, at most as many as there are environments."""
        task, seeds = self.task, [seed * _SEEDS + day for day in days]
        for env in range(task.n_envs):
            which = min(env, len(days) - 1)  # those without a day of their own play the last one again
            task.reset(env, np.random.default_rng([seeds[which]]), {"day": days[which]})
            player.reset(task, env)
        seen, done, got, over = [self._see()], list[Any](), list[Any](), list[Any]()
        lengths = np.zeros(task.n_envs, dtype=np.int64)
        for _, alive in play_steps(task, _Exactly(player, self._actions, done), len(days)):
            seen.append(self._see())
            got.append(task.rewards.copy())
            over.append(task.terminated.copy())
            lengths += alive
        return [
            {
                "seed": seeds[env],
                "options": {"day": day},
                "observations": _stack(seen[: lengths[env] + 1], env),
                "actions": _stack(done[: lengths[env]], env),
                "rewards": np.array([each[env].sum() for each in got[: lengths[env]]]),
                "terminations": np.array([each[env] for each in over[: lengths[env]]]),
                "truncations": _end_of(lengths[env], not over[lengths[env] - 1][env]),
                "infos": self._rewards([each[env] for each in got[: lengths[env]]]),
            }
            for env, day in enumerate(days)
        ]

    def _see(self) -> Any:
        if self.view == "central":
            return self._whole.gather()
        rows = [self.task.observation_dict(env) for env in range(self.task.n_envs)]
        return {agent: _nest([row[agent] for row in rows]) for agent in self.agents}

    def _rewards(self, rows: list[npt.NDArray[np.float64]]) -> dict[str, Any]:
        """Return what each agent got; nothing came with the first observation."""
        return {"rewards": np.vstack([np.zeros(len(self.agents)), *rows])}


class _Exactly:
    """Play what is kept: a policy's actions as an environment takes them, numbers in float32.

    Args:
        player: The policy.
        actions: What reads action vectors, and writes them.
        kept: Where the actions of each step are put.
    """

    def __init__(self, player: Baseline, actions: Any, kept: list[Any]) -> None:
        self._player, self._actions, self._kept = player, actions, kept

    def reset(self, task: GridTask, env: int) -> None:
        """Begin an episode."""
        self._player.reset(task, env)

    def act(self, task: GridTask) -> npt.NDArray[np.float64]:
        """Return the actions, rounded as they are kept."""
        played = np.array(self._player.act(task), dtype=np.float64)
        self._kept.append(_copy(self._actions.read(played)))
        self._actions.write(self._kept[-1], played)
        return played


def _nest(rows: list[Any]) -> Any:
    first = rows[0]
    return {key: _nest([row[key] for row in rows]) for key in first} if isinstance(first, dict) else np.array(rows)


def _copy(value: Any) -> Any:
    return {key: _copy(part) for key, part in value.items()} if isinstance(value, dict) else np.array(value)


def _stack(steps: list[Any], env: int) -> Any:
    """Return the steps of one environment, part by part."""
    first = steps[0]
    if isinstance(first, dict):
        return {key: _stack([step[key] for step in steps], env) for key in first}
    return np.stack([step[env] for step in steps])


def _end_of(length: int, truncated: bool) -> npt.NDArray[np.bool_]:
    ends = np.zeros(length, dtype=np.bool_)
    ends[-1] = truncated
    return ends


def _make_card(
    identity: str, scenario: Scenario, recorder: _Recorder, episodes: list[dict[str, Any]], how: tuple[str, str, int]
) -> str:
    """Return what a data set is, as Markdown: where it is from, what it came to, how it is used."""
    policy, split, seed = how
    returns = np.array([episode["rewards"].sum() for episode in episodes])
    days = [episode["options"]["day"] for episode in episodes]
    task, agents = recorder.task, ", ".join(recorder.agents)
    names = [f"{spec.device}.{spec.name}" for spec in task.simulation.actions]
    steps = sum(len(episode["rewards"]) for episode in episodes)
    spread = f"mean {returns.mean():.4f}, lowest {returns.min():.4f}, highest {returns.max():.4f}"
    who = (
        "one controller sees and decides all"
        if recorder.view == "central"
        else "each agent sees and decides its own, by name"
    )
    return f"""# {identity}

| | |
|---|---|
| scenario | `{scenario.name}`, version {scenario.version or "-"}, digest `{scenario.digest()[:16]}` |
| policy | `{policy}` |
| days | {len(days)} of the {split} split, seed {seed}: {", ".join(map(str, days))} |
| steps | {steps} of {scenario.step_minutes} min |
| return of a day, all agents together | {spread} |
| who | {who}; infos hold `rewards`, agent by agent: {agents} |
| observations | scaled channels in -1..1: {recorder.observation_space} |
| actions | {recorder.action_space} |
| devices and what is set, in table order | {", ".join(names)} |
| made with | PowerGrid {powergrid.__version__} |

Play the days again, with `env` of the same scenario: `env.reset(seed=episode_seed, options={{"day": day}})`; seed and
options stand in each episode's metadata. What each number means, with unit and bounds, says `env.describe()`.
"""


def _write(
    minari: Any, place: Path, root: Path, identity: str, recorder: _Recorder, episodes: list[dict[str, Any]], card: str
) -> None:
    """Write a data set whole or not at all."""
    try:
        with _datasets_at(root), ExitStack() as stack:
            env = stack.enter_context(closing(_make_env(recorder))) if recorder.view == "central" else None
            buffers = [minari.data_collector.EpisodeBuffer(id=i, **each) for i, each in enumerate(episodes)]
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", category=UserWarning)  # Minari asks for an e-mail, and for other things
            minari.create_dataset_from_buffers(
                identity, buffers, env=env, observation_space=recorder.observation_space,
                action_space=recorder.action_space, algorithm_name=identity.rpartition("/")[2].rpartition("-v")[0],
                description=card, data_format="arrow", requirements=[f"powergrid-dss=={powergrid.__version__}"],
            )  # fmt: skip
        write_whole(place / "README.md", card)
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, OSError):
            raise PowerGridError(f"{place}: cannot be written: {error}") from error
        raise


def _make_env(recorder: _Recorder) -> Any:
    """Return an environment by whose ``spec`` Minari makes another, whatever the scenario was changed in."""
    scenario = recorder.task.scenario
    kwargs = {"scenario": json.loads(json.dumps(scenario.to_dict())), "actions": recorder.form}
    name = f"powergrid/{scenario.name}-v{scenario.version or 0}"
    return gym.make(EnvSpec(name, entry_point="powergrid:make_central", kwargs=kwargs))


@contextmanager
def _datasets_at(folder: Path) -> Iterator[None]:
    """Have Minari keep data sets in a folder, which it takes from the environment alone."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _import_minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise PowerGridError('data sets need Minari: pip install "powergrid-dss[minari]"') from error
    return minari
