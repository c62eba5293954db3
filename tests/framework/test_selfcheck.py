"""What training relies on is measured before the first step: each law is broken here, and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import dropout

import feedtune.selfcheck
from feedtune.config.compose import compose_config
from feedtune.contracts import Backbone, State
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.randomness import global_rng_state
from feedtune.references import FrozenCopy, reference_of
from feedtune.runs.assembly import Assembly, assemble, checked
from feedtune.runs.export import load, save
from feedtune.runs.training import train
from feedtune.selfcheck import TOLERANCE, probe_rows, selfcheck
from feedtune.testing.tiny import TinyBackbone
from small_runs import fingerprint, newest_state, overrides, rows_for, run, write_rows

ROWS = [[1, 2, 3, 4, 5, 1, 2], [5, 4, 3, 2, 1, 0], [2, 2, 4, 4, 1]]
ALGORITHMS = ["sft", "grpo", "ppo", "reward_model", "q_learning", "dqn", "soft_q", "ilql"]
"""One of each kind of policy: with no head, a value, a score, action values, a prior."""


class Louder(TinyBackbone):
    """Far from uniform, so that what is wrong shows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for weight in self.parameters():
            nn.init.normal_(weight)


class ReadsPads(Louder):
    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return super().forward(tokens, torch.ones_like(mask), state)


class CountsPads(Louder):
    """Each column adds to the hidden state, pads as well; which tokens stand under them does not matter."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        before, inner = (0, None) if state is None else state
        hidden, inner = super().forward(tokens, mask, inner)
        place = before + torch.arange(tokens.shape[1])[:, None]
        return hidden + 0.01 * place, (before + tokens.shape[1], inner)

    def select(self, state: State, rows: Tensor) -> State:
        return state[0], super().select(state[1], rows)


class ForgetsOne(Louder):
    """Its state is that before the newest token."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, last = super().forward(tokens, mask, state)
        return hidden, hidden[:, -2] if tokens.shape[1] > 1 else last


class SelectsOthers(Louder):
    def select(self, state: State, rows: Tensor) -> State:
        return super().select(state, rows.flip(0))


class AlwaysDrops(Louder):
    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, state = super().forward(tokens, mask, state)
        return dropout(hidden, 0.2, training=True), state


class HasteWhileSampling(Louder):
    """Its fast way to sample is not the same model."""

    @contextmanager
    def steady(self) -> Iterator[None]:
        with torch.no_grad():
            self.output.bias[0] += 0.01
            yield
            self.output.bias[0] -= 0.01


class LosesBias(Louder):
    def save(self, folder: Path) -> None:
        super().save(folder)
        path = folder / "backbone.safetensors"
        save_file({**load_file(path), "output.bias": torch.zeros(self.vocab_size)}, path)


class SavesNothing(Louder):
    def save(self, folder: Path) -> None:
        save_file({"output.bias": self.output.bias.detach()}, folder / "backbone.safetensors")


class RebuildsTrained(Louder):
    def rebuilt_keys(self) -> frozenset[str]:
        return frozenset({"recurrence.weight"})


class NotANumber(Louder):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        with torch.no_grad():
            self.recurrence.weight[0, 0] = torch.nan


class GradientMatters(Louder):
    """A little something is added where a gradient is asked for."""

    def unembed(self, hidden: Tensor) -> Tensor:
        extra = torch.arange(self.vocab_size) * 1e-3 if torch.is_grad_enabled() else 0.0
        return super().unembed(hidden) + extra


BROKEN: Mapping[type[Backbone], str] = {
    NotANumber: "numbers",
    AlwaysDrops: "two passes",
    ReadsPads: "pad tokens",
    CountsPads: "pads",
    ForgetsOne: "prefix and select",
    SelectsOthers: "prefix and select",
    GradientMatters: "pass with a gradient",
    HasteWhileSampling: "sampler against trainer",
    RebuildsTrained: "checkpoint",
    LosesBias: "save and load",
}
"""The first check that each fails."""


