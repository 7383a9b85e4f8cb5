"""From flags to datasets and loaders: how samples are made, and what becomes of videos that are not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.frames import FrameSettings
from dataloaders.multiple_choice import ChoiceItem
from dataloaders.object_records import ObjectRules
from dataloaders.object_store import ObjectStore
from dataloaders.questions import Question
from modules.config import ModelConfig
from tests.videos import write_video
from utils.data.clips import (
    SplitClips,
    counts,
    evaluation_loader,
    object_settings,
    open_captioned,
    open_clips,
    prepare_split_objects,
    sample_settings,
    train_loader,
    training_pairs,
    whole_questions,
)
from utils.data.retrieval import RetrievalArguments
from utils.evaluation.bad_videos import BadVideos
from utils.runtime.distributed import Runtime
from utils.settings.arguments import Arguments

CPU = torch.device("cpu")
ONE = Runtime(0, 1, 0, CPU)
PLAIN = ModelConfig(image_resolution=32, patch_size=8, max_frames=3, max_words=12, vocab_size=2000)
WITH_OBJECTS = ModelConfig(max_frames=3, need_object=True, object_count=4)


def arguments(folder: Path, **changes: Any) -> Arguments:
    base = {"output_dir": str(folder / "out"), "do_train": True, "num_thread_reader": 0, "device": "cpu"}
    return Arguments(**{**base, **changes})


def split_of(*video_ids: str) -> CaptionSplit:
    """Two captions of each video."""
    return CaptionSplit.from_pairs([TextVideoPair(i, f"{text} {i}") for i in video_ids for text in ("one", "two")])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Videos a and c, of grey frames."""
    for name in ("a", "c"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 30)
    return tmp_path / "videos"


def test_object_files_of_which_nothing_can_be_used_are_an_error_that_says_why(tmp_path: Path):
    """Of another number of frames, for instance: a run with --need_object would train without any."""
    (tmp_path / "objects").mkdir()
    entry = {"class": "dog", "rect": [1, 1, 40, 40], "conf": 0.9}
    (tmp_path / "objects/a.json").write_text(json.dumps([{"objects": [entry]}] * 5))
    (tmp_path / "labels.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    args = arguments(tmp_path, object_path=str(tmp_path / "objects"), labelmap_path=str(tmp_path / "labels.json"))
    with pytest.raises(
        ValueError, match=r"no box of these object files can be used \(files 1, wrong_frame_counts 1\).*a\.json"
    ):
        prepare_split_objects(args, WITH_OBJECTS, "train", print)


def warnings_of(folder: Path, caplog: pytest.LogCaptureFixture, *clips: list[dict[str, Any]]) -> list[str]:
    """What is warned of when a store is made of these object files."""
    (folder / "objects").mkdir()
    (folder / "labels.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    for number, frames in enumerate(clips):
        (folder / f"objects/{number}.json").write_text(json.dumps(frames))
    args = arguments(folder, object_path=str(folder / "objects"), labelmap_path=str(folder / "labels.json"))
    with caplog.at_level("WARNING", "utils.data.clips"):
        prepare_split_objects(args, WITH_OBJECTS, "train", lambda line: None)
    return [record.getMessage() for record in caplog.records if record.name == "utils.data.clips"]


def frames_with(*changes: dict[str, Any], count: int = 3) -> list[dict[str, Any]]:
    box = {"class": "dog", "rect": [1, 1, 40, 40], "conf": 0.9}
    return [{"objects": [{**box, **change} for change in changes]}] * count


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (frames_with({}, count=5), r"1 files with a wrong number of frames, as .*1\.json: has objects for 5 frames, 3"),
        ([], r"1 files with a wrong number of frames"),
        ({}, r"1 files that could not be read, as .*1\.json: is not a list"),
        (frames_with({"rect": [0.1, 0.1, 0.4, 0.4]}), r"1 files that could not be read, .*look relative"),
        (frames_with({}, {"conf": 900}), r"3 objects without a usable class.*conf of 'dog' is 900"),
        (frames_with({}, *[{"class": "unicorn"}] * 3), "9 objects of a class that the label map does not have"),
        (frames_with({}, *[{"rect": [9, 9, 9, 9]}] * 3), "9 boxes without width or height"),
    ],
)
def test_objects_that_are_lost_are_warned_of_with_numbers(tmp_path: Path, caplog, bad: Any, text: str):
    [warning] = warnings_of(tmp_path, caplog, frames_with({}), bad)
    assert re.search(text, warning) and str(tmp_path / "objects") in warning


def test_some_unknown_classes_and_clipped_boxes_are_usual(tmp_path: Path, caplog):
    usual = frames_with({}, {}, {}, {"class": "unicorn"}, {"rect": [-9, 0, 30, 30]})
    assert warnings_of(tmp_path, caplog, usual) == []


@pytest.mark.parametrize(("side", "is_percent"), [(99.5, True), (640, False), (60, False)])
def test_boxes_in_percent_are_told_by_all_files_together(tmp_path: Path, caplog, side: float, is_percent: bool):
    found = warnings_of(tmp_path, caplog, *[frames_with({"rect": [3, 3, side, side / 2]})] * 20)
    assert [("Are they in percent?" in line) for line in found] == [True] * is_percent


