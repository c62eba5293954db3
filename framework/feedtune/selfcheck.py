"""What training relies on, measured before the first step and without making one (a step at rate 0).

That pads and caches leave no trace, that two passes agree, that the sampler and the trainer give the same
log-probabilities, that the reference begins where the policy does, that what is saved comes back. Each check
is a number in nats (or a count) with a bound; the first that is beyond it stops the run, in words.

It takes a few rows of a few tokens and leaves nothing behind: no random number is drawn, no mode changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from feedtune.contracts import Backbone, Reference, Row
from feedtune.errors import UserError, one_line
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy, at_least_float32
from feedtune.randomness import generator_for, global_rng_state, set_global_rng_state
from feedtune.sampling import sample
from feedtune.scoring import score_actions
from feedtune.text.codec import Codec
from feedtune.text.tokenizer_facts import encode
from feedtune.text.tokenizers import texts_of

TOLERANCE = 1e-4
"""Nats by which two ways to the same log-probability may differ in float32, at temperature 1."""

ROUGH = 1.0
"""Nats that are beyond the rounding of 16 bits: some hundredths on average, tenths for single tokens."""

ROWS, TOKENS, NEW_TOKENS, PADS = 3, 12, 4, 2
"""Rows that are read, the most tokens of each, tokens that are said to it twice, pads on either side."""

LOOKED_AT = 4  # last tokens of a row whose distributions are compared

WRITTEN_UPTO = 500 * 2**20
"""Bytes of weights that are still written to a file and read back; of more, only the names are compared."""


@dataclass(frozen=True)
class Check:
    """A law and how far it may be off."""

    name: str
    measured: float
    bound: float
    cause: str  # where the mistake is likely to be


def probe_rows(codec: Codec, rows: Sequence[Row], vocab_size: int, limit: int | None) -> list[list[int]]:
    """A few rows of the task as tokens, cut and filled up to about `TOKENS` and to what the context holds."""
    width = TOKENS if limit is None else max(1, min(TOKENS, limit - NEW_TOKENS - 2 * PADS))
    texts = [" ".join(texts_of([row])) for row in islice(iter(rows), ROWS)]
    random = generator_for(0)
    fill = torch.randint(vocab_size, (ROWS, width), generator=random).tolist()
    known = encode(codec.tokenizer, texts) + [[] for _ in range(ROWS - len(texts))]
    # Of different lengths, so that there are pads; filled up, so that there is something to cut in two.
    return [[*row, *more][: max(1, width - n)] for n, (row, more) in enumerate(zip(known, fill, strict=True))]


@contextmanager
def no_trace(policy: Policy) -> Iterator[None]:
    """The policy in evaluation mode; afterwards its modes and every global generator are as before."""
    modes = {module: module.training for module in policy.modules()}
    random = global_rng_state()
    policy.eval()
    try:
        yield
    finally:
        set_global_rng_state(random)
        for module, mode in modes.items():
            module.training = mode


def selfcheck(
    policy: Policy,
    rows: Sequence[Sequence[int]],
    *,
    reference: Reference | None = None,
    save_and_load: Callable[[Path], Policy] | None = None,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, float]:
    """Measure every law over a policy; returns what was measured by name.

    In 16-bit weights or under autocast sums in another order differ by rounding. Then laws between two ways
    to a log-probability are measured in the weights' own precision, and the sampler's drift from the trainer
    under autocast is in the result as "drift", for information.

    Args:
        policy: as it is where training begins.
        rows: a few rows of tokens (`probe_rows`).
        reference: it has to say what the policy says, as on a run's first step; null where it may not.
        save_and_load: writes the policy into a folder and gives back what is read from there.
        context: the precision in which training runs.

    Raises:
        UserError: a law does not hold; it names the check, the number, the bound and the likely cause.
    """
    device = next(policy.parameters()).device
    wide = all(weight.dtype in (torch.float32, torch.float64) for weight in policy.parameters())
    found: dict[str, float] = {}
    with no_trace(policy), torch.no_grad(), context():
        mixed = torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False):
            for check in _checks(policy, rows, reference, save_and_load, wide):
                found[check.name] = _held(check)
        if mixed or not wide:
            drift = _drift(policy, _answered(policy, rows)).mean().item()
            cause = "the backbone's cache: rounding to 16 bits alone is some hundredths"
            found["drift"] = _held(Check("drift", drift, ROUGH, cause))
    return found


def _held(check: Check) -> float:
    if check.measured <= check.bound:  # NaN is not
        return check.measured
    raise UserError(
        f"selfcheck: {check.name}: {check.measured:.3g}, expected at most {check.bound:.3g}. Likely cause: "
        f"{check.cause}. Training on would learn from wrong numbers; selfcheck=false skips this"
    )


def _checks(
    policy: Policy,
    rows: Sequence[Sequence[int]],
    reference: Reference | None,
    save_and_load: Callable[[Path], Policy] | None,
    wide: bool,
) -> Iterator[Check]:
    """Every check, the most fundamental first: what fails early explains what would fail late."""
    close = TOLERANCE if wide else ROUGH
    sharp = close / min(1.0, policy.temperature) if policy.temperature else float("inf")
    backbones = {"": policy.backbone} | {f" of {name}": policy.read_by(name) for name in policy.towers}
    for whose, backbone in backbones.items():
        yield from _laws(backbone, whose, rows, close)
    yield from _agreements(policy, rows, reference, sharp)
    cause = "rebuilt_keys() names weights that are trained"
    yield Check("checkpoint", _left_out(policy), 0, cause)
    if save_and_load is not None and _bytes(policy) <= WRITTEN_UPTO:
        cause = "the backbone's save() or load(): weights that come back otherwise than they went"
        yield Check("save and load", _not_loaded(policy, save_and_load), 0, cause)


def _laws(backbone: Backbone, whose: str, rows: Sequence[Sequence[int]], close: float) -> Iterator[Check]:
    """Of a backbone: what it says does not depend on pads, on what it is read beside, or on its cache."""
    alone = [_alone(backbone, row) for row in rows]
    cause = "weights that are not finite; start from others (init_from)"
    yield Check(f"numbers{whose}", float(sum(int(said.isnan().sum()) for said in alone)), 0, cause)
    cause = "something random in evaluation mode, such as dropout that is always on"
    yield Check(f"two passes{whose}", _apart(alone, [_alone(backbone, row) for row in rows]), 0, cause)
    if backbone.context_length is None or max(map(len, rows)) + 2 * PADS <= backbone.context_length:
        one, other = ([_padded(backbone, rows, left, seed) for left in (0, PADS)] for seed in (1, 2))
        cause = "the backbone reads pads: with other tokens under them it says something else"
        yield Check(f"pad tokens{whose}", _worst(map(_apart, one, other)), 0, cause)
        cause = "the backbone counts pads: rows beside longer ones are not read as rows alone"
        yield Check(f"pads{whose}", _worst(_apart(alone, beside) for beside in one), close, cause)
    cause = "the backbone's state (its cache): reading a row in two parts is not reading it at once"
    yield Check(f"prefix and select{whose}", _prefix(backbone, rows), close, cause)


def _agreements(
    policy: Policy, rows: Sequence[Sequence[int]], reference: Reference | None, sharp: float
) -> Iterator[Check]:
    """Of a policy: all who speak of the same tokens give them the same log-probabilities."""
    exp = _answered(policy, rows)
    old = _logp(policy, exp)
    ratio = _difference(_logp(policy, exp), old).expm1().max().item()
    cause = "something random in evaluation mode in the policy's heads or its action_logits"
    yield Check("ratio", ratio, 0, cause)
    with torch.enable_grad():
        new = _logp(policy, exp)  # in other kernels, perhaps, which round otherwise
    cause = "a pass that says something else where a gradient is asked for"
    yield Check("pass with a gradient", _difference(new, old).max().item(), sharp, cause)
    cause = (
        "tokens are drawn from another distribution than they are trained under: the backbone's steady(), "
        "its cache, or TF32 matrix products"
    )
    yield Check("sampler against trainer", _drift(policy, exp, old).max().item(), sharp, cause)
    if reference is not None:
        cause = (
            "the reference does not begin where the policy does: the backbone's adapter_off, or a copy of it "
            "that is not whole"
        )
        yield Check("reference KL", _difference(old, reference.logp(exp)).max().item(), sharp, cause)


# What a backbone says of the last tokens of rows


def _said(backbone: Backbone, hidden: Tensor) -> Tensor:
    return at_least_float32(backbone.unembed(hidden)).log_softmax(-1)


def _apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest over positions of E |log p - log q| under the mean of p and q, `[..., V]` each."""

    def nats(p: Tensor, q: Tensor) -> float:
        weight = (p.exp() + q.exp()) / 2  # -inf in both is agreement
        return torch.where(weight > 0, weight * (p - q).abs(), 0).sum(-1).max().item()

    return _worst(map(nats, one, other))


