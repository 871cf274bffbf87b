"""Absurd and damaged input ends in a typed error or is right: some tries of the many of scripts/fuzz.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from powergrid.envs import NetworkedGridEnv
from powergrid.errors import ScenarioError
from powergrid.scenario import Scenario, load_scenario
from powergrid.training.runs.settings import SETTINGS, fields_of, make_settings
from scripts.fuzz import KINDS, play_try

#: More of what is cheap.
TRIES = {"config": 40, "yaml": 25, "profiles": 40, "run": 60, "policy": 80, "settings": 60, "import": 60, "model": 20}


@pytest.mark.parametrize("kind", list(KINDS))
def test_damaged_input_is_refused_by_a_typed_error(kind: str, tmp_path: Path) -> None:
    told = {number: play_try(kind, number, tmp_path) for number in range(TRIES[kind])}
    assert {number: text for number, text in told.items() if "\n" in text or text.startswith("an empty")} == {}
    assert len(set(told.values())) > 1  # something was refused, something was not


def numbers_of(schema: Any, definitions: dict[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List the places of all numbers of the vocabulary; ``*`` stands for a name or a position, ``=x`` for a kind."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
        kind = schema["properties"].get("kind", {}).get("const")
        at = (*at, f"={kind}") if kind else at
    found = [at] if schema.get("type") in ("number", "integer") else []
    for name, part in schema.get("properties", {}).items():
        found += numbers_of(part, definitions, (*at, name))
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found += numbers_of(part, definitions, at)
    for part in (*schema.get("prefixItems", ())[:1], schema.get("additionalProperties"), schema.get("items")):
        found += numbers_of(part, definitions, (*at, "*")) if isinstance(part, dict) else []
    return list(dict.fromkeys(found))


def put(at: tuple[str, ...], value: Any) -> Any:
    """Return data with a value at a place, and the kind of what it is in."""
    if not at:
        return value
    key, *rest = at
    inner = put(tuple(rest), value)
    return {"kind": key[1:], **inner} if key.startswith("=") else {"some" if key == "*" else key: inner}


SCHEMA = Scenario.model_json_schema()
NUMBERS = numbers_of(SCHEMA, SCHEMA["$defs"])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, 10**400])
def test_absurd_number_anywhere_in_a_scenario_is_a_problem_with_its_key(value: float) -> None:
    base = load_scenario("ieee13_mg").model_dump(exclude={"placed"})
    assert len(NUMBERS) > 120
    for at in NUMBERS:
        key = next(part for part in reversed(at) if part != "*")
        lists = at[-1] == "*" and at[-2] not in ("taps", "steps_on", "norm_amps", "feeders", "weights")
        place = at[:-1] if lists else at
        if "weights" in place:
            place = (*place[:-1], "losses_kwh")
        absurd = put(place, [value, value] if lists else value)
        with pytest.raises(ScenarioError) as error:
            load_scenario(base, absurd)
        assert any(key in problem for problem in error.value.problems), (at, error.value.problems)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e308, 10**400])
@pytest.mark.parametrize("algorithm", list(SETTINGS))
def test_absurd_setting_is_refused_by_its_name(algorithm: str, value: float) -> None:
    for name, field in SETTINGS[algorithm].model_fields.items():
        if name in fields_of(algorithm) and field.annotation is not bool and field.annotation is not str:
            with pytest.raises(ScenarioError, match=name):
                make_settings(algorithm, {name: value})


def test_scenario_name_alone_is_an_env_config() -> None:
    env = NetworkedGridEnv("ieee13_mg")
    try:
        assert env.scenario.name == "ieee13_mg"
    finally:
        env.close()


@pytest.mark.parametrize("given", [["ieee13_mg"], 3, b"ieee13_mg", object(), {1: 2}, ("ieee13_mg", "a"), iter("a")])
def test_what_is_no_env_config_is_a_scenario_error(given: Any) -> None:
    with pytest.raises(ScenarioError, match=r"env_config|scenario"):
        NetworkedGridEnv(given)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_scenario_file_is_read_in_the_encodings_that_editors_write(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes("name: Müller\nfeeder: ieee13\nagents: single\n".encode(encoding))
    assert load_scenario(file).name == "Müller"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n".join(["a0: &a0 [x]", *(f"a{i + 1}: &a{i + 1} [{f'*a{i}, ' * 9}]" for i in range(20))]), "aliases"),
        ("devices: &a [*a]", "holds itself"),
        ("taps: " + "[" * 40 + "]" * 40, "levels deep"),
        ("taps: " + "[" * 5000, "nested too deeply|is not YAML"),
        ("when: 2020-99-99", "is not YAML"),
        ("seed: " + "1" * 6000, "is not YAML"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_yaml_that_grows_or_is_none_is_a_scenario_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=told):
        load_scenario(tmp_path / "own.yaml")
