"""A policy beside what it was trained on: what differs in what it plays, and what it then sees, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from powergrid.envs.core import GridTask
from powergrid.envs.observations.channels import Channel
from powergrid.envs.observations.view import View
from powergrid.errors import PowerGridError, Problem, ScenarioError, list_names, show_briefly
from powergrid.evaluation.report.seeds import note_seeds
from powergrid.grid.devices import ActionSpec
from powergrid.quantities import TERMS
from powergrid.scenario import Scenario, load_scenario

IntArray = npt.NDArray[np.int64]

#: Keys that say nothing of what is played, or are compared otherwise: files by content, rewards by what they weigh.
_ASIDE = frozenset({
    "name", "description", "feeder", "feeders", "placement", "placed", "model_root", "trust", "ignore_case", "infos",
    "split", "day_weights", "seed", "reward", "penalty",
})  # fmt: skip
#: Sections whose keys are names; what differs alike in several of them is told once.
_NAMED, _BY_NAME = ("devices", "agents", "events", "microgrids"), ("taps", "steps_on", "norm_amps")
#: Keys that decide what agents see and do, in the order in which setting them is the nearest remedy.
_OF_SPACES = (
    *("mode", "observations", "outlook", "proposals", "agents", "devices", "events", "reconfiguration", "microgrids"),
    "profiles",
)
#: Keys of what is shown to each policy as it was in training, for nothing that is played changes by it.
_SHOWN = ("outlook", "proposals")
#: What differs without a difference in what agents see and decide.
_NO_SIGHT = frozenset({"reward", "reward.scale", "voltage", "divergence", "solver", "share_reward", "native_controls"})
#: What placing on another feeder changes throughout.
_PLACED = ("devices", "agents", *_BY_NAME)


class Difference(NamedTuple):
    """One thing that is not as it was in training.

    Attributes:
        what: The key of the scenario, or what else it is.
        trained, played: What it was and what it is, as text.
    """

    what: str
    trained: str
    played: str

    def __str__(self) -> str:
        return f"{self.what}: {self.played}; in training {self.trained}"


class Sight(NamedTuple):
    """What agents of a scenario see, and what their actions mean.

    Attributes:
        nodes: Nodes of the feeder.
        channels: By agent, every number that it observes, with the bounds that it is scaled by.
        actions: By agent, everything that it decides.
        whole: Every number that one controller of all observes.
    """

    nodes: tuple[str, ...]
    channels: Mapping[str, tuple[Channel, ...]]
    actions: Mapping[str, tuple[ActionSpec, ...]]
    whole: tuple[Channel, ...] = ()

    @classmethod
    def of(cls, task: GridTask) -> Sight:
        """Return what the agents of a task see."""
        table = task.channels.table
        seen = {agent.name: tuple(table[i] for i in agent.observed) for agent in task.agents}
        decided = {
            agent.name: tuple(task.simulation.actions[i] for i in (*agent.continuous, *agent.discrete))
            for agent in task.agents
        }
        whole = tuple(table[i] for i in task.channels.shown)
        return cls(tuple(task.simulation.network.nodes), seen, decided, whole)

    def match(self, agent: str, other: Sight) -> list[int] | None:
        """Return where another sight has what an agent sees: by name, else by place where the numbers are as many.

        None where it does neither.
        """
        own, theirs = self.channels[agent], other.channels.get(agent, ())
        place = {channel.name: i for i, channel in enumerate(theirs)}
        if all(channel.name in place for channel in own):
            return [place[channel.name] for channel in own]
        return list(range(len(own))) if len(own) == len(theirs) else None

    def within(self, other: Sight) -> Sight:
        """Return what is seen of another sight: in its names, with the bounds of this one where it is the same number.

        On another feeder the same reading is another number of kW: there bounds are the other's. An agent that finds
        not what it sees stays as it is.
        """
        found = dict(self.channels)
        for agent, own in self.channels.items():
            places = self.match(agent, other)
            if places is not None:
                there = [other.channels[agent][i] for i in places]
                same = self.nodes == other.nodes
                found[agent] = tuple(a if same and a.name == b.name else b for a, b in zip(own, there, strict=True))
        return self._replace(channels=found)


def find_differences(policy: Any, played: Scenario) -> list[Difference]:
    """Return what differs between what a policy was trained on and what it plays; nothing of what is not known.

    The split is none of it: that days are new to a policy is what they are played for.

    Args:
        policy: A policy; of one that was loaded from a run the run says what it was trained on.
        played: The scenario that it plays.
    """
    training = _ask(policy, played)
    if training is None:
        return []
    if training.scenario is None:
        return [Difference("scenario", f"cannot be read ({training.problem})", played.name)]
    played = played.model_copy(update={key: getattr(training.scenario, key) for key in _SHOWN})
    found = list(_compare(training.scenario, training.digests, played))
    sections = {each.what.partition(".")[0].partition(":")[0] for each in found}
    if not played.feeders and sections - _NO_SIGHT:
        trained = _sight_of(training.scenario, played)
        with suppress(PowerGridError):  # what is wrong with what is played is told as it is played
            found += [] if trained is None else _compare_sights(trained, _build_sight(played))
    return found


def shown_to(policy: Any, played: Scenario) -> dict[str, Any]:
    """Return the overrides that show a policy what it was shown in training; of what is played nothing changes."""
    training = _ask(policy, played)
    if training is None or training.scenario is None:
        return {}
    trained = training.scenario.model_dump(include=set(_SHOWN))
    return {key: trained[key] for key in _SHOWN if getattr(training.scenario, key) != getattr(played, key)}


def find_all_differences(players: Sequence[Any], played: Scenario) -> dict[str, list[Difference]]:
    """Return what differs by policy, those left out that play what they were trained on, and baselines."""
    found = {player[0]: find_differences(player[1], played) for player in players if not isinstance(player, str)}
    return {name: own for name, own in found.items() if own}


def add_notes(notes: Mapping[str, str], policies: Sequence[Any], played: Scenario) -> dict[str, str]:
    """Return notes on policies with what differs from their training, and how many seeds of it there are."""
    differ = {name: say_differences(own) for name, own in find_all_differences(policies, played).items()}
    seeds = note_seeds(policies)
    told = {name: (notes.get(name), differ.get(name), seeds.get(name)) for name in {**notes, **differ, **seeds}}
    return {name: " ".join(filter(None, own)) for name, own in told.items()}


def say_differences(differences: Sequence[Difference]) -> str:
    """Return what differs as a sentence for who reads of a policy's days."""
    told = ", ".join(f"{each.what} ({each.played}, not {each.trained})" for each in differences[:4])
    more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
    return f"What it plays differs from what it was trained on in {told}{more}."


