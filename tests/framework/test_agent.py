"""The classic loop by hand: the example of the documentation, and what an agent does with what it is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

import text_environments  # noqa: F401 - registers tests/...
from feedtune.agent import Agent
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.sampling import Decoding
from feedtune.scoring import score_actions
from feedtune.transcript import as_experience
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.buffers import Replay
from text_environments import make_codec

CODEC = make_codec()
ID: dict[str, int] = CODEC.tokenizer.get_vocab()
PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


class Watched(Algorithm):
    """Keeps what it is given; its loss is a weight, so that a step of SGD takes 1 from it."""

    on_policy = True

    def __init__(self, needs: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.wanted, self.prepared, self.lost, self.steps = needs, list[Experience](), list[Experience](), 0

    def needs(self) -> frozenset[str]:
        return self.wanted

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone(), heads={"value": 1})

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, dict[str, float]]:
        assert not policy.training
        self.prepared.append(exp)
        return exp, {"seen": float(len(exp))}

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        self.lost.append(exp)
        return Loss(policy.backbone.table.weight.sum(), 1.0, {"loss/own": 2.0})  # type: ignore[union-attr, operator]

    def after_step(self, policy: Policy) -> None:
        self.steps += 1


def make(algorithm: Algorithm, **options: Any) -> Agent:
    def backbone() -> NGram:
        made = NGram(vocab_size=11, n=2)
        torch.nn.init.normal_(made.table.weight, generator=torch.Generator().manual_seed(0))
        return made

    defaults: dict[str, Any] = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=1.0)}
    return Agent(algorithm, backbone, CODEC, **{**defaults, **options})


def test_the_example_of_the_documentation_learns() -> None:
    """Tabular Q-learning: after its 1,500 letters it writes three of five, which is worth 1."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    loop = code[code.index("env = ") :]
    assert len(loop.strip().splitlines()) < 20
    found: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), found)
    env, agent = found["env"], found["agent"]
    agent.decoding = Decoding(greedy=True)
    agent._transcript = None  # the last episode may be under way
    state, _ = env.reset(seed=1)
    over, reward = False, 0.0
    while not over:
        state, reward, over, _, _ = env.step(agent.act(state))
    assert len(state) == 3
    assert reward == 1.0


def test_what_is_told_becomes_experience() -> None:
    algorithm = Watched()
    agent = make(algorithm, max_new_tokens=2)
    said = [agent.act("lower higher")]
    agent.update(0.5, False)
    said.append(agent.act("lower"))
    assert not algorithm.prepared  # the episode goes on
    agent.update(-1.0, True)
    (exp,) = algorithm.prepared
    tokens = exp.tokens[0].tolist()
    assert tokens[:2] == [ID["lower"], ID["higher"]]
    actions = [CODEC.response(exp.tokens[0][run].tolist()) for run in runs(exp)]
    assert actions == said
    assert [exp.reward[0, run[-1]].item() for run in runs(exp)] == [0.5, -1.0]
    assert (exp.done.item(), exp.ended.item()) == (True, True)
    assert agent.metrics == {"seen": 1.0, "loss/own": 2.0}
    assert algorithm.steps == 1


def runs(exp: Experience) -> list[list[int]]:
    """Columns of each turn of the only row."""
    found: list[list[int]] = []
    for column in exp.action[0].nonzero().squeeze(-1).tolist():
        if found and found[-1][-1] == column - 1:
            found[-1].append(column)
        else:
            found.append([column])
    return found


def test_a_truncated_episode_is_not_done_and_ends_with_the_last_observation() -> None:
    algorithm = Watched(frozenset({"values"}))
    agent = make(algorithm, max_new_tokens=1)
    agent.policy.heads["value"].weight.data.normal_()  # type: ignore[union-attr, operator]
    agent.act("lower")
    agent.update(1.0, False, True, "higher lower")
    (exp,) = algorithm.prepared
    assert exp.tokens[0, -2:].tolist() == [ID["higher"], ID["lower"]]
    assert not exp.action[0, -2:].any()
    assert (exp.done.item(), exp.ended.item()) == (False, False)
    head = agent.policy.heads["value"]
    assert exp.extra["bootstrap"].item() == pytest.approx(head.weight[ID["lower"] + 1].item())  # type: ignore[union-attr, index]


