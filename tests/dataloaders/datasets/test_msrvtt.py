"""MSR-VTT's lists and captions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dataloaders.caption_split import TextVideoPair
from dataloaders.datasets.msrvtt import read_standard_split, read_test_pairs, read_test_split, read_train_split


def test_pairs_keep_their_order_commas_and_quotes(tmp_path: Path):
    path = tmp_path / "test.csv"
    path.write_text(
        'key,vid_key,video_id,sentence\nret0,msr1,video9,"a ""red"" ball, bouncing"\nret1,msr2,video3,dogs\n'
    )
    assert read_test_pairs(path) == [TextVideoPair("video9", 'a "red" ball, bouncing'), TextVideoPair("video3", "dogs")]


def test_rows_with_the_same_video_are_its_several_captions(tmp_path: Path):
    path = tmp_path / "test.csv"
    path.write_text("video_id,sentence\nvideo9,a ball\nvideo3,dogs\nvideo9,a red ball\n")
    split = read_test_split(path)
    assert split.video_ids == ["video9", "video3"]
    assert split.captions == ["a ball", "a red ball", "dogs"]
    assert split.caption_video.tolist() == [0, 0, 1]


def test_what_is_wrong_with_a_list_is_said(tmp_path: Path):
    path = tmp_path / "test.csv"
    with pytest.raises(FileNotFoundError, match=r"test\.csv: no such list of test pairs \(--val_csv\)"):
        read_test_pairs(path)
    with pytest.raises(FileNotFoundError, match=r"test\.csv: no such list of test pairs \(--test_csv\)"):
        read_test_split(path, "--test_csv")
    path.write_text("video_id,caption\nvideo1,a dog\n")
    with pytest.raises(ValueError, match=r"test\.csv: no column sentence; found \['video_id', 'caption'\]"):
        read_test_pairs(path)
    path.write_text("video_id,sentence\n")
    with pytest.raises(ValueError, match=r"test\.csv: no rows"):
        read_test_pairs(path)
    path.write_text("video_id,sentence\nvideo1,a dog\nvideo2,\n")
    with pytest.raises(ValueError, match=r"test\.csv, line 3: no video_id or no sentence"):
        read_test_pairs(path)


def write_train(folder: Path, video_ids: list[str], sentences: Any) -> tuple[Path, Path]:
    (folder / "train.csv").write_text("video_id\n" + "".join(f"{video_id}\n" for video_id in video_ids))
    (folder / "data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    return folder / "train.csv", folder / "data.json"


def sentence(video_id: str, caption: str) -> dict[str, str]:
    return {"video_id": video_id, "caption": caption}


def test_training_videos_get_all_their_captions_in_the_order_of_the_file(tmp_path: Path):
    sentences = [sentence("b", "b 1"), sentence("a", "a 1"), sentence("test", "no"), sentence("b", "b 2")]
    split = read_train_split(*write_train(tmp_path, ["a", "b"], sentences))
    assert split.video_ids == ["a", "b"]
    assert split.captions == ["a 1", "b 1", "b 2"]
    assert split.captions_per_video.tolist() == [1, 2]


def test_training_videos_without_caption_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = write_train(tmp_path, [f"v{number}" for number in range(8)], [sentence("v6", "a dog")])
    with caplog.at_level(logging.WARNING):
        assert read_train_split(*files).video_ids == ["v6"]
    (message,) = caplog.messages
    assert "data.json: no caption of 7 of 8 videos: v0, v1, v2, v3, v4, ...; they are left out" in message
    files = write_train(tmp_path, ["v1", "v2"], [sentence("video1", "a dog")])
    with pytest.raises(ValueError, match=r"data\.json: no caption of 2 of 2 videos: v1, v2; do the list"):
        read_train_split(*files)


def test_what_is_wrong_with_training_files_is_said(tmp_path: Path):
    train_csv, data = write_train(tmp_path, ["a"], [sentence("a", "a dog"), {"video_id": "a", "caption": None}])
    with pytest.raises(ValueError, match=r"data\.json: sentence 1 is .*None"):
        read_train_split(train_csv, data)
    data.write_text("[]")
    with pytest.raises(ValueError, match=r"data\.json has no list 'sentences'"):
        read_train_split(train_csv, data)
    data.write_text('{"sentences": [')
    with pytest.raises(ValueError, match=r"data\.json is not JSON"):
        read_train_split(train_csv, data)
    with pytest.raises(FileNotFoundError, match=r"gone\.json.*--data_path"):
        read_train_split(train_csv, tmp_path / "gone.json")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv.*--train_csv"):
        read_train_split(tmp_path / "gone.csv", data)


def test_a_file_of_the_real_size_is_read_whole(tmp_path: Path):
    sentences = [sentence(f"video{number % 10_000}", f"caption {number}") for number in range(200_000)]
    split = read_train_split(*write_train(tmp_path, [f"video{number}" for number in range(9_000)], sentences))
    assert len(split.captions) == 180_000 and set(split.captions_per_video.tolist()) == {20}
    assert split.captions[20:22] == ["caption 1", "caption 10001"]


def test_the_real_lists_are_read(shared: Path):
    folder = shared / "realdata/msrvtt"
    split = read_test_split(folder / "MSRVTT_JSFUSION_test.csv")
    assert len(split.video_ids) == len(split.captions) == 1000 and split.video_ids[0] == "video9770"
    split = read_train_split(folder / "MSRVTT_train.9k.csv", folder / "MSRVTT_data.partial.json")
    assert len(split.video_ids) == 9000 and split.captions_per_video.min() >= 1


def test_the_usual_split_goes_by_numbers(tmp_path: Path):
    ids = ["video7010", "video6513", "video0", "video6512", "video7009", "video9999", "video10000", "other7"]
    sentences = [{"video_id": video_id, "caption": f"{video_id} {n}"} for n in range(2) for video_id in ids]
    path = tmp_path / "MSRVTT_data.json"
    path.write_text(json.dumps({"sentences": sentences}))
    splits = {name: read_standard_split(path, name) for name in ("train", "val", "test")}
    assert {name: split.video_ids for name, split in splits.items()} == {
        "train": ["video0", "video6512"],
        "val": ["video6513", "video7009"],
        "test": ["video7010", "video9999"],
    }
    assert splits["test"].captions == ["video7010 0", "video7010 1", "video9999 0", "video9999 1"]
    path.write_text(json.dumps({"sentences": sentences[:1]}))
    with pytest.raises(ValueError, match="no caption of video0 to video6512, the train videos"):
        read_standard_split(path, "train")


def test_the_real_usual_split(shared: Path):
    path = shared / "realdata/msrvtt/MSRVTT_data.partial.json"
    counts = {name: len(read_standard_split(path, name).video_ids) for name in ("train", "val", "test")}
    assert counts == {"train": 6513, "val": 497, "test": 2990}
