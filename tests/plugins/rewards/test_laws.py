"""Every shipped reward option obeys the laws on any text, and the laws catch sources that do not.

All laws, on samples of many kinds: tests/framework/testing/test_certified.py.
"""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from chat_judges import chatting, whatever
from click_logs import Shown, clicks, store
from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.runs.export import save
from feedtune.testing.rewards import check_reward_source
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.ngram import NGram
from judges import judging
from judges import lengths as lengths_elsewhere
from raters import answering

CONF = Path(__file__).parents[3] / "conf"
OPTIONS = sorted(file.stem for file in (CONF / "reward").glob("*.yaml"))

FUNCTION = """
def score(responses, reference):
    return [None if wanted is None else len(said) / 7 for said, wanted in zip(responses, reference)]
"""

SAMPLES = [
    Sample("How was it?", "I love it, thanks!", columns={"reference": "I loved it a lot, thank you"}),
    Sample(
        "How was it?", "You stupid idiot, I hate you.", columns={"reference": ["It was bad.", "I hate it."]}
    ),
    Sample("Say it", "the cat sat on the mat " * 4, columns={"reference": "the cat is on the mat"}),
    Sample("Say it", "the cat is on the mat", columns={"reference": None}),
    Sample("Greet", "你好世界 ¡Olé! 😀 Ωμέγα", columns={"reference": "你好世界"}),
    Sample("Greet", "", columns={"reference": "Hello"}),
    Sample("Ask", "Please, please: THANK \n you", columns={"reference": "  "}),
    Sample("2 + 2?", "2 + 2 = 4.", columns={"reference": "4"}),
]


@pytest.fixture(scope="module")
def judge_url() -> Iterator[str]:
    """Where a judge listens that scores the letters of a response."""
    with judging(lengths_elsewhere) as judge:
        yield judge.url


@pytest.fixture(scope="module")
def chat_url() -> Iterator[str]:
    """Where a language model listens that has an opinion of everything."""
    with chatting(whatever) as judge:
        yield judge.url


@pytest.fixture(scope="module")
def build(
    tmp_path_factory: pytest.TempPathFactory, judge_url: str, chat_url: str
) -> Iterator[Callable[[str], Any]]:
    """Compose and instantiate an option as `reward=OPTION` does; each once, for some load a model."""
    file = tmp_path_factory.mktemp("user") / "rewards.py"
    file.write_text(FUNCTION, encoding="utf-8")
    built: dict[str, Any] = {}

    with ExitStack() as raters:

        def build(option: str) -> Any:
            if option == "human" and option not in built:
                raters.enter_context(answering(file.parent / "feedback.sqlite"))
            if option not in built:
                built[option] = instantiate(composed(option, *needed(option, file, judge_url, chat_url)))
            return built[option]

        yield build


def needed(
    option: str, file: Path, url: str = "http://127.0.0.1:9/score", chat_url: str = "http://127.0.0.1:9/v1"
) -> list[str]:
    if option == "judge":
        said = {"url": chat_url, "model": "tiny", "cache": file.parent / "chat.sqlite"}
        return [f"reward.judge.{key}={value}" for key, value in said.items()]
    if option == "http":
        return [f"reward.url={url}", f"reward.cache={file.parent / 'replies.sqlite'}"]
    if option == "human":
        return [f"reward.path={file.parent / 'feedback.sqlite'}", "reward.port=null", "reward.poll=0.01"]
    if option == "function":
        return [f"reward.path={file}:score"]
    if option in ("clicks", "logged"):
        shown = [Shown("Hi", "the cat", 0.5, clicks(2)), Shown("Hi", "Thanks! the", 0.5, clicks(1))]
        return [f"reward.path={store(file.parent / 'clicks.sqlite', shown)}"]
    return [f"reward.run={judge(file.parent / 'judge')}"] if option == "reward_model" else []


def judge(folder: Path) -> Path:
    """A reward model: a table over pairs of tokens, of random numbers."""
    if not folder.exists():
        codec = TrainedTokenizer(kind="bpe", vocab_size=300).build(lambda: (s.response for s in SAMPLES))
        policy = Policy(NGram(vocab_size=codec.vocab_size, n=3), heads={"reward": 1})
        torch.nn.init.normal_(policy.heads["reward"].weight, generator=torch.Generator().manual_seed(0))
        save(policy, codec, folder)
    return folder


def composed(option: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+reward={option}", *overrides]).reward


def test_every_planned_option_is_there() -> None:
    planned = {
        "answer",
        "banned",
        "bleu",
        "chrf",
        "clicks",
        "function",
        "http",
        "human",
        "judge",
        "keyword",
        "length",
        "logged",
        "ndcg",
        "personal_data",
        "refusal",
        "reward_model",
        "rouge",
        "safety",
        "sentiment",
        "sum",
        "toxicity",
    }
    assert planned == set(OPTIONS)


TEXT = st.text(max_size=24)  # all of Unicode but lone surrogates
WORDS = st.lists(
    st.sampled_from(["the", "cat", "Thanks!", "idiot", "I can't help", "a@b.io", "é", "你好", "\n", "C++"]),
    max_size=6,
)
RESPONSE = TEXT | WORDS.map(" ".join)


@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pairs=st.lists(
        st.tuples(RESPONSE, TEXT | WORDS.map(" ".join) | st.lists(TEXT, max_size=2)), min_size=2, max_size=3
    )
)
def test_an_option_obeys_the_laws_on_any_text(
    option: str, build: Callable[[str], Any], pairs: list[tuple[str, Any]]
) -> None:
    samples = [
        Sample("Hi", said, columns={"reference": wanted, "relevance": {"the": 1, "cat": 2}})
        for said, wanted in pairs
    ]
    check_reward_source(build(option), samples)


