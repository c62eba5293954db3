"""feedtune's laws over every plugin."""

from __future__ import annotations

from feedtune.contracts import Algorithm, RewardSource
from feedtune.testing import (
    AlgorithmSuite,
    BackboneSuite,
    BufferSuite,
    CollectorSuite,
    RewardSuite,
    TaskSuite,
)
from feedtune.text.codec import Codec

from atelier.algorithm import AdvantageWeightedRegression
from atelier.backbone import GatedConvolution
from atelier.buffer import Recent
from atelier.collector import Demonstrated
from atelier.reward import Variety
from atelier.task import Reversal


class TestGatedConvolution(BackboneSuite):
    def make(self) -> GatedConvolution:
        return GatedConvolution(vocab_size=11, hidden_size=8, layers=2, width=3)


class TestAdvantageWeightedRegression(AlgorithmSuite):
    def make(self) -> AdvantageWeightedRegression:
        return AdvantageWeightedRegression(gamma=0.9)

    def make_at(self, temperature: float) -> Algorithm:
        return AdvantageWeightedRegression(gamma=0.9, temperature=temperature)


class TestVariety(RewardSuite):
    def make(self) -> Variety:
        return Variety()


class TestReversal(TaskSuite):
    def make(self) -> Reversal:
        return Reversal(letters="abc", eval_rows=5)


class TestDemonstrated(CollectorSuite):
    def make(self, codec: Codec, reward: RewardSource) -> Demonstrated:
        return Demonstrated(codec=codec, reward=reward, responses=8, group_size=2, max_new_tokens=3)


class TestRecent(BufferSuite):
    def make(self) -> Recent:
        return Recent(collections=2, minibatches=3)