def made(kind: Callable[[], Backbone]) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return kind()


def measured(policy: Policy, **more: Any) -> dict[str, float]:
    def save_and_load(folder: Path) -> Policy:
        policy.backbone.save(folder)
        config = {"vocab_size": 6, "hidden_size": 5}
        return Policy(type(policy.backbone).load(folder, config))

    return selfcheck(policy, ROWS, save_and_load=save_and_load, **more)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_law_is_named_with_number_bound_and_cause(kind: Any) -> None:
    with pytest.raises(UserError) as stop:
        measured(Policy(made(kind)))
    message = str(stop.value)
    assert message.startswith(f"selfcheck: {BROKEN[kind]}: ")
    assert "expected at most" in message
    assert "Likely cause: " in message
    assert message.endswith("selfcheck=false skips this")
    assert "\n" not in message


class Wavering(Policy):
    """What it acts on is never the same twice."""

    def action_logits(self, hidden: Tensor) -> Tensor:
        logits = super().action_logits(hidden)
        return logits + 1e-3 * torch.randn_like(logits)


def test_a_policy_that_is_random_by_itself() -> None:
    with pytest.raises(UserError, match=r"selfcheck: ratio: .*expected at most 0\. .*action_logits"):
        selfcheck(Wavering(made(Louder)), ROWS)


def test_a_sound_backbone_passes_every_check() -> None:
    policy = Policy(made(Louder))
    found = measured(policy, reference=reference_of(policy))
    assert list(found) == [
        "numbers",
        "two passes",
        "pad tokens",
        "pads",
        "prefix and select",
        "ratio",
        "pass with a gradient",
        "sampler against trainer",
        "reference KL",
        "checkpoint",
        "save and load",
    ]
    exact = {"numbers", "two passes", "pad tokens", "ratio", "checkpoint", "save and load"}
    assert {name for name, value in found.items() if value == 0} >= exact
    assert max(found.values()) < TOLERANCE / 10


def test_another_backbone_of_the_policy_is_measured_too() -> None:
    policy = Policy(made(Louder), heads={"value": 1}, towers={"value": made(CountsPads)})
    with pytest.raises(UserError, match="selfcheck: pads of value: "):
        selfcheck(policy, ROWS)


def test_a_reference_that_begins_elsewhere() -> None:
    """An adapter that is no identity: with it off, the policy is another."""
    policy = Policy(made(Louder))

    @contextmanager
    def off() -> Iterator[None]:
        with torch.no_grad():
            policy.backbone.output.bias[0] += 0.01  # type: ignore[union-attr, index, operator]
            yield
            policy.backbone.output.bias[0] -= 0.01  # type: ignore[union-attr, index, operator]

    policy.backbone.adapter_off = off
    with pytest.raises(UserError, match=r"selfcheck: reference KL: .*adapter_off"):
        measured(policy, reference=reference_of(policy))


def test_a_frozen_copy_that_was_made_of_others_weights() -> None:
    policy, other = Policy(made(Louder)), Policy(made(Louder))
    with torch.no_grad():
        other.backbone.output.bias[0] += 1e-3  # type: ignore[union-attr, index, operator]
    with pytest.raises(UserError, match="selfcheck: reference KL: "):
        measured(policy, reference=FrozenCopy(other))


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    policy = Policy(made(SavesNothing))
    module = __name__

    def save_and_load(folder: Path) -> Policy:
        raise UserError(f"{folder}: the backbone's weights of {module} cannot be read")

    with pytest.raises(UserError, match=r"selfcheck: save and load: .* cannot be read.* selfcheck=false"):
        selfcheck(policy, ROWS, save_and_load=save_and_load)


def test_large_policies_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedtune.selfcheck, "WRITTEN_UPTO", 10)
    assert "save and load" not in measured(Policy(made(LosesBias)))


