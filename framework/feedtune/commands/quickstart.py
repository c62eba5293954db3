"""`feedtune quickstart`: `feedtune pipeline pipeline=quickstart`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from feedtune.commands import pipeline
from feedtune.errors import UserError

NEEDED = {
    "chitchat_dataset": "chitchat-dataset",
    "matplotlib": "matplotlib",
    "vaderSentiment": "vaderSentiment",
}
"""What the extra `quickstart` brings: modules and their packages."""

USAGE = """usage: feedtune quickstart [overrides]

In one go: pretrains a small LSTM on human conversations, tunes it by PPO to speak kindly (sentiment) on a
leash to the pretrained model, and evaluates both on held-out prompts. About 4.5 minutes on two cores; needs
the extra: pip install 'feedtune[quickstart]'. Ends with a table prompt | before | after | reward, the numbers
before and after, and report.html with curves and samples. Each stage is an ordinary command that it prints.

  dir=FOLDER             where to put the runs, or the folder of a stopped quickstart to go on with
  seed=N                 of every stage (default 0)
  stages.NAME.arguments  arguments of the stage pretrain, tune or evaluate, as its command takes them"""


def main(arguments: Sequence[str]) -> int:
    """Run the pipeline; arguments are its overrides."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    lacking = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if lacking and not any("stages" in argument for argument in arguments):  # other stages, other needs
        raise UserError(
            f"feedtune quickstart needs {', '.join(lacking)}. "
            "Install it with: pip install 'feedtune[quickstart]'"
        )
    return pipeline.main(["pipeline=quickstart", *arguments])
