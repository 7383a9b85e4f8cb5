"""MSR-VTT's csv lists and its captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dataloaders.annotation_files import annotation_file, is_text_record, keep_captioned
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.id_lists import read_ids
from modules.foreign_text import caption_text, read_json, read_table, video_id

# Numbers of the videos of each split of captioning and question answering.
STANDARD_SPLIT = {"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10000)}


def read_test_split(path: str | Path, flag: str = "--val_csv") -> CaptionSplit:
    """Videos and captions of a test list; rows with the same video are its several captions.

    Args:
        path: see `read_test_pairs`, as for the errors.
        flag: where the path was given, for the message.
    """
    return CaptionSplit.from_pairs(read_test_pairs(path, flag))


def read_test_pairs(path: str | Path, flag: str = "--val_csv") -> list[TextVideoPair]:
    """Rows of MSRVTT_JSFUSION_test.csv or another csv with the columns video_id and sentence.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column or a value is missing, or the file has no row.
    """
    path = annotation_file(path, "list of test pairs", flag)
    pairs = []
    for line, row in read_table(path, ("video_id", "sentence")):
        if not row["video_id"] or not row["sentence"].strip():
            raise ValueError(f"{path}, line {line}: no video_id or no sentence")
        place = f"{path}, line {line}"
        pairs.append(TextVideoPair(video_id(row["video_id"], place), caption_text(row["sentence"], place)))
    if not pairs:
        raise ValueError(f"{path}: no rows")
    return pairs


def read_train_split(train_csv: str | Path, data_path: str | Path, flag: str = "--train_csv") -> CaptionSplit:
    """Videos of a list with all their captions; videos without any are left out and logged.

    Args:
        train_csv: MSRVTT_train.9k.csv, MSRVTT_train.7k.csv or another csv with the column video_id.
        data_path: MSRVTT_data.json; its "sentences" are used.
        flag: where the list was given, for the message.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of them is not in this form, or no video of the list has a caption.
    """
    video_ids = read_ids(annotation_file(train_csv, "list of videos", flag))
    wanted = set(video_ids)
    path = annotation_file(data_path, "file of captions")
    pairs = [pair for pair in read_captions(path) if pair.video_id in wanted]
    return CaptionSplit.from_pairs(pairs, keep_captioned(video_ids, {pair.video_id for pair in pairs}, path))


def read_standard_split(data_path: str | Path, split: str) -> CaptionSplit:
    """The usual split of captioning by the videos' numbers: 6,513 for training, 497 for validation, 2,990 for test.

    Args:
        data_path: MSRVTT_data.json.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not in this form, or has no caption of the split's videos.
    """
    path = annotation_file(data_path, "file of captions")
    wanted = STANDARD_SPLIT[split]
    pairs = [pair for pair in read_captions(path) if _number(pair.video_id) in wanted]
    if not pairs:
        raise ValueError(f"{path} has no caption of video{wanted.start} to video{wanted.stop - 1}, the {split} videos")
    return CaptionSplit.from_pairs(sorted(pairs, key=lambda pair: _number(pair.video_id)))


def _number(video_id: str) -> int:
    """N of `video{N}`, -1 of any other id."""
    digits = video_id.removeprefix("video")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else -1


def read_captions(path: Path) -> Iterator[TextVideoPair]:
    """All captions of MSRVTT_data.json; ValueError naming the file if it is not in that form."""
    content = read_json(path)
    sentences = content.get("sentences") if isinstance(content, dict) else None
    if not isinstance(sentences, list):
        raise ValueError(f"{path} has no list 'sentences'; --data_path is MSR-VTT's MSRVTT_data.json")
    for number, entry in enumerate(sentences):
        if not is_text_record(entry, "video_id", "caption"):
            raise ValueError(
                f"{path}: sentence {number} is {str(entry)[:80]}; "
                'sentences are {"video_id": "...", "caption": "...", ...}'
            )
        place = f"{path}: sentence {number}"
        yield TextVideoPair(video_id(entry["video_id"], place), caption_text(entry["caption"], place))
