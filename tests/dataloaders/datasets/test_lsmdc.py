"""LSMDC's tables of clips and sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataloaders.datasets.lsmdc import FILES, read_split

TIMES = "00.00.01.000\t00.00.02.000\t00.00.01.000\t00.00.02.500"


def write(folder: Path, split: str, rows: list[tuple[str, str]]) -> Path:
    (folder / FILES[split]).write_text("".join(f"{clip}\t{TIMES}\t{text}\n" for clip, text in rows), encoding="utf-8")
    return folder


def test_quotes_are_text_and_clips_may_come_again(tmp_path: Path):
    rows = [("m_1", 'SOMEONE says "no'), ("m_0", "'He' waits."), ("m_1", '"Yes", it is'), ("m_2", "café\u2028bar")]
    split = read_split(write(tmp_path, "train", rows), "train")
    assert split.video_ids == ["m_1", "m_0", "m_2"]
    assert split.captions == ['SOMEONE says "no', '"Yes", it is', "'He' waits.", "café\u2028bar"]
    assert split.caption_video.tolist() == [0, 0, 1, 2]


def test_a_line_with_other_columns_is_named(tmp_path: Path):
    folder = write(tmp_path, "val", [("m_1", "a dog"), ("m_2", "a\tcat")])
    with pytest.raises(ValueError, match=r"annos_val\.csv, line 2: 7 columns, the first 'm_2'.*6 columns"):
        read_split(folder, "val")
    (folder / FILES["val"]).write_text(f"m_1,a dog\nm_2\t{TIMES}\tx\n")
    with pytest.raises(ValueError, match="line 1: 1 columns, the first 'm_1,a dog'"):
        read_split(folder, "val")


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"LSMDC16_challenge_1000_publictect\.csv.*--data_path"):
        read_split(tmp_path, "test")
    (tmp_path / FILES["test"]).write_text("\n")
    with pytest.raises(ValueError, match=r"publictect\.csv: no lines"):
        read_split(tmp_path, "test")
    (tmp_path / FILES["test"]).write_bytes(f"m_1\t{TIMES}\tcaf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"publictect\.csv, line 1: not UTF-8"):
        read_split(tmp_path, "test")


def test_real_clip_ids_survive(shared: Path, tmp_path: Path):
    clip_ids = (shared / "realdata/lsmdc/lsmdc16_val_clip_ids.head200.txt").read_text().split()
    split = read_split(write(tmp_path, "val", [(clip_id, f"of {clip_id}") for clip_id in clip_ids]), "val")
    assert len(clip_ids) == 200 and split.video_ids == clip_ids
    assert split.captions == [f"of {clip_id}" for clip_id in clip_ids]
