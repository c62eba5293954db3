"""Laws that every collector obeys, as a suite to subclass.

    class TestMine(CollectorSuite):
        def make(self, codec: Codec, reward: RewardSource) -> Collector:
            return Mine(codec=codec, reward=reward, responses=4)

Make a small one: a few rows a collection. The policies here are tiny and random, and the reward source
scores the letters of a response.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from feedtune.contracts import Backbone, Collector, Plan, RewardSource, Rollout, Row, Sample
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.sampling import Decoding
from feedtune.scoring import score_actions
from feedtune.testing.sameness import alike
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness
from feedtune.testing.tiny import TinyBackbone, TinyBag, tiny_codec
from feedtune.text.codec import Codec

ROWS: tuple[Row, ...] = (
    {"prompt": "a b", "reference": "c d e", "reward": 1.0, "chosen": "c d e", "rejected": "f"},
    {"prompt": "d", "reference": "f", "reward": 3.0, "chosen": "f", "rejected": "a"},
    {"prompt": "Hello?", "reference": "Hi!", "reward": -0.5, "chosen": "Hi!", "rejected": "?"},
)
"""Rows that answer, imitate and compare: each kind of collector finds its columns in them."""


class Letters:
    """Scores the letters of a response, and has no opinion on some."""

    def __init__(self, silent_on: Sequence[int] = ()) -> None:
        self.silent_on, self.asked = silent_on, 0

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        places = range(self.asked, self.asked + len(samples))
        self.asked += len(samples)
        scores = [float(len(sample.response)) + len(sample.prompt) / 8 for sample in samples]
        return [math.nan if at in self.silent_on else one for at, one in zip(places, scores, strict=True)]


class CollectorSuite(Suite):
    """The laws of `Collector`; subclass it in a test module and say how to make one."""

    group: ClassVar[str] = "collector"

    rows: Sequence[Row] = ROWS
    """Rows of a task, each of which the collector can take."""

    tolerance = 1e-4
    """Most by which the sampler's log-probabilities may differ from those of a pass over whole rows."""

    reward: RewardSource | None = None  # of the collectors that `built_from` makes

    @abstractmethod
    def make(self, codec: Codec, reward: RewardSource) -> Collector:
        """A fresh collector with this codec and this reward source."""

    def given(self) -> dict[str, Any]:
        return {"codec": self.codec(), "reward": self.reward or Letters()}

    def fresh(self) -> Any:
        return self.made()

    def codec(self) -> Codec:
        """Characters as tokens."""
        return tiny_codec()

    def made(self, reward: RewardSource | None = None) -> Collector:
        """A collector with the suite's codec."""
        return self.make(self.codec(), reward or Letters())

    def backbones(self) -> dict[str, Backbone]:
        """Tiny ones of several kinds, for each of which a collector works."""
        size = self.codec().vocab_size
        with seeded(0):
            return {
                "a recurrent network": TinyBackbone(vocab_size=size),
                "a state of two tensors": TinyBag(vocab_size=size),
                "float64": TinyBackbone(vocab_size=size).double(),
                "bfloat16": TinyBackbone(vocab_size=size).bfloat16(),
            }

    def policy(self, backbone: Backbone | None = None) -> Policy:
        """A policy in evaluation mode; by default of a tiny recurrent network."""
        return Policy(backbone or self.backbones()["a recurrent network"]).eval()

    def collected(
        self,
        collector: Collector | None = None,
        policy: Policy | None = None,
        seed: int = 0,
        ranks: int = 1,
    ) -> tuple[Plan, Rollout]:
        """One collection as the train loader asks for it: so many items as the plan says."""
        collector, policy = collector or self.made(), policy or self.policy()
        items = collector.load(self.rows, policy.backbone.context_length)
        plan = collector.plan(len(items), ranks)
        wanted = [items[place % len(items)] for place in range(plan.items)]
        with torch.no_grad():
            return plan, collector.collect(wanted, policy, torch.Generator().manual_seed(seed))

    def probe(self, made: Collector) -> Any:
        """Plan, experience, metrics, records of one collection; what it supplies and does with less room."""
        supplied = sorted(made.supply(frozenset({"greedy", "groups"})))
        plan, rollout = self.collected(made)
        tensors = rollout.experience.tensors()
        return [
            plan,
            tensors,
            dict(rollout.metrics),
            list(rollout.records),
            supplied,
            made.warped,
            self.cut(made),
        ]

    def cut(self, collector: Collector) -> list[Any]:
        """What becomes of the rows in contexts too small for some: tokens, or why they are refused."""
        found: list[Any] = []
        for context in (2, 4, 8):
            try:
                items = collector.load(self.rows, context)
                count = collector.plan(len(items), 1).items
                wanted = [items[place % len(items)] for place in range(count)]
                with torch.no_grad():
                    rollout = collector.collect(wanted, self.policy(), torch.Generator().manual_seed(0))
                found.append(rollout.experience.tokens)
            except UserError as error:
                found.append(str(error))
        return found

    # -- laws -----------------------------------------------------------------------------------------

    def test_the_plan_tells_the_truth(self) -> None:
        """On one rank and on two, from as many items as it names come as many rows as it names."""
        for ranks in (1, 2):
            try:
                plan, rollout = self.collected(ranks=ranks)
            except UserError:
                if ranks == 1:
                    raise
                continue  # sizes that do not divide are refused by name
            sizes = (plan.collections, plan.items, plan.rows)
            require(
                min(sizes) >= 1,
                f"a plan of {plan.collections} collections, {plan.items} items, {plan.rows} rows",
            )
            found = len(rollout.experience)
            require(found == plan.rows, f"the plan for {ranks} ranks says {plan.rows} rows, and {found} came")

    def test_shapes_and_types(self) -> None:
        """Tensors of experience are as `feedtune.experience` has them."""
        exp = self.collected()[1].experience
        rows, width = exp.tokens.shape
        wanted = {
            **dict.fromkeys(("tokens",), (torch.int64, (rows, width))),
            **dict.fromkeys(("mask", "action"), (torch.bool, (rows, width))),
            **dict.fromkeys(("done", "ended", "scored"), (torch.bool, (rows,))),
            "group": (torch.int64, (rows,)),
        }
        tensors = exp.tensors()
        for name, (dtype, shape) in wanted.items():
            value = tensors[name]
            said = f"{name} is {value.dtype} {list(value.shape)}, not {dtype} {list(shape)}"
            require(value.dtype == dtype and value.shape == shape, said)
        for name in tensors.keys() - wanted.keys():
            value, per_token = tensors[name], not name.startswith("extra.")
            fits = value.shape == (rows, width) if per_token else value.shape[:1] == (rows,)
            require(
                fits,
                f"{name} is {list(value.shape)}, not {'[B, T]' if per_token else '[B, ...]'} of {rows} rows",
            )

    def test_masks_agree(self) -> None:
        """Real tokens are contiguous, actions and rewards among them; nothing chose a row's first token."""
        exp = self.collected()[1].experience
        for row in range(len(exp)):
            real = exp.mask[row].nonzero().squeeze(-1)
            require(len(real) > 0, f"row {row} has no token")
            length = int(real[-1] - real[0]) + 1
            require(length == len(real), f"row {row}: pads between real tokens")
            require(
                not bool(exp.action[row, real[0]]),
                f"row {row}: its first token follows nothing, so it is no action",
            )
        require(not bool((exp.action & ~exp.mask).any()), "an action token that is a pad")
        require(not bool((exp.reward != 0)[~exp.mask].any()), "a reward on a pad")
        require(not bool((exp.ended & ~exp.done).any()), "a row that ended and is not done")
        size = self.codec().vocab_size
        require(bool(((exp.tokens >= 0) & (exp.tokens < size)).all()), "a token outside of the vocabulary")

    def test_rows_of_a_group_answer_the_same_prompt(self) -> None:
        exp = self.collected()[1].experience
        asked: dict[int, list[int]] = {}
        for row in range(len(exp)):
            said = exp.action[row].nonzero()
            if len(said):
                prompt = exp.tokens[row, : int(said[0])][exp.mask[row, : int(said[0])]].tolist()
                known = asked.setdefault(int(exp.group[row]), prompt)
                require(known == prompt, f"row {row} is in a group with rows that answer another prompt")

    def test_the_sampler_tells_its_log_probabilities(self) -> None:
        """Where it gives them, and draws from the whole distribution, they are the policy's."""
        collector, policy = self.made(), self.policy()
        exp = self.collected(collector, policy)[1].experience
        if exp.sampler_logp is None:
            return self.inapplicable("it gives no log-probabilities of its own")
        require(
            bool((exp.sampler_logp[~exp.action] == 0).all()), "sampler_logp beside action tokens is not 0"
        )
        if not collector.warped:
            with torch.no_grad():
                logp = score_actions(policy, exp).logp
            worst = float((logp - exp.sampler_logp)[exp.action].abs().max()) if exp.action.any() else 0.0
            require(worst <= self.tolerance, f"sampler_logp is off by {worst:.2g} from what the policy says")
        return None

    def test_the_same_generator_collects_the_same(self) -> None:
        """All randomness comes from the generator: global seeds change nothing and are not drawn from."""
        collector = self.made()
        policy = self.policy()
        with seeded(0), untouched_randomness():
            first = self.collected(collector, policy)
        with seeded(1):
            again = self.collected(self.made(), policy)
        require(alike(again, first), "with the same generator another collection came")

    def test_the_policy_stays_as_it_was(self) -> None:
        policy = self.policy()
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        exp = self.collected(policy=policy)[1].experience
        require(alike(dict(policy.state_dict()), before), "collecting changes the policy's weights")
        require(not policy.training, "collecting puts the policy into training mode")
        require(
            not any(value.requires_grad for value in exp.tensors().values()), "experience carries gradient"
        )

    def test_it_works_with_every_backbone(self) -> None:
        for name, backbone in self.backbones().items():
            plan, rollout = self.collected(policy=self.policy(backbone))
            require(
                len(rollout.experience) == plan.rows,
                f"{name}: {len(rollout.experience)} rows, not {plan.rows}",
            )
            _check_finite(rollout.experience, name)

    def test_it_works_on_a_gpu(self) -> None:
        if not torch.cuda.is_available():
            return self.inapplicable("there is no CUDA device here")
        plan, rollout = self.collected(policy=self.policy().to("cuda"))
        require(len(rollout.experience) == plan.rows, f"{len(rollout.experience)} rows, not {plan.rows}")
        _check_finite(rollout.experience, "on a GPU")
        return None

    def test_metrics_are_finite_numbers_and_records_are_plain(self) -> None:
        rollout = self.collected()[1]
        for name, value in rollout.metrics.items():
            require(math.isfinite(value), f"metric {name} is {value}")
        try:
            json.dumps([dict(record) for record in rollout.records])
        except (TypeError, ValueError) as error:
            raise AssertionError(f"records: JSON cannot write them: {error}") from error

    def test_what_does_not_fit_is_cut_or_refused_by_name(self) -> None:
        """A small context: rows fit it, or a UserError says which row or key is to blame."""
        for context, found in zip((2, 4, 8), self.cut(self.made()), strict=True):
            if isinstance(found, str):
                require(
                    _names_something(found),
                    f"in a context of {context} it says '{found}', and not which row or key",
                )
                continue
            require(found.shape[1] <= context, f"a row of {found.shape[1]} tokens in a context of {context}")

    def test_a_row_that_cannot_be_read_is_refused_by_its_number(self) -> None:
        """Or taken, where nothing of it has to be read."""
        try:
            self.made().load([*self.rows, {"nothing": "to read"}], None)
        except UserError as error:
            number = len(self.rows) + 1
            require(f"row {number}" in str(error), f"the refusal of row {number} does not name it: {error}")

    def test_rows_without_a_score_take_part_in_nothing(self) -> None:
        """NaN from the reward source: the row is not scored, and has neither actions nor rewards."""
        asked = Letters(silent_on=range(1, 1000, 2))
        rollout = self.collected(self.made(asked))[1]
        if not asked.asked:
            return self.inapplicable("it asks no reward source")
        exp = rollout.experience
        _check_finite(exp, "with NaN from the reward source")
        require(
            not bool(exp.scored.all()),
            "the reward source had no opinion on some rows, and all count as scored",
        )
        silent = ~exp.scored
        require(not bool(exp.action[silent].any()), "a row without a score has action tokens")
        require(not bool(exp.reward[silent].any()), "a row without a score has a reward")
        for name, value in rollout.metrics.items():
            require(math.isfinite(value), f"metric {name} is {value}, where some rows have no score")
        return None

    def test_no_score_at_all_is_never_a_silent_0(self) -> None:
        """A source without any opinion: refused by a UserError, or no row counts as scored."""
        asked = Letters(silent_on=range(1000))
        try:
            rollout = self.collected(self.made(asked))[1]
        except UserError:
            return None
        if not asked.asked:
            return self.inapplicable("it asks no reward source")
        require(
            not bool(rollout.experience.scored.any()), "rows count as scored that nobody had an opinion on"
        )
        return None

    def test_it_supplies_what_it_says(self) -> None:
        """Of what an algorithm needs: "groups" are several rows each, the rest stands in `extra`, `[B]`."""
        collector = self.made()
        supplied = collector.supply(frozenset({"greedy", "groups"}))
        _, rollout = self.collected(collector)
        exp = rollout.experience
        for name in supplied - {"groups"}:
            require(
                name in exp.extra,
                f"it says that it supplies '{name}', and extra has {sorted(exp.extra) or 'nothing'}",
            )
            require(
                exp.extra[name].shape[:1] == (len(exp),), f"extra['{name}'] is {list(exp.extra[name].shape)}"
            )
        if "groups" in supplied:
            counts = torch.unique(exp.group, return_counts=True)[1]
            require(int(counts.min()) > 1, "it says that it supplies groups, and some have one row")

    def test_held_out_rows_are_performed_one_by_one(self) -> None:
        """`perform`, where there is one: a row and a record of each held-out row, each its own group."""
        if type(self.made()).perform is Collector.perform:
            return self.inapplicable("evaluation answers prompts, as is the rule")
        with torch.no_grad():
            rollout = self.made().perform(
                self.rows, self.policy(), torch.Generator().manual_seed(0), Decoding()
            )
        if rollout is not None:
            count = len(self.rows)
            require(
                len(rollout.experience) == count, f"{len(rollout.experience)} rows for {count} held-out ones"
            )
            require(
                len(rollout.records) == count, f"{len(rollout.records)} records for {count} held-out rows"
            )
            require(len(set(rollout.experience.group.tolist())) == count, "held-out rows share a group")
        return None


def _check_finite(exp: Experience, what: str) -> None:
    """No number of experience is NaN or infinite; `extra` may hold NaN, for no opinion."""
    for name, value in exp.tensors().items():
        fine = not bool(value.isinf().any()) if name.startswith("extra.") else bool(value.isfinite().all())
        require(fine, f"{what}: {name} is not finite")


def _names_something(message: str) -> bool:
    """Whether an error says which row, key or task is to blame."""
    return any(word in message for word in ("row ", "collector.", "the task"))
