"""The sampler: an oracle without state or batch, the laws of drawing, and who leaves when."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.sampling import Decoding, Response, draw, pad_right, sample, warp
from feedtune.scoring import score_actions

EOS = 10
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [EOS, 0, 0], [1, 2]]
LONGEST = 12


def run(policy: Policy, prompts: Sequence[Sequence[int]], seed: int = 0, **options: object) -> list[Response]:
    given_options = {"max_new_tokens": LONGEST, "eos_ids": [EOS], **options}
    return sample(policy, prompts, generator=torch.Generator().manual_seed(seed), **given_options)  # type: ignore[arg-type]


def uniforms_of(seed: int, rows: int, width: int = LONGEST) -> np.ndarray:
    return torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)).double().numpy()


@torch.no_grad()
def oracle(policy: Policy, prompt: Sequence[int], uniforms: np.ndarray, eos: Sequence[int]) -> Response:
    """One row alone, all of it read anew for each token, drawn by walking along the probabilities."""
    said: list[int] = []
    logps: list[float] = []
    for u in uniforms:
        tokens = torch.tensor([[*prompt, *said]])
        hidden, _ = policy.backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        logits = (policy.backbone.unembed(hidden[0, -1]) / policy.temperature).double().numpy()
        p = np.exp(logits - logits.max())
        p /= p.sum()
        reached, token = 0.0, -1
        while reached <= u:
            token += 1
            reached += p[token]
        said.append(token)
        logps.append(math.log(p[token]))
        if token in eos:
            return Response(said, logps, True)
    return Response(said, logps, False)


def assert_same(found: Response, expected: Response) -> None:
    assert found.tokens == expected.tokens
    assert found.ended == expected.ended
    assert found.logp == pytest.approx(expected.logp, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_every_row_is_what_it_would_be_alone(backbone: Backbone, temperature: float) -> None:
    """Ragged prompts, groups of three, rows that end early: the batch leaves no trace."""
    policy = Policy(backbone, temperature=temperature)
    found = run(policy, PROMPTS, group_size=3)
    uniforms = uniforms_of(0, 12)
    for row, response in enumerate(found):
        assert_same(response, oracle(policy, PROMPTS[row // 3], uniforms[row], [EOS]))
    assert len({len(response.tokens) for response in found}) > 2  # the test says something: lengths differ


def test_groups_are_as_good_as_repeated_prompts(backbone: Backbone) -> None:
    policy = Policy(backbone)
    repeated = [prompt for prompt in PROMPTS for _ in range(3)]
    for one, other in zip(run(policy, PROMPTS, group_size=3), run(policy, repeated), strict=True):
        assert_same(one, other)


def test_other_rows_and_their_pads_change_nothing(backbone: Backbone) -> None:
    policy = Policy(backbone)
    beside_short, beside_long = run(policy, [[1, 2], [3]]), run(policy, [[1, 2], [3, 4, 5, 6, 7, 8, 9]])
    assert_same(beside_short[0], beside_long[0])
    assert_same(run(policy, [[1, 2]])[0], beside_long[0])


def test_log_probabilities_are_those_of_score_actions(backbone: Backbone) -> None:
    policy = Policy(backbone, temperature=0.8)
    responses = run(policy, PROMPTS, group_size=2)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    exp = from_rows(
        [[*p, *r.tokens] for p, r in zip(prompts, responses, strict=True)],
        [[False] * len(p) + [True] * len(r.tokens) for p, r in zip(prompts, responses, strict=True)],
    )
    scored = score_actions(policy, exp).logp
    for row, response in enumerate(responses):
        assert scored[row][exp.action[row]].tolist() == pytest.approx(response.logp, abs=1e-5)


def test_sampling_takes_no_gradient_and_leaves_the_global_generator_alone(backbone: Backbone) -> None:
    before = torch.get_rng_state()
    run(Policy(backbone), PROMPTS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in backbone.parameters())


def test_one_prefill_per_prompt_and_finished_rows_leave(backbone: Backbone) -> None:
    policy = Policy(backbone)
    read: list[tuple[int, int]] = []
    backbone.register_forward_pre_hook(lambda _, inputs: read.append(tuple(inputs[0].shape)))
    found = run(policy, PROMPTS, group_size=4)
    lengths = [len(response.tokens) for response in found]
    assert read[0] == (4, 7)  # four prompts, not sixteen rows
    # Token number s is read of the rows that are longer than s, and of some that are over: they leave when
    # an eighth of the batch is. The last token of the last row is never read.
    present, expected = 16, []
    for step in range(1, max(lengths)):
        speaking = sum(n > step for n in lengths)
        present = speaking if speaking <= 7 / 8 * present else present
        expected.append((present, 1))
    assert read[1:] == expected
    assert len(set(expected)) > 2


def test_frequencies_match_the_probabilities() -> None:
    """Chi-square over all 7 responses of a bigram table with known probabilities, 20,000 draws."""
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=3, n=2)
    table = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [1.0, 1.0, 1.0]])
    backbone.table.weight.data = table.log()  # row i + 1: what follows token i; token 2 is the end
    count = 20_000
    found = run(Policy(backbone), [[0]], group_size=count, max_new_tokens=2, eos_ids=[2])
    expected = {(2,): 0.2}
    for first, second in itertools.product((0, 1), (0, 1, 2)):
        expected[first, second] = float(table[1, first] * table[first + 1, second])
    assert sum(expected.values()) == pytest.approx(1.0)
    seen = Counter(tuple(response.tokens) for response in found)
    assert set(seen) == set(expected)
    statistic = sum((seen[key] - count * p) ** 2 / (count * p) for key, p in expected.items())
    assert statistic < 22.46  # 99.9 % of chi-square with 6 degrees of freedom


# Ends


def fixed(tokens_by_context: dict[int, int]) -> Policy:
    """A bigram policy that says one token after each other, with certainty."""
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=5, n=2)
    for context, token in tokens_by_context.items():
        backbone.table.weight.data[context + 1] = -torch.inf
        backbone.table.weight.data[context + 1, token] = 0.0
    return Policy(backbone)


def test_the_end_of_text_token_is_part_of_the_response() -> None:
    counting = fixed({0: 1, 1: 2, 2: 3, 3: 4, 4: 4})
    options = {"max_new_tokens": 3}
    assert run(counting, [[0]], eos_ids=[2], **options)[0] == Response([1, 2], [0.0, 0.0], True)
    assert run(counting, [[0]], eos_ids=[4, 1], **options)[0] == Response([1], [0.0], True)  # several
    assert run(counting, [[0]], eos_ids=[3], **options)[0].ended  # on the last place: ended, not cut
    assert run(counting, [[0]], eos_ids=[4], **options)[0] == Response([1, 2, 3], [0.0] * 3, False)  # cut
    assert run(counting, [[0]], eos_ids=[], **options)[0] == Response([1, 2, 3], [0.0] * 3, False)
    assert run(counting, [[2]], eos_ids=[2], **options)[0].tokens == [
        3,
        4,
        4,
    ]  # not in the prompt


def test_stopped_sees_the_response_so_far_and_ends_the_row() -> None:
    counting = fixed({0: 1, 1: 2, 2: 3, 3: 4, 4: 4})
    asked: list[list[int]] = []

    def stopped(tokens: Sequence[int]) -> bool:
        asked.append(list(tokens))
        return list(tokens)[-2:] == [2, 3]

    found = run(counting, [[0], [2]], eos_ids=[], stopped=stopped, max_new_tokens=5)
    assert found[0] == Response([1, 2, 3], [0.0] * 3, True)
    assert found[1] == Response([3, 4, 4, 4, 4], [0.0] * 5, False)
    assert asked[:4] == [[1], [3], [1, 2], [3, 4]]
    assert [1, 2, 3, 4] not in asked  # rows that have stopped are asked no more


def test_on_token_hears_every_token_in_time(backbone: Backbone) -> None:
    heard: dict[int, list[int]] = {}

    def on_token(rows: Tensor, tokens: Tensor) -> None:
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            heard.setdefault(row, []).append(token)

    found = run(Policy(backbone), PROMPTS, group_size=2, on_token=on_token)
    assert [heard[row] for row in range(8)] == [response.tokens for response in found]


def test_greedy_takes_the_most_probable_token(backbone: Backbone) -> None:
    policy = Policy(backbone)
    found = run(policy, PROMPTS, decoding=Decoding(greedy=True))
    assert [r.tokens for r in found] == [
        r.tokens for r in run(policy, PROMPTS, seed=1, decoding=Decoding(greedy=True))
    ]
    for prompt, response in zip(PROMPTS, found, strict=True):
        tokens = torch.tensor([[*prompt, *response.tokens]])
        hidden, _ = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        best = backbone.unembed(hidden[0]).argmax(-1).tolist()
        assert best[len(prompt) - 1 : -1] == response.tokens


def test_log_probabilities_are_the_policys_own_whatever_the_decoding(backbone: Backbone) -> None:
    policy = Policy(backbone)
    for decoding in (Decoding(greedy=True), Decoding(top_k=2), Decoding(top_p=0.5, repetition_penalty=3.0)):
        response = run(policy, [[1, 2]], decoding=decoding)[0]
        exp = from_rows([[1, 2, *response.tokens]], [[False] * 2 + [True] * len(response.tokens)])
        assert score_actions(policy, exp).logp[0, 2:].tolist() == pytest.approx(response.logp, abs=1e-5)


def test_repetition_penalty_remembers_prompt_and_response_row_by_row() -> None:
    """With a penalty beyond every logit a row never repeats itself, and its neighbours do not count."""
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=6, n=1)
    backbone.table.weight.data = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    decoding = Decoding(greedy=True, repetition_penalty=1e6)
    found = run(Policy(backbone), [[0], [1, 2]], eos_ids=[5], max_new_tokens=4, decoding=decoding)
    # Row 0 has read 0, row 1 has read 1 and 2; each goes on with the most probable token it lacks.
    assert [r.tokens for r in found] == [[1, 2, 3, 4], [0, 3, 4, 5]]
    # A row that leaves takes its memory along: row 0 has read all but the end, and says that at once.
    found = run(Policy(backbone), [[0, 1, 2, 3, 4], [1]], eos_ids=[5], max_new_tokens=4, decoding=decoding)
    assert [r.tokens for r in found] == [[5], [0, 2, 3, 4]]


def test_the_pad_is_not_a_token_that_was_said() -> None:
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=3, n=1)
    backbone.table.weight.data = torch.tensor([[3.0, 2.0, 1.0]])
    decoding = Decoding(greedy=True, repetition_penalty=100.0)
    found = run(Policy(backbone), [[1], [2, 1, 1]], eos_ids=[], max_new_tokens=1, decoding=decoding)
    assert [r.tokens for r in found] == [[0], [0]]  # row 0 was padded with zeros, and has not said 0


def test_pad_right() -> None:
    tokens, mask = pad_right([[1, 2, 3], [4]], torch.device("cpu"))
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]


# Drawing

LOGIT = st.one_of(st.just(-math.inf), st.floats(-60, 60), st.sampled_from([-1e4, -800.0, 0.0, 1e4]))
UNIFORM = st.one_of(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.0, 5e-324, 1 - 2**-24, math.nextafter(1.0, 0.0)]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(LOGIT, min_size=1, max_size=12).filter(lambda row: max(row) > -math.inf),
    st.lists(UNIFORM, min_size=1, max_size=5),
)
@example([-math.inf, 0.0, -math.inf], [0.0, math.nextafter(1.0, 0.0)])
@example([0.0, -1e4], [math.nextafter(1.0, 0.0)])
def test_draw_takes_only_tokens_that_can_come(row: list[float], uniforms: list[float]) -> None:
    logits = torch.tensor([row] * len(uniforms), dtype=torch.float64)
    found = draw(logits, torch.tensor(uniforms, dtype=torch.float64))
    p = logits[0].softmax(-1)
    for token, u in zip(found.tolist(), uniforms, strict=True):
        assert 0 <= token < len(row)
        assert p[token] > 0
        assert p[:token].sum() <= u + 1e-12  # the inverse of the distribution function
        assert p[: token + 1].sum() >= u - 1e-12


def test_draw_never_runs_past_the_vocabulary() -> None:
    """5,000 probabilities may sum to less than the largest uniform: the last possible token is drawn."""
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[:, -3:] = -torch.inf
    largest = math.nextafter(1.0, 0.0)
    assert bool((logits.softmax(-1).cumsum(-1)[:, -1] < largest).any())  # the case arises
    found = draw(logits, torch.full((64,), largest, dtype=torch.float64))
    assert int(found.max()) == 4996


def test_draw_walks_along_the_probabilities() -> None:
    # Probabilities 0, 1/4, 0, 3/4: below .25 token 1, from .25 on token 3.
    row = torch.tensor([0.0, 0.25, 0.0, 0.75]).log()
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.999999])
    assert draw(row.expand(4, 4), uniforms).tolist() == [1, 1, 3, 3]


def warped_numpy(logits: np.ndarray, decoding: Decoding, said: np.ndarray) -> np.ndarray:
    """The definitions, written out for one row at a time."""
    rows = logits.copy()
    for row, seen in zip(rows, said, strict=True):
        if decoding.repetition_penalty is not None:
            for token in np.flatnonzero(seen):
                penalty = decoding.repetition_penalty
                row[token] = row[token] / penalty if row[token] > 0 else row[token] * penalty
        order = sorted(range(len(row)), key=lambda token: -row[token])
        keep = order[: decoding.top_k] if decoding.top_k is not None else order
        if decoding.top_p is not None:
            weights = np.exp([row[token] for token in keep])
            weights /= weights.sum()
            needed = next(n for n in range(1, len(keep) + 1) if weights[:n].sum() >= decoding.top_p - 1e-12)
            keep = keep[:needed]
        row[[token for token in range(len(row)) if token not in keep]] = -np.inf
    return rows


DECODINGS = [
    Decoding(top_k=1),
    Decoding(top_k=3),
    Decoding(top_k=99),
    Decoding(top_p=1e-6),
    Decoding(top_p=0.5),
    Decoding(top_p=0.9),
    Decoding(top_p=1.0),
    Decoding(repetition_penalty=1.3),
    Decoding(repetition_penalty=0.5),
    Decoding(top_k=5, top_p=0.7, repetition_penalty=2.0),
]


@pytest.fixture
def case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    logits = 2 * torch.randn(6, 20, generator=generator, dtype=torch.float64)
    return logits, torch.rand(6, 20, generator=generator) < 0.3


@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_warp_agrees_with_its_definition(decoding: Decoding, case: tuple[Tensor, Tensor]) -> None:
    logits, said = case
    expected = warped_numpy(logits.numpy(), decoding, said.numpy())
    np.testing.assert_allclose(warp(logits, decoding, said).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_warp_agrees_with_transformers(decoding: Decoding, case: tuple[Tensor, Tensor]) -> None:
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits, said = case
    builders: dict[str, Callable[[float], object]] = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "top_k": lambda k: TopKLogitsWarper(int(k)),
        "top_p": TopPLogitsWarper,
    }
    wanted = {name: getattr(decoding, name) for name in builders}
    theirs = LogitsProcessorList([builders[n](value) for n, value in wanted.items() if value is not None])
    for row in range(len(logits)):
        seen = said[row].nonzero().T  # [1, how many]
        expected = theirs(seen, logits[row : row + 1].clone())
        torch.testing.assert_close(warp(logits[row : row + 1], decoding, said[row : row + 1]), expected)


def test_top_p_takes_the_fewest_tokens_that_suffice() -> None:
    """Four tokens of exactly a quarter: two of them have a half, and it takes three to have more."""
    for top_p, kept in ((0.25, 1), (0.5, 2), (0.51, 3), (0.75, 3), (1.0, 4)):
        assert int(warp(torch.zeros(1, 4), Decoding(top_p=top_p)).isfinite().sum()) == kept


def test_top_p_of_one_keeps_the_tail() -> None:
    """Rounding takes a sum of 5,000 float32 probabilities to 1 before the last of them."""
    logits = torch.linspace(0, -18, 5000)[None]
    assert torch.equal(warp(logits, Decoding(top_p=1.0)), logits)


def test_warped_says_whether_the_distribution_is_another() -> None:
    same = (Decoding(), Decoding(top_p=1.0), Decoding(repetition_penalty=1.0))
    other = (Decoding(greedy=True), *(d for d in DECODINGS if d.top_p != 1.0))
    assert not any(decoding.warped for decoding in same)
    assert all(decoding.warped for decoding in other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "decoding.top_k: expected at least 1, got 0"),
        ({"top_p": 0.0}, "decoding.top_p: expected a number in (0, 1], got 0.0"),
        ({"top_p": 1.5}, "decoding.top_p: expected a number in (0, 1], got 1.5"),
        ({"repetition_penalty": 0.0}, "decoding.repetition_penalty: expected a number above 0, got 0.0"),
    ],
)
def test_values_that_would_silently_spoil_decoding_are_refused(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Decoding(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
