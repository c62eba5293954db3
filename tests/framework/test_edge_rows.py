"""Rows at the edge: nothing said, one token, nothing to choose between, no room left, any characters.

Each trains, and leaves weights and metrics that are finite, or is refused with words.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import feedtune as package
from small_runs import PAIRS, overrides, run, write_rows

EITHER = [
    ("lstm", "ppo"),
    ("transformer", "ppo"),
    ("lstm", "reinforce"),
    ("transformer", "grpo"),
    ("lstm", "raft"),
    ("transformer", "best_of_n"),
    ("lstm", "online_dpo"),
    ("transformer", "online_dpo"),
    ("lstm", "q_learning"),
    ("transformer", "q_learning"),
]
"""Each family on one backbone at least."""

READING = ("sft", "ilql", "dpo", "reward_model")
BACKBONES = ("lstm", "transformer")
BRIEF = ("optimizer.lr=0.01", "trainer.max_epochs=1", "selfcheck=false")


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """metrics.csv, of which every number must be one."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert [(n, v) for row in rows for n, v in row.items() if not math.isfinite(v)] == []
    return rows


def finite(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run whose weights are all finite."""
    policy = package.load(folder).policy
    assert [name for name, weight in policy.named_parameters() if not weight.isfinite().all()] == []
    return metrics_of(folder)


def without_model(chosen: list[str]) -> list[str]:
    """For runs whose model comes from another."""
    return [one for one in chosen if not one.startswith(("backbone", "tokenizer"))]


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of each backbone that has learnt to say nothing at all."""
    made: dict[str, Path] = {}

    def make(backbone: str) -> Path:
        if backbone not in made:
            folder = tmp_path_factory.mktemp(f"silent_{backbone}")
            rows = [{"prompt": f"{n}+1=", "reference": ""} for n in range(9)]
            lr = [
                "optimizer.lr=0.1",
                "trainer.max_epochs=25",
                "collector.rows=8",
                "trainer.gradient_clip_val=null",
            ]
            run(folder / "run", overrides(write_rows(folder, rows), backbone, "sft", *lr))
            made[backbone] = folder / "run"
        return made[backbone]

    return make


@pytest.mark.parametrize(("backbone", "algorithm"), EITHER)
def test_all_end_at_once_and_score_the_same(
    backbone: str, algorithm: str, silent: Callable[[str], Path], tmp_path: Path
) -> None:
    """Empty responses, each row ended by its first token, no variance in any group or the whole rollout."""
    rows = [{"prompt": f"{n}+1=", "reference": str(n + 1)} for n in range(9)]
    chosen = without_model(overrides(write_rows(tmp_path, rows), backbone, algorithm))
    more = ["optimizer.lr=0.01", "trainer.max_epochs=1"]
    run(tmp_path / "run", [*chosen, f"init_from={silent(backbone)}", *more])
    first = finite(tmp_path / "run")[0]
    if algorithm != "q_learning":  # whose Q values, not the model, choose the tokens
        assert (first["rollout/length"], first["rollout/ended"]) == (1.0, 1.0)
        samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
        assert {json.loads(line)["response"] for line in samples[:4]} == {""}
        rewards = {json.loads(line)["reward"] for line in samples[:8]}
        assert len(rewards) == 1


@pytest.mark.parametrize(
    ("backbone", "algorithm"),
    [*(("transformer", one) for one in ("ppo", "grpo", "q_learning", "online_dpo")), ("lstm", "ppo")],
)
def test_one_token_fills_the_context(backbone: str, algorithm: str, tmp_path: Path) -> None:
    """Prompts of four characters and one token more, which is all that the transformer's context holds."""
    rows = [{"prompt": f"{n}+1=", "reference": str(n + 1)} for n in range(9)]
    more = ["collector.max_new_tokens=1", "optimizer.lr=0.01", "trainer.max_epochs=1"]
    more += ["backbone.context_length=5"] if backbone == "transformer" else []
    chosen = overrides(write_rows(tmp_path, rows), backbone, algorithm, *more)
    run(tmp_path / "run", chosen)
    assert finite(tmp_path / "run")[0]["rollout/length"] == 1.0


def test_a_context_one_token_too_short_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1=", "reference": str(n + 1)} for n in range(9)]
    more = ["collector.max_new_tokens=1", "backbone.context_length=4"]
    with pytest.raises(package.UserError, match=r"need 5; the backbone's context holds 4"):
        run(tmp_path / "run", overrides(write_rows(tmp_path, rows), "transformer", "ppo", *more))


@pytest.mark.parametrize("algorithm", ["ppo", "raft", "q_learning"])
def test_no_group_has_any_variance(algorithm: str, tmp_path: Path) -> None:
    """Responses differ, their scores never do."""
    chosen = overrides(write_rows(tmp_path), "lstm", algorithm, "reward=keyword", "reward.words=[xyzzy]")
    run(tmp_path / "run", chosen)
    rows = finite(tmp_path / "run")
    assert {row["rollout/reward"] for row in rows} == {0.0}
    assert rows[0]["rollout/distinct"] > 0.2


NOTHING = {
    "sft": [{"prompt": p, "reference": ""} for p in ("a", "b", "", "ab")],
    "ilql": [{"prompt": p, "reference": ""} for p in ("a", "b", "", "ab")],
    "dpo": [
        {"prompt": p, "chosen": "", "rejected": r} for p, r in (("a", "b"), ("b", ""), ("", "a"), ("ab", "a"))
    ],
    "reward_model": [{"prompt": p, "chosen": "a", "rejected": ""} for p in ("a", "b", "", "ab")],
}
"""Responses without a letter: what is learnt is the end-of-text token alone."""


@pytest.mark.parametrize("algorithm", READING)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_empty_responses_that_are_read(backbone: str, algorithm: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path, NOTHING[algorithm] * 3)
    more = ["collector.pairs=2"] if "chosen" in NOTHING[algorithm][0] else ["collector.rows=2"]
    run(
        tmp_path / "run",
        overrides(data, backbone, algorithm, *more, "task.eval_fraction=0", *BRIEF),
    )
    finite(tmp_path / "run")


@pytest.mark.parametrize("algorithm", READING)
def test_rows_that_fill_the_context_to_the_last_token(algorithm: str, tmp_path: Path) -> None:
    """Prompt, answer and end-of-text token are six: five hold them but for the last, six hold all of it."""
    pair = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    row = pair if "chosen" in NOTHING[algorithm][0] else {"prompt": "1+1=", "reference": "2"}
    data = write_rows(tmp_path, [{**row, "prompt": f"{n}+1="} for n in range(9)])
    for length in (5, 6) if algorithm in ("sft", "dpo") else (5,):
        more = [f"backbone.context_length={length}", *BRIEF]
        run(tmp_path / f"run{length}", overrides(data, "transformer", algorithm, *more))
        finite(tmp_path / f"run{length}")


def test_texts_of_one_token(tmp_path: Path) -> None:
    data = write_rows(tmp_path, [{"text": letter} for letter in "abcdefgh"])
    run(tmp_path / "run", overrides(data, "lstm", "sft", "optimizer.lr=0.1"))
    finite(tmp_path / "run")


def test_pairs_that_are_the_same(tmp_path: Path) -> None:
    """Nothing to learn, and nothing breaks: each loss is log 2."""
    data = write_rows(tmp_path, [{**pair, "rejected": pair["chosen"]} for pair in PAIRS])
    run(tmp_path / "run", overrides(data, "lstm", "dpo", "optimizer.lr=0.1"))
    assert all(row["loss/policy"] == pytest.approx(math.log(2)) for row in finite(tmp_path / "run"))


ANY = [
    *("", " ", "\n", "\t \r\n", "\x00", "\x1b[31m", "\x7f\x80\x9f", "\ufeff", "\u2028\u2029", "\u202eabc"),
    *(
        "é",
        "e\u0301",
        "a" + "\u0301" * 40,
        "ﬁ",
        "İıẞß",
        "\N{MATHEMATICAL BOLD CAPITAL A}",
        "מזל",
        "مرحبا",
        "你好",
    ),
    *(
        "👩\u200d👩\u200d👧\u200d👦",
        "🏴\U000e0067\U000e0062\U000e007f",
        "\U0010ffff",
        "\ue000",
        "\ufffd",
        "\ufffe",
    ),
    *("<eos>", "<|user|>", "<pad><unk>", "[/b]", "{{ 7 * 7 }}", "${seed}", "%s%n", "'; --", "</script>"),
]
"""Prompts of any characters."""


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_prompts_of_any_characters(kind: str, tmp_path: Path) -> None:
    rows = [{"prompt": text, "reference": text} for text in ANY]
    more = [f"tokenizer={kind}", "tokenizer.min_frequency=1", "collector.responses=32", *BRIEF[:2]]
    run(tmp_path / "run", overrides(write_rows(tmp_path, rows), "lstm", "ppo", *more))
    finite(tmp_path / "run")
    sft = overrides(tmp_path / "rows.jsonl", "lstm", "sft", *more[:2], *BRIEF)
    run(tmp_path / "sft", sft)
    finite(tmp_path / "sft")


HALVES = {
    '{"prompt": "a\\ud800"}': "'prompt' holds half a surrogate pair at character 2",
    '{"prompt": "a", "reference": "\\udfff"}': "'reference' holds half a surrogate pair",
    '{"prompt": "a", "reference": ["b", "\\udfff"]}': "'reference' holds half a surrogate pair",
    '{"text": "\\ud800"}': "'text' holds half a surrogate pair",
    '{"prompt": "a", "text": "\\ud800"}': "'text' holds half a surrogate pair",
    '{"prompt": "a", "chosen": "\\ud800"}': "'chosen' holds half a surrogate pair",
    '{"prompt": "a", "chosen": "b", "rejected": "\\ud83d"}': "'rejected' holds half a surrogate pair",
    '{"messages": [{"role": "user", "content": "\\ud800"}]}': "'content' holds half a surrogate pair",
}


@pytest.mark.parametrize("line", HALVES)
def test_halves_of_surrogate_pairs_are_refused_by_their_line(line: str, rows: Path, feedtune: Any) -> None:
    (rows.parent / "half.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n" + line + "\n")
    said = feedtune(
        "train", *overrides(Path("half.jsonl"), "lstm", "ppo", "report=false", "hydra.run.dir=run")
    )
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "half.jsonl:2: " in said.err
    assert HALVES[line] in said.err


def test_both_halves_are_one_character(rows: Path) -> None:
    (rows.parent / "whole.jsonl").write_text('{"prompt": "\\ud83d\\ude00"}\n{"prompt": "a"}\n')
    run(rows.parent / "run", overrides(rows.parent / "whole.jsonl", "lstm", "ppo", "trainer.max_epochs=1"))
    assert "\N{GRINNING FACE}" in package.load(rows.parent / "run").codec.tokenizer.get_vocab()


def test_an_argument_that_is_no_text_is_refused(rows: Path, feedtune: Any) -> None:
    """Bytes of the command line that are not UTF-8 reach Python as halves of surrogate pairs."""
    said = feedtune("train", *overrides(Path("rows.jsonl"), "lstm", "ppo", "logger.name=a\udcff"))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "not UTF-8" in said.err
