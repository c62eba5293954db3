"""A critic of its own: who is taught by what, with networks read by hand and every response listed.

Backbone and tower are recurrent, so that a value's gradient goes through all of the tower. Nothing in
`by_hand` uses feedtune: h_t = tanh(embed(x_t) + W h_{t-1}), logits and values are affine in h.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from card_proofs import build_card
from feedtune.completion import complete
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.testing.algorithms import TinyBackbone, nudge
from feedtune_plugins.algorithms import GAE, PolicyGradient, ValueLoss

PROMPT = 1
RESPONSES = [(2,), *itertools.product((0, 1), (0, 1, 2))]  # 2 ends; at most two tokens
WEIGHT = 0.3  # of the value loss
Gradients = dict[str, Tensor]


def built(algorithm: PolicyGradient) -> Policy:
    """Random weights everywhere, the head's too."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        policy = algorithm.build_policy(lambda: TinyBackbone(vocab_size=3).double()).double()
    nudge(policy, 5, 0.5)
    return policy.eval()


def experience(numbers: list[int], cut: bool = False) -> Experience:
    """These responses, with a reward for every token; `cut`: those without an end go on."""
    said = [RESPONSES[i] for i in numbers]
    exp = from_rows([[PROMPT, *r] for r in said], [[False, *[True] * len(r)] for r in said])
    reward = torch.zeros(exp.tokens.shape, dtype=torch.float64)
    for row, r in enumerate(said):
        reward[row, 1 : 1 + len(r)] = torch.tensor(rewards(r), dtype=torch.float64)
    done = torch.tensor([not cut or r[-1] == 2 for r in said])
    return replace(exp, reward=reward, done=done, ended=done)


def rewards(response: tuple[int, ...]) -> list[float]:
    """Of each token; it knows nothing of later ones."""
    return [(0.7, -1.1, 0.4)[response[0]], *(0.9 - 0.6 * token - 0.5 * response[0] for token in response[1:])]


