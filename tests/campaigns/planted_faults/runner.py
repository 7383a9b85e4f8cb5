"""Plants one fault, checks the data set, trains on it, and judges both."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.campaigns.planted_faults import agreement
from tests.campaigns.planted_faults.apart import run_apart
from tests.campaigns.planted_faults.faults import MISNAMED, SILENT, Fault
from tests.campaigns.planted_faults.worlds import SIZES, DataSet, copy_data_set, make_shards
from utils.checks.findings import Finding, exit_status

CHECK_SECONDS, TRAIN_SECONDS = 120, 240


@dataclass
class Verdict:
    """What became of a fault; `crash` is how the check ended if it did not end by itself."""

    name: str
    datatype: str
    naming: str
    status: int
    findings: list[Finding] = field(default_factory=list)
    false_alarms: list[Finding] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    crash: str = ""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the fault was named, nothing else was, and training did what was said."""
        wrong = self.naming in (SILENT, MISNAMED) or self.false_alarms or self.disagreements or self.crash
        return not wrong


def try_fault(fault: Fault, worlds: Path, folder: Path, *, with_training: bool = True) -> Verdict:
    """Plant a fault in a copy of its world and judge; the copy is removed."""
    start = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        data = copy_data_set(worlds, folder / "data", fault.datatype)
        fault.plant(data)
        verdict = _check(fault, data, folder)
        if with_training and not verdict.crash:
            verdict.disagreements = _train(fault, data, folder, verdict)
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
    verdict.seconds = time.monotonic() - start
    return verdict


def _flags(fault: Fault, data: DataSet) -> list[str]:
    return [flag.format(folder=data.folder) for flag in fault.flags]


def _check(fault: Fault, data: DataSet, folder: Path) -> Verdict:
    def check() -> int:
        from utils import check_data

        files = [
            "--resolution",
            str(SIZES.image_resolution),
            "--output",
            str(folder / "report.tsv"),
            "--json",
            str(folder / "report.json"),
        ]
        return check_data.main([*data.flags(), *_flags(fault, data), "--workers", "1", *files])

    status = run_apart(check, folder / "check.txt", CHECK_SECONDS)
    output = (folder / "check.txt").read_text(encoding="utf-8", errors="replace")
    if not (folder / "report.json").exists() or "Traceback" in output or status not in (0, 1, 2):
        return Verdict(fault.name, fault.datatype, SILENT, status, crash=output[-1500:] or f"status {status}")
    report = json.loads((folder / "report.json").read_bytes())
    findings = [Finding(entry["kind"], entry["id"], entry["file"], entry["detail"]) for entry in report["findings"]]
    assert status == exit_status(findings)
    naming, false = fault.judge(findings)
    return Verdict(fault.name, fault.datatype, naming, status, findings, false)


def _train(fault: Fault, data: DataSet, folder: Path, verdict: Verdict) -> list[str]:
    if data.name == "webvid":
        return _convert(data, verdict)
    output = folder / "run"
    status = run_apart(lambda: agreement.train(data, output, _flags(fault, data)), folder / "train.txt", TRAIN_SECONDS)
    shards = {finding.video_id for finding in verdict.findings if finding.kind in ("truncated_shard", "missing_shard")}
    ids = {finding.video_id for finding in verdict.findings} - shards | _listed(data)
    run = agreement.read_training(status, data, output, folder / "train.txt", ids)
    return agreement.disagreements(verdict.findings, run)


def _listed(data: DataSet) -> set[str]:
    """Ids of the clips of a sound data set."""
    webvid = data.root if data.name != "pretrain" else data.clip.parent / "demo" / "webvid"
    return set(json.loads((webvid / "truth.json").read_bytes())["videos"])


def _convert(data: DataSet, verdict: Verdict) -> list[str]:
    """Shards are what is trained on: they must be of the clips that the check says are sound."""
    target = data.folder / "shards"
    try:
        make_shards(data.root, target, 2)
    except AssertionError as error:
        if "Traceback" in str(error):
            return [f"traceback: {str(error).strip().splitlines()[-1]}"]
        return [] if verdict.status == 2 else [f"the csv is refused: {str(error).strip()[-300:]}"]
    if verdict.status == 2:
        return ["the check says that training cannot start, and the csv is converted"]
    written = {line.split("\t")[0] for line in (target / "path.index").read_text().splitlines()}
    truth = _listed(data)
    lost = {finding.video_id for finding in verdict.findings if finding.kind in agreement.LOST} & truth
    of_no_row = {*agreement.MAY_BE_LOST, "unreferenced_video"}  # their row has another id
    may = {finding.video_id for finding in verdict.findings if finding.kind in of_no_row}
    wrong = (truth - written) ^ lost
    return [f"not in the shards, or named and in them: {sorted(wrong - may)[:5]}"] if wrong - may else []


def as_json(verdict: Verdict) -> str:
    """A verdict as a line of JSON, with its findings as lists."""
    return json.dumps(asdict(verdict))