def _worst(values: Iterable[float]) -> float:
    """The largest; NaN where there is one, which `max` may pass over."""
    return torch.tensor(list(values)).max().item()


def _alone(backbone: Backbone, row: Sequence[int]) -> Tensor:
    tokens = torch.tensor([row], device=next(backbone.parameters()).device)
    hidden, _ = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
    return _said(backbone, hidden[0, -LOOKED_AT:])


def _padded(backbone: Backbone, rows: Sequence[Sequence[int]], left: int, seed: int) -> list[Tensor]:
    """What is said of each row that is read beside the others, with random tokens under the pads."""
    width = left + max(map(len, rows)) + PADS
    tokens = torch.randint(backbone.vocab_size, (len(rows), width), generator=generator_for(seed))
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, left : left + len(row)] = torch.tensor(row)
        mask[number, left : left + len(row)] = True
    device = next(backbone.parameters()).device
    hidden, _ = backbone(tokens.to(device), mask.to(device))
    return [_said(backbone, hidden[n, mask[n]][-LOOKED_AT:]) for n in range(len(rows))]


def _prefix(backbone: Backbone, rows: Sequence[Sequence[int]]) -> float:
    """Half of each row, then the rest of some of them in another order, one of them twice."""
    length = min(map(len, rows))
    half, order = length // 2, [*reversed(range(len(rows))), 0]
    if not half:
        return 0.0
    device = next(backbone.parameters()).device
    tokens = torch.tensor([row[:length] for row in rows], device=device)
    mask, chosen = torch.ones_like(tokens, dtype=torch.bool), torch.tensor(order, device=device)
    whole, _ = backbone(tokens, mask)
    _, state = backbone(tokens[:, :half], mask[:, :half])
    rest, _ = backbone(tokens[chosen, half:], mask[chosen, half:], backbone.select(state, chosen))
    seen = min(LOOKED_AT, length - half)
    return _apart([_said(backbone, whole[chosen, -seen:])], [_said(backbone, rest[:, -seen:])])


