"""Losses and gradients of feedtune's cards beside trl's, on the same model, tokens, masks and rewards.

    pip install -c constraints.txt trl==1.16.0
    python tests/benchmarks/compare_trl.py             # trl as it ships: its log-probabilities are float32
    python tests/benchmarks/compare_trl.py --float64   # without the float32 inside trl's kernel and the model

Sampling plays no part: trl's trainers are handed the tokens that they would have drawn, and score them,
compute advantages, old and reference log-probabilities and the loss themselves. Takes a minute; exits with 1
where a line is not as its table says. Not part of the test suite: trl is imported where it is used.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from transformers.models.llama import modeling_llama
from transformers.utils.logging import disable_progress_bar

from feedtune.completion import complete
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Algorithm
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.references import FrozenCopy
from feedtune_plugins.backbones.causal_lm import CausalLM

VOCABULARY, PAD, EOS = 50, 0, 1
LONGEST = 8  # response tokens
TOLERANCE = {torch.float32: 1e-5, torch.float64: 2e-7}  # of the largest gradient; trl's rewards are float32

State = dict[str, Tensor]


class World:
    """A reference, the policy that acted (its neighbour), and policies that have moved on from it."""

    def __init__(self, dtype: torch.dtype, folder: str) -> None:
        self.dtype, self.folder = dtype, folder
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        marks = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
        config = LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.3, **sizes, **marks)
        model = LlamaForCausalLM(config).to(dtype)
        model.save_pretrained(folder)  # trl makes its reference from the folder of the model it is given
        self.reference: State = {name: value.clone() for name, value in model.state_dict().items()}
        self.acting = self.moved(self.reference, 0.02, seed=1)

    def moved(self, state: State, scale: float, seed: int = 2) -> State:
        """Weights with noise of this deviation."""
        generator = torch.Generator().manual_seed(seed)
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
        return {name: value + scale * noise[name].to(self.dtype) for name, value in state.items()}

    def model(self, state: State) -> Any:
        """A causal language model with these weights that says it comes from the reference's folder."""
        model = LlamaForCausalLM.from_pretrained(self.folder, dtype=self.dtype)
        model.load_state_dict(state)
        return model.train()  # there is no dropout

    def tokenizer(self) -> Any:
        """Every token is a word; trl asks for a tokenizer, but reads no text here."""
        words = {"<pad>": PAD, "<eos>": EOS, **{f"w{i}": i for i in range(2, VOCABULARY)}}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@dataclass(frozen=True)