def gradients(policy: Policy, loss: Tensor) -> Gradients:
    """Of every trainable weight, by name; 0 where nothing arrives."""
    named = dict(policy.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    pairs = zip(named.items(), found, strict=True)
    return {name: torch.zeros_like(weight) if g is None else g for (name, weight), g in pairs}


def by_hand(policy: Policy, response: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """log pi `[n]` of a response's tokens, and the critic's values `[n + 1]` before each and after all."""
    weights = dict(policy.named_parameters())

    def states(reader: str) -> list[Tensor]:
        last, found = torch.zeros(5, dtype=torch.float64), []
        for token in (PROMPT, *response):
            read = weights[f"{reader}.embedding.weight"][token]
            last = torch.tanh(read + weights[f"{reader}.recurrence.weight"] @ last)
            found.append(last)
        return found

    logps = [
        (weights["backbone.output.weight"] @ h + weights["backbone.output.bias"]).log_softmax(-1)[token]
        for h, token in zip(states("backbone"), response, strict=False)
    ]
    reader = "towers.value" if policy.towers else "backbone"
    values = [weights["heads.value.weight"][0] @ h + weights["heads.value.bias"][0] for h in states(reader)]
    return torch.stack(logps), torch.stack(values)


def to_go(response: tuple[int, ...]) -> Tensor:
    return torch.tensor([sum(rewards(response)[t:]) for t in range(len(response))], dtype=torch.float64)


def mean_gradients(algorithm: PolicyGradient, policy: Policy) -> Gradients:
    """Of the algorithm's loss over all responses, as the policy draws them."""
    total: Gradients = {}
    for number, response in enumerate(RESPONSES):
        p = float(by_hand(policy, response)[0].detach().sum().exp())
        exp = complete(experience([number]), algorithm.needs(), policy)
        with torch.no_grad():
            exp, _ = algorithm.prepare(exp, policy)
        loss = algorithm.loss(exp, policy)
        here = gradients(policy, loss.sum / loss.denominator)
        total = {name: total.get(name, 0) + p * g for name, g in here.items()}
    return total


def exact_gradients(policy: Policy) -> tuple[Gradients, Gradients]:
    """Of minus the expected return, and of WEIGHT times half the critic's expected squared error."""
    expected, error = torch.zeros(()).double(), torch.zeros(()).double()
    for response in RESPONSES:
        logps, values = by_hand(policy, response)
        p, returns = logps.sum().exp(), to_go(response)
        expected = expected + p * returns[0]
        error = error + p.detach() * (values[:-1] - returns).square().sum() / 2
    return gradients(policy, -expected), gradients(policy, WEIGHT * error)


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-12, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def actor_critic(critic: Any, weight: float = WEIGHT) -> PolicyGradient:
    """At lambda 1 the returns are what was seen, and the policy's mean gradient is exact for any values."""
    value = ValueLoss(weight=weight, critic=critic)
    return PolicyGradient(advantage=GAE(lam=1.0, whiten=False), aggregation="row_sum", value=value)


def test_each_network_is_taught_by_its_own_loss_alone() -> None:
    """In the mean of all responses: the backbone by the return, the critic's tower and head by the error."""
    algorithm = actor_critic("own")
    policy = built(algorithm)
    of_return, of_error = exact_gradients(policy)
    for name in of_return:
        own, other = (of_return, of_error) if name.startswith("backbone") else (of_error, of_return)
        assert not other[name].any(), name
        # A tower that nobody acts by has no use for its language model.
        assert (own[name].abs().max() > 1e-4) == (not name.startswith("towers.value.output")), name
    close(mean_gradients(algorithm, policy), {n: of_return[n] + of_error[n] for n in of_return})


def test_a_shared_backbone_is_taught_by_both() -> None:
    """Or the test above could not tell."""
    algorithm = actor_critic("shared")
    policy = built(algorithm)
    of_return, of_error = exact_gradients(policy)
    both = [n for n in of_return if of_return[n].any() and of_error[n].any()]
    assert both == ["backbone.embedding.weight", "backbone.recurrence.weight"]
    close(mean_gradients(algorithm, policy), {n: of_return[n] + of_error[n] for n in of_return})


LAM, CLIP = 0.95, 0.2


def value_loss_by_hand(before: Policy, after: Policy, numbers: list[int]) -> Tensor:
    """PPO's: a mean over tokens of half the larger of two squared errors; rows may go on after their end."""
    terms = []
    for number in numbers:
        response = RESPONSES[number]
        old, new = by_hand(before, response)[1].detach(), by_hand(after, response)[1]
        n, ends = len(response), response[-1] == 2
        follows = [*old[1:n], torch.zeros(()).double() if ends else old[n]]
        advantage = torch.zeros(()).double()
        returns = [advantage] * n
        for t in reversed(range(n)):
            advantage = rewards(response)[t] + follows[t] - old[t] + LAM * advantage
            returns[t] = advantage + old[t]
        for t in range(n):
            near = old[t] + (new[t] - old[t]).clamp(-CLIP, CLIP)
            terms.append(torch.stack([(new[t] - returns[t]) ** 2, (near - returns[t]) ** 2]) / 2)
    plain, clipped = torch.stack(terms).unbind(-1)
    assert (clipped > plain).any()  # or the bound would be idle here
    assert (clipped < plain).any()
    return torch.maximum(plain, clipped).mean()


@pytest.mark.parametrize("critic", ["own", "shared"])
def test_ppos_card_fits_the_values_of_its_critic(critic: str) -> None:
    """After a step of both networks, with rows that were cut: the card less the same card without values."""
    numbers, found = [0, 1, 3, 4, 5, 6], []
    for weight in (WEIGHT, 0.0):
        overrides = (
            f"algorithm.value.critic={critic}",
            f"algorithm.value.weight={weight}",
            "algorithm.kl=null",
        )
        algorithm = build_card("ppo", overrides)
        policy, before = built(algorithm), built(algorithm)
        exp = complete(experience(numbers, cut=True), algorithm.needs(), policy)
        with torch.no_grad():
            exp, _ = algorithm.prepare(exp, policy)
        nudge(policy, 7, 0.8)  # values leave the clip
        loss = algorithm.loss(exp, policy)
        found.append(gradients(policy, loss.sum / loss.denominator))
    expected = gradients(policy, WEIGHT * value_loss_by_hand(before, policy, numbers))
    with_values, without = found
    close({name: g - without[name] for name, g in with_values.items()}, expected)
    taught = {name for name, g in expected.items() if g.abs().max() > 1e-4}
    reader = "towers.value" if critic == "own" else "backbone"
    parts = (f"{reader}.embedding.weight", f"{reader}.recurrence.weight", "heads.value.weight")
    assert taught == {*parts, "heads.value.bias"}