def fit_sights(policies: Mapping[str, Any], task: GridTask, usual: Sight | None = None) -> dict[str, View | None]:
    """Return how each policy sees a task; None where it sees what the task's own agents see.

    A policy sees what it saw in training by name, scaled as in training where the feeder is the same: how readings are
    scaled is part of a policy. What is more here it does not see.

    Args:
        policies: The policies by name; one that tells neither its spaces nor its training is taken as it is. One with
            ``fit`` is given the task and how many numbers it sees as one controller, and tells what does not fit.
        task: The task.
        usual: What is seen by those whose training is not known, where that is not what the task shows.

    Raises:
        ScenarioError: an agent's space is not that of training; all of it, with the nearest remedy.
    """
    now, views, problems = Sight.of(task), dict[str, View | None](), list[Problem]()
    for name, policy in policies.items():
        if getattr(policy, "view", "agents") == "central":
            views[name], wrong = _fit_whole(policy, task, usual, now)
            problems += [Problem("spaces-differ", name, text, "") for text in wrong]
            continue
        training, own = _ask(policy, task.scenario), usual
        if training is not None and training.scenario is not None:
            trained = _sight_of(training.scenario, task.scenario)
            own = own if trained is None else trained if usual is None else trained.within(usual)
        misfits = list(_find_misfits(policy, task, own, now))
        fit, widths = getattr(policy, "fit", None), None
        if own is not None and not misfits:
            widths = {agent: len(seen) for agent, seen in own.channels.items()}
        problems += [] if fit is None else [Problem("spaces-differ", name, each, "") for each in fit(task, widths)]
        if misfits:
            remedy = _find_remedy(training, task.scenario)
            if training is None and getattr(policy, "trained_scenario", None) is None:
                remedy += "; run.json and scenario.yaml, which say that, are not beside it, or cannot be read"
            problems += [Problem("spaces-differ", f"{name}, agent {agent!r}", text, "") for agent, text in misfits]
            problems.append(Problem("spaces-differ", name, "does not fit what it shall play", remedy))
        elif own is not None and own != now:
            views[name] = _see(own, now, task)
        else:
            views[name] = None
    if problems:
        raise ScenarioError(task.scenario.name, problems)
    return views