@pytest.mark.parametrize("option", ["bleu", "rouge", "chrf"])
@settings(max_examples=15, deadline=None)
@given(said=RESPONSE, wanted=RESPONSE.filter(str.strip))
def test_a_metric_is_between_0_and_1(
    option: str, build: Callable[[str], Any], said: str, wanted: str
) -> None:
    (score,) = build(option)([Sample("Hi", said, columns={"reference": wanted})]).tolist()
    assert 0 <= score <= 1 + 1e-6


@pytest.mark.parametrize("option", OPTIONS)
def test_the_yaml_names_every_argument(option: str, tmp_path: Path) -> None:
    text = (CONF / "reward" / f"{option}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# feedtune train reward={option}")
    config = composed(option, *needed(option, tmp_path / "rewards.py"))
    arguments = {name for name in config if not str(name).startswith("_")}
    assert arguments == set(inspect.signature(get_class(config["_target_"])).parameters)


def test_importing_the_rewards_loads_no_metric_library() -> None:
    code = """
import importlib, pkgutil, sys
import feedtune_plugins.rewards as rewards
for module in pkgutil.iter_modules(rewards.__path__):
    importlib.import_module(f"{rewards.__name__}.{module.name}")
slow = {"torchmetrics", "transformers", "sklearn", "nltk", "vaderSentiment", "profanity_check", "lightning"}
slow |= {"httpx", "tenacity"}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# One source for each law, breaking that law alone.

calls = itertools.count()


def lengths(samples: Sequence[Sample]) -> list[float]:
    return [float(len(sample.response)) for sample in samples]


def forgetful(samples: Sequence[Sample]) -> list[float]:
    return [length + next(calls) for length in lengths(samples)]


def centred(samples: Sequence[Sample]) -> torch.Tensor:
    scores = torch.tensor(lengths(samples))
    return scores - scores.mean() if len(scores) else scores


def by_row(samples: Sequence[Sample]) -> list[float]:
    return [length + row for row, length in enumerate(lengths(samples))]


def afraid_of_silence(samples: Sequence[Sample]) -> list[float]:
    return [1.0 / max(len(sample.response.strip()), 0) for sample in samples]


def afraid_of_nothing_to_do(samples: Sequence[Sample]) -> list[float]:
    return [length / max(lengths(samples)) * 0 for length in lengths(samples)] or [max(lengths(samples))]


def scribbling(samples: Sequence[Sample]) -> list[float]:
    for sample in samples:
        sample.columns["seen"] = True  # that it is wrong is the point
    return lengths(samples)


def short_part(samples: Sequence[Sample]) -> Scores:
    return Scores(torch.tensor(lengths(samples)), {"part": torch.zeros(1)})


def part_by_row(samples: Sequence[Sample]) -> Scores:
    return Scores(torch.tensor(lengths(samples)), {"row": torch.arange(len(samples)).float()})


def part_now_and_then(samples: Sequence[Sample]) -> Scores:
    total = torch.tensor(lengths(samples))
    return Scores(total, {"many": total} if len(samples) > 1 else {})


def infinite_part(samples: Sequence[Sample]) -> Scores:
    return Scores(torch.tensor(lengths(samples)), {"part": torch.full((len(samples),), torch.inf)})


@pytest.mark.parametrize(
    ("source", "error", "law"),
    [
        (forgetful, AssertionError, "determinism"),
        (centred, AssertionError, "split"),
        (by_row, AssertionError, "order"),
        (afraid_of_silence, ZeroDivisionError, "division"),
        (afraid_of_nothing_to_do, ValueError, "max"),
        (scribbling, AssertionError, "purity"),
        (short_part, UserError, "part 'part' has shape"),
        (part_by_row, AssertionError, "order.*part 'row'"),
        (part_now_and_then, AssertionError, "split.*parts were"),
        (infinite_part, AssertionError, "infinite"),
    ],
)
def test_the_laws_catch_a_source_that_breaks_one(source: Any, error: type[Exception], law: str) -> None:
    samples = [Sample("Hi", "a"), Sample("Hi", "bb"), Sample("Hi", "cccc")]
    check_reward_source(lengths, samples)  # what they all are without the fault
    with pytest.raises(error, match=law):
        check_reward_source(source, [Sample(s.prompt, s.response, columns={}) for s in samples])


def test_the_tolerance_is_for_sources_that_round() -> None:
    def rounding(samples: Sequence[Sample]) -> list[float]:  # as a network does in batches of another size
        return [length + 1e-6 * len(samples) for length in lengths(samples)]

    samples = [Sample("Hi", "a"), Sample("Hi", "bb")]
    check_reward_source(rounding, samples, tolerance=1e-5)
    with pytest.raises(AssertionError, match="split"):
        check_reward_source(rounding, samples)


def test_one_sample_is_too_few_to_check_anything() -> None:
    with pytest.raises(ValueError, match="at least two"):
        check_reward_source(lengths, [Sample("Hi", "a")])
