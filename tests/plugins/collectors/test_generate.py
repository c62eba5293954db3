"""Generate: prompts in, scored experience out; what is kept for people; what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from feedtune.contracts import Plan
from feedtune.errors import UserError
from feedtune.sampling import Decoding
from feedtune.scoring import score_actions
from feedtune_plugins.collectors import Generate

NAN = math.nan
ROWS = [{"prompt": "a b", "reference": "c"}, {"prompt": "d"}]
# After b: c, e, the end. After d: f, f, f, ...
FOLLOWING = {"b": "c", "c": "e", "e": "<eos>", "d": "f", "f": "f"}


def build(kit: Any, scores: list[float], **options: Any) -> Generate:
    codec = options.pop("codec", None) or kit.codec()
    defaults = {"responses": 2, "max_new_tokens": 4}
    return Generate(codec=codec, reward=kit.judge(scores), **{**defaults, **options})


def test_experience_by_hand(kit: Any) -> None:
    collector = build(kit, [2.0, -1.0])
    items = collector.load(ROWS, context_length=None)
    exp = collector.collect(items, kit.saying(FOLLOWING), kit.generator()).experience
    a, b, c, d, e, f, end = (kit.ids[w] for w in ("a", "b", "c", "d", "e", "f", "<eos>"))
    assert exp.tokens.tolist() == [[a, b, c, e, end], [d, f, f, f, f]]
    assert exp.mask.all()
    assert exp.action.tolist() == [[False, False, True, True, True], [False, True, True, True, True]]
    assert exp.reward.tolist() == [[0, 0, 0, 0, 2], [0, 0, 0, 0, -1]]  # on the end itself; on the last token
    assert exp.done.tolist() == [True, True]  # cut and scored: no reward counts after it
    assert exp.ended.tolist() == [True, False]  # but it did not close itself
    assert exp.group.tolist() == [0, 1]
    assert exp.sampler_logp is not None
    assert not exp.sampler_logp.any()  # certainty


def test_the_reward_sees_text_and_the_tasks_row(kit: Any) -> None:
    collector = build(kit, [0.0, 0.0])
    collector.collect(collector.load(ROWS, None), kit.saying(FOLLOWING), kit.generator())
    first, second = collector.reward.shown  # type: ignore[attr-defined]
    assert (first.prompt, first.response) == ("a b", "c e")  # without the end-of-text token
    assert first.columns == ROWS[0]
    assert (second.prompt, second.response) == ("d", "f f f f")


def test_chat_rows_reach_the_reward_as_messages(kit: Any) -> None:
    messages = [{"role": "user", "content": "d"}]
    collector = build(kit, [1.0], responses=1)
    (item,) = collector.load([{"messages": messages}], None)
    collector.collect([item], kit.saying(FOLLOWING), kit.generator())
    (shown,) = collector.reward.shown  # type: ignore[attr-defined]
    assert list(shown.messages) == messages
    assert shown.prompt == "d"


def test_a_stop_string_ends_a_row_and_leaves_the_text(kit: Any) -> None:
    collector = build(kit, [1.0], responses=1, codec=kit.codec(stop=["e"]))
    rollout = collector.collect(collector.load(ROWS[:1], None), kit.saying(FOLLOWING), kit.generator())
    assert rollout.experience.tokens.tolist() == [[kit.ids[w] for w in ("a", "b", "c", "e")]]
    assert rollout.experience.ended.tolist() == [True]
    assert collector.reward.shown[0].response == "c"  # type: ignore[attr-defined]


def test_groups_follow_the_prompts(kit: Any) -> None:
    collector = build(kit, [0.0] * 6, responses=6, group_size=3)
    exp = collector.collect(collector.load(ROWS, None), kit.babbling(), kit.generator()).experience
    assert exp.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert exp.tokens[:, 0].tolist() == [kit.ids["a"]] * 3 + [kit.ids["d"]] * 3
    assert len({tuple(row) for row in exp.tokens.tolist()}) > 3


def test_masks_do_not_look_at_tokens(kit: Any) -> None:
    """Pads are end-of-text tokens here, and a row may end with a real one."""
    codec = kit.codec()
    assert codec.pad_id == kit.eos
    collector = build(kit, [0.0] * 40, responses=40, group_size=20, codec=codec)
    exp = collector.collect(collector.load(ROWS, None), kit.babbling(), kit.generator()).experience
    assert not exp.mask.all()
    assert bool((exp.tokens[~exp.mask] == kit.eos).all())
    for row in range(len(exp)):
        real = exp.tokens[row, : exp.lengths[row]].tolist()
        said = real[2 if row < 20 else 1 :]
        assert exp.ended[row].item() == (said[-1] == kit.eos)
        assert kit.eos not in said[:-1]
        assert int(exp.action[row].sum()) == len(said)


def test_the_samplers_log_probabilities_stand_on_their_tokens(kit: Any) -> None:
    policy = kit.babbling()
    collector = build(kit, [0.0] * 10, responses=10, group_size=5)
    exp = collector.collect(collector.load(ROWS, None), policy, kit.generator()).experience
    torch.testing.assert_close(exp.sampler_logp, score_actions(policy, exp).logp, atol=1e-5, rtol=0)


def test_a_row_without_opinion_takes_part_in_nothing(kit: Any) -> None:
    collector = build(kit, [NAN, 3.0])
    rollout = collector.collect(collector.load(ROWS, None), kit.saying(FOLLOWING), kit.generator())
    exp = rollout.experience
    assert exp.scored.tolist() == [False, True]
    assert exp.score.tolist() == [0.0, 3.0]
    assert exp.action.any(-1).tolist() == [False, True]
    assert rollout.metrics["rollout/reward"] == 3.0  # not 1.5
    assert rollout.metrics["rollout/unscored"] == 0.5


def test_nothing_but_nan_is_refused(kit: Any) -> None:
    collector = build(kit, [NAN, NAN])
    with pytest.raises(UserError, match="every one of 2 scores is NaN"):
        collector.collect(collector.load(ROWS, None), kit.saying(FOLLOWING), kit.generator())


def test_metrics_and_records(kit: Any) -> None:
    parts = {"one": [1.0, NAN, 5.0], "two": [0.0, 0.0, 3.0]}
    collector = Generate(
        codec=kit.codec(),
        reward=kit.judge([1.0, 2.0, 6.0], parts),
        responses=3,
        max_new_tokens=4,
        records=2,
    )
    rows = [*ROWS, {"prompt": "b b"}]
    rollout = collector.collect(collector.load(rows, None), kit.saying(FOLLOWING), kit.generator())
    # Responses: "c e" and the end (3 tokens), "f f f f" (cut), "c e" and the end again.
    assert rollout.metrics == pytest.approx(
        {
            "rollout/reward": 3.0,
            "rollout/reward/one": 3.0,  # of the two that have one
            "rollout/reward/two": 1.0,
            "rollout/length": 10 / 3,
            "rollout/ended": 2 / 3,
            "rollout/distinct": 2 / 3,
            "rollout/unscored": 0.0,
        }
    )
    assert list(rollout.records[:1]) == [
        {"prompt": "a b", "response": "c e", "reward": 1.0, "reward/one": 1.0, "reward/two": 0.0}
    ]
    assert len(rollout.records) == 2
    assert list(rollout.record_rows) == [0, 1]


def test_the_same_generator_gives_the_same_rollout(kit: Any) -> None:
    collector = build(kit, [0.0] * 8, responses=8, group_size=4)
    items = collector.load(ROWS, None)

    def tokens(seed: int) -> list[list[int]]:
        found: list[list[int]] = collector.collect(
            items, kit.babbling(), kit.generator(seed)
        ).experience.tokens.tolist()
        return found

    assert tokens(0) == tokens(0) != tokens(1)


def test_the_plan_splits_responses_over_ranks_and_groups(kit: Any) -> None:
    collector = build(kit, [], responses=24, group_size=4)
    assert collector.plan(items=100, ranks=1) == Plan(collections=1, items=6, rows=24)
    assert collector.plan(items=100, ranks=3) == Plan(collections=1, items=2, rows=8)
    with pytest.raises(
        UserError,
        match=r"^collector\.responses: 24 is not divisible by collector\.group_size=4 times 4",
    ):
        collector.plan(items=100, ranks=4)


def test_a_prompt_that_leaves_no_room_is_refused_by_row(kit: Any) -> None:
    collector = build(kit, [])
    assert len(collector.load(ROWS, context_length=6)) == 2  # two tokens and four to come
    with pytest.raises(UserError) as caught:
        collector.load([{"prompt": "d"}, {"prompt": "a b c"}], context_length=6)
    assert str(caught.value) == (
        "row 2 ('a b c'): its prompt of 3 tokens and collector.max_new_tokens=4 need 7; the backbone's "
        "context holds 6. Shorten the row, lower collector.max_new_tokens or raise backbone.context_length "
        "where the backbone has it"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"responses": 0}, "collector.responses: expected at least 1, got 0"),
        ({"group_size": 0}, "collector.group_size: expected at least 1, got 0"),
        ({"max_new_tokens": 0}, "collector.max_new_tokens: expected at least 1, got 0"),
        ({"responses": 7, "group_size": 2}, "collector.group_size: 2 does not divide collector.responses=7"),
        ({"decoding": {"top_p": 2.0}}, "decoding.top_p: expected a number in (0, 1], got 2.0"),
    ],
)
def test_wrong_values_are_refused_by_name(kit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(kit, [], **options)
    assert str(caught.value) == message


def test_it_says_whether_it_draws_from_another_distribution(kit: Any) -> None:
    assert not build(kit, []).warped
    assert not build(kit, [], decoding={"top_p": 1.0}).warped
    assert build(kit, [], decoding={"top_k": 5}).warped
    assert build(kit, [], decoding=Decoding(greedy=True)).warped
