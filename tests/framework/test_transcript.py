"""Transcripts and the policy that talks in them: by hand, side by side, read anew where room is short."""

from __future__ import annotations

import pytest
import torch

from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.sampling import Decoding, Speaker, pad_right
from feedtune.scoring import score_actions
from feedtune.transcript import Manner, Talk, Transcript, as_experience
from feedtune_plugins.backbones.transformer import Transformer
from text_environments import make_codec

CODEC = make_codec()
ID: dict[str, int] = CODEC.tokenizer.get_vocab()
EOS = ID["<eos>"]


def blank(seed: int = 0, **manner: object) -> Transcript:
    return Transcript(Manner(codec=CODEC, **manner), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def say(transcript: Transcript, *words: str) -> None:
    for number, word in enumerate(words):
        assert transcript.speaking
        transcript.say(ID[word], -0.5 * (number + 1))


def test_a_transcript_by_hand() -> None:
    transcript = blank()
    transcript.open("lower higher")
    assert transcript.take_unread() == [ID["lower"], ID["higher"]]
    say(transcript, "1", "2", "<eos>")
    assert not transcript.speaking
    assert transcript.close_turn() == "1 2"
    transcript.earn(0.5)
    transcript.hear("lower")
    assert transcript.take_unread() == [ID["1"], ID["2"], EOS, ID["lower"]]
    say(transcript, "0", "<eos>")
    assert transcript.close_turn() == "0"
    transcript.earn(2.0)
    transcript.done = transcript.terminated = True
    exp = as_experience([transcript])
    tokens = [ID[word] for word in ("lower", "higher", "1", "2", "<eos>", "lower", "0", "<eos>")]
    assert exp.tokens.tolist() == [tokens]
    assert exp.action.tolist() == [[False, False, True, True, True, False, True, True]]
    assert exp.reward.tolist() == [[0, 0, 0, 0, 0.5, 0, 0, 2.0]]
    assert exp.sampler_logp is not None
    assert exp.sampler_logp.tolist() == [[0, 0, -0.5, -1.0, -1.5, 0, -0.5, -1.0]]
    assert (exp.done.tolist(), exp.ended.tolist()) == ([True], [True])
    roles = [role for role, _ in transcript.said]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_a_turn_ends_at_its_limit_or_where_the_context_is_full() -> None:
    transcript = blank(max_new_tokens=2)
    transcript.open("lower")
    say(transcript, "1", "2")
    assert not transcript.speaking
    transcript = blank(context_length=3)
    transcript.open("lower")
    say(transcript, "1", "2")
    assert not transcript.speaking
    transcript.close_turn()
    transcript.hear("higher")  # as far as it fits: not at all
    assert len(transcript.tokens) == 3
    assert transcript.room == 0


def test_token_by_token_a_turn_is_one_token_of_any_kind() -> None:
    transcript = blank(step="token")
    transcript.open("")
    assert transcript.tokens == [EOS]  # there is something to read
    say(transcript, "1")
    assert not transcript.speaking
    assert transcript.close_turn() == "1"
    say(transcript, "<eos>")
    assert transcript.close_turn() == ""


@pytest.mark.parametrize(
    ("observe", "observation", "heard"),
    [
        ("new", "lower12 higher", ["higher"]),
        ("new", "lower12", []),
        ("new", "lower 12", ["lower", "<unk>"]),  # does not begin with what is known
        ("all", "lower12 higher", ["<unk>", "higher"]),
    ],
)
def test_what_is_new_in_an_observation(observe: str, observation: str, heard: list[str]) -> None:
    transcript = blank(observe=observe, step="turn")
    transcript.open("lower")
    transcript.take_unread()
    transcript.said.append(("assistant", "12"))
    transcript.hear(observation)
    assert transcript.take_unread() == [ID[word] for word in heard]


def test_an_opening_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="has 2 tokens, which leaves no room in the backbone's context of 2"):
        blank(context_length=2).open("lower higher")


