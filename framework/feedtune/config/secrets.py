"""Secrets: what a config must not hold, since it is written to disk and to loggers, and how text loses them.

A config names the environment variable that holds a secret, by a key that ends in `_env`
(`api_key_env: OPENAI_API_KEY`), and whoever needs it reads it there. Three things are taken for secrets:

- a value whose key says so: `password`, `api_key`, `hf_token`, `Authorization`, but not `pad_token`;
- a value of a form that only keys have: `sk-...`, `hf_...`, `ghp_...`, a private key, a password in a URL;
- the value of an environment variable whose name says so, wherever it stands (`${oc.env:HF_TOKEN}`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from feedtune.errors import UserError

WORDS = frozenset(
    {"apikey", "authorization", "authtoken", "bearer", "cookie", "credential", "credentials"}
    | {"passphrase", "passwd", "password", "secret"}
)
"""A key with one of these words in it holds a secret, whatever else it says."""

PAIRS = frozenset(
    [(one, "key") for one in ("access", "account", "api", "auth", "encryption", "private", "signing", "ssh")]
    + [(one, "token") for one in ("access", "api", "auth", "bearer", "refresh", "secret", "session")]
    + [(one, "token") for one in ("github", "gitlab", "hf", "hub", "huggingface", "openai", "wandb")]
)
"""A key with one of these pairs in a row, as `use_auth_token`; `pad_token` and `max_new_tokens` have none."""

WHOLE = frozenset(["auth", "pwd", "token"])
"""A key that says nothing else; `pad_token` does."""

FORMS = re.compile(
    r"""\b(?:
      sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,} | hf_[A-Za-z0-9]{30,}
    | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_\w{22,} | glpat-[\w-]{20,}
    | (?:AKIA|ASIA)[0-9A-Z]{16} | AIza[\w-]{35} | xox[abeprs]-[\w-]{10,}
    | wandb_v\d+_\w{20,} | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]* | Bearer\s+[\w.~+/-]{16,}
    )
    | (?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{43}=(?![\w=])
    | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY----- | (?<=://)[^\s/:@]*:[^\s/@]+(?=@)""",
    re.VERBOSE,
)
"""What only secrets look like: keys of OpenAI, Anthropic, Hugging Face, GitHub, GitLab, AWS, Google, Slack,
W&B; 32 bytes in URL-safe base64, as stores of feedback are encrypted by; tokens of the JWT kind; private
keys; `user:password` in a URL."""

VARIABLE = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
"""How environment variables that hold a secret end."""

REPEATED = ("hydra.overrides.", "hydra.job.override_dirname")
"""Where Hydra keeps the command line, each override of which has a key of its own."""

LONG_ENOUGH = 12
"""Characters from which on the value of a variable cannot stand in a config by chance."""


def looks_secret(key: str) -> bool:
    """Whether a key's name says that its value is a secret.

    >>> [looks_secret(key) for key in ("api_key", "X-Api-Key", "hfToken", "token", "db_password")]
    [True, True, True, True, True]
    >>> [looks_secret(key) for key in ("pad_token", "max_new_tokens", "tokenizer", "key", "api_key_env")]
    [False, False, False, False, False]
    """
    words = _words(key)
    if len(words) > 1 and words[-1] == "env":
        return False
    pairs = pairwise(words)
    return bool(WORDS & set(words)) or not PAIRS.isdisjoint(pairs) or (len(words) == 1 and words[0] in WHOLE)


def _words(key: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])", key)]


def secrets_of_environment() -> dict[str, str]:
    """The environment's secrets by the name of their variable."""
    found = {name: value.strip() for name, value in os.environ.items() if VARIABLE.search(name)}
    return {name: value for name, value in found.items() if len(value) >= LONG_ENOUGH}


def refuse_secrets(values: Any, lines: Sequence[str] = ()) -> None:
    """Refuse plain values that hold a secret, and overrides that do.

    Raises:
        UserError: naming every such key, never the value.
    """
    known = secrets_of_environment()
    found = [*_found(values, "", known), *_in_lines(lines, known)]
    problems = dict.fromkeys(f"{redacted(key)}: {_advice(reason)}" for key, reason in _once(found))
    if problems:
        raise UserError("\n".join(problems))


def _once(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without what Hydra repeats under keys of its own, and without a list beside the entry that is meant."""
    own = [one for one in found if not one[0].startswith(REPEATED)] or found
    keys = [key for key, _ in own]
    return [one for one in own if not any(key.startswith((f"{one[0]}.", f"{one[0]}[")) for key in keys)]


def _advice(reason: str) -> str:
    return (
        f"{reason}, and a config is written to disk and to loggers; keep it in an environment variable and "
        "give that one's name, by a key that ends in _env"
    )


def _found(value: Any, key: str, known: Mapping[str, str], secret: bool = False) -> Iterator[tuple[str, str]]:
    """(full key, why) of everything secret in plain values; `secret`: a key above says so."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            full = f"{key}.{name}" if key else str(name)
            yield from _found(inner, full, known, secret or looks_secret(str(name)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _found(inner, f"{key}[{index}]", known, secret)
    elif isinstance(value, str) and (reason := _form_of(value, known)):
        yield key, reason
    elif secret and _is_given(value):
        yield key, "its name says that it is a secret"


def _in_lines(lines: Sequence[str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The same of overrides, which Hydra writes down as they were typed; sweeps too."""
    for one in OverridesParser.create().parse_overrides(list(lines)):
        key = one.key_or_group
        reason = _form_of(str(one.input_line), known)
        if reason:
            yield key, reason
        elif not one.is_delete():
            yield from _found({key.rpartition(".")[2]: one.value()}, key.rpartition(".")[0], known)


def _is_given(value: Any) -> bool:
    """Not null, empty, missing, or a switch."""
    return not (value is None or isinstance(value, bool) or value in ("", "???"))


def _form_of(text: str, known: Mapping[str, str]) -> str | None:
    """Why a text holds a secret; None: it holds none."""
    for name, value in known.items():
        if value in text:
            return f"it holds the value of the environment variable {name}"
    return "it looks like a key or password" if FORMS.search(text) else None


def redacted(text: str) -> str:
    """The text without secrets: values of the environment by the name of their variable, others as `***`.

    >>> redacted("401 for https://me:hunter2@host/v1")
    '401 for https://***@host/v1'
    """
    for name, value in sorted(secrets_of_environment().items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"<{name}>")
    return FORMS.sub("***", text)