def test_learning_waits_for_so_many_episodes_and_may_have_a_buffer() -> None:
    algorithm = Watched()
    agent = make(algorithm, episodes=3, buffer=Replay(capacity=10, minibatch_size=5, updates=4))
    before = agent.policy.backbone.table.weight.detach().clone()  # type: ignore[union-attr, operator]
    for episode in range(6):
        agent.act("lower")
        agent.update(float(episode), True)
    assert [len(exp) for exp in algorithm.prepared] == [3, 3]
    assert [len(exp) for exp in algorithm.lost] == [5] * 8
    after = agent.policy.backbone.table.weight.detach()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(after, before - 8)  # eight steps of SGD, each with a gradient of 1
    assert {float(score) for exp in algorithm.lost[:4] for score in exp.score} <= {0.0, 1.0, 2.0}


def test_acting_is_seeded_and_on_its_own_distribution() -> None:
    def said(seed: int) -> list[str]:
        agent = make(Watched(), seed=seed)
        texts = []
        for _ in range(5):
            texts.append(agent.act("lower"))
            agent.update(0.0, True)
        return texts

    assert said(0) == said(0) != said(1)
    agent = make(Watched(frozenset({"old_logp"})), max_new_tokens=6)
    agent.act("lower higher")
    assert agent._transcript is not None
    exp = as_experience([agent._transcript])
    torch.testing.assert_close(exp.sampler_logp, score_actions(agent.policy, exp).logp, atol=1e-5, rtol=0)


def test_where_the_context_is_full_a_new_row_begins() -> None:
    from feedtune_plugins.backbones.transformer import Transformer

    algorithm = Watched()
    algorithm.loss = lambda exp, policy: Loss(policy.heads["value"].weight.sum(), 1.0)  # type: ignore[method-assign, union-attr, assignment]

    def backbone() -> Backbone:
        return Transformer(
            vocab_size=11, hidden_size=8, layers=1, heads=1, kv_heads=1, intermediate_size=8, context_length=8
        )

    agent = Agent(algorithm, backbone, CODEC, max_new_tokens=2)
    for _ in range(12):
        agent.act("lower higher")
        agent.update(0.0, False)
    assert algorithm.prepared
    for exp in algorithm.prepared:
        assert exp.tokens.shape[1] <= 8
        assert not exp.done.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ppo", {"episodes": 4}),
        ("reinforce", {}),
        ("dqn", {"buffer": Replay(capacity=50, minibatch_size=4, updates=2)}),
    ],
)
def test_shipped_algorithms_in_somebody_elses_environment(name: str, options: dict[str, Any]) -> None:
    """With a reference (PPO's KL), values, a target network and replay: a few episodes, and weights move."""
    algorithm: Algorithm = build(compose_config([f"algorithm={name}"]).algorithm, "algorithm")
    agent = make(algorithm, max_new_tokens=2, **options)
    before = [weight.detach().clone() for weight in agent.policy.parameters()]
    env = gymnasium.make("tests/Parrot-v0")
    state, _ = env.reset(seed=0)
    for _ in range(30):
        state, reward, terminated, truncated, _ = env.step(agent.act(state))
        agent.update(float(reward), terminated, truncated, state)
        if terminated or truncated:
            state, _ = env.reset()
    assert any(not torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True))


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="Watched needs greedy, which an agent has not"):
        make(Watched(frozenset({"greedy", "values"})))
    with pytest.raises(UserError, match="Watched learns from the policy's own distribution only"):
        make(Watched(), decoding=Decoding(top_k=2))
    with pytest.raises(RuntimeError, match=r"update\(\) before act\(\)"):
        make(Watched()).update(0.0, True)
