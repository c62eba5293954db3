"""`feedtune check`: what it takes, what it prints and writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedtune.commands.check import plugins_named, read_samples
from feedtune.errors import UserError

PLUGIN = '''
class Polite:
    """Scores the thanks in a response, times what."""

    def __init__(self, *, scale: float = 1.0, unused: int = 3) -> None:
        self.scale = scale

    def __call__(self, samples):
        return [self.scale * sample.response.lower().count("thank") for sample in samples]


class Centred(Polite):
    """The same less the mean of its batch."""

    def __call__(self, samples):
        scores = super().__call__(samples)
        return [score - sum(scores) / len(scores) for score in scores]
'''
YAML = """\
# feedtune train reward=polite: rises within an epoch
_target_: polite.Polite
scale: 1.0 # times what; more pulls harder
unused: 3 # nothing at all
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    conf = tmp_path / "mine" / "conf" / "reward"
    conf.mkdir(parents=True)
    (tmp_path / "mine" / "polite.py").write_text(PLUGIN)
    (conf / "polite.yaml").write_text(YAML.replace("nothing at all", "nothing at all [unseen]"))
    return tmp_path / "mine"


def test_a_sound_option_is_certified(feedtune: Any, folder: Path) -> None:
    done = feedtune("check", "reward=polite", "plugins_path=./mine", "--json", "laws.json")
    assert (done.code, done.err) == (0, "")
    assert "reward=polite" in done.out
    assert "samples may stand in any order" in done.out
    assert "certified. Options: 1. Laws:" in done.out
    assert "0 failed" in done.out
    written = json.loads(Path("laws.json").read_text())
    assert written["passed"] is True
    (option,) = written["options"]
    assert (option["group"], option["option"], option["target"]) == ("reward", "polite", "polite.Polite")
    outcomes = {result["law"]: result["outcome"] for result in option["results"]}
    assert outcomes["every key of its YAML has a comment"] == "passed"
    assert outcomes["no parameter is without effect"] == "passed"
    assert outcomes["no opinion stays with its sample"] == "not applicable"


