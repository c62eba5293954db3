"""How good a policy is on held-out rows."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from feedtune.contracts import Collector, RewardSource, Rollout, Row, Sample, Scores, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.preference_metrics import preference_metrics
from feedtune.randomness import generator_for
from feedtune.rewards import call_metrics, call_source, score_samples
from feedtune.row_scores import sum_logp
from feedtune.sampling import Decoding, Response, sample
from feedtune.text.codec import Codec, EncodedPrompt

ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The node `evaluation` of a config; conf/train.yaml says what each means."""

    rows: int | None = 64
    every: int | None = None
    max_new_tokens: int = 32
    decoding: Decoding | Mapping[str, Any] = field(default_factory=Decoding)
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rows": 1, "every": 1, "max_new_tokens": 1, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"evaluation.{name}: expected at least {bound}, got {value}")
        if not isinstance(self.decoding, Decoding):
            object.__setattr__(self, "decoding", Decoding(**self.decoding))  # as frozen dataclasses allow it


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """The node `monitor` of a config: what looks on without being learnt from."""

    reward: Mapping[str, Any] | None = None  # a reward source


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and the responses it was measured on."""

    metrics: dict[str, float]
    records: list[dict[str, Any]]
    reliability: list[dict[str, float]] = field(default_factory=list)  # of a reward model's bets on pairs


@torch.no_grad()
def evaluate(
    policy: Policy,
    codec: Codec,
    rows: Sequence[Row],
    reward: RewardSource | None,
    options: EvaluationOptions,
    reference: Policy | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
    collector: Collector | None = None,
    monitor: RewardSource | None = None,
) -> Evaluation:
    """Sample one response to each row and measure it, or let the collector perform, if it has a way.

    Metrics: eval/reward and eval/reward/<source> (NaN without an opinion on any row); eval/length (tokens),
    eval/ended, eval/distinct (share of responses that differ), eval/distinct_1 and _2 (different words and
    word pairs over all, Li et al. 2016);
    with a reference policy eval/kl (nats a response, k1) and eval/reference_perplexity (of the responses
    under the reference); where rows have a reference text, eval/perplexity (of these texts under the policy)
    and eval/bleu, eval/chrf, eval/rougeL of the responses (extra `metrics`); where rows have a chosen and a
    rejected answer, eval/preference_accuracy, by the head "reward" or else by the log-ratio to the reference,
    and of such a head eval/preference_calibration_error and eval/preference_brier;
    of a reward under a policy of calls (`feedtune.rewards`), eval/failures, eval/retries and eval/missing;
    with a monitor, eval/monitor (its mean score of the same responses) and eval/monitor_error (the standard
    error of that mean).

    Args:
        policy: in evaluation mode.
        codec: its own.
        rows: held-out rows.
        reward: null measures everything else.
        options: rows, decoding, seed.
        reference: what the policy is compared with.
        on_rows: told how many rows are done (progress bars).
        collector: the run's; where it performs (`Collector.perform`), its metrics are eval/reward and so on.
        monitor: a second source, of which nothing is learnt.
    """
    chosen = list(rows if options.rows is None else rows[: options.rows])
    generator = generator_for(options.seed)
    decoding = options.decoding
    assert isinstance(decoding, Decoding)
    performed = collector and collector.perform(chosen, policy, generator, decoding)
    if performed:
        found = _evaluation_of(performed, policy, reference, decoding)
        return replace(found, metrics=found.metrics | _call_metrics(reward))
    prompts = codec.prompts(chosen)
    responses: list[Response] = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        responses += sample(
            policy,
            [prompt.tokens for prompt in prompts[start : start + ROWS_AT_ONCE]],
            max_new_tokens=options.max_new_tokens,
            eos_ids=codec.eos_ids,
            generator=generator,
            decoding=decoding,
            stopped=codec.stopped if codec.stop else None,
        )
        on_rows(len(responses))
    samples = [
        Sample(p.text, codec.response(r.tokens), tuple(p.messages), p.row)
        for p, r in zip(prompts, responses, strict=True)
    ]
    scores = None if reward is None else call_source(reward, samples)  # perhaps without any opinion here
    preferences = preference_metrics(policy, reference, codec, chosen)
    metrics = {
        **_reward_metrics(scores),
        **_call_metrics(reward),
        **_monitor_metrics(monitor, samples),
        **_text_metrics(samples, responses),
        **_leash_metrics(policy, reference, _as_experience(prompts, responses), decoding),
        **_reference_text_metrics(policy, codec, chosen, samples),
        **preferences.metrics,
    }
    return Evaluation(metrics, _records(samples, scores), preferences.reliability)


def _evaluation_of(
    performed: Rollout, policy: Policy, reference: Policy | None, decoding: Decoding
) -> Evaluation:
    metrics = {name.replace("rollout/", "eval/"): value for name, value in performed.metrics.items()}
    metrics |= _leash_metrics(policy, reference, performed.experience, decoding)
    return Evaluation(metrics, [{k: _or_none(v) for k, v in record.items()} for record in performed.records])


def _call_metrics(reward: RewardSource | None) -> dict[str, float]:
    """eval/failures, eval/retries and eval/missing, where the policy of calls has a use for them."""
    return {name.replace("reward/", "eval/"): value for name, value in call_metrics(reward).items()}


def _monitor_metrics(monitor: RewardSource | None, samples: Sequence[Sample]) -> dict[str, float]:
    if monitor is None:
        return {}
    total = score_samples(monitor, samples).total
    known = total[~total.isnan()].double()
    error = float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return {"eval/monitor": mean_of_scored(total), "eval/monitor_error": error}


def _reward_metrics(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    parts = {f"eval/reward/{name}": mean_of_scored(part) for name, part in scores.parts.items()}
    return {"eval/reward": mean_of_scored(scores.total), **parts}


def _text_metrics(samples: Sequence[Sample], responses: Sequence[Response]) -> dict[str, float]:
    count = max(1, len(samples))
    words = [s.response.split() for s in samples]
    return {
        "eval/length": sum(len(r.tokens) for r in responses) / count,
        "eval/ended": sum(r.ended for r in responses) / count,
        "eval/distinct": len({s.response for s in samples}) / count,
        "eval/distinct_1": distinct_n(words, 1),
        "eval/distinct_2": distinct_n(words, 2),
    }


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv:1510.03055); 0 where there is none.

    >>> distinct_n([["a", "b", "a"], ["a"]], 1)
    0.5
    """
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _leash_metrics(
    policy: Policy, reference: Policy | None, exp: Experience, decoding: Decoding
) -> dict[str, float]:
    """KL and perplexity under the reference; KL only of the policy's own, unwarped distribution."""
    if reference is None:
        return {}
    ours, theirs = sum_logp(policy, exp), sum_logp(reference, exp)
    metrics = {"eval/reference_perplexity": _perplexity(theirs, exp)}
    if not decoding.warped:
        metrics["eval/kl"] = float((ours - theirs).mean())
    return metrics


