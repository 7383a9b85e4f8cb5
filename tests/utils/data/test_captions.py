"""Flags of captioning: which lists they name, and how captions are searched for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.beam_search import SearchSettings
from modules.config import ModelConfig
from utils.data.captions import (
    CaptionArguments,
    has_validation,
    list_flag,
    open_split,
    read_split,
)
from utils.data.clips import with_words

CONFIG = ModelConfig(max_words=24, context_length=32, max_frames=3)


def arguments(folder: Path = Path("none"), **flags: Any) -> CaptionArguments:
    base: dict[str, Any] = {"output_dir": str(folder / "out"), "do_train": True, "datatype": "msrvtt_caption"}
    return CaptionArguments(**{**base, **flags})


def write_captions(folder: Path, **texts: list[str]) -> str:
    """MSR-VTT's file of captions."""
    sentences = [{"video_id": video_id, "caption": text} for video_id, own in texts.items() for text in own]
    (folder / "data.json").write_text(json.dumps({"sentences": sentences}))
    return str(folder / "data.json")


def write_list(path: Path, *video_ids: str) -> str:
    path.write_text("\n".join(["video_id", *video_ids]) + "\n")
    return str(path)


def test_captions_are_as_long_as_the_models_words_unless_said_otherwise():
    assert arguments().search_settings(CONFIG) == SearchSettings(1, 23, 1.0, 0)
    chosen = arguments(max_caption_words=32, beam_size=5, length_penalty=0.5, no_repeat_ngram=3)
    assert chosen.search_settings(CONFIG) == SearchSettings(5, 31, 0.5, 3)
    with pytest.raises(ValueError, match="--max_caption_words 33: the text tower has positions for 32 tokens"):
        arguments(max_caption_words=33).search_settings(CONFIG)


@pytest.mark.parametrize(
    ("flags", "lists", "validates"),
    [
        ({}, {"train": None, "val": None, "test": None}, True),
        ({"train_csv": "a"}, {"train": "train_csv", "val": None, "test": None}, True),
        ({"val_csv": "a"}, {"train": None, "val": "val_csv", "test": "val_csv"}, False),
        ({"test_csv": "a"}, {"train": None, "val": None, "test": "test_csv"}, True),
        ({"val_csv": "a", "test_csv": "b"}, {"train": None, "val": "val_csv", "test": "test_csv"}, True),
        ({"val_csv": "a", "datatype": "msvd_caption"}, {}, True),
    ],
)
def test_each_split_has_its_list_or_the_usual_numbers(flags: dict[str, str], lists: dict[str, str], validates: bool):
    args = arguments(**flags)
    assert {name: list_flag(args, name) for name in lists} == lists
    assert has_validation(args) == validates
    assert args.is_list_given("val") == ("val_csv" in flags)


def test_listed_videos_are_read_in_their_order_with_all_their_captions(tmp_path: Path):
    data = write_captions(tmp_path, video1=["a dog", "a cat"], video2=["a cow"], video7010=["a hen"])
    args = arguments(data_path=data, val_csv=write_list(tmp_path / "val.csv", "video2", "video1"))
    assert read_split(args, "test").by_video() == {"video2": ["a cow"], "video1": ["a dog", "a cat"]}
    usual = arguments(data_path=data)
    assert read_split(usual, "train").video_ids == ["video1", "video2"]
    assert read_split(usual, "test").video_ids == ["video7010"]


def test_a_list_that_is_not_there_is_named_by_its_flag(tmp_path: Path):
    data = write_captions(tmp_path, video1=["a dog"])
    for name, flag in (("train", "train_csv"), ("val", "val_csv"), ("test", "test_csv")):
        with pytest.raises(FileNotFoundError, match=f"--{flag}"):
            read_split(arguments(data_path=data, **{flag: str(tmp_path / "none.csv")}), name)


def test_captions_without_a_word_are_left_out_and_counted(tmp_path: Path):
    data = write_captions(tmp_path, video1=["a dog", " "], video2=["  ", ""], video3=["a cow"])
    said: list[str] = []
    split = with_words(read_split(arguments(data_path=data), "train"), "train", said.append)
    assert split.by_video() == {"video1": ["a dog"], "video3": ["a cow"]}
    assert said == ["train: 3 captions have no word and are left out, and 1 videos that have no other"]
    sound = write_captions(tmp_path, video1=["a dog"])
    whole = read_split(arguments(data_path=sound), "train")
    assert with_words(whole, "train", said.append).video_ids == ["video1"] and len(said) == 1
    empty = write_captions(tmp_path, video1=[" "])
    with pytest.raises(ValueError, match="no caption holds a word"):
        with_words(read_split(arguments(data_path=empty), "train"), "train", said.append)


@pytest.mark.parametrize(("datatype", "train"), [("msrvtt_caption", 24), ("msvd_caption", 6)])
def test_splits_of_both_data_sets_are_opened_with_their_clips(
    demo_world: Path, tmp_path: Path, datatype: str, train: int
):
    root = demo_world / datatype.split("_")[0]
    places = {"msrvtt": ("MSRVTT_data.json", "videos"), "msvd": ("", "YouTubeClips")}[root.name]
    args = arguments(tmp_path, datatype=datatype, data_path=str(root / places[0]), features_path=str(root / places[1]))
    said: list[str] = []
    for name, count in (("train", train), ("val", 6), ("test", 9)):
        clips = open_split(args, CONFIG, name, said.append)
        assert len(clips.split.video_ids) == count and clips.reader.settings.is_training == (name == "train")
        assert said[-1] == f"{name}: {count} videos, {4 * count} captions"
    assert clips.reader.read(clips.split.video_ids[0], 0)["video"].shape == (3, 3, 224, 224)