def _fit_whole(policy: Any, task: GridTask, usual: Sight | None, now: Sight) -> tuple[View | None, list[str]]:
    """Return how one controller sees a task, as ``usual`` has it by name, and what does not fit."""
    seen, view, misfits = now.whole if usual is None else usual.whole, None, list[str]()
    if seen != now.whole:
        columns = dict(zip([channel.name for channel in now.whole], task.channels.shown.tolist(), strict=True))
        if lost := [channel.name for channel in seen if channel.name not in columns]:
            return None, [f"does not see {list_names(lost, 4)} here"]
        bounds = [(channel.low, channel.high) for channel in seen]
        own = np.array([columns[channel.name] for channel in seen], dtype=np.int64)
        view = View(task.channels, [own], task.n_envs, bounds)
    if (fit := getattr(policy, "fit", None)) is not None:
        misfits += fit(task, len(seen))
    return view, misfits


def _see(own: Sight, now: Sight, task: GridTask) -> View:
    own = own.within(now)
    columns, bounds = list[IntArray](), list[tuple[float, float]]()
    for agent in task.agents:
        place = {channel.name: i for i, channel in enumerate(now.channels[agent.name])}
        seen = own.channels[agent.name]
        columns.append(agent.observed[np.array([place[channel.name] for channel in seen], dtype=np.int64)])
        bounds += [(channel.low, channel.high) for channel in seen]
    return View(task.channels, columns, task.n_envs, bounds)


class _Training(NamedTuple):
    scenario: Scenario | None
    digests: Mapping[str, Any]
    problem: str


def _ask(policy: Any, played: Scenario) -> _Training | None:
    """Return what a policy's run says of its training; None where there is none, or where nothing differs from it."""
    file = getattr(policy, "trained_scenario", None)
    if file is None:
        return None
    digests = getattr(policy, "digests", {})
    if digests.get("scenario") == played.model_copy(update={"split": "train"}).digest():
        return None
    # What only who calls may decide was decided for what is played; of another feeder nothing was.
    keys = ("trust", "model_root", "ignore_case")
    try:
        for caller in ({key: getattr(played, key) for key in keys}, {"trust": False, "model_root": None}):
            scenario = load_scenario(Path(file), caller)
            if scenario.feeder == played.feeder:
                break
    except PowerGridError as error:
        return _Training(None, digests, str(error))
    return _Training(scenario, digests, "")


#: What agents see and decide by digest of the scenario: to build it takes a compile.
_SIGHTS: dict[str, Sight] = {}


def _sight_of(trained: Scenario, played: Scenario) -> Sight | None:
    """Return what agents saw in training; None where that can no longer be built."""
    try:
        if trained.feeders:
            digest = played.read_feeder().digest
            same = [name for name, own in trained.feeder_digests().items() if own == digest]
            trained = load_scenario(trained, {"feeder": same[0] if same else next(iter(trained.feeders))})
        return _build_sight(trained)
    except PowerGridError:  # its feeder or its profiles are no longer there
        return None


