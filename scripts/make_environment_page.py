"""Write the tables of docs/environment.md from the code: keys, channels, actions, rewards, infos, errors.

Text between ``<!-- begin: name -->`` and ``<!-- end: name -->`` is replaced, all else is left as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import powergrid
from powergrid.errors import PowerGridError
from powergrid.grid.devices import SPECS
from powergrid.grid.feeder.changes import ADDED
from powergrid.grid.feeder.microgrid import MicrogridSpec
from powergrid.grid.outages import EVENTS
from powergrid.quantities import REWARD_TERMS, STEP, Quantity
from powergrid.scenario import AgentSpec, Scenario
from powergrid.scenario.vocabulary import GOALS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "environment.md"
EXAMPLE, AGENT = "ieee13_mg", "MG1"


def write_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def describe_type(annotation: Any) -> str:
    """Write a type the way a reader of YAML thinks of it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is Annotated:
        return describe_type(args[0])
    if origin is dict:
        key = "term" if get_origin(args[0]) is Literal else "name"
        return f"{describe_type(args[1])} by {key}"
    if origin is tuple:
        return {"text": "list of names"}.get(describe_type(args[0]), f"list of {describe_type(args[0])}s")
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(arg) for arg in args if arg is not type(None))
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Any": "text or table"}
    return "keys" if is_section(annotation) else names[annotation.__name__]


def describe_default(info: FieldInfo) -> str:
    """Write a default; an empty mapping, or nothing, is a dash."""
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ({}, (), ""):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def is_section(annotation: Any) -> bool:
    """Whether a type has keys of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def list_keys(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, str, str, str]]:
    """List every key under a model: key, type, default, description; sections are opened."""
    for name, info in model.model_fields.items():
        key, annotation = prefix + name, info.annotation
        sections = [part for part in get_args(annotation) if is_section(part)]
        if key == "microgrids.<name>.tie":
            yield f"`{key}`", "`transformer`, `line`", "required", (
                "How it is tied; `kind` says which, the other keys depend on it: see [Feeders](feeders.md)."
            )  # fmt: skip
        elif key == "microgrids":
            yield from list_keys(MicrogridSpec, "microgrids.<name>.")
        elif is_section(annotation) and isinstance(annotation, type):
            yield from list_keys(annotation, f"{key}.")
        elif key == "ranges":
            yield "`ranges.<key>`", "distribution", "-", info.description or ""
        elif key == "agents":
            yield from list_keys(AgentSpec, "agents.<name>.")
        elif key == "devices":
            yield "`devices.<name>`", ", ".join(f"`{kind}`" for kind in SPECS), "required", (
                "Devices by name; `kind` says which, the other keys depend on it: see [Devices](devices.md)."
            )  # fmt: skip
        elif key == "feeder_changes.add":
            yield "`feeder_changes.add.<name>`", ", ".join(f"`{kind}`" for kind in ADDED), "-", (
                "Elements that are added, by name; `kind` says which, the other keys depend on it: see "
                "[Feeders](feeders.md#changing-a-feeder)."
            )  # fmt: skip
        elif key == "events":
            yield "`events.<name>`", ", ".join(f"`{kind}`" for kind in EVENTS), "-", (
                "Events by name; `kind` says which, the other keys depend on it: see [Events](events.md)."
            )  # fmt: skip
        elif sections:
            yield from list_keys(sections[0], f"{key}.<name>." if get_origin(annotation) is dict else f"{key}.")
        else:
            yield f"`{key}`", describe_type(annotation), describe_default(info), info.description or ""


def make_keys() -> str:
    """Write the table of all keys."""
    return write_table(("key", "value", "default", "meaning"), list_keys(Scenario))


def describe(**overrides: Any) -> Any:
    """Describe the example."""
    env = powergrid.make(EXAMPLE, **overrides)
    try:
        return env.describe()
    finally:
        env.close()


def make_actions() -> str:
    """Write the table of one agent's actions."""
    rows = describe().actions.query("agent == @AGENT").to_dict("records")
    cells = ((r["position"], f"`{r['name']}`", r["unit"], f"{r['low']:g}", f"{r['high']:g}") for r in rows)
    return write_table(("position", "name", "unit", "-1 is", "1 is"), cells)


def make_observations(mode: str = "distributed") -> str:
    """Write the table of what one agent sees; of the network only the first few."""
    table = describe(mode=mode).observations.query("agent == @AGENT")
    if mode == "centralized":
        table = table.query("owner == 'network'").head(8)
    rows = table.to_dict("records")
    cells = (
        (r["position"], f"`{r['name']}`", r["unit"], f"{r['low']:.4g}", f"{r['high']:.4g}", r["owner"]) for r in rows
    )
    return write_table(("position", "name", "unit", "-1 is", "1 is", "owner"), cells)


