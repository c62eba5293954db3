"""No key of a shipped card is idle: turning it moves what is computed, or it is refused by its name.

Every conf/algorithm/*.yaml is composed as `feedtune train` composes it, with the collector and the buffer
that it brings, and run for two epochs. Then each of its keys is turned alone, to every other choice that its
type knows or to the values below, and the same two epochs must show another minibatch, loss, gradient, state,
record or acting distribution. Names of metrics do not count, nor do weights that only one of the two has.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import lightning
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import text_environments  # noqa: F401 - registers tests/Parrot-v0
from feedtune.config.build import build
from feedtune.config.check import check
from feedtune.config.compose import FLAGS, compose_config, to_plain
from feedtune.config.discovery import own_conf
from feedtune.config.trust import resolve
from feedtune.contracts import Backbone, Sample
from feedtune.errors import UserError
from feedtune.module import TuningModule
from feedtune.policy import Policy
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.backbones.recurrent import Recurrent

CARDS = sorted(path.stem for path in (own_conf() / "algorithm").glob("*.yaml"))
PARTS = ("algorithm", "collector", "buffer")
CONTEXT = 20  # tokens that the backbone takes
LONG = "abcdef" * 4

# The answer of the last row is longer than the context. Prompts with an f teach nothing: all answers score 0.
ROWS = [
    {"prompt": "ab", "reference": "bc", "reward": 1.0, "stars": 2.0, "chosen": "bc", "rejected": "f"},
    {"prompt": "ba", "reference": "d", "reward": -2.0, "stars": 0.5, "chosen": "d", "rejected": "ab"},
    {"prompt": "af", "reference": "ca", "reward": 0.5, "stars": -1.0, "chosen": "ca", "rejected": "e"},
    {"prompt": "dd", "reference": LONG, "reward": 3.0, "stars": 1.0, "chosen": LONG, "rejected": "c"},
]
SIZES = {
    "collector.responses": 32,
    "collector.max_new_tokens": 6,
    "collector.rows": 2,
    "collector.pairs": 2,
    "buffer.minibatch_size": 6,
    "buffer.updates": 2,
    "algorithm.overlong.margin": 4,
}
"""What makes a card's run small, where it has such keys."""

PART = "feedtune_plugins.algorithms."
TURNS: Mapping[str, tuple[Any, ...]] = {
    # the parts of a policy gradient
    "gamma": (0.5,),
    "lam": (0.5,),
    "decay": (0.5,),
    "eps": (0.1,),
    "length": (3.0,),
    "surrogate": ({"_target_": PART + "Clip"},),  # CappedWeight is log pi until the policy moves
    "low": (0.01,),
    "high": (0.01,),
    "dual": (1.0001,),
    "cap": (0.9,),
    "scaling": ({"_target_": PART + "RunningScale"},),
    "kl": ({"_target_": PART + "KLPenalty"},),
    "coefficient": (0.0, 0.5),
    "adaptive": ({"_target_": PART + "Adaptive", "target": 0.01, "horizon": 10.0},),
    "overlong": ({"_target_": PART + "Overlong", "limit": 6, "margin": 4},),
    "limit": (5,),
    "overlong.margin": (1,),
    "value": ({"_target_": PART + "ValueLoss"},),
    "weight": (1.0,),
    "clip": (0.01, None),
    "entropy": (0.1,),
    "temperature": (0.5,),
    # values
    "n_step": (2,),
    "conservative": (0.5,),
    "target": ({"_target_": PART + "TargetNetwork"}, None),
    "polyak": (0.5,),
    "every": (2,),
    "epsilon": (0.5, {"_target_": PART + "LinearEpsilon", "steps": 2}),
    "expectile": (0.9,),
    "imitation": (0.5,),
    "awac_beta": (1.0,),
    "max_weight": (0.5,),
    # preferences and imitation
    "beta": (0.5,),
    "label_smoothing": (0.2,),
    "margin": (0.5,),
    "centering": (0.5,),
    "keep": (1, 2, 3),
    # what cards bring to collect with
    "responses": (16,),
    "group_size": (1, 2, 4),
    "max_new_tokens": (5,),
    "refill": (0, 1, 2),
    "top_k": (1,),  # two, of an epsilon-greedy policy, are all: the others are equally probable
    "top_p": (0.5,),
    "repetition_penalty": (2.0,),
    "records": (1,),
    "rows": (1,),
    "block_size": (3,),
    "reward_column": ("stars",),
    "pairs": (1,),
    # and to learn from
    "passes": (1, 2),
    "minibatches": (1, 2),
    "capacity": (5,),
    "minibatch_size": (3,),
    "updates": (1,),
}
"""Values of a key, by its last name or more of it; those of booleans and choices are in its type."""