def test_a_low_temperature_widens_the_bound() -> None:
    """Logits over one half are twice as far off; rounding of those over .01 stays within a hundred times."""
    with pytest.raises(UserError, match=r"sampler against trainer: .*expected at most 0\.0002\."):
        measured(Policy(made(HasteWhileSampling), temperature=0.5))
    assert measured(Policy(made(Louder), temperature=0.01))["sampler against trainer"] <= 100 * TOLERANCE


def test_it_leaves_no_trace() -> None:
    policy = Policy(made(Louder), heads={"value": 1})
    policy.train()
    policy.heads.eval()
    weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
    before = global_rng_state()
    selfcheck(policy, ROWS, reference=reference_of(policy))
    assert [policy.training, policy.backbone.training, policy.heads["value"].training] == [True, True, False]
    assert torch.equal(global_rng_state()["torch"], before["torch"])
    assert global_rng_state()["python"] == before["python"]
    assert all(torch.equal(weight, policy.state_dict()[name]) for name, weight in weights.items())
    assert all(weight.grad is None for weight in policy.parameters())


def test_it_leaves_no_trace_where_it_refuses_either() -> None:
    policy = Policy(made(AlwaysDrops)).train()
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        selfcheck(policy, ROWS)
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.training
    assert policy.backbone.training


@pytest.mark.parametrize("kind", ["short", "none", "empty"])
def test_rows_are_cut_and_filled_up(kind: str, tmp_path: Path) -> None:
    parts = assembled(tmp_path, "lstm", "sft")
    rows = {"short": parts.module.rows, "none": [], "empty": [{"seed": 3}]}[kind]
    for limit, lengths in ((None, [12, 11, 10]), (18, [10, 9, 8]), (9, [1, 1, 1]), (2, [1, 1, 1])):
        found = probe_rows(parts.codec, rows, parts.codec.vocab_size, limit)
        assert [len(row) for row in found] == lengths
    if kind == "short":  # "0+0=" and its answer, then whatever
        first = rows[0]
        text = parts.codec.decode(probe_rows(parts.codec, rows, parts.codec.vocab_size, None)[0])
        assert text.replace(" ", "").startswith(f"{first['prompt']}{first['reference']}")


# Every algorithm, every backbone


def assembled(folder: Path, backbone: str, algorithm: str, *more: str) -> Assembly:
    chosen = overrides(write_rows(folder, rows_for(algorithm)), backbone, algorithm, *more)
    return assemble(checked(compose_config(chosen), folder))


