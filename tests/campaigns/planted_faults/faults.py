"""What a planted fault is, and how what the check says of it is judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.campaigns.planted_faults.worlds import DataSet
from utils.checks.findings import CANNOT_START, KINDS, Finding

RIGHT, MISNAMED, SILENT = "named right", "misnamed", "silent"
HARMLESS = ()  # a form that is read as it should be: nothing may be found


@dataclass(frozen=True)
class Fault:
    """A fault, how it is planted, and which findings name it.

    name: its kind. kinds: of findings, any of which names it; HARMLESS: there is to be none. video_id: the id that the
    finding has, or that its detail names. words: which file and detail have. also: kinds of findings that follow from
    it. flags: of the command line, after the others.
    """

    name: str
    datatype: str
    plant: Callable[[DataSet], object]
    kinds: tuple[str, ...]
    video_id: str = ""
    words: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = {*self.kinds, *self.also} - set(KINDS)
        assert not unknown, f"{self.name}: {unknown}"

    def is_named_by(self, finding: Finding) -> bool:
        """Whether a finding names the fault."""
        text = f"{finding.file} {finding.detail}"
        has_id = not self.video_id or finding.video_id == self.video_id or self.video_id in words_of(text)
        return finding.kind in self.kinds and has_id and all(word in text for word in self.words)

    def judge(self, findings: Iterable[Finding]) -> tuple[str, list[Finding]]:
        """RIGHT, MISNAMED or SILENT, and the findings that are false alarms."""
        named, others = [], []
        for finding in findings:
            (named if self.is_named_by(finding) else others).append(finding)
        false = [finding for finding in others if finding.kind not in self.also]
        if named or not self.kinds:
            return RIGHT, false
        return (MISNAMED, []) if others else (SILENT, [])


def words_of(text: str) -> set[str]:
    """Words of a text that may be ids: as they stand, and without the extension of a file."""
    found = set(re.findall(r"[^\s,;:'\"()/\[\]]+", text))
    return found | {word.rsplit(".", 1)[0] for word in found}


def stops(name: str, datatype: str, plant: Callable[[DataSet], object], *words: str, video_id: str = "") -> Fault:
    """A fault at which training does not start."""
    return Fault(name, datatype, plant, (CANNOT_START,), video_id, words)