UNSAID = {"scope": "rollout", "prior": "uniform"}
"""Choices that null stands for, and is not turned to."""

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    # The score of a response stands on its last token, and then what follows a token is the whole row's
    # return. Where every action earns its own reward these are two.
    "algorithm.advantage.credit": (
        "collector=gymnasium",
        "collector.env=tests/Parrot-v0",
        "collector.episodes=32",
        "collector.group_size=4",
        "collector.max_turns=2",
        "++collector.max_new_tokens=4",
    ),
    # Groups of one have no others.
    "algorithm.advantage.scope": ("collector.group_size=4",),
}
"""Where a key is turned whose difference the card's own collector cannot show."""

LEASHES = [
    {"algorithm.kl.place": "loss", "algorithm.kl.estimator": estimator}
    for estimator in ("k2", "k3", "k3_token_ratio", "k3_prefix_ratio")
]
ROW_LEASH = {"algorithm.kl.place": "loss", "algorithm.kl.estimator": "k2_row"}  # wants aggregation=row_sum
BY_VALUES = {"algorithm.advantage.baseline": "value"}
FITTED = {"algorithm.value": {"_target_": PART + "ValueLoss", "weight": 1.0}}  # 0.5 unless said
SCALING = {"_target_": PART + "RunningScale"}
SCALED = {"algorithm.scaling": SCALING}
CLIPPED = {"algorithm.scaling": {**SCALING, "clip": 0.5}}
TOGETHER: Mapping[str, list[dict[str, Any]]] = {
    "ppo": [*LEASHES, SCALED, {"algorithm.scaling": {**SCALING, "center": True}}, CLIPPED],
    "grpo": [CLIPPED],  # whose own division takes off what is not clipped
    "remax": [SCALED],  # and the greedy score with the others
    "reinforce": [*LEASHES, ROW_LEASH, BY_VALUES, {**BY_VALUES, **FITTED}],
}
"""Keys of which at least one is refused alone, and what they are turned to together."""

Seen = Iterator[tuple[str, Any]]


@cache
def composed(card: str, more: tuple[str, ...] = ()) -> DictConfig:
    config = compose_config([f"algorithm={card}", *more])
    for key, value in SIZES.items():
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, value)
    return config


def judge(samples: list[Sample]) -> list[float]:
    """Letters a less half the letters e, and nothing for prompts with an f."""
    worth = [s.response.count("a") - s.response.count("e") / 2 for s in samples]
    return [0.0 if "f" in s.prompt else value for s, value in zip(samples, worth, strict=True)]


@cache
def codec() -> Codec:
    made: Codec = TrainedTokenizer(kind="char").build(lambda: ["abcdef", "lower higher"])
    return made


@cache
def trainer() -> lightning.Trainer:
    """Never asked to fit: the module wants to know its precision and its ranks."""
    return lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def make_backbone() -> Backbone:
    backbone = Recurrent(vocab_size=codec().vocab_size, cell="gru", embed_size=4, hidden_size=6, layers=1)
    backbone.context_length = CONTEXT
    for weight in backbone.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    backbone.bias.data[list(codec().eos_ids)] += 2.0  # rows of all lengths
    return backbone


def random_heads(policy: Policy) -> None:
    for weight in policy.heads.parameters():
        torch.nn.init.normal_(weight, std=0.3)


def run(config: DictConfig) -> Seen:
    """Two epochs: every minibatch as it comes, its loss and gradients; then state, records and acting.

    Each by its name, as soon as it is there.
    """
    check(OmegaConf.create({part: to_plain(config[part]) for part in PARTS}), {}, PARTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = TuningModule(
            algorithm=build(config.algorithm, "algorithm"),
            make_backbone=make_backbone,
            collector=build(config.collector, "collector", codec=codec(), reward=judge),
            buffer=build(config.buffer, "buffer"),
            rows=ROWS,
            init_heads=random_heads,
        )
    module.trainer = trainer()
    module.setup("fit")
    optimizer = torch.optim.Adam(module.policy.parameters(), lr=0.1)  # ratios leave every clip
    yield "minibatches", len(module.train_dataloader())
    for epoch in range(2):
        for number, batch in enumerate(module.train_dataloader()):
            optimizer.zero_grad()
            loss = module.training_step(batch, number)
            loss.backward()  # type: ignore[no-untyped-call]
            here = {"loss": loss.detach(), **batch.tensors()}
            here |= {n: w.grad.clone() for n, w in module.policy.named_parameters() if w.grad is not None}
            yield from ((f"{epoch}.{number}.{name}", value) for name, value in here.items())
            optimizer.step()
            module.algorithm.after_step(module.policy)
    yield from module.algorithm.state_dict().items()
    with torch.no_grad():
        tokens = torch.arange(codec().vocab_size)[:, None]
        hidden, _ = module.policy.eval()(tokens, torch.ones_like(tokens, dtype=torch.bool))
        yield "acting", module.policy.action_logits(hidden)
    yield "records", module.epoch_records


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other)
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-6)


