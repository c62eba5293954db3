"""`feedtune train --cfg job`: the composed config, as a file that can be run.

What is printed begins with a defaults list that brings Hydra's own settings of feedtune, so that

    feedtune train [overrides] --cfg job --resolve > my.yaml
    feedtune train --config-dir . --config-name my

runs what the overrides alone would have run. Only the run folder is not known before a run begins: where a
value is taken from it, `${run_dir}` stays.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import pairwise

import hydra

from feedtune.config.discovery import own_conf
from feedtune.config.hydra_errors import explained

HEADER = """\
# feedtune train --config-dir FOLDER --config-name NAME: runs this file, FOLDER/NAME.yaml. Values can be
# overridden; options (such as backbone=gru) not any more, since they are written out.
defaults:
  - hydra_settings
  - _self_
"""

_PLACE = "--the run folder--"


def is_asked(flags: Sequence[str]) -> bool:
    """Whether the whole config of a job is to be printed."""
    words = [part for flag in flags for part in flag.split("=", 1)]
    whole = not {"--package", "-p"} & set(words)
    return whole and any(flag in ("--cfg", "-c") and what == "job" for flag, what in pairwise(words))


def main(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Print it."""
    given, said = sys.argv, io.StringIO()
    sys.argv = [given[0], *flags, *overrides, f"run_dir='{_PLACE}'"]
    try:
        with explained(overrides), redirect_stdout(said):
            hydra.main(version_base="1.3", config_path=str(own_conf()), config_name="train")(_never)()
    finally:
        sys.argv = given
    text = said.getvalue().replace(f"run_dir: {_PLACE}\n", "run_dir: null\n")
    print(HEADER + text.replace(_PLACE, "${run_dir}"), end="")
    return 0


def _never(config: object) -> None:
    """Hydra prints a job's config and does not begin it."""
    raise AssertionError("--cfg began the job")
