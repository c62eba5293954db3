"""Our own options obey the laws that plugins of others are certified by: each of them, by enumeration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chat_judges import chatting, whatever
from click_logs import VARIED, varied
from feedback_stores import every_kind
from feedtune.config.discovery import options_of
from feedtune.feedback.raters.simulated import Habits
from feedtune.policy import Policy
from feedtune.runs.export import save
from feedtune.testing.certification import SUITES, certify
from feedtune.testing.rewards import SAMPLES
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.rewards.human import Human
from feedtune_plugins.tasks import chitchat, ranking
from judges import judging, lengths
from raters import answering

QUESTIONS = [{"prompt": f"Question {n}?", "reference": f"answer {n * n}"} for n in range(40)]

COMPARING = {"best_of_n", "cispo", "dapo", "dr_grpo", "grpo", "gspo", "raft", "reinforce", "rloo"}
PAIRS = {"dpo", "online_dpo", "reward_model"}


def table(folder: Path) -> list[str]:
    file = folder / "rows.csv"
    file.write_text("prompt,reference\n" + "".join(f"{r['prompt']},{r['reference']}\n" for r in QUESTIONS))
    return [f"task.path={file}"]


def lines(folder: Path) -> list[str]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return [f"task.path={file}"]


def paragraphs(folder: Path) -> list[str]:
    file = folder / "book.txt"
    file.write_text("\n\n".join(f"Paragraph {n} has a few words\nand a second line." for n in range(40)))
    return [f"task.path={file}"]


def columns(folder: Path) -> list[str]:
    from datasets import Dataset

    file = folder / "rows.parquet"
    Dataset.from_list(QUESTIONS).to_parquet(file)
    return [f"task.path={file}"]


def saved_set(folder: Path) -> list[str]:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(QUESTIONS)}).save_to_disk(folder / "set")
    return [f"task.path={folder / 'set'}"]


def function(folder: Path) -> list[str]:
    """Has no opinion where there is no reference."""
    file = folder / "rewards.py"
    file.write_text(
        "def score(responses, reference):\n"
        "    rows = zip(responses, reference)\n"
        "    return [None if wanted is None else len(said) / 7 for said, wanted in rows]\n"
    )
    return [f"reward.path={file}:score"]


def reward_model(folder: Path) -> list[str]:
    """Two tables over pairs of tokens, of random numbers."""
    codec = TrainedTokenizer(kind="bpe", vocab_size=300).build(lambda: (s.response for s in SAMPLES))
    for seed in (0, 1):
        policy = Policy(NGram(vocab_size=codec.vocab_size, n=3), heads={"reward": 1})
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(policy.heads["reward"].weight, generator=generator)
        save(policy, codec, folder / f"judge_{seed}")
    return [f"reward.run=[{folder / 'judge_0'},{folder / 'judge_1'}]"]


def feedback(folder: Path) -> list[str]:
    return [f"task.path={every_kind(folder / 'feedback.sqlite').path}"]


def event_log(folder: Path) -> list[str]:
    return [f"reward.path={varied(folder / 'log.sqlite')}"]


def llama(folder: Path) -> list[str]:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    return [f"backbone.name={folder / 'llama'}"]


def asked(folder: Path) -> list[str]:
    """People have rated all samples, and do not agree."""
    path, blanks = folder / "feedback.sqlite", ("", " \n")
    habits = Habits(temperature=12.0, worst=0.0, best=40.0)
    with answering(path, "ann", "bob", habits=habits):
        said = [*SAMPLES, *(replace(one, response=blank) for one in SAMPLES for blank in blanks)]
        Human(path=str(path), answers=2, poll=0.01, port=None)(said)
    return [f"reward.path={path}", "reward.timeout=0", "reward.port=null"]


def small(*overrides: str) -> Callable[[Path], list[str]]:
    return lambda folder: list(overrides)


RECURRENT = small("backbone.embed_size=12", "backbone.hidden_size=16")
NEEDED: dict[str, Callable[[Path], list[str]]] = {
    "backbone=gru": RECURRENT,
    "backbone=hf": llama,
    "backbone=lstm": RECURRENT,
    "backbone=transformer": small(
        "backbone.hidden_size=16", "backbone.layers=2", "backbone.intermediate_size=24", "backbone.kv_heads=2"
    ),
    "collector=gymnasium": small("collector.episodes=4", "collector.max_turns=4", "collector.records=2"),
    "reward=clicks": event_log,
    "reward=function": function,
    "reward=human": asked,
    "reward=logged": event_log,
    "reward=reward_model": reward_model,
    "task=chitchat": small("task.limit=60", "task.eval_rows=20"),
    "task=csv": table,
    "task=datasets": saved_set,
    "task=feedback": feedback,
    "task=gymnasium": small("task.rows=20", "task.eval_rows=5"),
    "task=jsonl": lines,
    "task=parquet": columns,
    "task=ranking": small("task.rows=60", "task.eval_rows=20"),
    "task=text": paragraphs,
}
"""What an option has to be given, and what makes it small."""

OWN_SAMPLES = dict.fromkeys(("reward=clicks", "reward=logged", "reward=ndcg"), VARIED)
"""Where texts of many kinds would all be the same to a reward."""

OPTIONS = [(group, option) for group in SUITES for option in options_of(group)]


@pytest.fixture(scope="module", autouse=True)
def _few_conversations() -> Iterator[None]:
    """Of 4,017, the first ones, read once."""
    conversations = chitchat.conversations
    with pytest.MonkeyPatch.context() as patch:
        few = cache(lambda needed_by="": conversations()[:300])
        patch.setattr(chitchat, "conversations", few)
        patch.setattr(ranking, "conversations", few)
        yield


@pytest.fixture(scope="module")
def judge_url() -> Iterator[str]:
    with judging(lengths) as judge:
        yield judge.url


@pytest.fixture(scope="module")
def chat_url() -> Iterator[str]:
    with chatting(whatever) as judge:
        yield judge.url


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map("=".join, OPTIONS))
def test_it_obeys_every_law(group: str, option: str, tmp_path: Path, judge_url: str, chat_url: str) -> None:
    name = f"{group}={option}"
    overrides = NEEDED.get(name, small())(tmp_path)
    unseen = set[str]()
    if name == "reward=http":
        overrides = [
            f"reward.url={judge_url}",
            f"reward.cache={tmp_path / 'replies.sqlite'}",
            "reward.attempts=1",
        ]
        unseen = {"url"}  # this judge answers whatever path it is asked by
    if name == "reward=judge":
        judge = {"url": chat_url, "model": "tiny", "cache": tmp_path / "chat.sqlite", "attempts": 1}
        overrides = [f"reward.judge.{key}={value}" for key, value in judge.items()]
        unseen = {"judge.url"}
    certificate = certify(group, option, overrides, OWN_SAMPLES.get(name), unseen)
    assert certificate.passed, [(result.law, result.message) for result in certificate.failed]
    assert len(certificate.results) > 6, "the laws of its kind have not run"
    if group == "algorithm":
        taken = {"compares rows with one another": COMPARING, "compares the two rows of each pair": PAIRS}
        wanted = next(
            (words for words, options in taken.items() if option in options), "each row speaks for itself"
        )
        assert certificate.note == wanted


def test_every_kind_has_options() -> None:
    """Or the test above would enumerate nothing."""
    counts = {group: sum(one == group for one, _ in OPTIONS) for group in SUITES}
    assert set(counts) == {"backbone", "algorithm", "reward", "task", "collector", "buffer"}
    assert min(counts.values()) >= 3
    assert set(NEEDED) <= {f"{group}={option}" for group, option in OPTIONS}
