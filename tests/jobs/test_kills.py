"""Daemons and keepers killed in the middle of arrays; `make kills` has many more of them (kills.py)."""

import pytest

from tests.jobs.kills import VICTIMS, storm


@pytest.mark.parametrize("seed, victims, policy", [
    (1, ("daemon",), "rerun"), (2, ("keeper",), "rerun"), (3, ("both",), "rerun"), (4, VICTIMS, "fail"), (5, VICTIMS, "rerun")])
def test_every_effect_is_as_the_policy_says(seed, victims, policy):
    assert storm(seed, victims, policy, tasks=120, kills=2) == 2