# What the policy says of action tokens


def _answered(policy: Policy, rows: Sequence[Sequence[int]]) -> Experience:
    """Two responses to each row, with the sampler's log-probabilities."""
    limit = policy.backbone.context_length
    room = NEW_TOKENS if limit is None else max(1, min(NEW_TOKENS, limit - max(map(len, rows))))
    said = sample(policy, rows, max_new_tokens=room, eos_ids=(), generator=generator_for(3), group_size=2)
    prompts = [list(row) for row in rows for _ in range(2)]
    exp = from_rows(
        [[*p, *r.tokens] for p, r in zip(prompts, said, strict=True)],
        [[False] * len(p) + [True] * len(r.tokens) for p, r in zip(prompts, said, strict=True)],
        group=[number // 2 for number in range(len(said))],
    )
    logp = torch.zeros(exp.tokens.shape, dtype=torch.float32)
    logp[exp.action] = torch.tensor([one for r in said for one in r.logp], dtype=torch.float32)
    return replace(exp, sampler_logp=logp).to(next(policy.parameters()).device)


def _logp(policy: Policy, exp: Experience) -> Tensor:
    return score_actions(policy, exp, with_entropy=False).logp.detach()


def _drift(policy: Policy, exp: Experience, trained: Tensor | None = None) -> Tensor:
    """Difference `[N]` of each token's log-probability as it was drawn and in a pass over whole rows."""
    assert exp.sampler_logp is not None
    whole = _logp(policy, exp) if trained is None else trained
    return _difference(whole, exp.sampler_logp)[exp.action]


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """|one - other|, 0 also where both are -inf."""
    return torch.where(one == other, 0, (one - other.to(one.dtype)).abs())


# What comes back


def _bytes(policy: Policy) -> int:
    return sum(weight.numel() * weight.element_size() for weight in policy.parameters())


def _left_out(policy: Policy) -> float:
    """Trained weights that a checkpoint of the policy would not hold."""
    kept = policy.state_dict().keys() - {
        f"{prefix}.{key}" if prefix else key
        for prefix, part in policy.named_modules()
        if isinstance(part, Backbone)
        for key in part.rebuilt_keys()
    }
    shared = {id(weight) for name, weight in policy.state_dict(keep_vars=True).items() if name in kept}
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    return float(sum(id(weight) not in shared for weight in trained))


def _not_loaded(policy: Policy, save_and_load: Callable[[Path], Policy]) -> float:
    """Weights that are not the same, bit for bit, after the policy has been written and read."""
    with tempfile.TemporaryDirectory(prefix="feedtune-selfcheck-") as folder:
        try:
            loaded = save_and_load(Path(folder)).state_dict()
        except (UserError, OSError) as error:
            raise UserError(
                f"selfcheck: save and load: {one_line(error)}. Training would end without a model that can "
                "be loaded; selfcheck=false skips this"
            ) from error
    own = policy.state_dict()
    same = [name for name in own.keys() & loaded.keys() if _equal(own[name], loaded[name])]
    return float(len(own.keys() | loaded.keys()) - len(same))


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one.cpu() == other.cpu().to(one.dtype)).all())