def measured_parts(parts: Assembly) -> dict[str, float]:
    policy, codec = parts.module.policy, parts.codec
    rows = probe_rows(codec, parts.module.rows, policy.backbone.vocab_size, policy.backbone.context_length)
    return selfcheck(
        policy,
        rows,
        reference=reference_of(policy),
        save_and_load=lambda folder: load(save(policy, codec, folder)).policy,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithms_policy_passes(algorithm: str, tmp_path: Path) -> None:
    found = measured_parts(assembled(tmp_path, "transformer", algorithm))
    assert {"ratio", "sampler against trainer", "reference KL", "save and load"} <= found.keys()


def test_a_critic_of_its_own_is_measured_too(tmp_path: Path) -> None:
    found = measured_parts(assembled(tmp_path, "transformer", "ppo", "algorithm.value.critic=own"))
    assert found["prefix and select of value"] < TOLERANCE


@pytest.mark.parametrize("backbone", ["ngram", "lstm", "gru", "transformer"])
def test_every_backbone_passes(backbone: str, tmp_path: Path) -> None:
    assert max(measured_parts(assembled(tmp_path, backbone, "ppo")).values()) < TOLERANCE


@pytest.mark.parametrize("more", [[], ["backbone.lora={rank: 2}"], ["backbone.gradient_checkpointing=true"]])
def test_pretrained_models_pass(more: list[str], tmp_path: Path, model_folder: Path) -> None:
    data = write_rows(tmp_path)
    chosen = [
        "backbone=hf",
        f"backbone.name={model_folder}",
        "task=jsonl",
        f"task.path={data}",
        "reward=length",
    ]
    parts = assemble(checked(compose_config([*chosen, "algorithm=grpo", *more]), tmp_path))
    assert max(measured_parts(parts).values()) < TOLERANCE


# In a run


def chosen(folder: Path, backbone: str, algorithm: str, *more: str) -> list[str]:
    return overrides(write_rows(folder), backbone, algorithm, "selfcheck=true", "optimizer.lr=0.01", *more)


@pytest.mark.parametrize(
    ("backbone", "algorithm", "more"),
    [("transformer", "ppo", ["backbone.dropout=0.2"]), ("lstm", "sft", ["backbone.dropout=0.2"])],
)
def test_a_run_is_the_same_with_and_without_it(
    backbone: str, algorithm: str, more: list[str], tmp_path: Path
) -> None:
    """Dropout draws from the global generator: one number more, and all weights would be others."""
    run(tmp_path / "with", chosen(tmp_path, backbone, algorithm, *more))
    run(tmp_path / "without", chosen(tmp_path, backbone, algorithm, "selfcheck=false", *more))
    assert fingerprint(tmp_path / "with") == fingerprint(tmp_path / "without")


def test_a_run_that_goes_on_is_measured_without_the_reference(tmp_path: Path) -> None:
    """By then the policy is elsewhere: that is what training is for."""
    folder = tmp_path / "run"
    run(folder, chosen(tmp_path, "lstm", "ppo", "optimizer.lr=0.1"))
    longer = chosen(tmp_path, "lstm", "ppo", "optimizer.lr=0.1", "trainer.max_epochs=3")
    metrics = train(compose_config(longer), folder, newest_state(folder))
    assert abs(metrics["policy/kl"]) > 100 * TOLERANCE


@pytest.fixture
def own_backbone(rows: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backbone that a user wrote, whose state is off by one token."""
    (rows.parent / "forgetful_backbone.py").write_text(
        "from feedtune.testing.tiny import TinyBackbone\n\n\n"
        "class Forgets(TinyBackbone):\n"
        "    def forward(self, tokens, mask, state=None):\n"
        "        hidden, last = super().forward(tokens, mask, state)\n"
        "        return hidden, hidden[:, -2] if tokens.shape[1] > 1 else last\n"
    )
    monkeypatch.syspath_prepend(str(rows.parent))
    return "forgetful_backbone.Forgets"


def test_the_command_refuses_to_train_what_is_broken(own_backbone: str, rows: Path, feedtune: Any) -> None:
    command = [
        *(one for one in overrides(rows, "lstm", "reinforce") if not one.startswith("backbone.")),
        *(f"~backbone.{name}" for name in ("cell", "embed_size", "layers", "dropout", "tied")),
        "backbone.hidden_size=16",
        f"backbone._target_={own_backbone}",
        "trust=[forgetful_backbone]",
        "report=false",
        "hydra.run.dir=run",
    ]
    said = feedtune("train", *command, "selfcheck=true")
    assert said.code == 2
    assert "feedtune: selfcheck: prefix and select: " in said.err
    assert not (rows.parent / "run" / "metrics.csv").exists()
    assert not list((rows.parent / "run").glob("checkpoints/*"))
    assert feedtune("train", *command, "hydra.run.dir=other").code == 0  # nobody looked


def test_in_bfloat16_the_drift_is_said_and_nothing_is_refused(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "run", chosen(tmp_path, "transformer", "ppo", "trainer.precision=bf16-mixed"))
    said = " ".join(capsys.readouterr().err.split())
    assert "selfcheck: in bf16-mixed the sampler's log-probabilities are " in said
    assert "nats a token off the trainer's" in said


def test_a_switch_that_is_no_switch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="selfcheck: expected true or false, got 'maybe'"):
        run(tmp_path, chosen(tmp_path, "lstm", "sft", "selfcheck=maybe"))
