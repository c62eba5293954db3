"""What subcommands ask about: run folders, whose policies answer prompts, and files of items."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from feedtune.commands.feedback.in_service import checkpoint_of, served
from feedtune.config.compose import to_plain
from feedtune.errors import UserError, nearest_path
from feedtune.evaluation import EvaluationOptions
from feedtune.feedback.asking.gathering import Speaker, gather
from feedtune.feedback.exchange.item_files import read_items
from feedtune.feedback.records import Item
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.sampling import Decoding
from feedtune.text.visible import plain


def add_questions(
    store: FeedbackStore, places: Sequence[Path], config: DictConfig, trust: bool = False
) -> int:
    """Put into the store what these folders and files ask about; returns how many items are new.

    All run folders answer the same prompts, of the first one's task, so that they can be compared. What a
    store holds already of exactly these policies is not sampled again.

    Args:
        store: where the items go.
        places: run folders, and JSONL files of items.
        config: of `feedtune feedback`.
        trust: run code that the folders name.

    Raises:
        UserError: a place is neither, or cannot be read.
    """
    if not places:
        store.existing()
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: there is no such run folder or file of items.{nearest_path(place)}")
    files = [place for place in places if place.is_file()]
    folders = [place for place in places if not place.is_file()]
    new = sum(store.add(read_items(file)) for file in files)
    if folders and not _known(store, folders, config.feedback.prompts):
        new += store.add(_sampled(folders, config, trust))
    if not store.items():
        raise UserError(f"{store.path}: nothing in it to ask about; name run folders or files of items")
    return new


def _known(store: FeedbackStore, folders: Sequence[Path], prompts: int) -> bool:
    """Whether the store has as many items as are asked for of these policies and no others."""
    wanted = {(_name(folder), checkpoint_of(folder)) for folder in folders}
    found = [{(one.run, one.checkpoint) for one in item.responses} for item in store.items()]
    return sum(one == wanted for one in found) >= prompts


def _sampled(folders: Sequence[Path], config: DictConfig, trust: bool) -> list[Item]:
    options = config.feedback
    runs = [served(folder, trust) for folder in folders]
    names = [_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"run folders to compare need different names, got {', '.join(names)}")
    rows = runs[0].task().load(options.split)
    evaluation = EvaluationOptions(**to_plain(runs[0].config.evaluation))
    assert isinstance(evaluation.decoding, Decoding)  # as its constructor makes it
    print(f"letting {', '.join(map(plain, names))} answer {options.prompts} prompts", file=sys.stderr)
    return gather(
        [Speaker(loaded=r.loaded, run=n, checkpoint=r.checkpoint) for r, n in zip(runs, names, strict=True)],
        rows,
        prompts=options.prompts,
        responses=options.responses or (1 if len(folders) > 1 else 2),  # a run beside itself ranks nobody
        max_new_tokens=evaluation.max_new_tokens,
        decoding=evaluation.decoding,
        seed=config.seed,
    )


def _name(folder: Path) -> str:
    return folder.resolve().name
