from __future__ import annotations

import pytest

BY_HAND = {"energy_cost_usd": 96.0, "voltage_violations": 12.0, "v_mean_pu": 1.02, "converged": 1.0}


@pytest.mark.parametrize("batch", [384, 448], ids=["whole episodes", "episodes cut between samples"])
def test_infos_become_metrics(build, batch: int) -> None:
    algorithm = build(train_batch_size=batch)
    for _ in range(3):
        result = algorithm.train()
    custom = result["env_runners"]["custom"]
    assert {name: custom[name] for name in BY_HAND} == pytest.approx(BY_HAND)
    assert custom["MG1"]["energy_cost_usd"] == pytest.approx(48.0)
    assert custom["MG2"]["energy_cost_usd"] == pytest.approx(144.0)
    assert "note" not in custom["MG1"]


def test_result_has_the_names_of_older_versions(build) -> None:
    result = build(policies="independent").train()
    assert result["episode_reward_mean"] == result["env_runners"]["episode_return_mean"]
    learners = result["learners"]
    for name in ("policy_loss", "vf_loss", "entropy"):
        mean = (learners["MG1_policy"][name] + learners["MG2_policy"][name]) / 2
        assert result[name] == pytest.approx(mean)
