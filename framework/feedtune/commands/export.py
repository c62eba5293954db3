"""`feedtune export DIR OUT`: the tuned model as one ordinary transformers folder, adapters worked in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.errors import UserError
from feedtune.runs.export import load


@runtime_checkable
class Mergeable(Protocol):
    """A backbone that can be written as a transformers folder that needs nothing else."""

    def merged(self, folder: Path) -> None:
        """Write the whole model into an existing folder, without tokenizer."""


def parser() -> Arguments:
    """What the command takes."""
    made = Arguments(prog="feedtune export", description=__doc__)
    made.add_argument("folder", type=Path, metavar="DIR", help="a run folder or its export/")
    made.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    made.add_argument("--trust", action="store_true", help=TRUST_HELP)
    return made


def main(arguments: Sequence[str]) -> int:
    """Write model and tokenizer; heads, which transformers does not know, stay in DIR/export."""
    given = parser().read(arguments)
    print(f"transformers folder: {export(given.folder, given.out, trust=given.trust)}")
    return 0


def export(folder: Path, out: Path, trust: bool = False) -> Path:
    """Write the policy of a run as a folder for `transformers.AutoModelForCausalLM`; returns it.

    Classes of packages that are not trusted are made only with `trust`.

    Raises:
        UserError: `folder` is no run, its backbone is none of transformers', or `out` holds files already.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: expected a new or empty folder, and nothing is written over")
    loaded = load(folder, trust=trust)
    backbone = loaded.policy.backbone
    if not isinstance(backbone, Mergeable):
        raise UserError(
            f"{folder}: its backbone {type(backbone).__name__} is no model of transformers; "
            f"feedtune.load('{folder}') gives it back"
        )
    out.mkdir(parents=True, exist_ok=True)
    backbone.merged(out)
    loaded.codec.save(out)
    return out