def test_a_reward_of_nan_leaves_the_row_out() -> None:
    rows = [blank(), blank()]
    for row, reward in zip(rows, (float("nan"), 1.0), strict=True):
        row.open("lower")
        say(row, "1")
        row.earn(reward)
    exp = as_experience(rows, group=[4, 4])
    assert exp.scored.tolist() == [False, True]
    assert exp.action.any(-1).tolist() == [False, True]
    assert exp.reward.sum(-1).tolist() == [0.0, 1.0]
    assert exp.group.tolist() == [4, 4]


def chat(policy: Policy, rows: dict[int, Transcript], leaves: int | None = None) -> None:
    """Three turns; what is heard depends on a row's number. One row may leave after its first turn."""
    talk = Talk(policy)
    for number, row in rows.items():
        row.open(" ".join(["lower"] * (1 + number)))
    for turn in range(3):
        talk.turn(list(rows.values()))
        for number, row in rows.items():
            row.close_turn()
            row.hear(" ".join(["higher"] * ((number + turn) % 3)))
        if turn == 0 and leaves is not None:
            talk.keep([place for place, number in enumerate(rows) if number != leaves])
            rows = {number: row for number, row in rows.items() if number != leaves}


@pytest.mark.parametrize("step", ["turn", "token"])
def test_talk_reads_on_as_if_it_read_everything(backbone: Backbone, step: str) -> None:
    policy = Policy(backbone)
    rows = {seed: blank(seed, step=step, max_new_tokens=5) for seed in range(6)}
    chat(policy, rows, leaves=1)
    exp = as_experience(list(rows.values()))
    torch.testing.assert_close(exp.sampler_logp, score_actions(policy, exp).logp, atol=2e-5, rtol=0)
    for seed in (0, 3, 5):
        alone = blank(seed, step=step, max_new_tokens=5)
        chat(policy, {seed: alone})
        assert alone.tokens == rows[seed].tokens


def test_each_token_is_read_once_while_there_is_room_for_pads() -> None:
    torch.manual_seed(0)
    backbone = Transformer(
        vocab_size=11, hidden_size=16, layers=1, heads=2, kv_heads=2, intermediate_size=24, context_length=64
    ).eval()
    read: list[int] = []
    backbone.register_forward_pre_hook(lambda _, inputs: read.append(int(inputs[1].sum())))
    rows = {seed: blank(seed, max_new_tokens=8, context_length=64) for seed in range(8)}
    chat(Policy(backbone), rows)
    said = sum(len(row.tokens) for row in rows.values())
    unread = sum(len(row.take_unread()) for row in rows.values())  # what came after the last turn
    assert sum(read) == said - unread
    read.clear()
    longest = max(len(row.tokens) for row in rows.values())
    backbone.context_length = longest  # enough for every row, but not for the pads of those that waited
    again = {seed: blank(seed, max_new_tokens=8, context_length=longest) for seed in range(8)}
    chat(Policy(backbone), again)
    assert [row.tokens for row in again.values()] == [row.tokens for row in rows.values()]
    assert sum(read) > said - unread  # some were read twice


@torch.no_grad()
def test_a_speaker_remembers_what_a_waiting_row_has_said() -> None:
    """Row 1 waits while row 0 reads; the repetition penalty knows both rows' tokens."""
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=4, n=1)
    backbone.table.weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    speaker = Speaker(Policy(backbone), Decoding(greedy=True, repetition_penalty=1e6))
    speaker.read(*pad_right([[0], [1]], torch.device("cpu")))
    speaker.read(torch.tensor([[1, 2], [3, 3]]), torch.tensor([[True, True], [False, False]]))
    assert speaker.choose(torch.zeros(2))[0].tolist() == [3, 0]
    assert speaker.choose(torch.zeros(1), torch.tensor([1]))[0].tolist() == [0]
    assert speaker.width == 3
