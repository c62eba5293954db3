"""Folders and files that are not what they should be are refused by name and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedtune.errors import UserError
from feedtune.report import write_report
from report_pages import answer, report_of

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
