"""`feedtune evaluate DIR [overrides]`: measure a run on held-out rows, beside what it started from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from rich.text import Text
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.resume import changed, saved_config
from feedtune.config.compose import compose_config
from feedtune.config.discovery import options_of
from feedtune.config.hydra_errors import explained
from feedtune.config.local_plugins import KEY as PLUGINS_PATH
from feedtune.config.local_plugins import adopt
from feedtune.config.plugin_problems import warn
from feedtune.config.saved import CONFIG, OVERRIDES, permitted, refuse_moved, saved_overrides
from feedtune.errors import UserError, nearest
from feedtune.evaluation import Evaluation, as_json, evaluate
from feedtune.policy import Policy
from feedtune.runs.assembly import Assembly, assemble, checked
from feedtune.runs.export import load
from feedtune.text.visible import plain

USED = ("evaluation", "reward", "task", "init_from", "trust", "plugins_path", "reward_calls")
"""What overrides may be about: the rest of a run's config is history."""


def parser() -> Arguments:
    """What the command takes."""
    made = Arguments(prog="feedtune evaluate", description=__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="the run folder")
    made.add_argument(
        "overrides", nargs="*", help=f"of {', '.join(USED)}: such as evaluation.rows=200 reward=toxicity"
    )
    made.add_argument("--out", type=Path, help="where to write; by default DIR/evaluation.json")
    made.add_argument("--trust", action="store_true", help=TRUST_HELP)
    return made


def main(arguments: Sequence[str]) -> int:
    """Print a table and write evaluation.json into the run folder."""
    given = parser().read(arguments)
    found, before = evaluate_run(given.folder, given.overrides, trust=given.trust)
    out = given.out or given.folder / "evaluation.json"
    try:
        text = json.dumps(as_json(found, before), indent=2, ensure_ascii=False) + "\n"
        out.write_text(text, encoding="utf-8", errors="backslashreplace")  # as JSON spells lone surrogates
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    console = Console()
    console.print(metrics_table(found, before))
    console.print(samples_table(found, before))
    if parts_of(found):
        console.print(parts_table(found))
    console.print(plain(f"responses and numbers: {out}"), highlight=False, markup=False, emoji=False)
    return 0


def evaluate_run(
    folder: Path, overrides: Sequence[str] = (), trust: bool = False
) -> tuple[Evaluation, Evaluation | None]:
    """Measure the policy of a run folder, and the reference that it was tuned from, if it has one.

    Overrides change the run's config first: another reward, other rows, another way of decoding.
    Code that the folder itself names is run only with `trust`.
    """
    check_used(overrides)
    overrides = adopt(overrides)
    config, typed = _config(folder, overrides, trust)
    config = checked(config, folder, typed)
    tuned = load(folder, trust=trust)
    parts = assemble(config, tuned.codec)
    rows = parts.eval_rows()
    reference = _reference(config, parts)
    console = Console(stderr=True)
    with console.status(f"answering {parts.options.rows or len(rows)} held-out prompts"):
        measure = partial(
            evaluate,
            codec=tuned.codec,
            rows=rows,
            reward=parts.reward,
            options=parts.options,
            reference=reference,
            collector=parts.module.collector,
            monitor=parts.monitor,
        )
        found = measure(tuned.policy)
        before = None if reference is None else measure(reference)
    return found, before


