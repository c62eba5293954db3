"""`feedtune check`: certify plugins against the laws of their kind.

Each option is composed as `feedtune train` composes it, built, and tried: pads, batch splits, states, order
of rows, NaN, seeds, saving, other number types, and whether every key of its YAML has an effect. The exit
code is 0 where every law holds, 1 where one is broken or `feedtune plugins` names a problem of the plugin, 2
where the command is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedtune.commands.arguments import Arguments
from feedtune.config.discovery import Provider, options_of, providers
from feedtune.config.local_plugins import adopt
from feedtune.config.plugin_problems import Problem, problems
from feedtune.errors import UserError, nearest, one_line
from feedtune.text.visible import plain

if TYPE_CHECKING:
    from feedtune.contracts import Sample
    from feedtune.testing.certification import Certificate

KINDS = ("backbone", "algorithm", "reward", "task", "collector", "buffer")
"""Groups whose options are certified."""

EXAMPLES = """examples:
  feedtune check acme                                     every option of an installed plugin
  feedtune check acme reward.path=judge.py:score          with a value that one of its options needs
  feedtune check plugins_path=./my_plugins                every option of a folder that is not installed
  feedtune check reward=function reward.path=judge.py:score --samples samples.jsonl
  feedtune check algorithm=ppo buffer=replay --json laws.json

A key that rightly changes nothing, such as a time limit, says so in its comment, which ends with [unseen]."""

Choice = tuple[str, str]


def main(arguments: Sequence[str]) -> int:
    """Print a table of laws for each option; 1 where one is broken."""
    given = _parser().read(arguments)
    overrides = [one for one in given.what if "=" in one and one.partition("=")[0] not in KINDS]
    adopt(overrides)
    choices = [
        (group, option)
        for group, equals, option in (one.partition("=") for one in given.what)
        if equals and group in KINDS
    ]
    named = [one for one in given.what if "=" not in one]
    _refuse_unknown(choices)
    plugins = _plugins(named, anything=bool(choices))
    found = _problems_of(plugins, choices)
    wanted = [*choices, *_offered_by(plugins, found)]
    samples = None if given.samples is None else read_samples(Path(given.samples))
    if samples is not None and not any(group == "reward" for group, _ in wanted):
        raise UserError("--samples: only rewards are tried on samples, and none is to be checked")
    for problem in found:
        print(plain(f"problem: {problem}"))
    certificates = []
    go_on = len(wanted) > 1 or bool(found)
    for group, option in wanted:
        certificates.append(_certify(group, option, _meant_for(group, overrides), samples, go_on))
        show(certificates[-1])
    if given.json is not None:
        _write(Path(given.json), certificates, found)
    return _summary(certificates, found)


def _parser() -> Arguments:
    parser = Arguments(
        prog="feedtune check",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="feedtune check NAME | GROUP=OPTION [KEY=VALUE ...] [--samples FILE] [--json FILE]",
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="NAME | GROUP=OPTION | KEY=VALUE",
        help="a plugin (its entry point, distribution or package), an option, or a value of one",
    )
    parser.add_argument(
        "--samples",
        metavar="FILE",
        help="what rewards are tried on: JSON lines with `response`, `prompt` or `messages`, and columns",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    return parser


def _refuse_unknown(choices: Sequence[Choice]) -> None:
    """Refuse options that nobody offers."""
    for group, option in choices:
        known = options_of(group)
        if option not in known:
            hint = nearest(option, known)
            raise UserError(f"{group}={option}: there is no such option.{hint} Options: {', '.join(known)}")


def _plugins(named: Sequence[str], anything: bool) -> list[Provider]:
    """The plugins all of whose options are to be certified; `anything`: there is something else to do."""
    chosen = [plugin for name in named for plugin in plugins_named(name)]
    if not named and not anything:
        chosen = [provider for provider in providers() if provider.folder is not None]
        if not chosen:
            raise UserError("what is to be checked? A plugin's NAME, GROUP=OPTION, or plugins_path=FOLDER")
    return chosen


def _problems_of(plugins: Sequence[Provider], choices: Sequence[Choice]) -> list[Problem]:
    """What is known to be wrong with these plugins, and with a folder that offers one of these options."""
    offered = {one for plugin in plugins for one in plugin.options()}
    return [
        problem
        for problem in problems()
        if problem.provider in plugins
        or (problem.blocks and offered.intersection(problem.options))
        or (_is_in_the_shade(problem) and set(choices).intersection(problem.options))
    ]


def _is_in_the_shade(problem: Problem) -> bool:
    """Whether it is of the command's folder, and what would be certified in its place is another's."""
    return problem.provider.folder is not None and not problem.blocks


def _offered_by(plugins: Sequence[Provider], found: Sequence[Problem]) -> Iterator[Choice]:
    """The options of plugins; not those that have a problem, since another's would be tried, or none."""
    wrong = {option for problem in found for option in problem.options}
    for plugin in plugins:
        offered = [(group, option) for group, option in plugin.options() if group in KINDS]
        if not offered and (plugin.problem or not any(one.provider == plugin for one in found)):
            why = plugin.problem or f"it offers no {', '.join(KINDS[:-1])} or {KINDS[-1]}"
            raise UserError(f"{plugin.title}: {why}")
        yield from (option for option in offered if option not in wrong)


