"""Baselines by hand: REINFORCE's five, over the rollout and over groups; GAE with whitening."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import GAE, MonteCarlo
from feedtune_plugins.algorithms.advantages import Baseline

T, F = True, False
NAN = math.nan


def rows(scores: list[float], group: list[int] | None = None) -> Experience:
    """One action token a row."""
    count = len(scores)
    exp = from_rows([[1, 2]] * count, [[F, T]] * count, scores=scores, group=group)
    return replace(exp, reward=exp.reward.double())


def advantage(exp: Experience, baseline: Baseline, **options: object) -> list[float]:
    """Of each row's action token."""
    estimator = MonteCarlo(baseline=baseline, **options)  # type: ignore[arg-type]
    return estimator(exp, exp.reward).advantage[:, 1].tolist()


# Rollout of two groups: scores 0 0 0 1 and 4 6.
SCORES, GROUPS = [0.0, 0.0, 0.0, 1.0, 4.0, 6.0], [7, 7, 7, 7, 3, 3]


@pytest.mark.parametrize(
    ("baseline", "scope", "expected"),
    [
        ("none", None, [0, 0, 0, 1, 4, 6]),
        # mean of all six: 11 / 6
        ("mean", "rollout", [x - 11 / 6 for x in SCORES]),
        # means of the other five: 11/5 three times, 10/5, 7/5, 5/5
        ("leave_one_out", "rollout", [-11 / 5, -11 / 5, -11 / 5, 1 - 2, 4 - 7 / 5, 6 - 1]),
        # group means 1/4 and 5
        ("mean", "group", [-1 / 4, -1 / 4, -1 / 4, 3 / 4, -1, 1]),
        # means of the others in the group: 1/3 three times, 0; 6, 4
        ("leave_one_out", "group", [-1 / 3, -1 / 3, -1 / 3, 1, -2, 2]),
        ("running", None, [0, 0, 0, 1, 4, 6]),  # the first rollout has a baseline of 0
    ],
)
def test_baselines(baseline: Baseline, scope: str | None, expected: list[float]) -> None:
    assert advantage(rows(SCORES, GROUPS), baseline, scope=scope) == pytest.approx(expected)


def test_groups_are_found_by_number_wherever_their_rows_stand() -> None:
    order = torch.tensor([4, 0, 3, 5, 2, 1])
    found = advantage(rows(SCORES, GROUPS)[order], "leave_one_out", scope="group")
    assert found == pytest.approx([-2, -1 / 3, 1, 2, -1 / 3, -1 / 3])


def test_a_row_alone_has_nobody_to_compare_with() -> None:
    """Leaving out the only row leaves no mean: the baseline is 0, and the gradient stays the true one."""
    assert advantage(rows([3.0]), "leave_one_out") == [3.0]
    assert advantage(rows([3.0, 5.0], [0, 1]), "leave_one_out", scope="group") == [3.0, 5.0]
    assert advantage(rows([3.0]), "mean") == [0.0]


def test_the_running_baseline_is_used_before_it_is_updated() -> None:
    estimator = MonteCarlo(baseline="running", decay=0.75)
    seen = []
    for scores in ([2.0, 4.0], [7.0, 7.0], [1.0, 3.0]):
        exp = rows(scores)
        found = estimator(exp, exp.reward)
        seen.append(found.metrics["rollout/baseline"])
        assert found.advantage[:, 1].tolist() == pytest.approx([s - seen[-1] for s in scores])
    # 0; the mean of the first, 3; then .75 * 3 + .25 * 7 = 4
    assert seen == [0.0, 3.0, 4.0]
    restored = MonteCarlo(baseline="running", decay=0.75)
    restored.load_state_dict(estimator.state_dict())
    exp = rows([0.0])
    assert restored(exp, exp.reward).metrics["rollout/baseline"] == pytest.approx(0.75 * 4 + 0.25 * 2)


