"""What each plugin is for, computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from feedtune.contracts import Row, Sample
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.testing.tiny import TinyBackbone, tiny_codec

from atelier.algorithm import AdvantageWeightedRegression
from atelier.backbone import GatedConvolution
from atelier.buffer import Recent
from atelier.collector import Demonstrated
from atelier.reward import Variety
from atelier.task import Reversal


def test_awr_by_hand() -> None:
    """Every one of 6 tokens has probability 1/6, and V is 0: -log pi = log 6, the advantage is the return.

    Row 1: score 1 on the last of 2 tokens, gamma 1/2: returns 1/2 and 1, weights e^1 and e^2 at beta 1/2.
    Row 2: score 2 on its 1 token: weight e^4 = 54.6, so 20.
    The policy's part is log 6 (e + e^2 + 20) / 3, the values' (1/4 + 1 + 4) / 2 / 3, of which half counts.
    """
    algorithm = AdvantageWeightedRegression(beta=0.5, gamma=0.5, value_weight=0.5)
    policy = algorithm.build_policy(TinyBackbone)
    for weight in policy.parameters():
        torch.nn.init.zeros_(weight)
    exp = from_rows([[1, 2, 3], [1, 4]], [[False, True, True], [False, True]], scores=[1.0, 2.0])
    ready, _ = algorithm.prepare(exp.with_(bootstrap=torch.zeros(2)), policy)
    loss = algorithm.loss(ready, policy)
    imitation, fit = math.log(6) * (math.e + math.e**2 + 20) / 3, 5.25 / 2 / 3
    assert float(loss.metrics["loss/policy"]) == pytest.approx(imitation)
    assert float(loss.metrics["loss/value"]) == pytest.approx(fit)
    assert float(loss.sum.detach() / loss.denominator) == pytest.approx(imitation + fit / 2)


def test_a_row_that_was_cut_off_goes_on_with_its_value() -> None:
    """No reward, not done, and a bootstrap of 4: with gamma 1/2 the returns of its 2 tokens are 1 and 2."""
    exp = from_rows([[1, 2, 3]], [[False, True, True]], scores=[0.0], done=False)
    algorithm = AdvantageWeightedRegression(gamma=0.5)
    ready, _ = algorithm.prepare(exp.with_(bootstrap=torch.tensor([4.0])), Policy(TinyBackbone()))
    assert ready.extra["returns"].tolist() == [[0, 1, 2]]


def test_the_convolution_sees_as_far_as_it_says() -> None:
    """2 layers of width 3: 1 + 2 (1 + 2) = 7 tokens. The 8th hears of the 2nd, and nothing of the 1st."""
    torch.manual_seed(0)
    network = GatedConvolution(vocab_size=11, hidden_size=8, layers=2, width=3).eval()
    mask = torch.ones(1, 8, dtype=torch.bool)
    tokens = torch.arange(8)[None]

    def last(changed: int) -> torch.Tensor:
        hidden: torch.Tensor = network(tokens.index_fill(1, torch.tensor(changed), 9), mask)[0]
        return hidden[0, -1]

    unchanged = network(tokens, mask)[0][0, -1]
    assert network.sight == 7
    assert torch.equal(last(0), unchanged)
    assert not torch.equal(last(1), unchanged)


def test_variety_by_hand() -> None:
    """5 words, 3 of them different; 4 pairs, 3 of them different: (3/5 + 3/4) / 2 = 0.675."""
    scores = Variety()([Sample("", "A rose is a rose"), Sample("", "rose")])
    assert scores.total.tolist() == pytest.approx([0.675, 0.5])
    assert scores.parts["distinct_2"].tolist() == pytest.approx([0.75, 0])


def test_every_word_is_in_one_split_and_spelt_backwards() -> None:
    task = Reversal(letters="xy", length=3, eval_rows=3)
    rows = [*task.load("train"), *task.load("eval")]
    assert len({row["prompt"] for row in rows}) == len(rows) == 8
    assert all(row["prompt"].split()[:3] == row["reference"].split()[::-1] for row in rows)


def test_every_group_has_the_reference_among_its_answers() -> None:
    rows: list[Row] = [{"prompt": "a", "reference": "bcd"}, {"prompt": "b", "reference": "a"}]
    codec = tiny_codec()
    policy = Policy(TinyBackbone(vocab_size=codec.vocab_size))

    def letters(samples: object) -> list[float]:
        assert isinstance(samples, list)
        seen.extend(samples)
        return [float(len(sample.response)) for sample in samples]

    seen: list[Sample] = []
    collector = Demonstrated(codec=codec, reward=letters, responses=6, group_size=3, max_new_tokens=2)
    rollout = collector.collect(collector.load(rows, None), policy, torch.Generator().manual_seed(0))
    assert [sample.response for sample in seen[2::3]] == ["bcd", "a"]
    assert rollout.experience.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollout.experience.score[2::3].tolist() == [3, 1]
    assert rollout.metrics["rollout/demonstrated"] == 2


def test_the_newest_collection_comes_first_and_the_oldest_leaves() -> None:
    buffer = Recent(collections=2, minibatches=40)
    for number in range(3):
        buffer.add(from_rows([[number, 1]], [[False, True]]))
    came = [int(part.tokens[0, 0]) for part in buffer.minibatches(torch.Generator().manual_seed(0))]
    assert came[0] == 2
    assert set(came) == {1, 2}
    assert len(came) == buffer.steps(1) == 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GatedConvolution(vocab_size=3, width=1), "backbone.width: expected 2 or more, got 1"),
        (lambda: AdvantageWeightedRegression(beta=0), "algorithm.beta: expected a number above 0, got 0"),
        (lambda: Variety(longest=0), "reward.longest: expected 1 or more, got 0"),
        (lambda: Reversal(letters="aa"), "task.letters: expected letters, each once, got 'aa'"),
        (lambda: Recent(collections=0), "buffer.collections: expected 1 or more, got 0"),
    ],
)
def test_values_out_of_range_are_refused_by_their_key(make: type, message: str) -> None:
    with pytest.raises(UserError) as refused:
        make()
    assert str(refused.value) == message