def plugins_named(name: str) -> list[Provider]:
    """The plugins with this entry point, distribution, package or folder.

    >>> [plugin.distribution for plugin in plugins_named("feedtune")]
    ['feedtune']

    Raises:
        UserError: there is none.
    """
    known: dict[str, list[Provider]] = {}
    for plugin in providers():
        for word in {plugin.name, plugin.distribution, plugin.package} - {""}:
            known.setdefault(_plain(word), []).append(plugin)
    if _plain(name) not in known:
        names = [plugin.name for plugin in providers()]
        raise UserError(
            f"{name}: there is no plugin of this name.{nearest(name, names)} Plugins: {', '.join(names)}; an "
            f"option is written GROUP=OPTION, such as reward={name}"
        )
    return known[_plain(name)]


def _plain(name: str) -> str:
    """Distributions may be spelt either way.

    >>> _plain("Feedtune_Acme")
    'feedtune-acme'
    """
    return name.lower().replace("_", "-")


def _meant_for(group: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of this group's keys, and those of no kind of plugin."""
    others = tuple(f"{kind}." for kind in KINDS if kind != group)
    return [one for one in overrides if not one.lstrip("+~").startswith(others)]


def _certify(
    group: str, option: str, overrides: Sequence[str], samples: Sequence[Sample] | None, go_on: bool
) -> Certificate:
    """One option's certificate; `go_on`: one that cannot be composed is a broken law, and others follow."""
    from feedtune.testing.certification import Certificate, certify
    from feedtune.testing.runner import Result, said

    try:
        return certify(group, option, overrides, samples)
    except UserError as error:
        if not go_on:
            raise
        return Certificate(
            group, option, "", "", "", [Result("it can be composed", "failed", 0.0, said(error))]
        )


def read_samples(file: Path) -> list[Sample]:
    """Samples of a file of JSON lines.

    Raises:
        UserError: naming the file and the line.
    """
    from feedtune.contracts import Sample

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--samples {file}: {one_line(error)}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line, f"--samples {file}:{number}")
            columns = {name: value for name, value in row.items() if name != "response"}
            said, messages = row["response"], row.get("messages") or ()
            found.append(Sample(str(row.get("prompt", "")), said, tuple(messages), columns))
    if len(found) < 2:
        raise UserError(
            f"--samples {file}: expected at least 2 samples that score differently, got {len(found)}"
        )
    return found


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("response"), str):
        raise UserError(
            f"{where}: expected an object with a text `response`, such as {{'response': 'Hello!'}}"
        )
    return row


def show(certificate: Certificate) -> None:
    """A table of laws; below it, a paragraph for each that is broken."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(soft_wrap=False, highlight=False)
    version = f" {certificate.version}" if certificate.version else ""
    home = f"  ({escape(certificate.distribution)}{version})" if certificate.distribution else ""
    note = f"\n{certificate.note}" if certificate.note else ""
    console.print(f"\n[bold]{escape(certificate.name)}[/]  {escape(certificate.target)}{home}{note}")
    table = Table("law", "result", "seconds", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for result in certificate.results:
        colour = {"passed": "green", "failed": "bold red"}.get(result.outcome, "dim")
        table.add_row(escape(result.law), f"[{colour}]{result.outcome}[/]", f"{result.seconds:.2f}")
    console.print(table)
    for result in certificate.failed:
        console.print(f"\n[bold red]{escape(result.law)}[/]: {escape(result.message)}")


def _write(file: Path, certificates: Sequence[Certificate], problems: Sequence[Problem]) -> None:
    found = {
        "passed": all(one.passed for one in certificates) and not problems,
        "options": [one.as_dict() for one in certificates],
        "problems": [str(one) for one in problems],
    }
    try:
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {file}: {one_line(error)}") from error


def _summary(certificates: Sequence[Certificate], problems: Sequence[Problem]) -> int:
    """The last line, and the exit code."""
    laws = [result for certificate in certificates for result in certificate.results]
    broken = sum(len(certificate.failed) for certificate in certificates)
    idle = sum(result.outcome == "not applicable" for result in laws)
    wrong = [
        name
        for problem in problems
        for name in [f"{group}={option}" for group, option in problem.options] or [problem.provider.title]
    ]
    broken_ones = [certificate.name for certificate in certificates if not certificate.passed]
    failed = list(dict.fromkeys([*wrong, *broken_ones]))
    say = f"not certified: {', '.join(failed)}" if failed else "certified"
    print(
        f"\n{say}. Options: {len(certificates)}. Laws: {len(laws) - broken - idle} passed, {broken} failed, "
        f"{idle} not applicable"
    )
    return 1 if failed else 0