def test_samples_are_made_for_the_model_and_as_the_user_chose(tmp_path: Path):
    args = arguments(tmp_path, frames=FrameSettings(2.0), seed=5)
    settings = sample_settings(args, PLAIN, training=True)
    assert (settings.resolution, settings.max_frames, settings.max_words, settings.vocab_size) == (32, 3, 12, 2000)
    assert (settings.frames, settings.choices, settings.seed) == (FrameSettings(2.0), args.samples, 5)
    assert settings.is_training and not sample_settings(args, PLAIN, training=False).is_training
    assert settings.object_count == 0, "the table of positions has room for objects, the model has none"
    assert sample_settings(args, WITH_OBJECTS, training=True).object_count == 4


def test_object_files_are_read_for_the_model_by_the_rules_of_the_user(tmp_path: Path):
    args = arguments(tmp_path, objects=ObjectRules(trajectory="track"))
    settings = object_settings(args, WITH_OBJECTS)
    assert (settings.object_count, settings.frames, settings.rules) == (4, 3, args.objects)


def test_counters_that_are_not_0_are_listed():
    report = {"files": 3, "boxes": 0, "max_examples": 5, "examples": {"broken_files": ["a.json"]}, "broken_files": 1}
    assert counts(report) == "files 3, broken_files 1"
    assert counts({"boxes": 0, "max_examples": 5}) == "nothing to report"


def write_objects(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    box = {"class": "dog", "rect": [1, 1, 20, 20], "conf": 0.9}
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps([{"objects": [box]}] * 3))


@pytest.fixture
def with_objects(tmp_path: Path) -> Arguments:
    """Flags with a label map and object files of a and b, of which the test split has its own."""
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    write_objects(tmp_path / "objects", "a", "b")
    write_objects(tmp_path / "objects" / "test", "c")
    return arguments(tmp_path, object_path=str(tmp_path / "objects"), labelmap_path=str(tmp_path / "map.json"))


def test_splits_with_one_folder_of_objects_share_its_store(with_objects: Arguments, tmp_path: Path):
    said: list[str] = []
    train, val, test = (
        prepare_split_objects(with_objects, WITH_OBJECTS, name, said.append) for name in ("train", "val", "test")
    )
    assert train is not None and train == val and train.parent == tmp_path / "objects"
    assert test is not None and test.parent == tmp_path / "objects" / "test"
    assert ObjectStore(train).get("a") is not None and ObjectStore(train).get("c") is None
    assert said[0] == f"objects: {train}: files 2, boxes 6, kept_boxes 6" and len(said) == 3
    assert prepare_split_objects(with_objects, PLAIN, "train", said.append) is None and len(said) == 3


def open_some(args: Arguments, videos: Path, *video_ids: str, training: bool, said: list[str]) -> SplitClips:
    split = split_of(*video_ids)
    return open_clips(args, PLAIN, split, "train", str(videos), None, said.append, training=training)


def test_videos_that_are_all_there_leave_no_word_and_no_file(videos: Path, tmp_path: Path):
    said: list[str] = []
    clips = open_some(arguments(tmp_path), videos, "a", "c", training=False, said=said)
    assert clips.split.captions == ["one a", "two a", "one c", "two c"] and clips.missing == []
    assert said == [] and not (tmp_path / "out").exists()
    assert clips.reader.read("a", 0)["video"].shape == (3, 3, 32, 32)


def test_missing_training_videos_are_listed_and_left_out_with_their_captions(videos: Path, tmp_path: Path):
    said: list[str] = []
    clips = open_some(arguments(tmp_path), videos, "b", "c", "d", training=True, said=said)
    assert (clips.split.video_ids, clips.split.captions) == (["c"], ["one c", "two c"])
    assert clips.missing == ["b", "d"]
    listed = tmp_path / "out" / "missing_train_videos.txt"
    assert listed.read_text() == "b\nd\n"
    assert said == [f"2 of 3 train videos are not in {videos}: b, d (list: {listed}); they are left out"]


def test_missing_evaluation_videos_are_an_error_unless_they_may_be_skipped(videos: Path, tmp_path: Path):
    said: list[str] = []
    with pytest.raises(BadVideos, match=r"1 of 2 train videos are not in .*: b .*--on_bad_video skip"):
        open_some(arguments(tmp_path), videos, "a", "b", training=False, said=said)
    assert said == []
    args = arguments(tmp_path, on_bad_video="skip")
    assert open_some(args, videos, "a", "b", training=False, said=said).missing == ["b"] and len(said) == 1


def test_a_long_list_of_missing_videos_is_cut_in_the_log_alone(videos: Path, tmp_path: Path):
    said: list[str] = []
    names = [f"x{number}" for number in range(12)]
    open_some(arguments(tmp_path), videos, "a", *names, training=True, said=said)
    assert ": x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, ... (list: " in said[0]
    assert (tmp_path / "out" / "missing_train_videos.txt").read_text().split() == names


