"""scripts/ablation.sh with a stand-in for Python that leaves what training leaves, and once for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_scripts import PATHS, ROOT, SCRIPTS
from utils.evaluation.ablation_rows import KINDS, read_rows

OWN = ("SEEDS", "ROWS", "TASKS", "DATASET", "CHAIN", "TRUTH", "DEMO", "NPROC", "MASTER_PORT", "VENV")
# Notes each call on one line. A stage leaves its files unless $BREAK is in its folder's name; $STOP: it was stopped.
FAKE = r"""#!/bin/bash
echo "$*" >> calls.txt
previous="" folder=""
for word in "$@"; do
  [ "$previous" != --output_dir ] || folder="$word"
  [ "$previous" != --output ] || { mkdir -p "$(dirname "$word")" && echo "{}" > "$word"; }
  previous="$word"
done
[ -n "$folder" ] || exit 0
case "$folder" in *"${BREAK:-none}"*) exit 1 ;; esac
echo state > "$folder/restore.bin"
case "$folder" in *"${STOP:-none}"*) echo "INFO stopped by a signal after step 3" >> "$folder/log.txt"; exit 0 ;; esac
echo done >> "$folder/log.txt"
case "$folder" in */pretraining) ;; *) echo "{}" > "$folder/metrics.json" ;; esac
"""


class Caller:
    """A folder from which the script is called; `calls` are the words of each call of Python since the last look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "python").write_text(FAKE)
        (folder / "python").chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        flags = [f"{task}_FLAGS" for task in ("PRETRAINING", "QUESTION_ANSWERING", "CAPTIONING")]
        own = {name: value for name, value in os.environ.items() if name not in (*PATHS, *OWN, *flags)}
        return subprocess.run(
            ["bash", os.path.relpath(SCRIPTS / "ablation.sh", self.folder), *arguments],
            cwd=self.folder,
            # OUT is a name of the script's own, which the caller's environment may have too.
            env={**own, "PYTHON": "./python", "OUTPUT_DIR": "out", "OUT": "elsewhere", "SEEDS": "0", **environment},
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.txt"
        found = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def stages(self) -> dict[str, list[str]]:
        """Words of each stage that was run, by {row}-seed{seed}/{stage}."""
        calls = [words for words in self.calls() if "--output_dir" in words]
        return {value(words, "--output_dir").removeprefix("out/runs/"): words for words in calls}


def value(words: list[str], flag: str) -> str:
    """A flag's last value, which wins."""
    return words[len(words) - words[::-1].index(flag)]


def switched(words: list[str], name: str) -> bool:
    """Whether the last of --name and --no-name is the first one."""
    return [word for word in words if word in (f"--{name}", f"--no-{name}")][-1] == f"--{name}"


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path)


