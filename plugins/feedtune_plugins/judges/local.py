"""A judge in this process: a model in a transformers folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feedtune.errors import UserError, one_line
from feedtune.judging import Question, Reply
from feedtune_plugins.rewards.checks import at_least


class Local:
    """A causal language model, on the GPU if there is one, in the precision of its weights.

    An answer of one word takes one pass over the question: what counts is how probable each word is as the
    next token. Texts are generated greedily. Questions are read one by one, so that an answer depends on
    nothing else; one that does not fit into the model's context has an empty reply.

    Args:
        path: the folder: weights, config, tokenizer, best with a chat template.
        text_tokens: most tokens of a text, such as a critique.

    Raises:
        UserError: there is no such model there; at a call, a word is no token of it.
    """

    def __init__(self, *, path: str, text_tokens: int = 256) -> None:
        at_least("judge.text_tokens", text_tokens, 1)
        self.path, self.text_tokens = Path(path).expanduser(), text_tokens
        if not (self.path / "config.json").is_file():
            raise UserError(f"judge.path: expected a transformers folder with a config.json, got '{path}'")
        from transformers import AutoModelForCausalLM, AutoTokenizer  # late: they take seconds

        from feedtune_plugins.quiet_loading import quiet_loading

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
            with quiet_loading():
                model: Any = AutoModelForCausalLM.from_pretrained(self.path, dtype="auto")
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise UserError(f"judge.path: '{path}' cannot be opened: {one_line(error)}") from error
        self._control = _any_of(self._tokenizer)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = model.eval().requires_grad_(False).to(self._device)
        self._spelt: dict[str, list[int]] = {}  # tokens by what they say, blanks around left out
        self._asked = self._tokens = 0

    @property
    def label(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @torch.no_grad()
    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question."""
        with torch.autocast(self._device.type, enabled=False):  # the run that asks may be in half precision
            return [self._reply(one) for one in questions]

    def counts(self) -> dict[str, float]:
        """requests and tokens (of questions and answers) since they were last taken; cost is always 0."""
        found = {"requests": float(self._asked), "tokens": float(self._tokens), "cost": 0.0}
        self._asked = self._tokens = 0
        return found

    def _reply(self, question: Question) -> Reply:
        tokens = self._encoded(question)
        room = getattr(self._model.config, "max_position_embeddings", None)
        limit = 1 if question.words else self.text_tokens
        self._asked += 1
        if room is not None and tokens.shape[1] + limit > room:
            return Reply(text="", prompt_tokens=tokens.shape[1])
        reply = self._chosen(tokens, question.words) if question.words else self._written(tokens)
        self._tokens += reply.prompt_tokens + reply.completion_tokens
        return reply

    def _encoded(self, question: Question) -> Tensor:
        """`[1, T]` token ids of the question, up to where the answer begins."""
        asked = replace(question, system=self._tamed(question.system), user=self._tamed(question.user))
        if self._tokenizer.chat_template is None:
            text = f"{asked.system}\n\n{asked.user}"
            found = self._tokenizer(text, return_tensors="pt").input_ids
        else:
            found = self._tokenizer.apply_chat_template(
                asked.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).input_ids
        tokens: Tensor = found.to(self._device)
        return tokens

    def _tamed(self, text: str) -> str:
        """The text with a blank inside of each control token, so that nothing judged can end its own turn."""
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _chosen(self, tokens: Tensor, words: Sequence[str]) -> Reply:
        """The most probable word, and how probable each is."""
        logits = self._model(tokens).logits[0, -1].float()
        likely = logits.softmax(-1)
        weights = {word: float(likely[self._ids(word)].sum()) for word in words}
        best = max(words, key=lambda word: weights[word])
        return Reply(text=best, weights=weights, prompt_tokens=tokens.shape[1], completion_tokens=1)

    def _written(self, tokens: Tensor) -> Reply:
        ends = self._model.generation_config.eos_token_id
        out = self._model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=self.text_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id or (ends[0] if isinstance(ends, list) else ends),
        )[0, tokens.shape[1] :]
        text = self._tokenizer.decode(out, skip_special_tokens=True).strip()
        return Reply(text=text, prompt_tokens=tokens.shape[1], completion_tokens=len(out))

    def _ids(self, word: str) -> list[int]:
        """Every token that says this word, with or without blanks around.

        Raises:
            UserError: there is none.
        """
        if not self._spelt:
            numbers = range(len(self._tokenizer))
            for number, text in enumerate(self._tokenizer.batch_decode([[n] for n in numbers])):
                self._spelt.setdefault(text.strip(), []).append(number)
        if word not in self._spelt:
            raise UserError(f"judge.path: '{self.path}' has no token '{word}', so it cannot be asked for it")
        return self._spelt[word]


def _any_of(tokenizer: Any) -> re.Pattern[str]:
    """What finds the tokens by which a model is steered, such as `<|im_end|>`, where a text spells them."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    known = {token for token in (*tokenizer.all_special_tokens, *added) if len(token) > 1}
    return re.compile("|".join(re.escape(one) for one in sorted(known, key=len, reverse=True)) or r"(?!)")