def test_questions_with_an_empty_text_are_left_out_and_counted():
    asked = [Question(str(n), "v", question, answer) for n, (question, answer) in enumerate([("a?", "b"), (" ", "b")])]
    chosen = [ChoiceItem("v", ["a", "b"], 0, "0"), ChoiceItem("v", ["a", ""], 0, "1")]
    said: list[str] = []
    for questions in (asked, chosen):
        assert whole_questions(questions, "val", said.append) == questions[:1]
        assert said.pop() == "val: 1 of 2 questions have an empty text and are left out"
        with pytest.raises(ValueError, match="all questions have an empty text"):
            whole_questions(questions[1:], "val", said.append)
        assert whole_questions(questions[:1], "val", pytest.fail) == questions[:1]


def test_a_folder_with_none_of_the_videos_is_a_mistake(videos: Path, tmp_path: Path):
    args = arguments(tmp_path, on_bad_video="skip")
    with pytest.raises(FileNotFoundError, match=r"none of the 2 train videos is in .* \(--features_path\); the first"):
        open_some(args, videos, "x", "y", training=True, said=[])


def test_captioned_clips_have_their_objects_by_name(with_objects: Arguments, videos: Path, tmp_path: Path):
    said: list[str] = []
    args = arguments(
        tmp_path,
        features_path=str(videos),
        object_path=with_objects.object_path,
        labelmap_path=with_objects.labelmap_path,
        on_bad_video="skip",
    )
    named = CaptionSplit.from_pairs([TextVideoPair("a", "a dog")], object_names={"a": "b"})
    clips = open_captioned(args, WITH_OBJECTS, named, "val", said.append)
    assert said[-1] == "val: 1 videos, 1 captions" and not clips.reader.settings.is_training
    assert clips.reader.read("a", 0)["box_trajectory"].tolist() == [[1, 0, 0, 0]] * 3
    train = open_captioned(args, WITH_OBJECTS, split_of("a", "c"), "train", said.append)
    assert train.reader.settings.is_training and said[-1] == "train: 2 videos, 4 captions"
    assert not train.reader.read("c", 0)["box_trajectory"].any(), "no object file of it is in this folder"


class Places(Dataset):
    """Items that are the places they are asked for by."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, where: tuple[int, int]) -> tuple[int, int]:
        return where


def test_a_loader_serves_every_epoch_from_any_batch_on(tmp_path: Path):
    args = arguments(tmp_path, batch_size=4, gradient_accumulation_steps=2, seed=7)
    make_loader, updates = train_loader(args, Places(), ONE, list)
    assert updates == 2, "five batches of two, of which the last fills no update"
    first, again, later = (list(make_loader(*place)) for place in ((0, 0), (0, 0), (0, 3)))
    assert first == again and later == first[3:] and [len(batch) for batch in first] == [2] * 5
    second = list(make_loader(1, 0))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [index for batch in second for _, index in batch] != [index for batch in first for _, index in batch]


def test_ranks_share_a_batch(tmp_path: Path):
    args = arguments(tmp_path, batch_size=2)
    parts = [train_loader(args, Places(), Runtime(rank, 2, rank, CPU), list) for rank in (0, 1)]
    assert [updates for _, updates in parts] == [2, 2]
    ours, theirs = (list(make_loader(0, 0)) for make_loader, _ in parts)
    whole, _ = train_loader(arguments(tmp_path, batch_size=4), Places(), ONE, list)
    assert [one + other for one, other in zip(ours, theirs, strict=True)] == list(whole(0, 0))


def test_a_run_cannot_end_before_its_first_batch_of_similar_captions(videos: Path, tmp_path: Path):
    def pairs(max_steps: int | None, similar_after: int) -> int:
        """Updates of an epoch."""
        args = RetrievalArguments(
            do_train=True,
            datatype="msrvtt_retrieval",
            output_dir=str(tmp_path / "out"),
            data_path=str(tmp_path),
            features_path=str(videos),
            num_thread_reader=0,
            batch_size=2,
            expand_msrvtt_sentences=True,
            similar_batches=8,
            similar_after=similar_after,
            max_steps=max_steps,
        )
        clips = open_captioned(args, PLAIN, split_of("a", "c"), "train", lambda _: None)
        return train_loader(args, training_pairs(args, clips), ONE)[1]

    assert pairs(5, 2) == 2 and pairs(None, 2) == 2 and pairs(1, 0) == 2
    for ended in (1, 4):
        with pytest.raises(ValueError, match=f"--max_steps {ended} ends within .* 4 updates: .*--similar_after"):
            pairs(ended, 2)


def test_evaluation_reads_each_clip_once_and_in_order(tmp_path: Path):
    args = arguments(tmp_path, batch_size_val=3)
    parts = [list(evaluation_loader(args, Places(), Runtime(rank, 2, rank, CPU), list)) for rank in (0, 1)]
    assert [len(batch) for batch in parts[0]] == [3, 2] and [len(batch) for batch in parts[1]] == [3, 3]
    assert [place for part in parts for batch in part for place in batch] == [(0, index) for index in range(11)]
