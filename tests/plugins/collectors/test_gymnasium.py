"""Gymnasium: transcripts by hand, credit on chosen tokens, ends of every kind, nobody disturbs another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from feedtune.config.compose import compose_config
from feedtune.contracts import Backbone, Plan, Rollout
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.runs.training import train
from feedtune.sampling import Decoding
from feedtune.scoring import score_actions
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.transformer import Transformer
from feedtune_plugins.collectors import Gymnasium
from text_environments import make_codec

CODEC = make_codec()
ID: dict[str, int] = CODEC.tokenizer.get_vocab()
EOS = ID["<eos>"]
TWO, ONE, ZERO, LOW, HIGH = (ID[word] for word in ("2", "1", "0", "lower", "higher"))


def make(env: str, context: int | None = None, rows: int = 8, **options: Any) -> tuple[Gymnasium, list[Any]]:
    """A collector and its items, whose seeds are 0, 1, ..."""
    defaults: dict[str, Any] = {"codec": CODEC, "episodes": rows, "max_new_tokens": 4}
    collector = Gymnasium(env=f"tests/{env}-v0", **{**defaults, **options})
    size = collector.plan(rows, ranks=1).items
    return collector, list(collector.load([{"seed": seed} for seed in range(size)], context))


def collect(made: tuple[Gymnasium, list[Any]], policy: Policy, seed: int = 0) -> Rollout:
    collector, items = made
    return collector.collect(items, policy, torch.Generator().manual_seed(seed))


def saying(following: Mapping[str, str]) -> Policy:
    """After each of these tokens another one, with certainty."""
    backbone = NGram(vocab_size=11, n=2)
    for word, said in following.items():
        backbone.table.weight.data[ID[word] + 1] = -torch.inf
        backbone.table.weight.data[ID[word] + 1, ID[said]] = 0.0
    return Policy(backbone).eval()


BISECTING = {"higher": "1", "1": "<eos>", "lower": "0", "0": "<eos>"}


def text_of(exp: Experience, row: int = 0) -> list[str]:
    names = {number: word for word, number in ID.items()}
    return [names[token] for token in exp.tokens[row, : exp.lengths[row]].tolist()]


# One episode by hand


def test_turn_by_turn_until_it_terminates() -> None:
    """0 is hidden: after "1" comes "lower", after "0" the end, whose observation nobody reads."""
    exp = collect(make("Guess", rows=1, options={"hidden": 0}), saying(BISECTING)).experience
    assert text_of(exp) == ["lower", "higher", "1", "<eos>", "lower", "0", "<eos>"]
    assert exp.action.tolist() == [[False, False, True, True, False, True, True]]
    assert exp.reward.tolist() == [[0, 0, 0, -0.25, 0, 0, 1.0]]
    assert (exp.done.tolist(), exp.ended.tolist(), exp.scored.tolist()) == ([True], [True], [True])
    assert exp.sampler_logp is not None
    assert not exp.sampler_logp.any()  # certainty


def test_a_truncated_episode_is_not_done_and_ends_with_its_last_observation() -> None:
    """2 is hidden and never guessed; the third "higher" is what a bootstrap reads."""
    exp = collect(make("Guess", rows=1, options={"hidden": 2}), saying(BISECTING)).experience
    assert text_of(exp) == ["lower", "higher", *["1", "<eos>", "higher"] * 3]
    assert exp.reward[0].nonzero().squeeze(-1).tolist() == [3, 6, 9]  # each turn's last action token
    assert (exp.done.tolist(), exp.ended.tolist()) == ([False], [False])
    assert not exp.action[0, -1]
    assert not exp.terminal.any()


@pytest.mark.parametrize("limit", [{"max_turns": 2}, {"options": {"hidden": 2, "max_episode_steps": 2}}])
def test_limits_of_our_own_cut_as_the_environments_do(limit: dict[str, Any]) -> None:
    made = make("Guess", rows=1, **{"options": {"hidden": 2}, **limit})
    exp = collect(made, saying(BISECTING)).experience
    assert text_of(exp) == ["lower", "higher", *["1", "<eos>", "higher"] * 2]
    assert (exp.done.tolist(), exp.ended.tolist()) == ([False], [False])


def test_an_action_that_there_is_not_ends_the_row_with_its_own_reward() -> None:
    policy = saying({"higher": "lower", "lower": "<eos>"})
    rollout = collect(make("Guess", rows=1, invalid_reward=-2.0), policy)
    exp = rollout.experience
    assert text_of(exp) == ["lower", "higher", "lower", "<eos>"]
    assert exp.reward.tolist() == [[0, 0, 0, -2.0]]
    assert (exp.done.tolist(), exp.ended.tolist()) == ([True], [False])  # over, but not by its own end
    assert rollout.metrics["rollout/invalid"] == 1.0
    assert rollout.metrics["rollout/truncated"] == 0.0


def test_a_turn_is_cut_at_max_new_tokens_and_acted_as_it_is() -> None:
    made = make("Guess", rows=1, options={"hidden": 1}, max_new_tokens=1)
    exp = collect(made, saying(BISECTING)).experience
    assert text_of(exp) == ["lower", "higher", "1"]
    assert exp.reward.tolist() == [[0, 0, 1.0]]


def test_token_by_token_every_token_is_an_action() -> None:
    made = make("Guess", rows=1, options={"hidden": 0}, step="token")
    exp = collect(made, saying({"higher": "1", "lower": "0"})).experience
    assert text_of(exp) == ["lower", "higher", "1", "lower", "0"]
    assert exp.action.tolist() == [[False, False, True, False, True]]
    assert exp.reward.tolist() == [[0, 0, -0.25, 0, 1.0]]


def test_actions_may_be_numbers() -> None:
    made = make("Guess", rows=1, options={"hidden": 0, "discrete": True})
    exp = collect(made, saying(BISECTING)).experience
    assert text_of(exp) == ["lower", "higher", "1", "<eos>", "lower", "0", "<eos>"]


def test_of_an_observation_that_repeats_everything_only_the_new_is_appended() -> None:
    """`Parrot` with `whole` says the same as without, after all that was said before."""
    backbone = NGram(vocab_size=11, n=1)
    backbone.table.weight.data[:, : ID["0"]] = -torch.inf  # words only: special tokens have no text
    made: dict[str, Any] = {"step": "token", "max_turns": 5}
    new = collect(make("Parrot", **made), Policy(backbone)).experience
    whole = collect(make("Parrot", options={"whole": True}, **made), Policy(backbone)).experience
    assert torch.equal(new.tokens, whole.tokens)
    assert torch.equal(new.action, whole.action)
    all_of_it = make("Parrot", options={"whole": True}, observe="all", **made)
    assert collect(all_of_it, Policy(backbone)).experience.tokens.shape[1] > new.tokens.shape[1]


def test_the_same_observation_after_an_empty_action_is_a_new_one() -> None:
    """Else "lower", said twice, would be read once."""
    policy = saying({"higher": "<eos>", "lower": "<eos>", "<eos>": "<eos>"})
    exp = collect(make("Parrot", rows=30, max_turns=3), policy).experience
    again = [["lower", "<eos>", "lower"], ["higher", "<eos>", "higher"]]
    assert any(text_of(exp, row)[:3] in again for row in range(30))


# What is trained is what was sampled


@pytest.mark.parametrize("options", [{}, {"step": "token"}, {"observe": "all"}])
def test_the_samplers_log_probabilities_are_those_of_the_transcript(
    backbone: Backbone, options: dict[str, Any]
) -> None:
    """Read as whole rows, observations and all, chosen tokens have the probabilities they were drawn with."""
    policy = Policy(backbone, temperature=0.7)
    exp = collect(make("Parrot", rows=12, envs=5, **options), policy).experience
    assert exp.sampler_logp is not None
    torch.testing.assert_close(exp.sampler_logp, score_actions(policy, exp).logp, atol=2e-5, rtol=0)
    assert not exp.sampler_logp[~exp.action].any()
    assert not exp.reward[~exp.action].any()
    turns = (exp.action[:, 1:] & ~exp.action[:, :-1]).sum(-1)  # runs of action tokens
    assert int(turns.max()) > 2  # the test says something: there are observations in between
    assert len(set(exp.lengths.tolist())) > 3


@pytest.mark.parametrize("step", ["turn", "token"])
def test_nobody_disturbs_another(backbone: Backbone, step: str) -> None:
    """However many are played side by side, every episode is what it would be alone."""
    policy = Policy(backbone)
    alone = collect(make("Parrot", envs=1, step=step), policy).experience
    for envs in (3, 8, 20):
        beside = collect(make("Parrot", envs=envs, step=step), policy).experience
        assert torch.equal(beside.tokens, alone.tokens)
        assert torch.equal(beside.reward, alone.reward)
        torch.testing.assert_close(beside.sampler_logp, alone.sampler_logp, atol=2e-5, rtol=0)


def test_so_many_are_played_at_once() -> None:
    policy, batches = Policy(NGram(vocab_size=11, n=2)), list[int]()
    policy.backbone.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    for envs, largest in ((1, 1), (3, 3), (20, 8)):
        batches.clear()
        collect(make("Parrot", envs=envs), policy)
        assert max(batches) == largest


def test_the_generator_alone_decides() -> None:
    policy = Policy(NGram(vocab_size=11, n=2))
    made = make("Parrot")
    first, again, other = (collect(made, policy, seed).experience for seed in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)  # also: nothing is left over in the environments
    assert not torch.equal(first.tokens.flatten()[:40], other.tokens.flatten()[:40])
    before = torch.get_rng_state()
    collect(made, policy)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_without_a_seed_are_reset_with_one_that_is_drawn() -> None:
    collector, _ = make("Parrot", rows=16)
    items = collector.load([{}] * 16, None)
    policy = Policy(NGram(vocab_size=11, n=2))
    starts = [
        collect((collector, list(items)), policy, seed).experience.tokens[:, 0].tolist() for seed in (0, 0, 1)
    ]
    assert starts[0] == starts[1] != starts[2]
    assert len(set(starts[0])) == 2


# The context


def small_transformer(context: int) -> Backbone:
    torch.manual_seed(0)
    return Transformer(
        vocab_size=11,
        hidden_size=16,
        layers=1,
        heads=2,
        kv_heads=2,
        intermediate_size=24,
        context_length=context,
    ).eval()


@pytest.mark.parametrize("step", ["turn", "token"])
@pytest.mark.parametrize("context", [9, 12, 15])
def test_where_the_context_is_full_the_row_is_cut(context: int, step: str) -> None:
    """Also side by side, where pads of rows that wait take up room: they are read anew then."""
    policy = Policy(small_transformer(context))
    made = {"context": context, "rows": 16, "max_turns": 50, "options": {"steps": 50}, "step": step}
    exp = collect(make("Parrot", **made), policy).experience
    assert int(exp.lengths.max()) == context
    full = exp.lengths == context
    assert not exp.done[full].all()
    cut = full & ~exp.done
    assert not exp.ended[cut].any()
    torch.testing.assert_close(exp.sampler_logp, score_actions(policy, exp).logp, atol=2e-5, rtol=0)
    alone = collect(make("Parrot", envs=1, **made), policy).experience
    assert torch.equal(exp.tokens, alone.tokens)


def test_a_first_observation_that_fills_the_context_is_refused() -> None:
    with pytest.raises(UserError, match=r"tests/Guess-v0: the first observation has 2 tokens.*context of 2"):
        collect(make("Guess", context=2), saying(BISECTING))


# Sizes, groups, greedy


def test_the_number_of_rows_is_fixed() -> None:
    collector, _ = make("Parrot", rows=12, group_size=3)
    assert collector.plan(100, ranks=1) == Plan(collections=1, items=4, rows=12)
    assert collector.plan(100, ranks=2) == Plan(collections=1, items=2, rows=6)
    with pytest.raises(UserError, match=r"12 is not divisible by collector.group_size=3 times 8 ranks"):
        collector.plan(100, ranks=8)


def test_a_group_begins_in_one_state() -> None:
    policy = Policy(NGram(vocab_size=11, n=2))
    exp = collect(make("Parrot", rows=24, group_size=4), policy).experience
    assert exp.group.tolist() == [group for group in range(6) for _ in range(4)]
    starts = exp.tokens[:, 0].view(6, 4)
    assert bool((starts == starts[:, :1]).all())
    assert len(set(starts[:, 0].tolist())) == 2
    assert len({tuple(row) for row in exp.tokens[:4].tolist()}) > 1


def test_greedy_episodes_are_supplied_if_asked_for() -> None:
    policy = saying({**BISECTING, "lower": "1"})
    policy.backbone.table.weight.data[HIGH + 1] = 0.0  # type: ignore[union-attr, operator, index]
    policy.backbone.table.weight.data[HIGH + 1, ONE] = 0.1  # type: ignore[union-attr, operator, index]
    made = make("Guess", rows=6, group_size=3, options={"hidden": 1})
    assert made[0].supply(frozenset()) == {"greedy", "groups"}
    assert "greedy" not in collect(made, policy).experience.extra
    made[0].supply(frozenset({"greedy"}))
    rollout = collect(made, policy)
    assert rollout.experience.extra["greedy"].tolist() == [1.0] * 6  # 1 at once; the others babble
    assert rollout.metrics["rollout/greedy"] == 1.0
    assert rollout.metrics["rollout/reward"] < 1.0


def test_decoding_is_warped_or_not() -> None:
    assert not make("Guess")[0].warped
    collector, items = make("Guess", decoding={"greedy": True}, options={"hidden": 1})
    assert collector.warped
    assert isinstance(collector.decoding, Decoding)
    policy = saying(BISECTING)
    policy.backbone.table.weight.data.clamp_(min=-1.0)  # type: ignore[union-attr, operator]
    assert collect((collector, items), policy).metrics["rollout/reward"] == 1.0


# Metrics, records, errors


def test_metrics_and_records() -> None:
    made = make("Guess", rows=2, options={"hidden": 0}, records=1)
    rollout = collect(made, saying(BISECTING))
    assert rollout.metrics == {
        "rollout/reward": 0.75,
        "rollout/unscored": 0.0,
        "rollout/length": 4.0,  # tokens that the policy chose
        "rollout/turns": 2.0,
        "rollout/ended": 1.0,
        "rollout/truncated": 0.0,
        "rollout/invalid": 0.0,
        "rollout/distinct": 0.5,  # both episodes were told the same and did the same
    }

    said = ["lower higher", "1", "lower", "0"]
    roles = ["user", "assistant"] * 2
    assert list(rollout.records) == [
        {
            "prompt": "lower higher",
            "response": "1\nlower\n0",
            "reward": 0.75,
            "ended": True,
            "messages": [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)],
        }
    ]
    assert list(rollout.record_rows) == [0]


def test_rows_with_a_reward_of_nan_take_part_in_nothing() -> None:
    policy = Policy(NGram(vocab_size=11, n=2))
    rollout = collect(make("Broken", rows=16, options={"how": "sometimes"}), policy)
    exp = rollout.experience
    assert 0 < int(exp.scored.sum()) < 16
    assert not exp.action[~exp.scored].any()
    assert not exp.reward.isnan().any()
    assert rollout.metrics["rollout/reward"] == 1.0
    assert rollout.metrics["rollout/unscored"] == 1 - float(exp.scored.float().mean())
    with pytest.raises(UserError, match="every one of 8 episodes is NaN"):
        collect(make("Broken", options={"how": "nan"}), policy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "collector.episodes: expected at least 1, got 0"),
        ({"envs": 0}, "collector.envs: expected at least 1, got 0"),
        ({"max_turns": 0}, "collector.max_turns: expected at least 1, got 0"),
        ({"max_new_tokens": 0}, "collector.max_new_tokens: expected at least 1, got 0"),
        ({"group_size": 3}, "collector.group_size: 3 does not divide collector.episodes=8"),
        ({"step": "turns"}, "collector.step: expected one of turn, token, got 'turns'. Did you mean 'turn'"),
        ({"observe": "first"}, "collector.observe: expected one of new, all, got 'first'"),
        ({"env": "tests/Ges-v0"}, "collector.env: cannot find 'tests/Ges-v0'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Gymnasium(**{"codec": CODEC, "episodes": 8, "env": "tests/Guess-v0", **options})


@pytest.mark.parametrize("seed", ["one", -1, 1.5])
def test_a_seed_that_is_none_names_its_row(seed: Any) -> None:
    collector, _ = make("Guess")
    with pytest.raises(UserError, match="row 2: 'seed' must be a whole number from 0"):
        collector.load([{"seed": 0}, {"seed": seed}], None)


def test_somebody_elses_environment_trains(tmp_path: Path) -> None:
    """As on the command line: two epochs of PPO in a dialogue that the run knows nothing about."""
    config = compose_config(
        [
            "algorithm=ppo",
            "collector=gymnasium",
            "task=gymnasium",
            "collector.env=tests/Guess-v0",
            "collector.step=turn",
            "collector.episodes=16",
            "collector.max_new_tokens=2",
            "task.texts=[higher lower]",
            "task.rows=8",
            "reward=length",
            "tokenizer=word",
            "backbone=gru",
            "backbone.embed_size=8",
            "backbone.hidden_size=8",
            "backbone.layers=1",
            "callbacks=quiet",
            "report=false",
            "trainer.max_epochs=2",
        ]
    )
    metrics = train(config, tmp_path)
    assert math.isfinite(metrics["rollout/reward"])
    assert metrics["rollout/turns"] >= 1
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 3  # a header and two epochs
    assert '"role": "assistant"' in (tmp_path / "samples.jsonl").read_text()
