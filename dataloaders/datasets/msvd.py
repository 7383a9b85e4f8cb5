"""MSVD's split lists and captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataloaders.annotation_files import annotation_file, keep_captioned
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.id_lists import read_ids
from modules.foreign_text import caption_text, read_plain_pickle

CAPTION_FILE = "raw-captions.pkl"
FORM = "it is to hold a plain dictionary: video id -> list of captions, each a list of words"


def read_split(folder: str | Path, split: str) -> CaptionSplit:
    """Videos and captions of a split; videos without captions are left out and logged.

    Args:
        folder: of {train,val,test}_list.txt (one id per line) and raw-captions.pkl.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of them is not in this form, or no video of the list has a caption.
    """
    video_ids = read_ids(annotation_file(Path(folder, f"{split}_list.txt"), "list of videos"))
    path = annotation_file(Path(folder, CAPTION_FILE), "file of captions")
    captions = read_captions(path)
    kept = keep_captioned(video_ids, {video_id for video_id, texts in captions.items() if texts}, path)
    pairs = (TextVideoPair(video_id, text) for video_id in kept for text in captions[video_id])
    return CaptionSplit.from_pairs(pairs, kept)


def read_captions(path: str | Path) -> dict[str, list[str]]:
    """Captions by video id of raw-captions.pkl, their words joined by spaces; files of Python 2 are read too.

    Raises:
        ValueError: the file holds anything but plain dictionaries, lists and text; nothing in it is executed.
    """
    path = Path(path)
    try:
        content = read_plain_pickle(path)
    except ValueError as error:
        raise ValueError(f"{error}; {FORM}. Download it again, or write that dictionary with pickle.dump") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; {FORM}")
    captions: dict[str, list[str]] = {}
    for video_id, entries in content.items():
        if not (isinstance(video_id, str) and isinstance(entries, list) and all(map(_is_words, entries))):
            raise ValueError(f"{path}, video {repr(video_id)[:80]}: {str(entries)[:80]}; {FORM}")
        captions[video_id] = [caption_text(" ".join(words), f"{path}, video {video_id!r}") for words in entries]
    return captions


def _is_words(entry: Any) -> bool:
    return isinstance(entry, list) and all(isinstance(word, str) for word in entry)
