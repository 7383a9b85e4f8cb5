"""What can be wrong with a data set: kinds of findings, how grave they are, and how they are written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from dataloaders.files import atomic_write_text
from utils.webvid_rows import BAD_ID, EMPTY_CAPTION, REPEATED_ID

STOP, ERROR, NOTE = "stop", "error", "note"
SEVERITIES = (STOP, ERROR, NOTE)
EXIT_STATUS = {STOP: 2, ERROR: 1, NOTE: 0}
SHOWN, SHOWN_LENGTH = 3, 160
CANNOT_START = "cannot_start"
COLUMNS = ("severity", "kind", "id", "file", "detail")

# Kind of finding: its severity, and what it means.
KINDS: dict[str, tuple[str, str]] = {
    CANNOT_START: (STOP, "training cannot start"),
    "missing_video": (ERROR, "listed videos without a file"),
    "empty_video": (ERROR, "video files of zero bytes"),
    "truncated_video": (ERROR, "video files that end too early"),
    "unreadable_video": (ERROR, "video files of which no frame decodes"),
    BAD_ID: (ERROR, "rows without a usable video id"),
    EMPTY_CAPTION: (ERROR, "videos with captions that hold no word"),
    "empty_question": (ERROR, "questions without text, answer or option"),
    "no_caption": (ERROR, "listed videos without captions"),
    "missing_objects": (ERROR, "listed videos without an object file"),
    "broken_objects": (ERROR, "object files that cannot be read"),
    "wrong_frame_count": (ERROR, "object files with a wrong number of frames"),
    "wrong_rect_order": (ERROR, "object files whose boxes only make sense in the other rect order"),
    "malformed_object": (ERROR, "object files with objects without a usable class, rect or conf"),
    "unknown_class": (ERROR, "object files with classes that the label map does not have"),
    "outside_box": (ERROR, "object files with boxes wholly outside the frame"),
    REPEATED_ID: (NOTE, "ids listed more than once; used once"),
    "repeated_row": (NOTE, "rows with the same video and caption; each counts"),
    "in_two_splits": (NOTE, "videos in more than one split"),
    "short_video": (NOTE, "videos with fewer candidate frames than are picked: frames are repeated"),
    "fewer_frames": (NOTE, "videos of which clearly fewer frames decode than the file states"),
    "degenerate_box": (NOTE, "object files with boxes without area; these are not used"),
    "clipped_box": (NOTE, "object files with boxes beyond the border; these are cut there"),
    "no_objects": (NOTE, "object files without a single usable object"),
    "unlisted_captions": (NOTE, "captions of videos in no list; not used"),
    "unreferenced_video": (NOTE, "video files that no list names"),
    "orphan_objects": (NOTE, "object files of no listed video"),
}


class Finding(NamedTuple):
    """One thing that is wrong; `kind` is a key of KINDS."""

    kind: str
    video_id: str
    file: str
    detail: str

    @property
    def severity(self) -> str:
        """One of SEVERITIES."""
        return KINDS[self.kind][0]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without repetition, gravest first, kinds in the order of KINDS, then by id."""
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(dict.fromkeys(findings), key=lambda finding: (place[finding.kind], finding))


def exit_status(findings: Iterable[Finding]) -> int:
    """0: nothing but notes; 1: errors; 2: training cannot start."""
    return max((EXIT_STATUS[finding.severity] for finding in findings), default=0)


def table(findings: Sequence[Finding]) -> list[str]:
    """Lines for a reader: per kind its count, its meaning and the first examples; `findings` as of `in_order`."""
    lines = []
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        found = list(group)
        lines.append(f"{KINDS[kind][0]:5} {len(found):7}  {kind:18} {KINDS[kind][1]}")
        for finding in found[:SHOWN]:
            text = ": ".join(part for part in (finding.video_id, finding.detail) if part)
            lines.append(f"{'':17}{text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH] + ' ...'}")
        if len(found) > SHOWN:
            lines.append(f"{'':17}and {len(found) - SHOWN} more")
    return lines


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Number of findings by kind, in their order; kinds without any are left out."""
    counted: dict[str, int] = {}
    for finding in findings:
        counted[finding.kind] = counted.get(finding.kind, 0) + 1
    return counted


def write_tsv(path: Path, findings: Iterable[Finding]) -> None:
    """Write one line per finding under a line of COLUMNS; the old file or the whole new one is there at any moment."""
    rows = [COLUMNS, *((finding.severity, *finding) for finding in findings)]
    atomic_write_text(path, "".join("\t".join(map(_one_line, row)) + "\n" for row in rows))


def as_records(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as dictionaries with the keys of COLUMNS."""
    return [dict(zip(COLUMNS, (finding.severity, *finding), strict=True)) for finding in findings]


def _one_line(text: str) -> str:
    return " ".join(text.split())
