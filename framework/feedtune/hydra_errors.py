"""Hydra's errors in words for users: its lists of choices stay, its internals go."""

from __future__ import annotations

import re

from feedtune.errors import nearest


def explain(error: Exception) -> str:
    """One message for an error that Hydra or OmegaConf raised while composing."""
    text = str(error).strip()
    choices = re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '([^']+)':\s+"
        r"(.*?)(?:\n\s*\n|\n\s*Config search path|\Z)",
        text,
        re.S,
    )
    if choices:
        group, wrong, _, listed = choices.groups()
        options = [line.strip() for line in listed.splitlines() if line.strip()]
        hint = nearest(wrong, options)
        return f"{group}={wrong}: there is no such option.{hint} Options of '{group}': {', '.join(options)}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return _unknown_key(key.group(1), error)
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not line.startswith(("Set the environment", "See https"))
    ]
    return " ".join(line.strip() for line in lines[:3])


def _unknown_key(key: str, error: Exception) -> str:
    """Names the keys that stand beside the one that does not exist."""
    from feedtune.configs import compose_config

    parent, _, name = key.rpartition(".")
    node = compose_config()
    for part in parent.split(".") if parent else []:
        child = node.get(part) if hasattr(node, "get") else None
        if child is None or not hasattr(child, "keys"):
            return f"{key}: there is no such key ({error.__cause__ or error})".splitlines()[0]
        node = child
    known = [str(k) for k in node.keys()]  # noqa: SIM118 - a DictConfig
    inside = f"'{parent}'" if parent else "the config"
    return f"{key}: there is no such key in {inside}.{nearest(name, known)} It has: {', '.join(known)}"