def moves(one: Mapping[str, Any], other: Seen) -> bool:
    """Whether anything that both have differs by more than rounding; looks no further than it has to."""
    return any(name in one and not same(one[name], value) for name, value in other)


@cache
def base(card: str, more: tuple[str, ...] = ()) -> Mapping[str, Any]:
    return dict(run(composed(card, more)))


def leaves(node: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Every key of a node, with its value and the annotation that its target has for it."""
    hints: Mapping[str, Any] = {}
    if "_target_" in node:
        made = resolve(node["_target_"], key)
        plain = made.__init__ if not hasattr(made, "__dataclass_fields__") else made  # type: ignore[misc]
        hints = get_type_hints(inspect.unwrap(plain))
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{key}.{name}")
        elif name not in FLAGS:
            yield f"{key}.{name}", value, hints.get(name)


def choices(annotation: Any) -> list[Any]:
    """What a type can be told to be, if that can be listed."""
    if annotation is bool:
        return [False, True]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [one for part in get_args(annotation) if get_origin(part) is Literal for one in get_args(part)]


def turned(key: str, value: Any, annotation: Any) -> list[Any]:
    """The other values that a key is turned to.

    Raises:
        KeyError: nobody has said what they are: give them in `TURNS`.
    """
    if isinstance(value, bool):
        return [not value]
    parts = key.split(".")
    known = [".".join(parts[start:]) for start in range(len(parts)) if ".".join(parts[start:]) in TURNS]
    listed = choices(annotation) or list(TURNS[known[0] if known else key])
    own = UNSAID.get(parts[-1]) if value is None else value
    others = [other for other in listed if other != own]
    if not others:
        raise KeyError(f"{key}: all values in TURNS are the card's own {value!r}")
    return others


def names_it(error: UserError, key: str) -> bool:
    """Its own key, or that of a neighbour whose use depends on it."""
    parent, _, name = key.rpartition(".")
    return key in str(error) or (parent in str(error) and name in str(error))


def verdict(card: str, key: str, other: Any) -> str:
    """What came of turning a key: "moved", "refused", or what is wrong."""
    more = ELSEWHERE.get(key, ())
    config = composed(card, more).copy()
    OmegaConf.update(config, key, other, merge=False)
    try:
        return "moved" if moves(base(card, more), run(config)) else "IDLE"
    except UserError as error:
        return "refused" if names_it(error, key) else f"REFUSED WITHOUT ITS NAME: {error}"


@pytest.mark.parametrize("card", CARDS)
def test_every_key_moves_something_or_is_refused_by_name(card: str) -> None:
    found = {
        f"{key}={other}": verdict(card, key, other)
        for part in PARTS
        for key, value, annotation in leaves(to_plain(composed(card))[part], part)
        for other in turned(key, value, annotation)
    }
    assert {key: what for key, what in found.items() if what not in ("moved", "refused")} == {}
    assert "moved" in found.values()


@pytest.mark.parametrize("card", TOGETHER)
def test_keys_that_are_refused_alone_move_together(card: str) -> None:
    """Every combination moves what is computed, away from the card's own and from all the others."""
    seen = [base(card)]
    for combination in TOGETHER[card]:
        config = composed(card).copy()
        for key, value in combination.items():
            OmegaConf.update(config, key, value, merge=False)
        alone = [verdict(card, key, value) for key, value in combination.items()]
        assert len(alone) == 1 or "refused" in alone, combination
        here = dict(run(config))
        assert [moves(other, iter(here.items())) for other in seen] == [True] * len(seen), combination
        seen.append(here)


@pytest.mark.parametrize("card", CARDS)
def test_nothing_moves_by_itself(card: str) -> None:
    """Or all that is seen above could be chance."""
    assert not moves(base(card), run(composed(card)))


def test_an_idle_key_would_be_found() -> None:
    """Where the score stands on the last token, and nothing is discounted, credit is: see ELSEWHERE."""
    config = composed("cispo").copy()
    OmegaConf.update(config, "algorithm.advantage.credit", "to_go")
    assert not moves(base("cispo"), run(config))


def test_a_key_that_nobody_knows_how_to_turn_fails() -> None:
    with pytest.raises(KeyError, match=r"algorithm\.novel"):
        turned("algorithm.novel", 1.0, float)
