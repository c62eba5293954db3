"""What the report says of a run, and of several beside one another."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from feedtune.report import write_report
from report_pages import DASH, MINUS, Page, answer, line_paths, make_run, report_of


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


def test_samples_from_the_first_to_the_last_epoch(full_run: Path) -> None:
    text = report_of(full_run).text
    over_time = text[text.index("Samples over time") : text.index("Configuration")]
    assert re.findall(r"said in (\d)", over_time) == ["0", "1", "3", "4"]  # of epochs 0 to 4
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