def test_a_rollout_without_a_score_leaves_the_running_baseline_alone() -> None:
    estimator = MonteCarlo(baseline="running", decay=0.75)
    seen = []
    for scores in ([NAN, NAN], [4.0, 4.0], [NAN, NAN], [8.0, 8.0], [0.0, 0.0]):
        exp = rows(scores)
        seen.append(estimator(exp, exp.reward).metrics["rollout/baseline"])
    # Nothing yet; nothing yet; (no rows to report on); 4, the mean of the only one; .75 * 4 + .25 * 8
    assert seen == [0.0, 0.0, 0.0, 4.0, 5.0]


def test_the_value_baseline_is_each_tokens_own() -> None:
    exp = from_rows([[1, 2, 3], [1, 2]], [[F, T, T], [F, T]], scores=[4.0, 1.0])
    exp = exp.with_(value=torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 0.0]]), bootstrap=torch.zeros(2))
    found = MonteCarlo(baseline="value")(exp, exp.reward)
    assert found.advantage.tolist() == [[0, 3, 1], [0, -1, 0]]
    assert found.returns.tolist() == [[0, 4, 4], [0, 1, 0]]
    assert found.metrics["rollout/baseline"] == pytest.approx(2.0)  # (1 + 3 + 2) / 3 action tokens


def test_discounting_counts_from_the_first_action_token() -> None:
    # gamma 1/2, rewards 2 on a0 and 4 on a1, an observation between. G0 = 2 + 4/2 = 4, G1 = 4.
    # Weight gamma^t: a0 1 * 4, a1 1/2 * 4. The baseline of the rollout is the mean of G0 = 4 and of 0: 2.
    exp = from_rows([[1, 2, 9, 3], [1, 2]], [[F, T, F, T], [F, T]], scores=[4.0, 0.0])
    exp.reward[0, 1] = 2.0
    plain = MonteCarlo(gamma=0.5, baseline="none")(exp, exp.reward)
    assert plain.advantage.tolist() == [[0, 4, 0, 2], [0, 0, 0, 0]]
    mean = MonteCarlo(gamma=0.5, baseline="mean")(exp, exp.reward)
    assert mean.advantage.tolist() == [[0, 4 - 2, 0, (4 - 2) / 2], [0, -2, 0, 0]]
    assert mean.returns.tolist() == [[0, 4, 0, 4], [0, 0, 0, 0]]


def test_a_row_without_actions_counts_in_baselines() -> None:
    exp = from_rows([[1, 2], [1, 2, 3]], [[F, T], [F, F, F]], scores=[1.0, 5.0])
    found = MonteCarlo(baseline="leave_one_out")(exp, exp.reward)
    assert found.advantage.tolist() == [[0, 1 - 5, 0], [0, 0, 0]]


@pytest.mark.parametrize("scope", ["rollout", "group"])
@pytest.mark.parametrize("baseline", ["none", "mean", "leave_one_out", "running"])
def test_a_row_that_is_not_scored_counts_nowhere(baseline: Baseline, scope: str) -> None:
    with_it, without = rows([1.0, NAN, 4.0, 6.0], [0, 0, 0, 1]), rows([1.0, 4.0, 6.0], [0, 0, 1])
    kept = torch.tensor([0, 2, 3])
    chosen: Any = {"scope": scope} if baseline in ("mean", "leave_one_out") else {}
    one, other = MonteCarlo(baseline=baseline, **chosen), MonteCarlo(baseline=baseline, **chosen)
    for _ in range(2):  # the second time round the running mean is in use
        found, expected = one(with_it, with_it.reward), other(without, without.reward)
        torch.testing.assert_close(found.advantage[kept], expected.advantage)
        assert not found.advantage[1].any()
        assert found.metrics == pytest.approx(expected.metrics)


def test_a_truncated_row_goes_on_with_its_bootstrap() -> None:
    exp = from_rows([[1, 2]], [[F, T]], scores=[1.0], done=False)
    exp = exp.with_(value=torch.tensor([[0.0, 0.5]]), bootstrap=torch.tensor([4.0]))
    # G = 1 + 1/2 * 4 = 3
    assert MonteCarlo(gamma=0.5, baseline="value")(exp, exp.reward).returns.tolist() == [[0, 3]]
    assert GAE(gamma=0.5, lam=0.9, whiten=False)(exp, exp.reward).returns.tolist() == [[0, 3]]