def test_a_broken_option_is_told_why_in_words(feedtune: Any, folder: Path) -> None:
    conf = folder / "conf" / "reward"
    (conf / "polite.yaml").write_text(YAML)
    centred = YAML.replace("polite.Polite", "polite.Centred").replace("=polite", "=centred")
    (conf / "centred.yaml").write_text(centred)
    done = feedtune("check", "plugins_path=./mine", "--json", "laws.json")
    assert done.code == 1
    assert "Traceback" not in done.out + done.err
    words = " ".join(done.out.split())
    assert "no parameter is without effect: turned, these keys change nothing: unused." in words
    assert "a score depends on no other sample: split: a score depends on the rest of its batch" in words
    assert "not certified: reward=centred, reward=polite. Options: 2." in words
    assert json.loads(Path("laws.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("change", "law", "said"),
    [
        (
            ("feedtune train reward=polite: rises", "Rises"),
            "its YAML opens with a command",
            "'# feedtune train",
        ),
        (("# times what; more pulls harder", ""), "every key of its YAML has a comment", "scale"),
        (("polite.Polite", "polite.Plite"), "its _target_ can be imported", "Did you mean 'Polite'"),
        (("unused:", "used:"), "its keys are arguments", "reward.used is no argument of Polite"),
        (("1.0 #", "??? #"), "every value is given", "reward.scale has to be given"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_before_anything_is_built(
    change: tuple[str, str], law: str, said: str, feedtune: Any, folder: Path
) -> None:
    (folder / "conf" / "reward" / "polite.yaml").write_text(YAML.replace(*change))
    done = feedtune("check", "reward=polite", "plugins_path=./mine")
    words = " ".join(done.out.split())
    assert done.code == 1
    assert f"{law}: " in words
    assert said in words
    assert "it can be made and used" not in words


def test_a_value_that_has_to_be_given_can_be(feedtune: Any, folder: Path) -> None:
    file = folder / "conf" / "reward" / "polite.yaml"
    file.write_text(YAML.replace("1.0 #", "??? #").replace("nothing at all", "nothing at all [unseen]"))
    assert feedtune("check", "mine", "plugins_path=./mine", "reward.scale=2", "buffer=once").code == 0


def test_samples_of_ones_own(feedtune: Any, folder: Path) -> None:
    """On these nobody says thanks, so that nothing can be told apart; one more, and it can."""
    rows = [{"prompt": "Hi", "response": "Hello"}, {"prompt": "Hi", "response": "Bye"}]
    Path("said.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = feedtune("check", "reward=polite", "plugins_path=./mine", "--samples", "said.jsonl")
    assert done.code == 1
    assert "2 of them, 2 with a score, 1 different scores" in " ".join(done.out.split())
    rows.append({"response": "Thank you", "messages": [{"role": "user", "content": "Here"}], "stars": 5})
    Path("said.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert feedtune("check", "reward=polite", "plugins_path=./mine", "--samples", "said.jsonl").code == 0
    last = read_samples(Path("said.jsonl"))[-1]
    assert (last.response, last.columns["stars"], last.messages[0]["content"]) == ("Thank you", 5, "Here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"said\.jsonl:1: not JSON"),
        ('{"prompt": "Hi"}', r"said\.jsonl:1: expected an object with a text `response`"),
        ('{"response": "Hi"}', r"said\.jsonl: expected at least 2 samples"),
    ],
)
def test_samples_that_are_none_are_refused_by_their_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_samples(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["buffer=reply"], "buffer=reply: there is no such option. Did you mean 'replay'?"),
        (["feedtun"], "feedtun: there is no plugin of this name. Did you mean 'feedtune'?"),
        (["reward.scale=1"], "what is to be checked?"),
        (["buffer=once", "--samples", "said.jsonl"], "--samples: only rewards are tried on samples"),
        (["buffer=once", "--samples", "nowhere.jsonl"], "--samples nowhere.jsonl: "),
        (["buffer=once", "buffer.pases=2"], "buffer.pases: there is no such key"),
        ([], "the following arguments are required"),
    ],
)
def test_misuse_is_one_message_and_exit_2(arguments: list[str], said: str, feedtune: Any, rows: Path) -> None:
    Path("said.jsonl").write_text('{"response": "a"}\n{"response": "b"}\n')
    done = feedtune("check", *arguments)
    assert done.code == 2
    assert said in done.err


def test_a_value_of_the_wrong_type_breaks_a_law(feedtune: Any, rows: Path) -> None:
    done = feedtune("check", "buffer=once", "buffer.passes=x")
    assert done.code == 1
    assert "buffer.passes: expected a whole number, got 'x'" in " ".join(done.out.split())


def test_an_option_that_cannot_be_composed_stops_no_other(feedtune: Any, folder: Path) -> None:
    """Alone it is a mistake of the command; among others it is one that is not certified."""
    (folder / "conf" / "reward" / "broken.yaml").write_text("# reward=broken\n_target_: [\n")
    alone = feedtune("check", "reward=broken", "plugins_path=./mine")
    assert (alone.code, alone.out) == (2, "")
    assert "broken.yaml: cannot be read" in alone.err
    done = feedtune("check", "plugins_path=./mine")
    words = " ".join(done.out.split())
    assert done.code == 1
    assert f"problem: plugins_path {folder}: conf/reward/broken.yaml: cannot be read" in words
    assert "not certified: reward=broken. Options: 1." in words


def test_feedtunes_option_of_the_same_name_is_not_certified_in_its_place(feedtune: Any, folder: Path) -> None:
    conf = folder / "conf"
    (conf / "reward" / "length.yaml").write_text(YAML.replace("=polite", "=length"))
    what = "reward=length: feedtune has an option of this name, and that is the one that is chosen; give it"
    done = feedtune("check", "plugins_path=./mine", "--json", "laws.json")
    assert done.code == 1
    assert done.out.startswith(f"problem: plugins_path {folder}: {what} another name\n")
    assert "not certified: reward=length. Options: 1." in done.out  # polite
    written = json.loads(Path("laws.json").read_text())
    assert ([one["option"] for one in written["options"]], written["passed"]) == (["polite"], False)
    assert what in written["problems"][0]
    done = feedtune("check", "plugins_path=./mine", "reward=length")
    assert (done.code, what in done.out) == (1, True)


def test_a_group_that_there_is_not_is_told(feedtune: Any, folder: Path) -> None:
    (folder / "conf" / "reward").rename(folder / "conf" / "rewards")
    done = feedtune("check", "plugins_path=./mine")
    assert done.code == 1
    assert (
        "conf/rewards/polite.yaml: feedtune has no group 'rewards' (did you mean 'reward'?); mend it"
        in done.out
    )
    assert "not certified: rewards=polite. Options: 0." in done.out


def test_a_plugin_is_named_by_entry_point_distribution_or_package() -> None:
    assert [plugin.package for plugin in plugins_named("Feedtune")] == ["feedtune"]


def test_help_says_what_a_user_needs(feedtune: Any) -> None:
    done = feedtune("check", "--help")
    assert done.code == 0
    for words in ("feedtune check acme", "plugins_path=./my_plugins", "--samples", "--json", "[unseen]"):
        assert words in done.out
