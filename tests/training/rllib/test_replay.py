from __future__ import annotations

import numpy as np
import pytest

from powergrid.training.rllib.off_policy import TransitionBuffer


def filled(*, capacity: int = 10, n_step: int = 1, terminated: bool = False, gamma: float = 0.5) -> TransitionBuffer:
    """Hold a piece of four steps: observed 0..4, rewards 1, 2, 4, 8, actions 10..13."""
    buffer = TransitionBuffer(capacity, n_step, gamma)
    obs, rewards = np.arange(5.0)[:, None], np.array([1.0, 2.0, 4.0, 8.0])
    buffer.add(obs, np.arange(10, 14), rewards, terminated=terminated)
    return buffer


def rows(buffer: TransitionBuffer) -> dict[str, list]:
    columns = buffer.get_state()["columns"]
    return {name: np.squeeze(values).tolist() for name, values in columns.items()}


def test_transitions_of_one_step_are_the_steps() -> None:
    kept = rows(filled())
    assert kept["obs"] == [0.0, 1.0, 2.0, 3.0]
    assert kept["new_obs"] == [1.0, 2.0, 3.0, 4.0]
    assert kept["rewards"] == [1.0, 2.0, 4.0, 8.0]
    assert kept["n_step"] == [1.0] * 4


def test_transitions_of_three_steps_discount_and_shorten_at_the_end() -> None:
    kept = rows(filled(n_step=3))
    assert kept["new_obs"] == [3.0, 4.0, 4.0, 4.0]
    assert kept["rewards"] == [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4 + 0.25 * 8, 4 + 0.5 * 8, 8.0]
    assert kept["n_step"] == [3.0, 3.0, 2.0, 1.0]


def test_only_an_end_for_good_has_no_value_after_it() -> None:
    assert rows(filled(terminated=False))["terminateds"] == [False] * 4
    assert rows(filled(terminated=True))["terminateds"] == [False, False, False, True]
    assert rows(filled(terminated=True, n_step=2))["terminateds"] == [False, False, True, True]


def test_a_full_buffer_forgets_the_oldest() -> None:
    buffer = filled(capacity=5)
    buffer.add(np.array([[7.0], [8.0], [9.0]]), np.array([17, 18]), np.array([0.0, 0.0]), terminated=False)
    assert buffer.size == 5
    assert sorted(rows(buffer)["actions"]) == [11, 12, 13, 17, 18]


def test_state_brings_back_what_was_kept_and_where_the_next_goes() -> None:
    buffer = filled(capacity=5)
    again = TransitionBuffer(5, 1, 0.5)
    again.set_state(buffer.get_state())
    for each in (buffer, again):
        each.add(np.array([[7.0], [8.0], [9.0]]), np.array([17, 18]), np.array([0.0, 0.0]), terminated=False)
    assert rows(buffer) == rows(again)


def test_samples_are_uniform_and_follow_the_seed() -> None:
    buffer = filled()
    drawn = buffer.sample(4000, np.random.default_rng(0))
    assert np.bincount(drawn["actions"])[10:] == pytest.approx([1000] * 4, rel=0.1)
    np.testing.assert_array_equal(drawn["actions"], buffer.sample(4000, np.random.default_rng(0))["actions"])
    np.testing.assert_array_equal(drawn["new_obs"] - drawn["obs"], 1.0)
    assert (drawn["weights"] == 1.0).all()
