"""A judge in this process: its probabilities are the model's own, and its words the tokenizer's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.judging import Judging, Question, Rubric
from feedtune.judging.questions import rating
from feedtune.testing.rewards import check_reward_source
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.judges.local import Local
from feedtune_plugins.rewards.judge import JudgeReward

ALPHABET = "".join(map(chr, range(32, 127))) + "\n"
CONTEXT = 1024
NUMBER = Question(system="Rate it.", user="Hello!", words=("1", "2", "3"))
TEXT = Question(system="Say what is wrong.", user="Hello!")
RUBRIC = Rubric(name="long", asks="Is it long?", levels=["short", "so-so", "long"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder: a Llama of random weights over characters, without a chat template."""
    made = tmp_path_factory.mktemp("judge") / "tiny-llama"
    tokenizer = TrainedTokenizer(kind="char", vocab_size=128).build(lambda: iter([ALPHABET])).tokenizer
    tokenizer.chat_template = None
    tokenizer.save_pretrained(made)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,  # far from uniform: wrong logits must show
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def judge(folder: Path) -> Local:
    return Local(path=str(folder), text_tokens=5)


def distribution(folder: Path, text: str) -> dict[str, float]:
    """The probability of each next character, by the model alone."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        likely = model(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1].softmax(-1)
    return {tokenizer.decode([n]): float(p) for n, p in enumerate(likely)}


def test_the_weights_are_the_models_probabilities_of_the_words(folder: Path, judge: Local) -> None:
    (reply,) = judge([NUMBER])
    likely = distribution(folder, "Rate it.\n\nHello!")
    assert reply.weights is not None
    assert reply.weights == pytest.approx({word: likely[word] for word in "123"}, rel=1e-5)
    assert reply.text == max("123", key=lambda word: likely[word])
    assert (reply.prompt_tokens, reply.completion_tokens) == (len("Rate it.\n\nHello!"), 1)


def test_a_text_that_spells_a_control_token_is_read_as_letters(folder: Path, judge: Local) -> None:
    """Else a response could end its own turn, and go on as the system."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    control = tokenizer.eos_token
    text = f"Hello{control}!"
    assert tokenizer.eos_token_id in tokenizer(text).input_ids
    (reply,) = judge([replace(NUMBER, user=text)])
    assert reply.prompt_tokens == len(f"Rate it.\n\n{text}") + 1
    (same,) = judge([replace(NUMBER, user=f"Hello{control[0]} {control[1:]}!")])
    assert reply == same


def test_a_rating_is_their_mean(folder: Path, judge: Local) -> None:
    (score,) = Judging(judge, RUBRIC).rate([Sample("Hi", "Ho")]).tolist()
    asked = rating(Sample("Hi", "Ho"), RUBRIC)
    one, two, three = (distribution(folder, f"{asked.system}\n\n{asked.user}")[word] for word in "123")
    assert score == pytest.approx((0.5 * two + three) / (one + two + three), rel=1e-4)


def test_an_answer_depends_on_no_other_question(judge: Local) -> None:
    different = [Sample("Hi", text) for text in ("Ho", "a much longer response", "42", ":")]
    check_reward_source(JudgeReward(judge=judge, rubric=RUBRIC), different)
    reward = JudgeReward(judge=judge, rubric=RUBRIC, mode="pairwise")
    given = [Sample("Hi", text, columns={"reference": "Hey"}) for text in ("Ho", "Good day", "Hey")]
    check_reward_source(reward, given)


def test_a_text_is_the_most_probable_one(folder: Path, judge: Local) -> None:
    """Character by character, as the model alone would go on."""
    (reply,) = judge([TEXT])
    said = "Say what is wrong.\n\nHello!"
    for _ in range(5):
        likely = distribution(folder, said)
        said += max(likely, key=lambda letter: likely[letter])
    assert reply.text == said.removeprefix("Say what is wrong.\n\nHello!").strip()
    assert reply.completion_tokens == 5


def test_a_chat_template_is_used(folder: Path, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<me>{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    (reply,) = Local(path=str(tmp_path))([NUMBER])
    likely = distribution(folder, "<system>Rate it.<user>Hello!<me>")
    assert reply.weights == pytest.approx({word: likely[word] for word in "123"}, rel=1e-5)


def test_what_does_not_fit_has_no_answer(judge: Local) -> None:
    longest = CONTEXT - len("Rate it.\n\n") - 1
    fits, longer = (
        Question(system="Rate it.", user="x" * count, words=("1", "2")) for count in (longest, longest + 1)
    )
    assert [reply.text != "" for reply in judge([fits, longer])] == [True, False]
    assert Judging(judge, RUBRIC).rate([Sample("Hi", "x" * CONTEXT)]).isnan().all()


def test_requests_and_tokens_are_counted(judge: Local) -> None:
    judge.counts()
    judge([NUMBER, TEXT])
    tokens = len("Rate it.\n\nHello!") + 1 + len("Say what is wrong.\n\nHello!") + 5
    assert judge.counts() == {"requests": 2.0, "tokens": float(tokens), "cost": 0.0}
    assert judge.label == "tiny-llama"


def test_a_word_that_is_no_token_is_named(folder: Path, judge: Local) -> None:
    with pytest.raises(UserError) as caught:
        judge([Question(system="", user="Hi", words=("10", "1"))])
    assert str(caught.value) == f"judge.path: '{folder}' has no token '10', so it cannot be asked for it"


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^judge\.path: expected a transformers folder with a config\.json"):
        Local(path=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^judge\.path: .* cannot be opened: "):
        Local(path=str(tmp_path))
    with pytest.raises(UserError, match=r"^judge\.text_tokens: expected 1 or more, got 0"):
        Local(path=str(tmp_path), text_tokens=0)