class Rows:
    """Prompts (neighbours in groups), responses, and what each is paid; `said` is False on observations."""

    prompts: Sequence[list[int]]
    responses: Sequence[list[int]]
    scores: Sequence[float]
    group_size: int
    said: Sequence[list[bool]]

    def experience(self) -> Experience:
        """As a collector of feedtune would give it."""
        tokens = [p + r for p, r in zip(self.prompts, self.responses, strict=True)]
        actions = [[False] * len(p) + s for p, s in zip(self.prompts, self.said, strict=True)]
        group = [row // self.group_size for row in range(len(tokens))]
        return from_rows(tokens, actions, scores=self.scores, group=group)


def make_rows(scores: Sequence[Sequence[float]], observations: bool = False) -> Rows:
    """Groups with these scores: a prompt each, of its own length, and responses of 1 to 8 tokens."""
    generator = torch.Generator().manual_seed(3)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    prompts = [draw(2, VOCABULARY, length) for length in (4, 2, 6)[: len(scores)]]
    size = len(scores[0])
    lengths = [5, 1, 8, 3, 2, 7, 8, 4, 6, 1, 3, 8][: size * len(scores)]
    lengths = [max(4, length) for length in lengths] if observations else lengths
    closed = [[*draw(2, VOCABULARY, n - 1), EOS] if n < LONGEST else draw(2, VOCABULARY, n) for n in lengths]
    said = [[not (observations and place in (1, 2)) for place in range(n)] for n in lengths]
    flat = [score for group in scores for score in group]
    return Rows([p for p in prompts for _ in range(size)], closed, flat, size, said)


SCORES = ([0.0, 0.0, 0.0, 1.0], [0.5, 1.25, -0.75, 2.0], [1.0, 0.25, 0.25, -0.5])
PLAIN = make_rows(SCORES)
TURNS = make_rows(SCORES, observations=True)
UNSCORED = make_rows(([0.0, 0.0, 0.0, 1.0], [0.5, float("nan"), -0.75, 2.0], [1.0, 0.25, 0.25, -0.5]))
FLAT = make_rows(([0.1] * 8,))
RAGGED = make_rows(([1.0, 0.0], [2.0, 0.0], [0.5, 0.0]))  # pairs: chosen, rejected
EVEN = replace(RAGGED, responses=[[*r, 7, 8, 9, 11, 12][:4] for r in RAGGED.responses], said=[[True] * 4] * 6)
ONE_PAIR = make_rows(([1.0, 0.0],))


@dataclass(frozen=True)
class Case:
    """One line of the table, and all that both sides are told."""

    name: str
    card: str  # algorithm=..., then overrides below `algorithm.`
    trl: str  # the trainer, then arguments of its config
    rows: Rows = PLAIN
    move: float = 0.01  # how far the policy is from the one that acted; 0: not at all
    parts: int = 1  # micro-batches of the optimiser step
    overlong: int | None = None  # the cache of trl's reward function for long rows, beside the scores
    factor: float = 1.0  # ours = factor x theirs
    pad_is_eos: bool = False

    @property
    def overrides(self) -> list[str]:
        """For `compose_config`."""
        name, *more = self.card.split()
        length = [f"collector.max_new_tokens={LONGEST}"] if self.generates else []
        return [f"algorithm={name}", *(f"algorithm.{override}" for override in more), *length]

    @property
    def trainer(self) -> str:
        """trl's name of it, without "Trainer"."""
        return self.trl.split()[0]

    @property
    def generates(self) -> bool:
        """Whether trl's trainer samples and scores."""
        return self.trainer in ("GRPO", "RLOO")

    @property
    def arguments(self) -> dict[str, Any]:
        """For trl's config."""
        pairs = (argument.split("=") for argument in self.trl.split()[1:])
        return {name: yaml.safe_load(text) for name, text in pairs}


class Result(NamedTuple):
    """What one side says."""

    loss: float
    gradients: State  # of every weight, by transformers' name
    clipped: float | None = None  # share of tokens whose ratio is out of bounds, in the last micro-batch


# feedtune's side


def feedtune(world: World, case: Case) -> Result:
    """The card's loss, by the way that a rollout takes: complete, prepare, move, minibatches, loss."""
    algorithm: Algorithm = build(compose_config(case.overrides).algorithm, "algorithm")
    policy = algorithm.build_policy(lambda: CausalLM(world.model(world.acting), VOCABULARY))
    if case.trainer == "Reward":
        policy.heads["reward"].weight.data = head_weight(world)
    other = CausalLM(world.model(world.reference), VOCABULARY)
    reference = FrozenCopy(Policy(other, temperature=policy.temperature))
    exp = complete(case.rows.experience(), algorithm.needs(), policy, reference)
    with torch.no_grad():
        exp, _ = algorithm.prepare(exp, policy)
    policy.backbone.model.load_state_dict(world.moved(world.acting, case.move))  # type: ignore[union-attr]
    tokens, rows = float(exp.token_count), float(exp.row_count)
    total, clipped = 0.0, None
    for part in torch.arange(len(exp)).chunk(case.parts):
        loss = algorithm.loss(replace(exp[part], step_tokens=tokens, step_rows=rows), policy)
        value = loss.sum / loss.denominator
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
        clipped = loss.metrics.get("policy/clip_fraction", clipped)
    gradients = gradients_of(policy.backbone.model)  # type: ignore[arg-type]
    if case.trainer == "Reward":
        gradients["score.weight"] = policy.heads["reward"].weight.grad
    return Result(total, gradients, None if clipped is None else float(clipped))


def head_weight(world: World) -> Tensor:
    """Of the reward head, `[1, 32]`."""
    return torch.randn(1, 32, generator=torch.Generator().manual_seed(5)).to(world.dtype)


def gradients_of(model: torch.nn.Module) -> State:
    """By the names that transformers gives."""
    return {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}


# trl's side


def trl(world: World, case: Case) -> Result:
    """The loss of trl's trainer on the batch that its own scoring or its own collator makes."""
    trainer, batches = (sampled if case.generates else collated)(world, case)
    missing, _ = trainer.model.load_state_dict(world.moved(world.acting, case.move), strict=False)
    assert set(missing) <= {"score.weight"}
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        total += float(loss.detach())
    return Result(total, gradients_of(trainer.model))


def make_trainer(world: World, case: Case, model: Any, row: dict[str, str], **more: Any) -> Any:
    """A trainer of trl, on the CPU, in the weights' own precision. It wants a row of data; none is read."""
    import trl
    from datasets import Dataset

    common = {"output_dir": world.folder, "report_to": "none", "use_cpu": True, "bf16": False}
    settings = {**common, "gradient_checkpointing": False, **more.pop("settings", {}), **case.arguments}
    tokenizer = world.tokenizer()
    if case.pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    return getattr(trl, f"{case.trainer}Trainer")(
        model=model,
        args=getattr(trl, f"{case.trainer}Config")(**settings),
        train_dataset=Dataset.from_list([row]),
        processing_class=tokenizer,
        **more,
    )


def sampled(world: World, case: Case) -> tuple[Any, list[dict[str, Any]]]:
    """GRPOTrainer or RLOOTrainer, and what its step is given: advantages, log-probabilities, masks."""
    from trl.rewards import get_soft_overlong_punishment
    from trl.trainer.utils import split_tensor_dict

    rows, count = case.rows, len(case.rows.scores)

    def score(**_: Any) -> list[float | None]:
        return [None if value != value else value for value in rows.scores]

    settings = {
        "per_device_train_batch_size": count // case.parts,
        "gradient_accumulation_steps": case.parts,
        "num_generations": rows.group_size,
        "num_iterations": 2 if case.trainer == "GRPO" else 1,  # 2: old log-probabilities are kept
        "max_completion_length": LONGEST,
    }
    rewards = [score, *([get_soft_overlong_punishment(LONGEST, case.overlong)] if case.overlong else [])]
    model, prompt = world.model(world.acting), {"prompt": "w2"}
    trainer = make_trainer(world, case, model, prompt, reward_funcs=rewards, settings=settings)
    seen = None if all(map(all, rows.said)) else [[int(said) for said in row] for row in rows.said]
    drawn, texts = (list(rows.prompts), list(rows.responses)), [""] * count
    trainer._generate = lambda _: (
        (*drawn, seen, texts, None, {}, None, []) if case.trainer == "GRPO" else (*drawn, texts)
    )
    trainer.current_gradient_accumulation_steps = case.parts
    trainer.model.train()
    scored = trainer._generate_and_score_completions([dict(prompt) for _ in range(count)])
    return trainer, list(split_tensor_dict(scored, case.parts))


def collated(world: World, case: Case) -> tuple[Any, list[dict[str, Any]]]:
    """DPOTrainer, RewardTrainer or SFTTrainer, and the rows as its collator batches them."""
    row = {
        "prompt": "w2 ",
        **({"completion": "w3"} if case.trainer == "SFT" else {"chosen": "w3", "rejected": "w4"}),
    }
    model = world.model(world.acting)
    if case.trainer == "Reward":
        config = LlamaConfig.from_pretrained(world.folder, num_labels=1)
        model = LlamaForSequenceClassification(config).to(world.dtype)
        model.score.weight.data = head_weight(world)
    trainer = make_trainer(world, case, model, row)
    return trainer, [trainer.data_collator(examples(case))]


def examples(case: Case) -> list[dict[str, Any]]:
    """The rows as trl's collator of this trainer takes them."""
    prompts, responses, scores = case.rows.prompts, case.rows.responses, case.rows.scores
    both = list(zip(prompts, responses, strict=True))
    if case.trainer == "SFT":
        return [{"input_ids": p + r, "labels": [-100] * len(p) + r} for p, r in both]
    pairs = [(p, c, r) for (p, c), (_, r) in zip(both[::2], both[1::2], strict=True)]
    if case.trainer == "DPO":
        return [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in pairs]
    found: list[dict[str, Any]] = [{"chosen_ids": p + c, "rejected_ids": p + r} for p, c, r in pairs]
    if "margin=1" not in case.card:
        return found
    return [{**pair, "margin": scores[2 * i] - scores[2 * i + 1]} for i, pair in enumerate(found)]


class PlainLogProbs:
    """In place of trl's kernel, which computes in float32 whatever it is given: the same, in float64."""

    @staticmethod
    def apply(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float, *_: Any
    ) -> tuple[Tensor, ...]:
        """Log-probability and entropy of each label, and statistics that only metrics read."""
        logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
        logp = logits.log_softmax(-1)
        chosen = logp.gather(-1, labels[:, None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        top = logits.argmax(-1) == labels
        return chosen, entropy, (2 * logp).logsumexp(-1), logits.mean(-1), top


def _norm(self: Any, hidden: Tensor) -> Tensor:
    """Llama's norm, which transformers computes in float32 too; both sides have the same model."""
    return torch.nn.functional.rms_norm(hidden, self.weight.shape, self.weight, self.variance_epsilon)


def _angles(self: Any, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Llama's rotations likewise: trl's pads on the left shift positions, which float32 shows."""
    half = position_ids[..., None] * self.inv_freq.to(hidden.dtype)
    both = torch.cat([half, half], -1)
    return both.cos(), both.sin()


# The tables

KL = "beta=0.04 use_bias_correction_kl=False"  # trl 1.16 multiplies k3 by the ratio unless told
GRPO = "GRPO loss_type=grpo"
GSPO = f"{GRPO} importance_sampling_level=sequence epsilon=0.0003 epsilon_high=0.0004"
DAPO = "GRPO loss_type=dapo epsilon_high=0.28"
NARROW = "surrogate.level=row surrogate.low=3e-4 surrogate.high=4e-4"
TOKENS = "grpo kl.coefficient=0 aggregation=token_mean"
BNPO = "GRPO loss_type=bnpo"

SAME = [
    Case("GRPO, KL", "grpo", f"{GRPO} {KL}"),
    Case("GRPO, no KL", "grpo kl.coefficient=0", GRPO),
    Case("GRPO, first step", "grpo", f"{GRPO} {KL} num_iterations=1", move=0.0),
    Case("GRPO, temperature", "grpo temperature=0.7", f"{GRPO} {KL} temperature=0.7"),
    Case("GRPO, observations between turns", "grpo", f"{GRPO} {KL}", TURNS),
    Case("GRPO, trl's own KL", "grpo kl.estimator=k3_token_ratio", f"{GRPO} beta=0.04"),
    Case("GRPO, dual clip", "grpo kl.coefficient=0 surrogate.dual=1.3", f"{GRPO} delta=1.3"),
    Case("GRPO, unscored row, no KL", "grpo kl.coefficient=0", GRPO, UNSCORED, factor=12 / 11),
    Case("BNPO, KL", "grpo aggregation=token_mean", f"{BNPO} {KL}"),
    Case("BNPO, entropy bonus", f"{TOKENS} entropy=0.05", f"{BNPO} entropy_coef=0.05"),
    Case("Dr. GRPO", "dr_grpo", "GRPO loss_type=dr_grpo scale_rewards=none"),
    Case("Dr. GRPO with trl's deviation", "dr_grpo advantage.scale=rows", "GRPO loss_type=dr_grpo"),
    Case("DAPO, overlong penalty", "dapo overlong.margin=4", DAPO, overlong=4),
    Case("DAPO, two micro-batches", "dapo overlong=null", DAPO, parts=2),
    Case("GSPO", "gspo", GSPO, move=1e-4),
    Case("GSPO, KL", f"grpo {NARROW}", f"{GSPO} {KL}", move=1e-4),
    Case("CISPO", "cispo", "GRPO loss_type=cispo epsilon_high=5.0"),
    Case("CISPO, a cap that bites", "cispo surrogate.cap=1.1", "GRPO loss_type=cispo epsilon_high=1.1"),
    Case("CISPO, trl's own cap", "cispo surrogate.cap=0.2", "GRPO loss_type=cispo"),
    Case("DPO", "dpo", "DPO beta=0.1", RAGGED),
    Case("DPO, smoothing in trl's sigmoid", "dpo", "DPO label_smoothing=0.1", RAGGED),
    Case("DPO, hinge", "dpo loss=hinge", "DPO beta=0.1 loss_type=hinge", RAGGED),
    Case("DPO, cdpo of one pair", "dpo loss=cdpo", "DPO loss_type=aot label_smoothing=0.1", ONE_PAIR),
    Case("DPO, ipo of equal lengths", "dpo loss=ipo beta=0.025", "DPO loss_type=ipo", EVEN, factor=16.0),
    Case("reward model", "reward_model", "Reward", RAGGED),
    Case("reward model, margin", "reward_model margin=1", "Reward", RAGGED),
    Case("SFT", "sft", "SFT"),
]
SAME_GRADIENT = [Case("RLOO", "rloo", "RLOO beta=0.05", move=0.0)]
DIFFERENT = [
    Case("GRPO, KL as each has it", "grpo", f"{GRPO} beta=0.04"),
    Case("GRPO, equal scores", "grpo kl.coefficient=0", GRPO, FLAT),
    Case("GRPO, unscored row", "grpo", f"{GRPO} {KL}", UNSCORED),
    Case("GRPO, entropy bonus", "grpo entropy=0.05", f"{GRPO} {KL} entropy_coef=0.05"),
    Case("BNPO, two micro-batches", TOKENS, BNPO, parts=2),
    Case("Dr. GRPO by loss_type alone", "dr_grpo", "GRPO loss_type=dr_grpo"),
    Case("CISPO by loss_type alone", "cispo", "GRPO loss_type=cispo"),
    Case("RLOO, policy moved", "rloo", "RLOO beta=0.05"),
    Case("DPO, ipo", "dpo loss=ipo", "DPO loss_type=ipo", RAGGED),
    Case("DPO, label smoothing", "dpo loss=cdpo", "DPO label_smoothing=0.1", RAGGED),
    Case("DPO, robust", "dpo loss=cdpo", "DPO loss_type=robust label_smoothing=0.1", RAGGED),
    Case("reward model, pad = end", "reward_model", "Reward", RAGGED, pad_is_eos=True),
]
WHY = {
    "GRPO, unscored row, no KL": "the row counts in trl's mean: 12 rows there, 11 here",
    "DPO, cdpo of one pair": "trl has no cdpo; aot of a single pair, which cannot be sorted, is it",
    "DPO, ipo of equal lengths": "trl averages over L = 4 tokens: beta / L here, and L^2 times its loss",
    "RLOO": "-A sum log pi here, -A ratio there: at ratio 1 another number with the same gradient",
    "GRPO, KL as each has it": "k3 here; k3 times the token's ratio in trl (k3_token_ratio here)",
    "GRPO, equal scores": "exactly 0 here; in trl the mean's rounding error in float32, over 1e-4",
    "GRPO, unscored row": "no part in anything here; in trl its tokens have their KL, and it counts as a row",
    "GRPO, entropy bonus": "averaged like the loss here (rows); in trl over tokens, whatever the loss_type",
    "BNPO, two micro-batches": "mean over the step's tokens here; mean of the micro-batches' means in trl",
    "Dr. GRPO by loss_type alone": "trl divides by the deviation until scale_rewards is none",
    "CISPO by loss_type alone": "trl's cap is then epsilon: 0.2",
    "RLOO, policy moved": "no ratio here (one step a rollout); in trl the row's, clipped at 0.2",
    "DPO, ipo": "log-ratios summed here, as in the paper; averaged over tokens in trl",
    "DPO, label smoothing": "trl's sigmoid has no use for label_smoothing",
    "DPO, robust": "robust takes the wrong label's share off, over 1 - 2 e; cdpo adds it",
    "reward model, pad = end": "transformers reads the last token that is no pad: the one before the end",
}


def compare(world: World, case: Case) -> tuple[float, float, float, str]:
    """Differences of the loss and of the gradients, the largest gradient, and the share that was clipped."""
    ours, theirs = feedtune(world, case), trl(world, case)
    names = ours.gradients.keys()
    assert names == theirs.gradients.keys(), names ^ theirs.gradients.keys()
    pairs = [(ours.gradients[name], case.factor * theirs.gradients[name]) for name in names]
    differ = max(float((a - b).abs().max()) for a, b in pairs)
    largest = max(float(torch.maximum(a.abs(), b.abs()).max()) for a, b in pairs)
    clipped = "" if ours.clipped is None else f"{ours.clipped:.0%}"
    return abs(ours.loss - case.factor * theirs.loss), differ, largest, clipped


def print_table(world: World, title: str, cases: Sequence[Case], same: bool, same_loss: bool) -> int:
    """Lines of cases whose gradients (and losses) are said to be the same or not; how many are otherwise."""
    print(f"\n{title}\n")
    print("| case | loss differs by | gradient differs by | largest gradient | clipped | settings | why |")
    print("|---|---|---|---|---|---|---|")
    failures = 0
    for case in cases:
        loss, gradient, largest, clipped = compare(world, case)
        near = TOLERANCE[world.dtype] * largest
        right = (gradient <= near) is same and (not same or (loss <= max(near, 1e-6)) is same_loss)
        failures += not right
        name = case.name if right else f"NOT SO: {case.name}"
        theirs = f"{case.trl} + soft overlong punishment" if case.overlong else case.trl
        numbers = f"{loss:.1e} | {gradient:.1e} | {largest:.1e} | {clipped}"
        print(f"| {name} | {numbers} | `{case.card}`; `{theirs}` | {WHY.get(case.name, '')} |", flush=True)
    return failures


def main() -> int:
    """Print the tables; 1 where a line is not as its table says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--float64", action="store_true", help="float64 throughout")
    exact = parser.parse_args().float64
    import datasets
    import trl.trainer.utils

    warnings.simplefilter("ignore")  # progress and advice of other packages are not the subject
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    disable_progress_bar()
    torch.set_num_threads(1)
    if exact:
        trl.trainer.utils._ChunkedLogProbFunction = PlainLogProbs
        modeling_llama.LlamaRMSNorm.forward = _norm
        modeling_llama.LlamaRotaryEmbedding.forward = _angles
    packages = ", ".join(f"{name} {version(name)}" for name in ("feedtune", "trl", "transformers", "torch"))
    with tempfile.TemporaryDirectory() as folder:
        world = World(torch.float64 if exact else torch.float32, folder)
        print(f"{packages}, {world.dtype}")
        failures = print_table(world, "The same", SAME, same=True, same_loss=True)
        failures += print_table(world, "The same gradient", SAME_GRADIENT, same=True, same_loss=False)
        failures += print_table(world, "Different by definition", DIFFERENT, same=False, same_loss=False)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