def _build_sight(scenario: Scenario) -> Sight:
    scenario = scenario.model_copy(update={"split": "all"})
    key = scenario.digest()
    if key not in _SIGHTS:
        with closing(GridTask(scenario)) as task:
            _SIGHTS[key] = Sight.of(task)
    return _SIGHTS[key]


def _find_misfits(policy: Any, task: GridTask, own: Sight | None, now: Sight) -> Iterator[tuple[str, str]]:
    """Yield which agent's space is not what its policy takes, and how."""
    spaces: Mapping[str, tuple[int, gym.Space[Any]]] = getattr(policy, "spaces", {})
    for agent in task.agents:
        where = agent.name
        if spaces and agent.name not in spaces:
            yield where, f"is no agent of the policy, which has {list_names(list(spaces))}"
            continue
        seen = None if own is None else own.channels.get(agent.name)
        if own is not None and seen is None:
            yield where, f"was not there in training; agents were {list_names(list(own.channels))}"
        if own is not None and seen is not None and own.match(agent.name, now) is None:
            there = {channel.name for channel in now.channels[agent.name]}
            lost = [channel.name for channel in seen if channel.name not in there]
            yield where, f"does not see {list_names(lost, 4)} here, which it saw in training"
        width, action_space = spaces.get(agent.name, (None, None))
        taken = len(agent.observed if seen is None else seen)
        if width is not None and width != taken:
            yield where, f"sees {taken} numbers here; the policy takes {width}"
        if action_space is not None and action_space != agent.action_space:
            yield where, f"acts by {_say_space(agent.action_space)} here; the policy by {_say_space(action_space)}"


def _say_space(space: gym.Space[Any]) -> str:
    """Return an action space in words: how many numbers, and of how many positions each."""
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    told = []
    for part in parts:
        if isinstance(part, gym.spaces.Box):
            told.append(f"{int(np.prod(part.shape))} numbers")
        else:
            counts = np.ravel(getattr(part, "nvec", getattr(part, "n", ()))).tolist()
            told.append(f"positions of {list_names([str(n) for n in counts])}")
    return " and ".join(told)


def _find_remedy(training: _Training | None, played: Scenario) -> str:
    """Say what to set so that spaces are those of training again, as near as it can be told."""
    if training is None or training.scenario is None:
        return "play it on the scenario that it was trained on"
    trained = training.scenario
    before, now = trained.to_dict(), played.to_dict()
    differ = [key for key in _OF_SPACES if before.get(key) != now.get(key)]
    plain = [f"{key}={before[key]}" for key in differ if isinstance(before[key], str)]
    if plain and before["agents"] == now["agents"]:
        return f"set {' and '.join(plain)}, as in training"
    what = f"{', '.join(differ)} differ" if len(differ) > 1 else f"{differ[0]} differs" if differ else "its feeder does"
    return f"{what} from training: play it on {trained.name} as it was trained, or train it on this one"


# -- what differs, key by key


def _compare(trained: Scenario, digests: Mapping[str, Any], played: Scenario) -> Iterator[Difference]:
    feeder, known = played.read_feeder().digest, set((digests.get("feeders") or {}).values())
    known |= {str(digests["feeder"])} if "feeder" in digests else set()
    changed = trained.feeder_changes != played.feeder_changes and trained.feeder == played.feeder  # told by key
    if known and feeder not in known and not changed:
        names = [_short(name) for name in trained.feeders or [trained.feeder]]
        told = list_names(names), _short(played.feeder)
        if told[1] in names:
            told = f"another of digest {list_names(sorted(d[:8] for d in known), 3)}", f"digest {feeder[:8]}"
        yield Difference("feeder", *told)
    aside, both = set(_ASIDE), [each.to_dict() for each in (trained, played)]
    if played.placed.home != trained.placed.home:
        aside |= set(_PLACED)
        ratio = f"placed on this feeder, of {played.placed.load_ratio:.3g} times the demand"
        yield Difference("devices and agents", f"those of {_short(trained.feeder)}", ratio)
    sources = [data["profiles"]["source"] for data in both]
    for each, data in zip((trained, played), both, strict=True):
        if each.telemetry is not None and each.telemetry.idle:
            data["telemetry"] = None
        data["profiles"] = {key: value for key, value in data["profiles"].items() if key not in ("source", "map")}
    yield from _gather(_walk("", *({k: v for k, v in data.items() if k not in aside} for data in both)))
    if digests.get("profiles") not in (None, played.read_profiles().digest()):
        yield Difference("profiles", *(("other series", "these") if sources[0] == sources[1] else sources))
    if trained.reward.scale != played.reward.scale:
        yield Difference("reward.scale", f"{trained.reward.scale:.4g}", f"{played.reward.scale:.4g}")
    for term in TERMS:  # what is weighed in the end, by a goal, a penalty or one by one
        before, now = trained.weight_of(term), played.weight_of(term)
        if not math.isclose(before, now):
            yield Difference(f"reward: weight of {term}", f"{before:.4g}", f"{now:.4g}")


