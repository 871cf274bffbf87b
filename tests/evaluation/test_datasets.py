"""Days kept as Minari data sets: what stands there is what an environment gives, step by step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("minari")

import minari

import powergrid
from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation import evaluate
from powergrid.evaluation.datasets import record_dataset

SHORT = {"env_name": "ieee34_ieee13", "episode_length": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def central(root: Path) -> Path:
    return record_dataset({"env_name": "ieee13_mg", "episode_length": 5}, root, days=3, n_envs=2, seed=4)


def test_environment_that_is_made_of_a_data_set_plays_it_again(
    root: Path, central: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by Minari's own name, and every observation, reward and end the same bit for bit."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    found = minari.load_dataset("powergrid/ieee13_mg/rule_based-v1")
    assert (found.total_episodes, found.total_steps) == (3, 15)
    play_again(found)
    assert all(episode.truncations.tolist() == [False] * 4 + [True] for episode in found)


@pytest.mark.parametrize("name", ["ieee13_mg", "ieee13_voltvar"])
def test_days_of_predictive_control_are_kept_and_played_again(name: str, root: Path) -> None:
    place = record_dataset({"env_name": name, "episode_length": 4}, root, "mpc", days=1)
    assert "| policy | `mpc` |" in (place / "README.md").read_text(encoding="utf-8")
    play_again(minari.MinariDataset(place / "data"))


def play_again(found: minari.MinariDataset) -> None:
    """Play a data set's days by the environment that is made of it, and compare bit for bit."""
    with closing(found.recover_environment()) as env:
        told = list(found.storage.get_episode_metadata(range(found.total_episodes)))
        for episode, own in zip(found, told, strict=True):
            seen, _ = env.reset(seed=own["seed"], options=own["options"])
            np.testing.assert_array_equal(seen, episode.observations[0])
            for step, action in enumerate(episode.actions):
                seen, reward, terminated, truncated, _ = env.step(action)
                np.testing.assert_array_equal(seen, episode.observations[step + 1])
                assert reward == episode.rewards[step]
                assert terminated == episode.terminations[step]
                assert truncated == episode.truncations[step]


def test_returns_and_card_are_those_of_the_evaluation(central: Path) -> None:
    """An evaluation plays numbers in double precision, and tells the mean over two agents."""
    found = minari.MinariDataset(central / "data")
    report = evaluate({"env_name": "ieee13_mg", "episode_length": 5}, ["rule_based"], split="train", days=3).frame
    returns = [float(episode.rewards.sum()) for episode in found]
    np.testing.assert_allclose(returns, 2.0 * report["reward"], atol=1e-5)
    card = (central / "README.md").read_text(encoding="utf-8")
    for part in ("`ieee13_mg`, version 1", "`rule_based`", f"mean {np.mean(returns):.4f}", "ess_1.p_kw", "seed 4"):
        assert part in card
    for episode in found:
        np.testing.assert_allclose(episode.infos["rewards"].sum(axis=1)[1:], episode.rewards, atol=1e-12)


def test_agents_have_a_dict_of_what_each_sees_and_does(root: Path) -> None:
    """Numbers and positions of mixed agents; played by a policy of no name, which the data set is called by."""

    class Still:
        calls = 0

        def act(self, observations: Any) -> Any:
            self.calls += 1
            return {name: {"continuous": np.zeros(5), "discrete": np.ones(1)} for name in observations}

    still = Still()
    place = record_dataset(SHORT, root, ("my/still one", still), view="agents", days=1)
    assert still.calls == 3  # no environment plays without a day of its own
    assert place.name == "still_one-agents-v1"
    [episode] = minari.MinariDataset(place / "data")
    with closing(powergrid.make("ieee34_ieee13", episode_length=3)) as env:
        seen, _ = env.reset()
        assert {name: own[0].shape for name, own in episode.observations.items()} == {
            n: s.shape for n, s in seen.items()
        }
    assert episode.actions["MG2"]["discrete"].tolist() == [[1], [1], [1]]
    assert episode.rewards.shape == (3,)


def test_what_cannot_be_kept_is_told_at_once(root: Path, central: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"days 0(.|\n)*unknown form 'bx'(.|\n)*view(.|\n)*no actions to keep"
    ) as all_:
        record_dataset({"env_name": "ieee13_mg"}, root, "native", days=0, actions="bx", view="all")  # type: ignore[arg-type]
    assert len(all_.value.problems) == 4
    with pytest.raises(ScenarioError, match="no level for each number; use 'auto'"):
        record_dataset(SHORT, root, days=1, actions="multidiscrete")
    with pytest.raises(PowerGridError, match="there is such a data set"):
        record_dataset({"env_name": "ieee13_mg", "episode_length": 5}, root, days=1)


def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[Any] = []  # of days that were played
    with pytest.raises(PowerGridError, match="file"):
        record_dataset(
            {"env_name": "ieee13_mg", "episode_length": 2},
            tmp_path / "file",
            days=1,
            progress=lambda *_: told.append(_),
        )
    assert not told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
