"""Every member of the Q family learns on a task of six tokens: from what it says, or from a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from feedtune.contracts import Algorithm
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.sampling import Decoding, sample
from feedtune_plugins.algorithms import ILQL, Acting, LinearEpsilon, QLearning, TargetNetwork
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.buffers import Replay

VOCABULARY, EOS = 6, 0
PROMPTS = [[1], [2], [3]]
GREEDY = Decoding(greedy=True)


def score(prompt: Sequence[int], said: Sequence[int]) -> float:
    """Half for each right token of two: the prompt's successor, and then the end."""
    return sum(a == b for a, b in zip(said, [prompt[0] + 1, EOS], strict=False)) / 2


def speak(policy: Policy, generator: torch.Generator, each: int, decoding: Decoding) -> Experience:
    said = sample(
        policy,
        PROMPTS,
        max_new_tokens=2,
        eos_ids=[EOS],
        generator=generator,
        group_size=each,
        decoding=decoding,
    )
    prompts = [prompt for prompt in PROMPTS for _ in range(each)]
    rows = [[*p, *r.tokens] for p, r in zip(prompts, said, strict=True)]
    actions = [[False, *[True] * len(r.tokens)] for r in said]
    return from_rows(rows, actions, scores=[score(p, r.tokens) for p, r in zip(prompts, said, strict=True)])


def scored(policy: Policy, decoding: Decoding) -> float:
    return speak(policy, torch.Generator().manual_seed(9), 16, decoding).score.mean().item()


def table() -> NGram:
    return NGram(vocab_size=VOCABULARY, n=3)


ONLINE: dict[str, tuple[Callable[[], QLearning], Callable[[Policy], torch.optim.Optimizer]]] = {
    "q_learning": (
        lambda: QLearning(acting=Acting(temperature=0.0, epsilon=0.1), aggregation="sum"),
        lambda policy: torch.optim.SGD(policy.parameters(), lr=0.03),
    ),
    "dqn": (
        lambda: QLearning(
            acting=Acting(epsilon=LinearEpsilon(start=1.0, end=0.05, steps=80)),
            backup="double",
            dueling=True,
            n_step=2,
            target=TargetNetwork(),
        ),
        lambda policy: torch.optim.Adam(policy.parameters(), lr=0.05),
    ),
    "soft_q": (
        lambda: QLearning(
            acting=Acting(temperature=0.1, epsilon=LinearEpsilon(start=1.0, end=0.0, steps=80)),
            backup="soft",
            prior="reference",
            target=TargetNetwork(),
        ),
        lambda policy: torch.optim.Adam(policy.parameters(), lr=0.05),
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ONLINE)
def test_it_learns_from_what_it_says(name: str, seed: int) -> None:
    make, make_optimizer = ONLINE[name]
    algorithm = make()
    policy = algorithm.build_policy(table)
    if name == "q_learning":  # Q starts at 1, as high as any return: what is untried looks best
        policy.heads["q"].weight.data += 1.0  # type: ignore[operator]
    algorithm.setup(policy)
    before = scored(policy, Decoding())
    optimizer, buffer = make_optimizer(policy), Replay(capacity=500, minibatch_size=32, updates=8)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(25):
        buffer.add(speak(policy, generator, 8, Decoding()))
        for exp in buffer.minibatches(generator):
            step(algorithm, policy, optimizer, exp)
    assert before < 0.4
    assert scored(policy, GREEDY) == 1.0
    assert scored(policy, Decoding()) > 0.85  # its exploration included


OFFLINE: dict[str, Callable[[], Algorithm]] = {
    "cql": lambda: QLearning(
        acting=Acting(epsilon=0.0), backup="double", conservative=0.05, target=TargetNetwork()
    ),
    "ilql": lambda: ILQL(target=TargetNetwork(), expectile=0.9, conservative=0.01, beta=30.0),
}


def every_answer() -> Experience:
    """Each response to each prompt once: what uniform speech says, with nothing missing."""
    ends = [[EOS], *([first, second] for first in range(1, VOCABULARY) for second in range(VOCABULARY))]
    pairs = [(prompt, said) for prompt in PROMPTS for said in ends]
    scores = [score(prompt, said) for prompt, said in pairs]
    actions = [[False, *[True] * len(said)] for _, said in pairs]
    return from_rows([[*prompt, *said] for prompt, said in pairs], actions, scores=scores)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OFFLINE)
def test_it_learns_from_a_log_of_uniform_speech(name: str, seed: int) -> None:
    """Imitation of such a log scores what chance does."""
    log, generator = every_answer(), torch.Generator().manual_seed(seed)
    assert log.score.mean() < 0.4
    algorithm = OFFLINE[name]()
    policy = algorithm.build_policy(table)
    algorithm.setup(policy)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(150):
        rows = torch.randint(len(log), (64,), generator=generator)
        step(algorithm, policy, optimizer, log[rows])
    assert scored(policy, GREEDY) == 1.0


def step(algorithm: Algorithm, policy: Policy, optimizer: torch.optim.Optimizer, exp: Experience) -> None:
    loss = algorithm.loss(replace(exp), policy)
    optimizer.zero_grad()
    (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    algorithm.after_step(policy)
