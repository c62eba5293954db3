"""Any causal language model of transformers, by hub name or local folder, whole or through LoRA.

LoRA: Hu et al. 2021, Low-Rank Adaptation of Large Language Models (arXiv:2106.09685), through peft.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from feedtune.errors import UserError, missing_extra, nearest
from feedtune.hub import fetching, not_found
from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.backbones.checks import check_causal_lm
from feedtune_plugins.quiet_loading import quiet_loading

DTYPES: dict[str, torch.dtype | str] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "auto": "auto",
}
LORA = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": "all-linear"}
"""Options of `backbone.lora` and what they are where they are left out."""


class HF(CausalLM):
    """A pretrained causal language model. Models that break a law of `Backbone` are refused at load, by name.

    With LoRA the weights stay as they are and a small adapter is trained, in float32 also beside a bfloat16
    model; checkpoints and `save` hold the adapter alone. A fresh adapter changes nothing, so the model with
    the adapter off is the reference and costs no memory.

    Args:
        vocab_size: tokens that the tokenizer knows; they have to fit into the model's embedding.
        name: hub name or local folder.
        dtype: of the weights: "float32", "bfloat16" or "auto" (as they were saved).
        lora: None (train all weights) or a mapping with any of `rank`, `alpha`, `dropout`, `target_modules`
            ("all-linear" or names of modules).
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third slower.
            Training passes then have no state.
        attn_implementation: "sdpa", "eager", "flash_attention_2"; None: transformers chooses.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        name: str,
        dtype: Literal["float32", "bfloat16", "auto"] = "float32",
        lora: Mapping[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        attn_implementation: str | None = None,
    ) -> None:
        options = None if lora is None else lora_options(lora)
        model = load_model(name, dtype, attn_implementation)
        known = model.get_input_embeddings().weight.shape[0]
        if vocab_size > known:
            raise UserError(
                f"backbone.name: the tokenizer has {vocab_size} tokens, but '{name}' has embeddings for "
                f"{known}; use the model's own tokenizer"
            )
        super().__init__(model, vocab_size)
        self.config = {
            "vocab_size": vocab_size,
            "name": name,
            "dtype": dtype,
            "lora": options,
            "gradient_checkpointing": gradient_checkpointing,
            "attn_implementation": attn_implementation,
        }
        check_causal_lm(self, name)
        if gradient_checkpointing:
            _enable_checkpointing(model)
            self.recomputes = True
        if options is not None:
            self.model = add_adapter(model, options)
            self.adapter_off = self._adapter_off  # B = 0: the fresh adapter is the identity

    def _adapter_off(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.model.disable_adapter()
        return context

    @classmethod
    def opening(cls, folder: Path) -> Mapping[str, Any] | None:
        """Any transformers folder; whether the model keeps the laws is seen when it is loaded."""
        return {"name": str(folder)} if (folder / "config.json").is_file() else None

    def rebuilt_keys(self) -> frozenset[str]:
        """Under LoRA, all but the adapter: the frozen weights come from `name` again."""
        if self.config["lora"] is None:
            return frozenset()
        return frozenset(key for key in self.state_dict() if ".lora_" not in key)

    def save(self, folder: Path) -> None:
        """A transformers folder; under LoRA a peft folder with the adapter alone."""
        if self.config["lora"] is None:
            super().save(folder)
        else:  # "auto" would ask the hub whether the embedding has grown
            self.model.save_pretrained(folder, save_embedding_layers=False)

    def merged(self, folder: Path) -> None:
        """Write the whole model with the adapter worked into its weights, as a transformers folder.

        Needs memory for a second copy of the model. In bfloat16 the sum is rounded to bfloat16.
        """
        model = self.model if self.config["lora"] is None else copy.deepcopy(self.model).merge_and_unload()
        with quiet_loading():
            model.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any]) -> HF:
        """The model that `save` wrote; an adapter goes onto `config["name"]` and stays trainable.

        A loaded adapter is not the identity, so `adapter_off` is None: the reference is a copy.
        """
        if config.get("lora") is None:
            backbone = cls(**{**config, "name": str(folder)})
        else:
            peft = _peft()
            backbone = cls(**{**config, "lora": None})
            with _old_names_allowed():
                backbone.model = peft.PeftModel.from_pretrained(backbone.causal, folder, is_trainable=True)
        backbone.config = dict(config)
        return backbone


def load_model(name: str, dtype: str, attn_implementation: str | None) -> Any:
    """A causal language model, quietly; whatever is wrong becomes one line that names `backbone.name`."""
    if dtype not in DTYPES:
        raise UserError(
            f"backbone.dtype: expected one of {', '.join(DTYPES)}, got '{dtype}'.{nearest(dtype, DTYPES)}"
        )
    _check_folder(name)
    source = str(Path(name).expanduser())
    try:
        with fetching(source), quiet_loading():
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise UserError(f"backbone.name: '{name}' ({config.model_type}) is no causal language model")
            return AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=DTYPES[dtype],
                attn_implementation=attn_implementation,
                trust_remote_code=False,
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, UnpicklingError) as error:
        raise UserError(f"backbone.name: cannot load '{name}': {not_found(source, error)}") from error


def _check_folder(name: str) -> None:
    """Refuse what is plainly meant as a folder and is none, before the hub is asked for it."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return
    if folder.is_dir():
        inner = folder / "export"
        hint = f" Did you mean '{inner}'?" if (inner / "config.json").is_file() else ""
        if (folder / "adapter_config.json").is_file():
            hint = " It holds an adapter: name its base model here, and this folder in init_from."
        raise UserError(f"backbone.name: no config.json in '{name}', so it is no transformers model.{hint}")
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"backbone.name: no such folder: '{name}'")


def lora_options(lora: object) -> dict[str, Any]:
    """All options of the adapter as plain values; unknown names are refused.

    >>> lora_options({"rank": 4})
    {'rank': 4, 'alpha': 32.0, 'dropout': 0.0, 'target_modules': 'all-linear'}
    """
    if not isinstance(lora, Mapping):
        raise UserError(f"backbone.lora: expected null or a mapping such as {{rank: 16}}, got {lora!r}")
    for key in lora:
        if key not in LORA:
            raise UserError(
                f"backbone.lora: unknown key '{key}'; expected {', '.join(LORA)}.{nearest(str(key), LORA)}"
            )
    options = {**LORA, **lora}
    if not isinstance(options["rank"], int) or options["rank"] < 1:
        raise UserError(f"backbone.lora.rank: expected a whole number of at least 1, got {options['rank']!r}")
    targets = options["target_modules"]
    options["target_modules"] = targets if isinstance(targets, str) else [str(part) for part in targets]
    return options


def add_adapter(model: Any, options: Mapping[str, Any]) -> Any:
    """The model with a fresh adapter, in place; its weights are frozen from here on."""
    peft = _peft()
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=options["rank"],
        lora_alpha=options["alpha"],
        lora_dropout=options["dropout"],
        target_modules=options["target_modules"],
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's layers
    )
    try:
        with _old_names_allowed():
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"backbone.lora.target_modules: {str(error).splitlines()[0]}") from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise missing_extra("peft", "lora", "backbone.lora") from error
    return peft


@contextmanager
def _old_names_allowed() -> Iterator[None]:
    """peft asks transformers for a property by its old name, which warns; nobody here can mend that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _enable_checkpointing(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        raise UserError(
            f"backbone.gradient_checkpointing: {type(model).__name__} does not support it; set it to false"
        )
    # renamed on the way through transformers 5; the old name warns
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
