"""Findings on a data set: their kinds and severities, and how they are written down."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from dataloaders.files import atomic_file
from modules.characters import printable
from utils.preparation.webvid_rows import BAD_ID, EMPTY_CAPTION, REPEATED_ID

STOP, ERROR, NOTE = "stop", "error", "note"
SEVERITIES = (STOP, ERROR, NOTE)
EXIT_STATUS = {STOP: 2, ERROR: 1, NOTE: 0}
SHOWN, SHOWN_LENGTH, SHOWN_IDS = 3, 160, 5
CANNOT_START = "cannot_start"
WRONGLY_UNREADABLE, DAMAGED_CACHE = "wrongly_unreadable", "damaged_cache"
REPLACED_TEXT = "replaced_text"
COLUMNS = ("severity", "kind", "id", "file", "detail")

# Kind of finding: its severity, and what it means.
KINDS: dict[str, tuple[str, str]] = {
    CANNOT_START: (STOP, "training cannot start, or would end on the way"),
    "missing_video": (ERROR, "listed videos without a file"),
    "empty_video": (ERROR, "video files of zero bytes"),
    "truncated_video": (ERROR, "video files that end too early"),
    "unreadable_video": (ERROR, "video files of which no frame decodes"),
    "broken_index_line": (ERROR, "lines of the index that are not id, shard and offset"),
    "missing_shard": (ERROR, "shards of the index that are not there or cannot be opened"),
    "truncated_shard": (ERROR, "shards that end before what the index lists in them"),
    "outside_shard": (ERROR, "clips that the index places beyond the end of a whole shard"),
    "other_clip": (ERROR, "clips at whose place the shard holds another one"),
    "damaged_record": (ERROR, "clips at whose place there is no sound record with frames"),
    "undecodable_frame": (ERROR, "clips with frames that do not decode"),
    "missing_rate": (ERROR, "clips whose record lacks frames for --feature_framerate"),
    "unknown_size": (ERROR, "clips with objects of whose video no size is known"),
    WRONGLY_UNREADABLE: (ERROR, "videos that can be read, but that the frame cache remembers as unreadable"),
    BAD_ID: (ERROR, "rows without a usable video id"),
    EMPTY_CAPTION: (ERROR, "videos with captions that hold no word"),
    "empty_question": (ERROR, "questions without text, answer or option"),
    "no_caption": (ERROR, "listed videos without captions"),
    "no_clip": (ERROR, "captions of clips that the index does not list"),
    "missing_objects": (ERROR, "listed videos without an object file"),
    "broken_objects": (ERROR, "object files that cannot be read"),
    "wrong_frame_count": (ERROR, "object files with a wrong number of frames"),
    "other_frames": (ERROR, "clips whose object file is of other frames than are read"),
    "wrong_rect_order": (ERROR, "object files whose boxes make sense in another order or form only"),
    "malformed_object": (ERROR, "object files with objects whose class, rect, conf or attributes cannot be used"),
    "unknown_class": (ERROR, "object files with classes that the label map does not have"),
    "outside_box": (ERROR, "object files with boxes wholly outside the frame"),
    REPEATED_ID: (NOTE, "ids listed more than once; used once"),
    "more_captions": (NOTE, "videos with more than one caption; each is a sample"),
    "repeated_row": (NOTE, "rows with the same video and caption; each counts"),
    "in_two_splits": (NOTE, "videos in more than one split"),
    "short_video": (NOTE, "videos with fewer candidate frames than are picked: frames are repeated"),
    "fewer_frames": (NOTE, "videos of which clearly fewer frames decode than the file states"),
    "degenerate_box": (NOTE, "object files with boxes without area; these are not used"),
    "clipped_box": (NOTE, "object files with boxes beyond the border; these are cut there"),
    "no_objects": (NOTE, "object files without a single usable object"),
    "no_time_stamps": (NOTE, "videos without usable time stamps; their frames are chosen by number"),
    "other_decoder": (NOTE, "videos that PyAV decodes and OpenCV does not"),
    REPLACED_TEXT: (NOTE, "files with halves of characters (lone surrogates), which are replaced"),
    DAMAGED_CACHE: (NOTE, "damages of the frame cache; what it has lost is read anew"),
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


class Report(NamedTuple):
    """All findings in order, the number of videos by split, and of videos (or records) and object files read.

    cache: what --frame_cache has of the videos, as a line.
    """

    findings: list[Finding]
    videos: dict[str, int]
    read: int
    object_files: int
    cache: str | None = None


def stop(reason: object) -> Finding:
    """The finding that training cannot start, or stops on the way."""
    return Finding(CANNOT_START, "", "", str(reason))


def compact(finding: Finding) -> Finding:
    """The same finding with interned text: worker processes send copies, of which there may be millions."""
    kind, video_id, file, detail = finding
    return Finding(sys.intern(kind), video_id, sys.intern(file), sys.intern(detail))


def shown(finding: Finding) -> Finding:
    """The same finding as a terminal and a file can hold it: ids and names of files are whatever data say."""
    return Finding(finding.kind, *map(printable, finding[1:]))


def first_ids(video_ids: Sequence[str]) -> str:
    """The first few ids, for a detail."""
    return ", ".join(video_ids[:SHOWN_IDS]) + (", ..." if len(video_ids) > SHOWN_IDS else "")


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
            text = printable(": ".join(part for part in (finding.video_id, finding.detail) if part))
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
    with atomic_file(path, "w") as file:
        file.write("\t".join(COLUMNS) + "\n")
        file.writelines("\t".join(map(_one_line, (finding.severity, *finding))) + "\n" for finding in findings)


def as_records(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as dictionaries with the keys of COLUMNS."""
    return [dict(zip(COLUMNS, (finding.severity, *finding), strict=True)) for finding in findings]


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