def _as_experience(prompts: Sequence[EncodedPrompt], responses: Sequence[Response]) -> Experience:
    pairs = [(p.tokens, r.tokens) for p, r in zip(prompts, responses, strict=True)]
    return from_rows([[*p, *r] for p, r in pairs], [[False] * len(p) + [True] * len(r) for p, r in pairs])


def _perplexity(row_logp: torch.Tensor, exp: Experience) -> float:
    """exp of the mean negative log-probability of an action token."""
    return math.exp(min(700.0, -float(row_logp.sum()) / max(1, int(exp.action.sum()))))


def _reference_text_metrics(
    policy: Policy, codec: Codec, rows: Sequence[Row], samples: Sequence[Sample]
) -> dict[str, float]:
    having = [(s.response, s.columns["reference"]) for s in samples if _is_text(s.columns.get("reference"))]
    if not having:
        return {}
    sequences = codec.sequences([s.columns for s in samples if _is_text(s.columns.get("reference"))])
    limit = policy.backbone.context_length
    kept = [s for s in sequences if limit is None or len(s.tokens) <= limit]
    metrics = {}
    if kept:
        exp = from_rows([s.tokens for s in kept], [s.action for s in kept])
        metrics["eval/perplexity"] = _perplexity(sum_logp(policy, exp), exp)
    return {**metrics, **_overlap_metrics([h[0] for h in having], [h[1] for h in having])}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _overlap_metrics(responses: list[str], references: list[str]) -> dict[str, float]:
    """Corpus BLEU and chrF (0 to 1), mean ROUGE-L; without the extra `metrics` no ROUGE."""
    from torchmetrics.functional.text import bleu_score, chrf_score, rouge_score

    listed = [[reference] for reference in references]
    metrics = {
        "eval/bleu": float(bleu_score(responses, listed)),
        "eval/chrf": float(chrf_score(responses, listed)),  # type: ignore[arg-type]
    }
    if importlib.util.find_spec("nltk") and importlib.util.find_spec("rouge_score"):
        metrics["eval/rougeL"] = float(rouge_score(responses, listed, rouge_keys="rougeL")["rougeL_fmeasure"])
    return metrics


def _records(samples: Sequence[Sample], scores: Scores | None) -> list[dict[str, Any]]:
    records = []
    for index, one in enumerate(samples):
        record: dict[str, Any] = {"prompt": one.prompt, "response": one.response}
        if _is_text(one.columns.get("reference")):
            record["reference"] = one.columns["reference"]
        if scores is not None:
            record["reward"] = _or_none(float(scores.total[index]))
            record |= {f"reward/{name}": _or_none(float(part[index])) for name, part in scores.parts.items()}
        records.append(record)
    return records


def _or_none(value: Any) -> Any:
    """NaN, no opinion, is no JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value


def as_json(found: Evaluation, reference: Evaluation | None) -> Mapping[str, Any]:
    """What evaluation.json holds; null where there is no number."""
    before = None if reference is None else _own_json(reference)
    return {**_own_json(found), "reference": before}


def _own_json(found: Evaluation) -> dict[str, Any]:
    metrics = {name: _or_none(value) for name, value in found.metrics.items()}
    curve = {"reliability": found.reliability} if found.reliability else {}
    return {"metrics": metrics, "records": found.records, **curve}