def make_rewards() -> str:
    """Write the table of reward terms."""
    rows = describe().rewards.to_dict("records")
    cells = ((f"`{r['term']}`", r["unit"], f"{r['weight']:g}", r["meaning"]) for r in rows)
    return write_table(("term", "unit", f"weight in `{EXAMPLE}`", "meaning"), cells)


def make_goals() -> str:
    """Write the weights of every goal."""
    terms = [term.name for term in REWARD_TERMS if any(term.name in weights for weights in GOALS.values())]
    cells = ((f"`{term}`", *(f"{weights.get(term, 0):g}" for weights in GOALS.values())) for term in terms)
    return write_table(("term", *(f"`{goal}`" for goal in GOALS)), cells)


def describe_meaning(quantity: Quantity) -> str:
    """Write what a number means, and where it is reported if not everywhere."""
    return "; ".join(filter(None, (quantity.meaning, quantity.where)))


def make_infos() -> str:
    """Write the table of infos that are not reward terms."""
    rows = ((f"`{q.name}`", q.unit, describe_meaning(q)) for q in STEP if q not in REWARD_TERMS)
    return write_table(("name", "unit", "meaning"), rows)


def make_errors() -> str:
    """Provoke errors and write what they say."""

    def play(actions: dict[str, Any]) -> None:
        env = powergrid.make(EXAMPLE)
        try:
            env.reset(seed=0)
            env.step(actions)
        finally:
            env.close()

    wrong = {"episode_lenght": 48, "devices.ess_1.soc_initial": 0.05, "reward.weights": {"loss_kwh": 1}}
    cases: list[tuple[str, Callable[[], object]]] = [
        ('powergrid.make("ieee13_mq")', lambda: powergrid.make("ieee13_mq")),
        (f'powergrid.load_scenario("{EXAMPLE}", {wrong})', lambda: powergrid.load_scenario(EXAMPLE, wrong)),
        (f'powergrid.make("{EXAMPLE}", **{{"devices.ess_1.bus": "676"}})',
         lambda: powergrid.make(EXAMPLE, **{"devices.ess_1.bus": "676"})),
        ('env.step({"MG1": [0, 0, 0, 0, 2]})', lambda: play({"MG1": [0, 0, 0, 0, 2]})),
        ('env.reset(options={"day": 365})', lambda: powergrid.make(EXAMPLE).reset(options={"day": 365})),
    ]  # fmt: skip
    lines = []
    for code, act in cases:
        try:
            act()
        except PowerGridError as error:
            lines.append(f">>> {code}\n{type(error).__name__}: {error}")
    return "```text\n" + "\n\n".join(lines) + "\n```"


def make_episode() -> str:
    """Play one step and write what comes back."""
    env = powergrid.make(EXAMPLE)
    observations, _ = env.reset(seed=0, options={"day": 171})
    shown = {agent: seen.shape for agent, seen in observations.items()}
    middle = {agent: np.zeros(5, np.float32) for agent in env.agents}
    _, rewards, terminations, truncations, infos = env.step(middle)
    info = infos["MG1"]
    env.close()
    text = f""">>> observations, infos = env.reset(seed=0, options={{"day": 171}})
>>> {{agent: seen.shape for agent, seen in observations.items()}}
{shown}
>>> middle = {{agent: np.zeros(5, np.float32) for agent in env.agents}}
>>> observations, rewards, terminations, truncations, infos = env.step(middle)
>>> {{agent: round(reward, 4) for agent, reward in rewards.items()}}
{ {agent: round(reward, 4) for agent, reward in rewards.items()} }
>>> round(infos["MG1"]["energy_cost_usd"], 2), round(infos["MG1"]["zone_v_min_pu"], 3)
{(round(info["energy_cost_usd"], 2), round(info["zone_v_min_pu"], 3))}
>>> terminations, truncations
{(terminations, truncations)}"""
    return f"```text\n{text}\n```"


SECTIONS: dict[str, Callable[[], str]] = {
    "keys": make_keys,
    "actions": make_actions,
    "observations": make_observations,
    "centralized": lambda: make_observations("centralized"),
    "rewards": make_rewards,
    "goals": make_goals,
    "infos": make_infos,
    "errors": make_errors,
    "episode": make_episode,
}


def make_page(page: str) -> str:
    """Fill the sections of docs/environment.md anew."""
    return fill_page(page, SECTIONS)


def fill_page(page: str, sections: Mapping[str, Callable[[], str]]) -> str:
    """Fill a page's sections anew.

    Raises:
        ValueError: a section of the page is unknown, or one is missing from it.
    """
    named = re.findall(r"<!-- begin: (\w+) -->", page)
    if sorted(named) != sorted(sections):
        raise ValueError(f"the page has sections {sorted(named)}, expected {sorted(sections)}")
    for name, make in sections.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}"
    return page


def main() -> int:
    """Write the page, or with ``--check`` only tell whether it is in sync."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where the page is out of date")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = make_page(old)
    if not check:
        PAGE.write_text(new, encoding="utf-8")
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