def _compare_sights(trained: Sight, played: Sight) -> Iterator[Difference]:
    """Yield what agents of both see and decide otherwise."""
    scaled = "as in training" if trained.nodes == played.nodes else "by what this feeder has"
    for agent in (name for name in trained.channels if name in played.channels):
        what, places = f"agents.{agent}.observations", trained.match(agent, played)
        if places is not None:
            pairs = [(played.channels[agent][i], own) for i, own in zip(places, trained.channels[agent], strict=True)]
            others = [(here, then) for here, then in pairs if here.name != then.name]
            yield from (Difference(f"{what}.{then.name}", "that", f"{here.name} in its place") for here, then in others)
            if other := [f"{here.name} ({_say_range(here)})" for here, then in pairs if here != then]:
                yield Difference(what, "other bounds", f"{list_names(other, 3)}, scaled {scaled}")
            if more := len(played.channels[agent]) - len(places):
                yield Difference(f"{what} seen", str(len(places)), f"the same; {more} more are not")
        decided = zip(played.actions[agent], trained.actions[agent], strict=False)
        if ranges := [f"{here.device}.{here.name} ({_say_range(here)})" for here, then in decided if here != then]:
            yield Difference(f"agents.{agent}.actions", "other ranges", list_names(ranges, 3))


def _say_range(of: Channel | ActionSpec) -> str:
    n = f" in {of.n} positions" if isinstance(of, ActionSpec) and of.n else ""
    return f"{of.low:g} to {of.high:g} {of.unit}".rstrip() + n


def _short(feeder: str) -> str:
    path = Path(feeder)
    return path.parent.name if path.name == "Master.dss" else path.name


def _walk(key: str, before: Any, after: Any) -> Iterator[Difference]:
    """Yield the keys whose values differ, as deep as both have them."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys((*before, *after)):
            yield from _walk(f"{key}.{name}" if key else str(name), before.get(name, ...), after.get(name, ...))
        return
    yield Difference(key, _say(before), _say(after))


def _say(value: Any) -> str:
    if value is ...:
        return "not there"
    if value is None:
        return "unset"
    if isinstance(value, Mapping) and ("kind" in value or "devices" in value):
        return str(value.get("kind") or f"one with {list_names(value['devices'], 4)}")
    if isinstance(value, list | tuple):
        return f"[{list_names([_say(each) for each in value], 4)}]"
    text = f"{value:g}" if isinstance(value, float) else show_briefly(value, str)
    return text if len(text) < 60 else f"{text[:57]}..."


def _gather(found: Iterator[Difference]) -> Iterator[Difference]:
    """Tell what differs alike in several things of a kind once."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for each in found:
        section, _, rest = each.what.partition(".")
        name, _, key = (rest, "", "") if section in _BY_NAME else rest.partition(".")
        named = section in (*_NAMED, *_BY_NAME) and name
        alike.setdefault((section if named else each.what, key if named else "", *each[1:]), []).append(name)
    for (section, key, before, after), names in alike.items():
        things = "" if names == [""] or section not in (*_NAMED, *_BY_NAME) else f".{list_names(names, 3)}"
        yield Difference(section + things + (f".{key}" if key else ""), before, after)