def test_each_row_has_its_parts_and_all_else_alike(caller: Caller):
    flags = "--frame_dropout 0.5 --loss_weights object_noun=3,vtm=2"
    done = caller.run("--lr", "0.5", PRETRAINING_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    stages = caller.stages()
    tasks = ("pretraining", "question_answering", "captioning")
    assert list(stages) == [f"{row}-seed0/{task}" for row in KINDS for task in tasks]
    parts = {row: (kind.need_object, kind.use_action) for row, kind in KINDS.items()}
    for name, words in stages.items():
        row, task = name.split("-seed0/")
        assert (switched(words, "need_object"), switched(words, "use_action")) == parts[row]
        assert (value(words, "--lr"), value(words, "--seed")) == ("0.5", "0")
        assert ("--trajectory" in words) == (row == "other_trajectory")
        if task != "pretraining":
            assert value(words, "--init_model") == f"out/runs/{row}-seed0/pretraining/restore.bin"
            assert "--loss_weights" not in words
    pretraining = {row: stages[f"{row}-seed0/pretraining"] for row in KINDS}
    assert {row: value(words, "--loss_weights") for row, words in pretraining.items()} == {
        "base": "vtm=2",
        "trajectories": "vtm=2,object_noun=0",
        "nouns": "object_noun=3,vtm=2",
        "actions": "object_noun=3,vtm=2,action_verb=0",
        **dict.fromkeys(("all", "no_frame_dropout", "other_trajectory"), "object_noun=3,vtm=2"),
    }
    dropouts = {row: value(words, "--frame_dropout") for row, words in pretraining.items()}
    assert dropouts == {row: "0" if row == "no_frame_dropout" else "0.5" for row in KINDS}
    assert value(stages["other_trajectory-seed0/captioning"], "--trajectory") == "track"


def test_variables_are_those_of_the_data_sets_scripts(caller: Caller):
    own = {"ROWS": "all", "TASKS": "question_answering retrieval multiple_choice", "CHAIN": "1", "SEEDS": "4 2"}
    own |= {"QUESTIONS": "my/questions", "VIDEOS": "my/videos", "OBJECT_PATH": "my/objects", "MODEL_PATH": "my/model"}
    own |= {"RETRIEVAL_FLAGS": "--val_csv 'my/list.csv'", "SHARDS": "my/shards"}
    done = caller.run("--trajectory", "track", **own)
    assert done.returncode == 0, done.stderr
    stages = caller.stages()
    assert [name.split("/")[0] for name in stages] == ["all-seed4"] * 4 + ["all-seed2"] * 4
    first = stages["all-seed2/pretraining"]
    assert (value(first, "--init_model"), value(first, "--train_csv")) == ("my/model", "my/shards")
    assert value(stages["all-seed2/question_answering"], "--msrvtt_qa_test_json") == "my/questions/test.jsonl"
    retrieval, choices = (stages[f"all-seed2/{task}"] for task in ("retrieval", "multiple_choice"))
    assert value(retrieval, "--init_model") == "out/runs/all-seed2/question_answering/best.bin"
    assert value(retrieval, "--init_heads") == "out/runs/all-seed2/pretraining/restore.bin"
    assert (value(retrieval, "--val_csv"), value(choices, "--object_path")) == ("my/list.csv", "my/objects")
    assert "--val_csv my/list.csv" not in " ".join(choices)
    caller.run("--trajectory", "track", ROWS="other_trajectory", TASKS="question_answering")
    assert value(caller.stages()["other_trajectory-seed0/pretraining"], "--trajectory") == "class"


def test_a_finished_row_is_kept_and_a_changed_one_refused(caller: Caller):
    own = {"ROWS": "base nouns"}
    assert caller.run("--lr", "0.5", **own).returncode == 0
    kept = [f"out/rows/{row}-seed0.json" for row in ("base", "nouns")]
    assert [value(words, "--output") for words in caller.calls() if "--output" in words] == kept
    again = caller.run("--lr", "0.5", **own)
    assert again.returncode == 0 and again.stdout.count("kept") == 6
    [table] = caller.calls()
    assert table[0].endswith("utils/ablation_table.py") and table[1:] == ["out"]
    changed = caller.run("--lr", "0.25", **own)
    assert changed.returncode == 1 and not caller.stages()
    assert "< 0.5" in changed.stderr and "> 0.25" in changed.stderr
    assert "base-seed0: pretraining was run with other settings" in changed.stderr
    assert "failed: base-seed0 nouns-seed0" in changed.stderr
    more = caller.run("--lr", "0.5", ROWS="base", TASKS="question_answering captioning retrieval")
    assert more.returncode == 0 and list(caller.stages()) == ["base-seed0/retrieval"]


def test_a_moved_folder_is_the_same_and_a_collected_row_is_kept(caller: Caller):
    assert caller.run(ROWS="base").returncode == 0
    caller.calls()
    (caller.folder / "out").rename(caller.folder / "moved")
    (caller.folder / "moved/rows/all-seed0.json").write_text("{}")
    done = caller.run(ROWS="base all", OUTPUT_DIR="moved")
    assert done.returncode == 0 and not caller.stages() and "all-seed0: kept, its runs are elsewhere" in done.stdout


def test_a_failing_row_does_not_stop_the_others(caller: Caller):
    done = caller.run(ROWS="base nouns all", BREAK="nouns-seed0/question")
    assert done.returncode == 1 and "failed: nouns-seed0;" in done.stderr
    stages = list(caller.stages())
    assert "all-seed0/captioning" in stages and "nouns-seed0/captioning" not in stages
    assert caller.run("--lr", "0.5", ROWS="nouns").returncode == 1  # what it has pre-trained is not silently reused
    caller.calls()
    assert caller.run(ROWS="base nouns all").returncode == 0
    assert list(caller.stages()) == ["nouns-seed0/question_answering", "nouns-seed0/captioning"]


def test_a_stage_that_learned_nothing_may_get_other_settings(caller: Caller):
    assert caller.run(ROWS="base", SHARDS="wrong", BREAK="base-seed0/pretraining").returncode == 1
    caller.calls()
    assert caller.run(ROWS="base", SHARDS="right").returncode == 0
    assert value(caller.stages()["base-seed0/pretraining"], "--train_csv") == "right"


@pytest.mark.parametrize("stage", ["pretraining", "captioning"])
def test_a_stage_that_a_signal_stopped_is_not_taken_for_a_finished_one(caller: Caller, stage: str):
    done = caller.run(ROWS="base", STOP=f"/{stage}")
    assert done.returncode == 1 and f"base-seed0: {stage} was stopped" in done.stderr
    assert list(caller.stages())[-1] == f"base-seed0/{stage}" and not (caller.folder / "out/rows").exists()
    assert caller.run(ROWS="base").returncode == 0
    assert next(iter(caller.stages())) == f"base-seed0/{stage}"


def test_frame_dropout_that_no_stage_has_makes_no_row(caller: Caller):
    done = caller.run(ROWS="all no_frame_dropout")
    assert done.returncode == 0 and "no_frame_dropout is left out" in done.stdout
    assert {name.split("/")[0] for name in caller.stages()} == {"all-seed0"}
    assert caller.run(ROWS="no_frame_dropout", CAPTIONING_FLAGS="--frame_dropout=0.3").returncode == 0
    assert "no_frame_dropout-seed0/captioning" in caller.stages()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--use_action"], {}, "--use_action differs between rows"),
        (["--seed=3"], {}, "--seed differs"),
        (["--loss_weights", "vtm=2"], {}, "--loss_weights belong into PRETRAINING_FLAGS"),
        ([], {"CAPTIONING_FLAGS": "--trajectory track"}, "--trajectory is one for all stages"),
        ([], {"CAPTIONING_FLAGS": "--lr '3"}, "CAPTIONING_FLAGS: its quotes do not match"),
        ([], {"ROWS": "bases"}, "there is no bases; there are base trajectories"),
        ([], {"TASKS": "answers"}, "there is no answers; there are question_answering"),
        ([], {"DATASET": "lsmdc"}, "question_answering has no script for lsmdc"),
        ([], {"SEEDS": "0 x"}, "x is no number"),
        ([], {"TASKS": "captioning retrieval", "VAL_CSV": "a"}, "other lists in captioning retrieval"),
        ([], {"DEMO": "2"}, "give 1 or tiny"),
    ],
)
def test_what_cannot_be_run_is_refused_first(
    caller: Caller, arguments: list[str], environment: dict[str, str], message: str
):
    done = caller.run(*arguments, **environment)
    assert done.returncode == 2 and message in done.stderr and not caller.calls()


@pytest.mark.slow
def test_two_rows_of_the_demo_world(caller: Caller):
    """Base and all, questions alone; they are kept and belong together."""
    python = caller.folder / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    parts = [
        (ROOT / name).read_text() for name in ("requirements.txt", "requirements-optional.txt", "requirements.txt")
    ]
    (caller.folder / "venv/.installed-requirements").write_text("".join(parts))
    own = {"DEMO": "tiny", "ROWS": "base all", "TASKS": "question_answering", "VENV": "venv", "NPROC": "1"}
    done = caller.run(**own, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    rows = read_rows(caller.folder / "out/rows")
    assert [row.kind.name for row in rows] == ["base", "all"]
    assert all(len(row.tasks["question_answering"].values["accuracy"]) == 48 for row in rows)
    assert "| + action-verb loss (all) |" in done.stdout and "| + actions | missing | missing |" in done.stdout
