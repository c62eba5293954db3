"""Random bytes as JSON lines: rows, or a message that names the file and the line."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.runs.training import train
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer, texts_of
from feedtune_plugins.tasks.jsonl import Jsonl
from fuzz.tallies import WrongError
from small_runs import overrides

SPECIAL = [
    b"",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "a", "reference": ["\\udfff"]}',
    b'{"prompt": "a", "text": "\\ud800"}',
    b'{"prompt": "a", "chosen": "\\ud800"}',
    b'{"\\ud800": 1, "prompt": "a"}',
    b'{"prompt": "a", "id": "\\udc00", "\\ud83d": null}',
    b'{"prompt": "\\u0000\\u202e\\ufeff\\ud83d\\ude00"}',
    b'{"prompt": "a", "prompt": 3}',
    b'{"prompt": 3, "prompt": "a"}',
    b'{"prompt": "a", "n": 1e999, "m": NaN, "k": -Infinity}',
    b'{"prompt": "a", "reward": 1e999}',
    b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}",
    b"[" * 3000 + b"]" * 3000,
    b'{"prompt": ' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"prompt": "a", "reference": ' + b"[" * 120 + b"]" * 120 + b"}",
    b'{"prompt": "a", "x": ' + b'{"a":' * 90 + b"1" + b"}" * 91,
    b'{"messages": []}',
    b'{"messages": {}}',
    b'{"messages": [{"role": "user", "content": null}]}',
    b'{"messages": [{"role": ["user"], "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}',
    b'{"chosen": "a b", "rejected": "a c"}',
    b'{"chosen": [], "rejected": []}',
    b'{"chosen": {"role": "user", "content": "a"}, "rejected": [1]}',
    b'{"prompt": "a", "chosen": "", "rejected": ""}',
    b'{"prompt": ""}',
    b'{"text": ""}',
    b'{"_target_": "os.system", "prompt": "a"}',
    b"[]",
    b"null",
    b'"a"',
    b"{}",
    b"NaN",
]


@dataclass(frozen=True)
class Case:
    """A file, and what is done with its rows."""

    data: bytes
    kind: str  # of tokenizer
    algorithm: str | None  # to train by; None: rows are only encoded


def _texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(), max_size=8)  # any code point, halves of surrogate pairs among them


def _values() -> st.SearchStrategy[Any]:
    plain = st.one_of(_texts(), st.none(), st.booleans(), st.integers(), st.floats())
    return st.recursive(
        plain,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_texts(), inner, max_size=3)),
    )


def _rows() -> st.SearchStrategy[dict[str, Any]]:
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "bot"]), "content": _values()}
    )
    columns = {
        "prompt": st.one_of(_texts(), _values(), st.lists(message, max_size=3)),
        "messages": st.one_of(st.lists(message, max_size=4), _values()),
        "reference": st.one_of(_texts(), st.lists(_texts(), max_size=2), _values()),
        "text": _texts(),
        "chosen": st.one_of(_texts(), message, st.lists(message, max_size=2), _values()),
        "rejected": st.one_of(_texts(), message, st.lists(message, max_size=2), _values()),
        "reward": st.one_of(st.floats(), _values()),
    }
    good = st.fixed_dictionaries({"prompt": _texts(), "reference": _texts()})
    return st.one_of(good, st.fixed_dictionaries({}, optional=columns))


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    line = bytearray(json.dumps(draw(_rows())).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(line) - 1)))
        line[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(line)


def cases(train_every: int = 0) -> st.SearchStrategy[Case]:
    """Files of good, odd, damaged and arbitrary lines; one in `train_every` is trained on."""
    good = st.fixed_dictionaries(
        {"prompt": st.text("ab12", max_size=4), "reference": st.text("ab12", max_size=4)}
    )
    line = st.one_of(
        good.map(lambda row: json.dumps(row).encode()),
        good.map(lambda row: json.dumps(row).encode()),
        _rows().map(lambda row: json.dumps(row).encode()),
        _rows().map(lambda row: json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass")),
        _damaged(),
        st.binary(max_size=20),
        st.sampled_from(SPECIAL),
    )
    several = st.lists(good.map(lambda row: json.dumps(row).encode()), max_size=3)
    data = st.builds(
        lambda a, b, end: end.join([*a, *b]),
        several,
        st.lists(line, max_size=2),
        st.sampled_from([b"\n", b"\r\n"]),
    )
    algorithm = st.sampled_from(["sft", "ppo", "dpo", "ilql"]) if train_every else st.none()
    chosen = st.integers(0, max(0, train_every - 1)).flatmap(
        lambda n: algorithm if n == train_every // 2 else st.none()
    )
    return st.builds(Case, data, st.sampled_from(["bpe", "char", "word"]), chosen)


class Place:
    """A folder in which one file after the other is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0

    def trial(self, case: Case) -> str:
        """Read and encode the rows in every way, or train on them: "read", "trained" or "refused"."""
        file = self.folder / "rows.jsonl"
        file.write_bytes(case.data)
        try:
            rows = Jsonl(path=str(file), eval_fraction=0).load("train")
            codec = TrainedTokenizer(kind=case.kind, min_frequency=1).build(lambda: texts_of(rows))  # type: ignore[arg-type]
        except UserError as error:
            _check_told(error)
            return "refused"
        if case.algorithm is not None:
            return self._trained(file, case)
        for encode in (codec.prompts, codec.sequences, codec.pairs):
            _encoded(encode, rows)
        _written(codec, rows)
        return "read"

    def _trained(self, file: Path, case: Case) -> str:
        self.runs += 1
        chosen = overrides(file, "lstm", case.algorithm or "", "trainer.max_steps=2", "task.eval_fraction=0")
        chosen += [f"tokenizer={case.kind}", "tokenizer.min_frequency=1"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train(compose_config(chosen), self.folder / f"run{self.runs}")
        except UserError as error:
            _check_told(error)
            return "refused"
        return "trained"


def _encoded(encode: Any, rows: Any) -> None:
    try:
        encode(rows)
    except UserError as error:
        _check_told(error)


def _written(codec: Codec, rows: Any) -> None:
    """What comes back of a row's texts is what files can hold."""
    for text in texts_of(rows):
        codec.decode(codec.tokenizer.encode(text)).encode()


def _check_told(error: UserError) -> None:
    text = str(error)
    if not text or len(text) > 3000 or "Traceback" in text:
        raise WrongError(f"badly told: {text[:300]!r}")