def check_used(overrides: Sequence[str]) -> None:
    """Refuse overrides that would change nothing here, since they are about training."""
    with explained(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    for one in parsed:
        if _group(one) not in USED:
            raise UserError(
                f"{one.input_line}: evaluation uses {', '.join(USED)}, and not '{_group(one)}'."
                f"{nearest(_group(one), USED)}"
            )


def _config(folder: Path, overrides: Sequence[str], trust: bool) -> tuple[DictConfig, list[str]]:
    """The run's config, and what was typed for it; with overrides, composed again from its own and these."""
    saved = saved_config(folder)
    if not overrides:
        return permitted(saved, folder / CONFIG, trust), []
    if not any(
        _group(one) == PLUGINS_PATH for one in OverridesParser.create().parse_overrides(list(overrides))
    ):
        refuse_moved(saved.get(PLUGINS_PATH), folder / CONFIG)
    own = saved_overrides(folder / OVERRIDES, trust, overrides)
    warn(overrides)
    typed = [*still_meant(own, overrides), *overrides]
    if _primary(folder) != "train":  # of a config of the user's own the overrides are not all
        return permitted(_exchanged(saved, overrides), folder / OVERRIDES, trust, overrides), typed
    return permitted(compose_config(typed), folder / OVERRIDES, trust, overrides), typed


def _primary(folder: Path) -> str:
    """The config that the run was composed from, by Hydra's `--config-name`."""
    path = folder / ".hydra" / "hydra.yaml"
    try:
        return str(OmegaConf.select(OmegaConf.load(path), "hydra.job.config_name") or "train")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):  # moved without it, or damaged
        return "train"


def _exchanged(saved: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A saved config with other options and values."""
    with explained(overrides):
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [one for one in parsed if options_of(one.key_or_group)]
    config, chosen = saved.copy(), compose_config([str(one.input_line) for one in choices])
    for one in choices:
        config[_group(one)] = chosen[_group(one)]
    return changed(config, [str(one.input_line) for one in parsed if one not in choices])


def still_meant(own: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The run's own overrides, but for those of groups of which another option is chosen now."""
    parse = OverridesParser.create().parse_overrides
    with explained(overrides):
        given = parse(list(overrides))
    exchanged = {_group(one) for one in given if options_of(one.key_or_group) or _group(one) == PLUGINS_PATH}
    return [line for line, one in zip(own, parse(list(own)), strict=True) if _group(one) not in exchanged]


def _group(override: Override) -> str:
    """The top-level key that it is about; that of `reward@monitor.reward=length` is `monitor`."""
    return str(override.package or override.key_or_group).split(".")[0]


def _reference(config: DictConfig, parts: Assembly) -> Policy | None:
    """The policy as it was before training, where it was worth something or the run compared with it."""
    if config.init_from is None and "reference" not in parts.module.needs:
        return None
    return parts.module.policy.eval()


def metrics_table(found: Evaluation, before: Evaluation | None) -> Table:
    """Every metric, beside the reference's."""
    table = Table("metric", *(["before"] if before else []), "after" if before else "value")
    for name, value in found.metrics.items():
        old: list[Any] = [_number(before.metrics.get(name))] if before else []
        table.add_row(_text(name), *old, _number(value))
    return table


def samples_table(found: Evaluation, before: Evaluation | None, rows: int = 8) -> Table:
    """The first responses, beside the reference's to the same prompts, and their rewards."""
    said = ["before", "after"] if before else ["response"]
    scored = ["reward"] if "reward" in found.records[0] else []  # runs that only imitate have none
    table = Table("#", "prompt", *said, *scored, show_lines=True)
    for index, record in enumerate(found.records[:rows]):
        old = [before.records[index]["response"]] if before else []
        texts = map(_text, [record["prompt"], *old, record["response"]])
        table.add_row(str(index + 1), *texts, *(_number(record.get(name)) for name in scored))
    return table


def parts_table(found: Evaluation, rows: int = 8) -> Table:
    """What each part of the reward says of the first responses: columns that the texts leave no room for."""
    parts = parts_of(found)
    table = Table("#", "reward")
    for name in parts:
        table.add_column(_text(name.removeprefix("reward/")))
    for index, record in enumerate(found.records[:rows]):
        table.add_row(str(index + 1), *(_number(record.get(name)) for name in ["reward", *parts]))
    return table


def parts_of(found: Evaluation) -> list[str]:
    """The reward's parts, but no parts of parts, which evaluation.json has."""
    return [name for name in found.records[0] if name.startswith("reward/") and name.count("/") < 2]


def _text(text: str) -> Text:
    """For a cell: markup, emoji codes and escape sequences in it are read, not obeyed."""
    return Text(plain(text))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
