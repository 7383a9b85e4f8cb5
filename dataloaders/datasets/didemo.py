"""DiDeMo's split lists and descriptions, one paragraph per video."""

from __future__ import annotations

from pathlib import Path

from dataloaders.annotation_files import annotation_file, is_text_record, keep_captioned
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.id_lists import read_ids
from modules.foreign_text import caption_text, read_json, video_id

OBJECT_SECONDS = "[0]_[31]"  # the part of the video that object files are named after


def read_split(folder: str | Path, split: str) -> CaptionSplit:
    """Videos of a split, each with all its descriptions joined to one caption in the file's order.

    Descriptions belong to a video by its name with extension, as in CLIP4Clip: some of the real ones name a video of
    the list with another extension, and are not used. Videos without description are left out and logged.

    Args:
        folder: of {train,val,test}_list.txt and {train,val,test}_data.json.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of them is not in this form, or no video of the list has a description.
    """
    names = read_names(folder, split)
    path = annotation_file(Path(folder, f"{split}_data.json"), "file of descriptions")
    paragraphs: dict[str, list[str]] = {}
    for name, description in read_descriptions(path):
        if names.get(video_id_of(name)) == name:
            paragraphs.setdefault(video_id_of(name), []).append(description)
    kept = keep_captioned(list(names), paragraphs, path)
    pairs = (TextVideoPair(video_id, " ".join(paragraphs[video_id])) for video_id in kept)
    return CaptionSplit.from_pairs(pairs, kept, {video_id: f"{names[video_id]}_{OBJECT_SECONDS}" for video_id in kept})


def read_names(folder: str | Path, split: str) -> dict[str, str]:
    """Names with extension, which may be empty after its dot, by video id, in the list's order.

    Raises:
        FileNotFoundError: there is no {split}_list.txt.
        ValueError: it is empty, or two names differ behind their first dot only.
    """
    path = annotation_file(Path(folder, f"{split}_list.txt"), "list of videos")
    names: dict[str, str] = {}
    for name in read_ids(path):
        key = video_id(video_id_of(name), f"{path}: {name!r}")
        if key in names:
            raise ValueError(f"{path}: {names[key]} and {name} would be the same video")
        names[key] = name
    return names


def video_id_of(name: str) -> str:
    """The name up to its first dot, which is the key of the video in the LMDB too."""
    return name.split(".", 1)[0]


def read_descriptions(path: Path) -> list[tuple[str, str]]:
    """Names with extension and descriptions, in the file's order; ValueError naming the file if it is damaged."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a list of descriptions")
    for number, entry in enumerate(content):
        if not is_text_record(entry, "video", "description"):
            raise ValueError(
                f"{path}: entry {number} is {str(entry)[:80]}; "
                'entries are {"video": "...", "description": "...", ...}'
            )
    return [
        (entry["video"], caption_text(entry["description"], f"{path}: entry {number}"))
        for number, entry in enumerate(content)
    ]
