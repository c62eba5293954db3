"""Plugin projects as `feedtune new-plugin` writes them: data files that are filled in with names.

`common/` is in every project, and one folder for each kind holds the class, its option and its tests. They
end in `.j2`, so that tools that read Python leave them alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@dataclass(frozen=True)
class Kind:
    """What the project of one kind of plugin is about."""

    summary: str  # one sentence
    about: str  # a paragraph for its README
    try_it: str  # a command that runs it, with {name}
    further: Mapping[str, str] = field(default_factory=dict)  # templates beside those of `OWN`, likewise


KINDS = {
    "backbone": Kind(
        "A minimal gated recurrent network.",
        "After minGRU (Feng et al. 2024, arXiv:2410.01201): its gates do not read its memory, so that all\n"
        "matrix products of a layer are done at once. It takes rows of any length and starts from scratch.",
        "feedtune train backbone={name} algorithm=sft",
    ),
    "algorithm": Kind(
        "Reward-weighted regression.",
        "It imitates every response with the weight exp(score / scale) (Peters and Schaal 2007), so the\n"
        "responses may be anybody's: the policy's own, older ones from `buffer=replay`, or rows of a file\n"
        "with `collector=logged`.",
        "feedtune train algorithm={name}",
    ),
    "reward": Kind(
        "Rewards responses that ask something.",
        "The score is the share of a response's sentences that are questions, 0 to 1.",
        "feedtune train reward={name}",
    ),
    "task": Kind(
        "Counting, as rows to learn from.",
        'Prompts such as "3, 4, 5, " with the next number in the column `reference`. No download.',
        "feedtune train task={name} reward=answer",
    ),
    "collector": Kind(
        "Learns from answers that people have rated.",
        "Rows of a file with an answer and a rating in the column `reward`. `ratings.jsonl` is an example:\n"
        "it lies in this project's folder and its sdist, not in the wheel, so call the command from there.",
        "feedtune train algorithm=dqn collector={name} task=jsonl task.path=ratings.jsonl",
        {"ratings.jsonl.j2": "ratings.jsonl"},
    ),
    "buffer": Kind(
        "Uses every collection once, in shuffled parts.",
        "Each part is an optimiser step. Rows that answer the same prompt are never split.",
        "feedtune train algorithm=ppo buffer={name}",
    ),
}

COMMON = {
    "common/pyproject.toml.j2": "pyproject.toml",
    "common/README.md.j2": "README.md",
    "common/ci.yml.j2": ".github/workflows/ci.yml",
    "common/gitignore.j2": ".gitignore",
    "common/__init__.py.j2": "{name}/__init__.py",
    "common/py.typed.j2": "{name}/py.typed",
}
OWN = {
    "plugin.py.j2": "{name}/{kind}.py",
    "option.yaml.j2": "{name}/conf/{kind}/{name}.yaml",
    "test.py.j2": "tests/test_{name}.py",
}


def rendered(name: str, kind: str, version: str) -> dict[str, str]:
    """The files of a plugin project: their text by path in the project.

    Args:
        name: of the distribution, its package and its option.
        kind: one of `KINDS`.
        version: of feedtune, whose contracts the project asks for.

    >>> sorted(path for path in rendered("acme", "reward", "0.1.0") if path.startswith("acme/"))
    ['acme/__init__.py', 'acme/conf/reward/acme.yaml', 'acme/py.typed', 'acme/reward.py']
    """
    about = KINDS[kind]
    values = {
        "name": name,
        "kind": kind,
        "a_kind": f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}",
        "class_name": class_name(name, kind),
        "requirement": requirement(version),
        "summary": about.summary,
        "about": about.about,
        "try_it": about.try_it.format(name=name),
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the texts are code and prose, and the names have been checked
    )
    sources = COMMON | {f"{kind}/{source}": target for source, target in (OWN | dict(about.further)).items()}
    return {
        target.format(name=name, kind=kind): environment.get_template(source).render(values)
        for source, target in sources.items()
    }


def class_name(name: str, kind: str) -> str:
    """What the class is called: the name and the kind, so that it is never that of a contract.

    >>> class_name("acme", "reward"), class_name("polite_reward", "reward"), class_name("buffer", "buffer")
    ('AcmeReward', 'PoliteReward', 'BufferBuffer')
    """
    camel = "".join(word.capitalize() for word in name.split("_"))
    last = kind.capitalize()
    return camel if camel.endswith(last) and camel != last else camel + last


def requirement(version: str) -> str:
    """The versions of feedtune whose contracts are those of this one (docs/api.md).

    >>> requirement("0.1.3"), requirement("1.2.0"), requirement("0.2.0.dev1")
    ('feedtune>=0.1,<0.2', 'feedtune>=1.2,<2', 'feedtune>=0.2.0.dev1,<0.3')
    """
    major, minor = (int(number) for number in version.split(".")[:2])
    released = re.fullmatch(r"[\d.]+", version)
    least = f"{major}.{minor}" if released else version
    return f"feedtune>={least},<{major + 1 if major else f'0.{minor + 1}'}"
