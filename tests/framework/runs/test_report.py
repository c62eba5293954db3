"""The report: what it says, that it needs nothing else, and that no text in it can act."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedtune.commands.report import main
from feedtune.errors import UserError
from feedtune.runs.report import number, plain, smooth, visible, write_report

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
VOID = {"meta", "link", "img", "br", "hr", "input"}
ATTACKS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\" onmouseover=\"document.title='owned'\" x='",
    "</style></pre></details></td></svg><script>document.title='owned'</script>",
    "<!-- {{ 7 * 7 }} {% raw %} ]]> &lt;b&gt;",
)


class Page(HTMLParser):
    """The elements of a page, the text of each, and all attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []  # every element is closed where it should be

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        """All text, pieces apart by one space."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str, tag: str | None = None) -> list[str | None]:
        return [attrs[name] for found, attrs in self.elements if name in attrs and tag in (None, found)]


def answer(prompt: str, response: str, reward: float | None = 0.0, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "reward": reward, **more}


def make_run(
    folder: Path,
    *,
    metrics: str | None = None,
    samples: list[dict[str, Any]] | None = None,
    evaluation: Any = None,
    config: str | None = None,
    overrides: str | None = None,
) -> Path:
    """A run folder with these files and no others."""
    (folder / ".hydra").mkdir(parents=True)
    rows = None if samples is None else "".join(json.dumps(row) + "\n" for row in samples)
    texts = {
        "metrics.csv": metrics,
        "samples.jsonl": rows,
        "evaluation.json": None if evaluation is None else json.dumps(evaluation),
        ".hydra/config.yaml": config,
        ".hydra/overrides.yaml": overrides,
    }
    for name, text in texts.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def report_of(*folders: Path) -> Page:
    return Page(write_report(folders, folders[0].parent / "report.html"))


def line_paths(page: Page, run: int = 0) -> list[dict[str, str | None]]:
    """The curves of a run: the paths inside pictures that are stroked in its colour and not filled."""
    return [
        attrs
        for tag, attrs in page.elements
        if tag == "path" and re.search(rf"fill: none;.*stroke: var\(--run-{run}\)", attrs.get("style") or "")
    ]


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    return make_run(
        tmp_path / "tuned",
        metrics=(
            "epoch,rollout/reward,rollout/reward/sentiment,policy/kl,perf/epoch_seconds,mine/own\n"
            "0,,0.5,0.0,30,7\n"
            "1,0.25,0.5,3.5,60,8\n"
            "2,0.75,0.5,9.25,30,9\n"
            "3,nan,0.5,inf,,9\n"
        ),
        samples=[answer(f"p{e}", f"said in {e}", e / 10, epoch=e, **{"reward/tone": 0.5}) for e in range(5)],
        evaluation={
            "metrics": {"eval/reward": 0.875, "eval/perplexity": 1234.0, "eval/new": 3.0},
            "records": [answer("hello", "I love it", 0.9, reference="hey"), answer("bye", "See you", None)],
            "reference": {
                "metrics": {"eval/reward": 0.125, "eval/perplexity": 1300.0},
                "records": [answer("hello", "what", -0.1), answer("bye", "", 0.2)],
            },
        },
        config="seed: 7\n",
        overrides="- algorithm=ppo\n- task.path=my file.txt\n",
    )


# What it says


def test_summary_names_run_command_and_first_and_last_numbers(full_run: Path) -> None:
    page = report_of(full_run)
    assert "<title>tuned · feedtune report</title>" in page.source
    assert "feedtune train algorithm=ppo 'task.path=my file.txt'" in page.text
    assert "Held-out reward 0.125 → 0.875 before, after" in page.text
    # The first and the last epoch with a number: 1 and 2. The KL's last is 9.25, inf is none.
    assert "Rollout reward 0.25 → 0.75 first, last epoch" in page.text
    assert "KL to the reference 9.25 nats a response" in page.text
    # 30 s + 60 s + 30 s and an empty cell
    assert "Epochs 4 Time 2 minutes" in page.text


def test_loss_stands_in_for_the_reward_of_a_run_without_rollouts(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "sft", metrics="epoch,loss/policy\n0,6.5\n1,3.25\n"))
    assert "Loss 6.5 → 3.25 first, last epoch" in page.text
    assert "Rollout reward" not in page.text


def test_before_and_after_share_a_row(full_run: Path) -> None:
    text = report_of(full_run).text
    heads = "Prompt Before After Reward before Reward after"
    assert f"{heads} hello Expected hey what I love it {MINUS}0.1 0.9" in text
    assert f"bye (empty) See you 0.2 {DASH}" in text  # an empty answer, and one without a reward
    assert f"eval/reward 0.125 0.875 eval/perplexity 1,300 1,234 eval/new {DASH} 3" in text


def test_evaluation_without_reference_lists_the_responses(tmp_path: Path) -> None:
    found = {"metrics": {"eval/reward": 0.5}, "records": [answer("hello", "hi", 0.5)], "reference": None}
    text = report_of(make_run(tmp_path / "run", evaluation=found)).text
    assert "Held-out reward 0.5" in text
    assert "Held-out metric Value eval/reward 0.5 Prompt Response Reward hello hi 0.5" in text
    assert "Before" not in text


def test_long_evaluations_are_folded_and_cut(tmp_path: Path) -> None:
    found = {"metrics": {}, "records": [answer(f"prompt {i}.", "x") for i in range(120)]}
    page = report_of(make_run(tmp_path / "run", evaluation=found))
    # 12 open, 88 folded, 20 left to the file
    assert "88 more prompts" in page.text
    assert "prompt 99." in page.text
    assert "prompt 100." not in page.text
    assert "The first 100 of 120; evaluation.json has all." in page.text


def test_samples_of_the_first_middle_and_last_epoch(full_run: Path) -> None:
    text = report_of(full_run).text
    over_time = text[text.index("Samples over time") : text.index("Configuration")]
    assert re.findall(r"said in (\d)", over_time) == ["0", "2", "4"]  # of epochs 0 to 4
    assert "Epoch 4 Prompt p4 Response said in 4 reward 0.4 · tone 0.5" in over_time


def test_best_and_worst_come_from_the_last_epoch_when_nothing_was_evaluated(tmp_path: Path) -> None:
    rewards = [0.3, 0.9, None, -0.5, 0.1, 0.8, 0.7]  # six scored: three best, three worst
    samples = [answer("old", "old", 5.0, epoch=0)]
    samples += [answer("p", f"r{i}", reward, epoch=1) for i, reward in enumerate(rewards)]
    text = report_of(make_run(tmp_path / "run", samples=samples)).text
    chosen = text[text.index("Best and worst") :]
    assert re.findall(r"Response (\w+)", chosen) == ["r1", "r5", "r6", "r3", "r4", "r0"]


def test_configuration_is_folded(full_run: Path) -> None:
    page = report_of(full_run)
    assert '<details class="config"><summary>.hydra/config.yaml</summary>' in page.source
    assert "seed: 7" in page.text


def test_long_text_is_folded_and_whole(tmp_path: Path) -> None:
    said = "word " * 400 + "end"
    page = report_of(make_run(tmp_path / "run", samples=[answer("p", said, 1.0, epoch=0)]))
    assert ("details", {"class": "long"}) in page.elements
    assert said in page.texts


@pytest.mark.parametrize("file", ["metrics.csv", "samples.jsonl", "evaluation.json"])
def test_one_file_is_enough(full_run: Path, file: str) -> None:
    for other in {"metrics.csv", "samples.jsonl", "evaluation.json"} - {file}:
        (full_run / other).unlink()
    shutil.rmtree(full_run / ".hydra")
    text = report_of(full_run).text
    assert ("Curves" in text) == (file == "metrics.csv")
    assert ("Samples over time" in text) == (file == "samples.jsonl")
    assert ("Before and after" in text) == (file == "evaluation.json")
    assert "feedtune train" not in text
    assert "Configuration" not in text


def test_a_run_that_has_not_ended_an_epoch(tmp_path: Path) -> None:
    text = report_of(make_run(tmp_path / "new", metrics="epoch,rollout/reward\n")).text
    assert "Epochs 0" in text
    assert "Curves" not in text


# Several runs


def test_runs_stand_side_by_side_in_their_own_colours_and_dashes(tmp_path: Path) -> None:
    curve = "epoch,loss/policy\n0,1\n1,2\n"
    folders = [make_run(tmp_path / "pair" / name, metrics=curve) for name in ("sft", "ppo")]
    page = report_of(*folders)
    assert "2 runs side by side pair" in page.text
    assert [link for link in page.attributes("href") if link and link.startswith("#run")] == [
        "#run-1",
        "#run-2",
    ]
    assert {"run-1", "run-2"} <= set(page.attributes("id"))
    solid, dashed = line_paths(page, 0), line_paths(page, 1)
    assert (len(solid), len(dashed)) == (1, 1)
    assert "dasharray" not in (solid[0]["style"] or "")
    assert "dasharray" in (dashed[0]["style"] or "")


def test_namesakes_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / day / "run", metrics="epoch\n0\n") for day in ("monday", "tuesday")]
    text = Page(write_report(folders, tmp_path / "report.html")).text
    assert "monday/run" in text
    assert "tuesday/run" in text


def test_a_folder_named_twice_counts_once(full_run: Path) -> None:
    assert "side by side" not in report_of(full_run, full_run / ".." / "tuned").text


# Curves


def test_each_metric_has_a_picture_with_its_numbers_in_words(full_run: Path) -> None:
    page = report_of(full_run)
    pictures = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"]
    assert [attrs["aria-label"] for attrs in pictures] == [
        "Reward: from 0.25 to 0.75",
        "Reward: sentiment: from 0.5 to 0.5",
        "KL to the reference: from 0 to 9.25",
        "Epoch: from 30 to 30",
        "mine/own: from 7 to 9",
    ]
    hidden = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") != "img"]
    assert all(attrs["aria-hidden"] == "true" for attrs in hidden)


def test_a_metric_without_any_value_has_no_picture(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a,b\n0,1,\n1,2,nan\n"))
    assert [label[0] for label in page.attributes("aria-label", "svg") if label] == ["a"]


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "-inf", "1e300"])
def test_cells_without_a_number_are_gaps(tmp_path: Path, cell: str) -> None:
    values = ["1", "2", cell, "3", "4", cell, "5"]
    rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values))
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a\n" + rows))
    (line,) = line_paths(page)
    # Two strokes of two epochs each; the last epoch stands alone and is a dot.
    strokes = re.findall(r"M [^M]*L [^M]*", line["d"] or "")
    assert len(strokes) == 2
    dots = [
        attrs for tag, attrs in page.elements if tag == "use" and "var(--run-0)" in (attrs["style"] or "")
    ]
    assert len(dots) == 1


@pytest.mark.parametrize(("epochs", "lines"), [(39, 1), (40, 2)])
def test_many_epochs_are_smoothed_over_the_faint_raw_curve(tmp_path: Path, epochs: int, lines: int) -> None:
    rows = "".join(f"{epoch},{epoch % 2}\n" for epoch in range(epochs))
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a\n" + rows))
    found = [attrs["style"] or "" for attrs in line_paths(page)]
    assert len(found) == lines
    assert ["stroke-opacity" in style for style in found] == [True, False][2 - lines :]
    assert ("moving average" in page.text) == (lines == 2)


def test_smoothing_by_hand() -> None:
    # (2+4)/2, (2+4+9)/3, (4+9)/2 beside the gap, the gap, (8+6)/2 beside the gap, (8+6)/2 at the end
    values = np.array([2.0, 4.0, 9.0, np.nan, 8.0, 6.0])
    np.testing.assert_allclose(smooth(values, 3), [3.0, 5.0, 6.5, np.nan, 7.0, 7.0])


def test_numbers_as_large_as_floats_go(tmp_path: Path) -> None:
    rows = "epoch,a,b\n0,3.4e38,1e-300\n1,-3.4e38,-1e99\n"
    assert f"3.4e+38 → {MINUS}3.4e+38" in report_of(make_run(tmp_path / "run", metrics=rows)).text


# It needs nothing else, and gives the same bytes


def test_the_page_refers_to_nothing_outside_itself(full_run: Path) -> None:
    page = report_of(full_run)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "base", "form"}
    links = page.attributes("href") + page.attributes("xlink:href") + page.attributes("src")
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page.source)
    assert "default-src 'none'" in (page.attributes("content")[0] or "")


def test_ids_are_distinct_and_references_lead_somewhere(tmp_path: Path) -> None:
    rows = "epoch,a,b,c\n" + "".join(f"{e},{e},{e},{e}\n" for e in range(3))
    page = report_of(*(make_run(tmp_path / name, metrics=rows) for name in ("one", "two")))
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    used = [
        link[1:]
        for link in page.attributes("xlink:href") + page.attributes("href")
        if link and link[0] == "#"
    ]
    used += re.findall(r"url\(#(.*?)\)", page.source)
    assert used
    assert set(used) <= set(ids)


def test_same_input_same_bytes_whatever_matplotlib_was_told(
    full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its import fails: it sets a global backend
    first = write_report([full_run], full_run / "a.html").read_bytes()
    with monkeypatch.context() as patch:
        for key, value in {"svg.fonttype": "path", "lines.linewidth": 9.0, "axes.grid": True}.items():
            patch.setitem(matplotlib.rcParams, key, value)
        before = matplotlib.rcParams.copy()
        second = write_report([full_run], full_run / "b.html").read_bytes()
        assert matplotlib.rcParams.copy() == before
    assert first == second


def test_curves_need_the_extra(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"feedtune report needs .*'matplotlib'.*feedtune\[report\]"):
        report_of(full_run)
    (full_run / "metrics.csv").unlink()
    assert "Before and after" in report_of(full_run).text  # no curves, no matplotlib


# Text of models is data


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_markup(tmp_path: Path, attack: str) -> None:
    metrics = 'epoch,"{0}","rollout/reward/{0}"\n0,1,1\n1,2,2\n'.format(attack.replace('"', '""'))
    record = answer(attack, attack, 1.0, reference=[attack])
    folder = make_run(
        tmp_path / "run",
        metrics=metrics,
        samples=[answer(attack, attack * 40, 1.0, epoch=0, **{f"reward/{attack}": 1.0})] * 2,
        evaluation={
            "metrics": {attack: 1.0},
            "records": [record, record],
            "reference": {"metrics": {attack: 1.0}, "records": [record, record]},
        },
        config=attack,
        overrides=json.dumps([attack]),
    )
    page = report_of(folder)
    text = "benign"
    harmless = report_of(
        make_run(
            tmp_path / "other",
            metrics=f"epoch,{text},rollout/reward/{text}\n0,1,1\n1,2,2\n",
            samples=[answer(text, text * 400, 1.0, epoch=0, **{f"reward/{text}": 1.0})] * 2,
            evaluation={
                "metrics": {text: 1.0},
                "records": [answer(text, text, 1.0, reference=[text])] * 2,
                "reference": {"metrics": {text: 1.0}, "records": [answer(text, text, 1.0)] * 2},
            },
            config=text,
            overrides=json.dumps([text]),
        )
    )
    # The same elements with the same attribute names as with harmless text, and the attack word for word.
    assert [(tag, sorted(attrs)) for tag, attrs in page.elements] == [
        (tag, sorted(attrs)) for tag, attrs in harmless.elements
    ]
    assert page.texts.count(attack) == harmless.texts.count(text) > 10
    assert any(attack in (label or "") for label in page.attributes("aria-label"))


def test_run_folders_with_hostile_names(tmp_path: Path) -> None:
    curve = "epoch,a\n0,1\n1,2\n"
    folders = [make_run(tmp_path / name, metrics=curve) for name in ("<b>\u202ex", '"&')]
    page = report_of(*folders)
    assert page.texts.count("<b>U+202Ex") == 3  # summary, legend, section
    assert ': <b>U+202Ex from 1 to 2; "& from 1 to 2' in (
        page.attributes("aria-label", "svg")[0] or page.source
    )


def test_text_that_would_reorder_or_hide_itself_is_spelled_out(tmp_path: Path) -> None:
    said = "a\u202eb\u2066c\u200fd\u200be\x00f\x1b[31m\ud800g\u061ch\U000e0041"
    page = report_of(make_run(tmp_path / "run", samples=[answer("p", said, 1.0, epoch=0)]))
    spelled = "a U+202E b U+2066 c U+200F d U+200B e U+0000 f U+001B [31m U+D800 g U+061C h U+E0041"
    assert spelled in page.text
    assert not (set(said) - set("abcdefgh[31m")) & set(page.source)


def test_text_of_other_scripts_stays_as_it_is_in_its_own_direction(tmp_path: Path) -> None:
    said = "مرحبا 你好 👩\u200d🚀\nnext\tline"
    page = report_of(make_run(tmp_path / "run", samples=[answer("p", said, 1.0, epoch=0)]))
    assert f'<div class="said" dir="auto">{said}</div>' in page.source


@given(st.text())
def test_visible_text_reads_as_plain_text_does(text: str) -> None:
    assert html.unescape(re.sub(r"<[^>]*>", "", visible(text))) == plain(text)
    assert plain(plain(text)) == plain(text)
    plain(text).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.9126, "0.913"),
        (-0.5, f"{MINUS}0.5"),
        (999.6, "1,000"),
        (1234.6, "1,235"),
        (2e6, "2e+06"),
    ],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert number(value) == shown


# Bad input


GOOD = json.dumps(answer("p", "r", 1.0, epoch=0))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.csv", "", r"metrics.csv:1: expected a header .* 'epoch'"),
        ("metrics.csv", "step,a\n0,1\n", r"metrics.csv:1: expected a header .* 'epoch'"),
        ("metrics.csv", "epoch,a,a\n0,1,1\n", r"metrics.csv:1: expected a header of distinct names"),
        ("metrics.csv", "epoch,a\n0,1\n1\n", r"metrics.csv:3: expected 2 cells as in the header, got 1"),
        ("metrics.csv", "epoch,a\n0,1\n1,x1\n", r"metrics.csv:3: a: expected a number, got 'x1'"),
        ("metrics.csv", b"epoch,a\n0,\xff\n", r"metrics.csv: expected UTF-8 text; byte 10 is not"),
        ("metrics.csv", "epoch" + "," * 9 + "x" * 200_000, r"metrics.csv: not a table"),
        ("samples.jsonl", GOOD + "\n{oops\n", r"samples.jsonl:2: not valid JSON \(Expecting property name"),
        (
            "samples.jsonl",
            GOOD + "\n\n[1]\n",
            r"samples.jsonl:3: expected an object whose 'prompt' is a text",
        ),
        ("samples.jsonl", '{"prompt": "p"}\n', r"samples.jsonl:1: .* 'response' is a text"),
        (
            "samples.jsonl",
            '{"prompt": "p", "response": "r"}\n',
            r"samples.jsonl:1: 'epoch': expected a number",
        ),
        ("samples.jsonl", GOOD.replace("1.0", '"high"'), r"samples.jsonl:1: 'reward': .* got 'high'"),
        ("samples.jsonl", "[" * 200_000, r"samples.jsonl:1: not valid JSON \(.* nested too deeply\)"),
        ("samples.jsonl", "1" * 5_000, r"samples.jsonl:1: not valid JSON"),
        ("evaluation.json", '{\n"metrics": }', r"evaluation.json:2: not valid JSON"),
        ("evaluation.json", "[]", r"evaluation.json: expected an object with 'metrics'"),
        ("evaluation.json", '{"metrics": {"a": "b"}, "records": []}', r"evaluation.json: metrics.a: .* 'b'"),
        ("evaluation.json", '{"metrics": {}, "records": [{}]}', r"evaluation.json: records\[0\]: expected"),
        (
            "evaluation.json",
            json.dumps(
                {
                    "metrics": {},
                    "records": [answer("a", "x")],
                    "reference": {"metrics": {}, "records": [answer("b", "x")]},
                }
            ),
            r"evaluation.json: reference.records: expected the prompts of records",
        ),
        (".hydra/overrides.yaml", "- [", r"overrides.yaml: not valid YAML"),
        (".hydra/overrides.yaml", "a: 1", r"overrides.yaml: expected a list of overrides, got 'a: 1'"),
    ],
)
def test_malformed_files_are_named_and_nothing_is_written_over(
    full_run: Path, file: str, content: str | bytes, message: str
) -> None:
    out = full_run / "report.html"
    out.write_text("the last report")
    (full_run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        write_report([full_run], out)
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value).replace(str(full_run), "")) < 200
    assert out.read_text() == "the last report"


def test_folders_that_are_no_runs(full_run: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        report_of(full_run.parent / "nowhere")
    with pytest.raises(
        UserError, match=r"not a run folder: expected one of metrics.csv, .* It holds runs: tuned\."
    ):
        report_of(full_run.parent)
    with pytest.raises(UserError, match=r"expected one of [^.]*\.csv, [^ ]*, evaluation.json in it\.$"):
        report_of(full_run / ".hydra")
    with pytest.raises(UserError, match="at least one run folder"):
        write_report([], full_run / "report.html")


# The command


def test_command_writes_beside_one_run_and_here_for_several(
    full_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(full_run.parent / "other", metrics="epoch\n0\n")
    monkeypatch.chdir(full_run.parent)
    assert main(["tuned"]) == 0
    assert main(["tuned", str(other)]) == 0
    assert main(["tuned", "--out", "new/folder/mine.html"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["tuned/report.html", "report.html", "new/folder/mine.html"]
    assert all("feedtune report" in Page(Path(name)).text for name in printed)


def test_command_refuses_to_write_over_what_is_no_report(full_run: Path) -> None:
    with pytest.raises(UserError, match=r"--out: expected a name that ends in .html, got '.*metrics.csv'"):
        main([str(full_run), "--out", str(full_run / "metrics.csv")])
    (full_run / "folder.html").mkdir()
    with pytest.raises(UserError, match=r"folder.html: cannot write the report \(Is a directory\)"):
        main([str(full_run), "--out", str(full_run / "folder.html")])


def test_command_without_folders_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "DIR" in capsys.readouterr().err


# In a browser


def in_browser(page: Path, profile: Path) -> str:
    """The page's document after it was loaded, as HTML."""
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=3000 --dump-dom"
    command = ["chromium", *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.browser
def test_nothing_runs_and_nothing_overflows_a_phone(full_run: Path, tmp_path: Path) -> None:
    samples = [answer(attack, "x" * 300 + attack, 1.0, epoch=i) for i, attack in enumerate(ATTACKS)]
    (full_run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    source = report_of(full_run).source
    # Without the policy that forbids scripts: escaping alone has to hold.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert bare != source
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe style="width:360px;height:800px;border:0" srcdoc="{html.escape(bare)}"></iframe>'
        "<script>const frame = document.querySelector('iframe'); frame.onload = () => {"
        "const page = frame.contentDocument, root = page.documentElement;"
        "document.title = page.title + (root.scrollWidth > root.clientWidth ? ' overflows' : ' fits');"
        "}</script>",
        encoding="utf-8",
    )
    title = re.search(r"<title>(.*?)</title>", in_browser(frame, tmp_path / "profile"))
    assert title is not None
    assert title[1] == "tuned · feedtune report fits"
