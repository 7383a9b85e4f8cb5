"""A short training run on a data set, and whether it did what the check said of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloaders.object_store import PROBLEMS_FILE
from tests.campaigns.planted_faults.faults import words_of
from tests.campaigns.planted_faults.worlds import DataSet
from utils.checks.clips import OBJECT_KINDS
from utils.checks.findings import Finding, exit_status

# Kinds of findings whose clips training leaves out, and those of which it may use a part.
LOST = {
    "missing_video", "empty_video", "unreadable_video", "truncated_shard", "outside_shard", "other_clip",
    "damaged_record", "undecodable_frame", "missing_rate", "unknown_size", "other_frames", "no_caption", "bad_id",
}  # fmt: skip
MAY_BE_LOST = {"truncated_video", "empty_caption", "repeated_id", "no_clip", "more_captions", "broken_index_line"}
# The store knows the size of no downstream video, so that it sees only boxes left of and above the frame.
BY_SIZE = {"outside_box", "clipped_box", "no_objects"}
SKIPPED = re.compile(r"skipped (.*): another sample took its place")


@dataclass(frozen=True)
class Training:
    """What a run did: its exit status, its output, the ids that it left out, and the object files with problems."""

    status: int
    output: str
    left_out: set[str]
    objects: set[tuple[str, str]]


def train(data: DataSet, output: Path, flags: Iterable[str] = ()) -> int:
    """Train on a data set for an epoch; the task's exit status."""
    import torch

    torch.set_num_threads(1)
    os.environ["PATH"] = ""  # no Java, whose scores take half a minute and say nothing of the data
    from tasks import eval_captioning, eval_mc, eval_qa, eval_retrieval, pre_training

    tasks = {"retrieval": eval_retrieval, "caption": eval_captioning, "qa": eval_qa, "mc": eval_mc, "": pre_training}
    arguments = [flag for flag in data.flags() if flag != "pretrain"]
    if data.name == "pretrain":
        arguments.remove("--datatype")
    task = tasks[data.datatype.partition("_")[2]]
    return int(task.main([*arguments, *flags, "--output_dir", str(output)]))


def read_training(status: int, data: DataSet, output: Path, log: Path, ids: set[str]) -> Training:
    """Collect what a run has written; `ids` are those of the data set."""
    text = log.read_text(encoding="utf-8", errors="replace")
    left_out: set[str] = set()
    for path in output.glob("missing_*_videos.txt"):
        left_out |= set(path.read_text(encoding="utf-8").split("\n")) - {""}
    skipped = SKIPPED.findall(text)
    if (output / "metrics.json").exists():
        skipped += json.loads((output / "metrics.json").read_bytes()).get("skipped_videos", [])
    for message in (text.split(" is of video ")[0] for text in skipped):  # what it holds instead is not left out
        spaced = {name for name in ids if name != name.strip() and name in message}
        left_out |= spaced | ((words_of(message) & ids) - {name.strip() for name in spaced})
    for message in re.findall(r"no caption of \d+ of \d+ videos: (.*); they are left out", text):
        left_out |= set(message.split(", "))
    return Training(status, text, left_out, set(_object_problems(data)))


def _object_problems(data: DataSet) -> Iterator[tuple[str, str]]:
    """Kind of finding and id of each problem that the object stores have."""
    for path in data.root.rglob(PROBLEMS_FILE):
        for line in path.read_text(encoding="utf-8").splitlines():
            problem, name, *_ = line.split("\t")
            yield OBJECT_KINDS[problem], name.removesuffix("_[0]_[31]").split(".")[0]


def disagreements(findings: list[Finding], run: Training) -> list[str]:
    """Reasons why a run did not do what the findings say; none if it did."""
    status = exit_status(findings)
    if "Traceback" in run.output:
        return [f"traceback: {run.output.strip().splitlines()[-1][:200]}"]
    if run.status not in (0, 1, 2):
        return [f"training ended with {run.status}"]
    if status == 2:
        return [] if run.status else ["the check says that training cannot start, and it ran to the end"]
    if run.status:
        return [f"the check says that training can start: {run.output.strip().splitlines()[-1][:300]}"]
    lost = {name for finding in findings if finding.kind in LOST for name in _ids(finding)}
    may = {name for finding in findings if finding.kind in MAY_BE_LOST for name in _ids(finding)}
    without = {finding.video_id for finding in findings if finding.kind == "no_caption"}
    if f"clips_without_caption {len(without)}" in run.output:  # pre-training gives their number alone
        lost -= without
    cut = [finding.detail for finding in findings if finding.kind == "truncated_shard"]
    if cut and sum(int(detail.split()[0]) for detail in cut) == len(run.left_out):  # the first few are named
        may |= run.left_out
    wrong = []
    if run.left_out - lost - may:
        wrong.append(f"left out, not named: {sorted(run.left_out - lost - may)[:5]}")
    if lost - run.left_out:
        wrong.append(f"named as lost, not left out: {sorted(lost - run.left_out)[:5]}")
    return wrong + _object_disagreements(findings, run)


def _object_disagreements(findings: list[Finding], run: Training) -> list[str]:
    kinds = set(OBJECT_KINDS.values()) - {"missing_objects"} - BY_SIZE
    named = {(finding.kind, finding.video_id) for finding in findings if finding.kind in kinds}
    strays = {finding.video_id for finding in findings if finding.kind == "orphan_objects"}
    stored = {(kind, name) for kind, name in run.objects if kind in kinds and name not in strays}
    return [f"objects: {sorted(stored ^ named)[:5]} for one alone"] if stored != named else []


def _ids(finding: Finding) -> set[str]:
    if finding.kind == "truncated_shard":
        return set(finding.detail.rpartition(": ")[2].removesuffix(", ...").split(", "))
    return {finding.video_id} if finding.video_id else set()
