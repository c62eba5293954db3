"""What is filled in after a rollout: whose log-probabilities are the old ones, and how far apart they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from feedtune.completion import complete, logp_drift
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.references import FrozenCopy
from feedtune_plugins.backbones.ngram import NGram

F, T = False, True


def uniform() -> Policy:
    """Three tokens, each as likely as the others."""
    return Policy(NGram(vocab_size=3, n=2))


def test_a_samplers_numbers_are_old_ones_only_where_they_are_exact() -> None:
    exp = from_rows([[1, 2]], [[F, T]])
    exp = replace(exp, sampler_logp=torch.tensor([[0.0, -7.0]]))
    needs = frozenset({"old_logp"})
    for exact, expected in ((True, -7.0), (False, -math.log(3))):
        found = complete(exp, needs, uniform(), sampler_exact=exact).old_logp
        assert found is not None
        assert not found.requires_grad
        assert found[0, 1].item() == pytest.approx(expected)


def test_a_reference_that_nobody_asked_for_is_not_read() -> None:
    exp = from_rows([[1, 2]], [[F, T]])
    policy = uniform()
    assert complete(exp, frozenset(), policy, FrozenCopy(policy)).ref_logp is None
    assert complete(exp, frozenset({"reference"}), policy).ref_logp is None


def measured(old: list[list[float]], sampled: list[list[float]], action: list[list[bool]]) -> Experience:
    exp = from_rows([[1] * len(row) for row in action], action)
    return replace(exp, old_logp=torch.tensor(old), sampler_logp=torch.tensor(sampled))


def test_drift_is_the_mean_distance_of_an_action_token() -> None:
    """|-1 + 1.5| and |-2 + 1| over two tokens; the prompt's 9 is nobody's."""
    exp = measured([[9.0, -1.0, -2.0]], [[0.0, -1.5, -1.0]], [[F, T, T]])
    assert logp_drift(exp) == {"rollout/logp_drift": pytest.approx(0.75)}


def test_there_is_no_drift_where_nothing_is_compared() -> None:
    exp = measured([[0.0, -1.0]], [[0.0, -2.0]], [[F, T]])
    assert logp_drift(exp) == {"rollout/logp_drift": 1.0}
    assert logp_drift(replace(exp, old_logp=None)) == {}
    assert logp_drift(replace(exp, sampler_logp=None)) == {}
    assert logp_drift(replace(exp, old_logp=exp.sampler_logp)) == {}
    assert logp_drift(measured([[0.0, -1.0]], [[0.0, -2.0]], [[F, F]])) == {}