def gae_case() -> Experience:
    """Row 0: values .5 and .25, rewards -.1 and 1.05; row 1: value .3, reward -.2; row 2: no action."""
    exp = from_rows([[1, 2, 3], [1, 2], [1]], [[F, T, T], [F, T], [F]], scores=[1.05, -0.2, 9.0])
    reward = exp.reward.double()
    reward[0, 1] = -0.1
    value = torch.tensor([[0, 0.5, 0.25], [0, 0.3, 0], [0, 0, 0]], dtype=torch.float64)
    return replace(exp, reward=reward).with_(value=value, bootstrap=torch.zeros(3, dtype=torch.float64))


def test_gae_whitens_all_action_tokens_and_returns_stay_as_they_were() -> None:
    # gamma 1, lambda .5. Row 0: A1 = d1 = 1.05 - .25 = .8; d0 = -.1 + .25 - .5 = -.35; A0 = -.35 + .4 = .05.
    # Row 1: A = -.2 - .3 = -.5. Returns A + V: .55, 1.05, -.2.
    # Mean of the three advantages .35/3 = .11667; deviations -.06667, .68333, -.61667; squares sum to .85167;
    # Bessel: .85167 / 2 = .42583, root .65256. Whitened: -.10216, 1.04716, -.94500.
    exp = gae_case()
    plain = GAE(lam=0.5, whiten=False)(exp, exp.reward)
    assert plain.advantage[exp.action].tolist() == pytest.approx([0.05, 0.8, -0.5])
    white = GAE(lam=0.5, whiten=True)(exp, exp.reward)
    assert white.advantage[exp.action].tolist() == pytest.approx([-0.10216, 1.04716, -0.94500], abs=1e-5)
    for found in (plain, white):
        assert found.returns[exp.action].tolist() == pytest.approx([0.55, 1.05, -0.2])
        assert not found.advantage[~exp.action].any()


def test_gae_leaves_out_rows_that_are_not_scored() -> None:
    exp = gae_case()
    silent = replace(exp, action=exp.action & torch.tensor([[T], [F], [T]]))
    found = GAE(lam=0.5)(silent, silent.reward).advantage
    kept = torch.tensor([0, 2])
    torch.testing.assert_close(found[kept], GAE(lam=0.5)(exp[kept], exp.reward[kept]).advantage)
    assert not found[1].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MonteCarlo(gamma=1.5), "algorithm.advantage.gamma: expected a number in [0, 1], got 1.5"),
        (lambda: GAE(lam=-0.1), "algorithm.advantage.lam: expected a number in [0, 1], got -0.1"),
        (
            lambda: MonteCarlo(decay=0.5),
            "algorithm.advantage.decay: only baseline=running has a use for it; leave it null",
        ),
        (
            lambda: MonteCarlo(eps=0.5),
            "algorithm.advantage.eps: only scale=rows or scale=tokens has a use for it; leave it null",
        ),
        (
            lambda: MonteCarlo(baseline="none", scope="group"),
            "algorithm.advantage.scope: only baseline=mean, baseline=leave_one_out or scale=rows has a use "
            "for it; leave it null",
        ),
        (lambda: MonteCarlo(decay=1.0), "algorithm.advantage.decay: expected a number in [0, 1), got 1.0"),
        (
            lambda: MonteCarlo(baseline="leave_on_out"),  # type: ignore[arg-type]
            "algorithm.advantage.baseline: expected one of none, mean, leave_one_out, running, value, "
            "greedy, got 'leave_on_out'. Did you mean 'leave_one_out'?",
        ),
        (
            lambda: MonteCarlo(scope="batch"),  # type: ignore[arg-type]
            "algorithm.advantage.scope: expected one of rollout, group, got 'batch'.",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
