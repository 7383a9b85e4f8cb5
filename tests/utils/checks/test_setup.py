"""From flags to the lists of a data set that is checked, and to where its videos lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lmdb
import pytest

from dataloaders.object_records import ObjectRules
from dataloaders.samples import SampleChoices
from modules.config import ModelChoices, ModelConfig
from tests.utils.data.test_captions import write_captions
from utils.checks.findings import Finding
from utils.checks.setup import (
    CheckArguments,
    ListedSplit,
    clip_settings,
    compare_splits,
    locate_videos,
    read_list,
)


def arguments(folder: Path = Path("none"), datatype: str = "msrvtt_retrieval", **changes: Any) -> CheckArguments:
    return CheckArguments(**{"output_dir": str(folder / "out"), "datatype": datatype, **changes})


def write_lines(path: Path, *lines: Any) -> str:
    """A file of texts, or of JSON lines."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(
    ("datatype", "flags", "names"),
    [
        ("pretrain", {"splits": "test"}, ["train"]),
        ("webvid", {}, ["train"]),
        ("msrvtt_retrieval", {}, ["train", "test"]),
        ("msrvtt_retrieval", {"test_csv": "test.csv"}, ["train", "val", "test"]),
        ("msrvtt_retrieval", {"do_eval": True, "test_csv": "test.csv"}, ["test"]),
        ("msrvtt_retrieval", {"do_eval": True, "do_train": True}, ["train", "test"]),
        ("msrvtt_mc", {"splits": "test,train"}, ["train", "test"]),
        ("lsmdc_retrieval", {}, ["train", "val", "test"]),
        ("msrvtt_caption", {}, ["train", "val", "test"]),
        ("msrvtt_caption", {"val_csv": "val.csv"}, ["train", "test"]),
        ("msrvtt_qa", {}, ["train", "test"]),
        ("msrvtt_qa", {"msrvtt_qa_val_json": "val.jsonl"}, ["train", "val", "test"]),
        ("csv", {"test_csv": "test.csv"}, ["train", "test"]),
        ("csv", {"val_csv": "val.csv"}, ["train", "val", "test"]),
        ("csv", {"data_csv": "none.csv"}, ["train", "val", "test"]),
        ("csv", {"do_eval": True, "data_csv": "none.csv"}, ["test"]),
    ],
)
def test_splits_are_those_that_the_task_would_read_or_those_asked_for(
    datatype: str, flags: dict[str, Any], names: list[str]
):
    assert arguments(datatype=datatype, **flags).split_names() == names


def test_unknown_splits_and_data_sets_are_errors():
    with pytest.raises(ValueError, match="--splits train,dev: write some of train, val, test, with commas"):
        arguments(splits="train,dev")
    with pytest.raises(ValueError, match="--datatype youcook: choose one of pretrain, webvid, msrvtt_retrieval"):
        arguments(datatype="youcook")


def test_flags_of_questions_are_those_of_the_data_set_and_none_of_others():
    args = arguments(datatype="msvd_qa", msvd_features_path="avis", msrvtt_features_path="mp4s", features_path="x")
    assert args.path("features_path") == args.features_path == "avis"
    lsmdc = arguments(datatype="lsmdc_retrieval", msrvtt_features_path="mp4s", features_path="x")
    assert lsmdc.path("features_path") is None and lsmdc.features_path == "x"


def test_clips_are_read_as_training_reads_them():
    settings = clip_settings(arguments(), None)
    assert (settings.max_frames, settings.min_candidates, settings.label_map) == (12, 12, None)
    assert settings.objects.object_count == ModelConfig.object_count and settings.has_original_boxes
    chosen = arguments(
        model=ModelChoices(max_frames=4, object_count=3),
        objects=ObjectRules(trajectory="track"),
        samples=SampleChoices(box_coordinates="crop"),
        min_candidates=0,
    )
    settings = clip_settings(chosen, {"label_to_idx": {"dog": 1}})
    assert (settings.max_frames, settings.min_candidates, settings.has_original_boxes) == (4, 0, False)
    assert (settings.objects.object_count, settings.objects.frames) == (3, 4)
    assert settings.objects.rules.trajectory == "track" and settings.label_map == {"label_to_idx": {"dog": 1}}


def test_rows_of_a_webvid_csv_that_cannot_be_used_are_findings(tmp_path: Path):
    rows = ("videoid,name,page_dir", "1,a dog,p", "2, ,p", "1,again,q", "3,a cat,")
    path = write_lines(tmp_path / "a.csv", *rows)
    found = read_list(arguments(datatype="webvid", train_csv=path), "train")
    assert found.video_ids == ["1", "3"] and found.page_dirs == {"1": "p", "3": ""}
    assert found.findings == [
        Finding("empty_caption", "2", path, "row 2 of the csv"),
        Finding("repeated_id", "1", path, "row 3 of the csv"),
    ]
    with pytest.raises(ValueError, match="no row can be used"):
        read_list(arguments(datatype="webvid", train_csv=write_lines(tmp_path / "b.csv", *rows[0:3:2])), "train")


def test_a_training_list_of_msrvtt_against_its_captions(tmp_path: Path):
    data = write_captions(tmp_path, video1=["a dog", " "], video2=["a cat"], video9=["a cow"])
    path = write_lines(tmp_path / "train.csv", "video_id", "video1", "video2", "video1", "video3")
    found = read_list(arguments(train_csv=path, data_path=data), "train")
    assert found.video_ids == ["video1", "video2"]
    assert found.findings == [
        Finding("repeated_id", "video1", path, "listed 2 times"),
        Finding("no_caption", "video3", path, "listed for train; left out"),
        Finding("empty_caption", "video1", path, "1 in train"),
    ]


def test_rows_that_repeat_video_and_caption_are_noted(tmp_path: Path):
    path = write_lines(tmp_path / "test.csv", "video_id,sentence", "v1,a dog", "v1,a cat", "v1,a dog", "v2,a dog")
    found = read_list(arguments(val_csv=path, data_path=write_captions(tmp_path)), "test")
    assert found.video_ids == ["v1", "v2"]
    assert [finding[:2] for finding in found.findings] == [("repeated_row", "v1")]
    assert found.findings[0].detail == "2 times in test: a dog"


def test_questions_without_text_and_with_the_id_of_another(tmp_path: Path):
    choices = [{"clip_name": "v1", "options": ["a dog", " "], "answer": 0, "qid": 4}]
    choices += [{"clip_name": "v1", "options": ["a dog", "a cat"], "answer": 0, "qid": 4}]
    path = write_lines(tmp_path / "mc.jsonl", *choices)
    found = read_list(arguments(datatype="msrvtt_mc", val_csv=path), "test")
    assert found.video_ids == ["v1"] and [finding.kind for finding in found.findings] == [
        "empty_question",
        "repeated_id",
    ]
    assert "question 4: an option without text" in found.findings[0].detail
    asked = [{"video_id": "v2", "question": text, "answer": "dog"} for text in ("what is it?", " ")]
    path = write_lines(tmp_path / "qa.jsonl", *asked)
    found = read_list(arguments(datatype="msrvtt_qa", msrvtt_qa_test_json=path), "test")
    assert found.video_ids == ["v2"] and [finding.kind for finding in found.findings] == ["empty_question"]


def test_training_questions_are_checked_with_the_answers_to_choose_from(tmp_path: Path):
    path = write_lines(tmp_path / "qa.jsonl", {"video_id": "v2", "question": "what is it?", "answer": "dog"})
    flags = {"msrvtt_qa_train_json": path, "msrvtt_qa_test_json": path}
    args = arguments(datatype="msrvtt_qa", **flags, msrvtt_qa_anslabel_json=str(tmp_path / "none.json"))
    assert read_list(args, "test").findings == []
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_list(args, "train")


def test_of_a_table_all_is_read_that_a_task_would_read(tmp_path: Path):
    path = write_lines(
        tmp_path / "all.csv",
        "split,video,caption,question,answer,option_1,option_2",
        "train,a/v1.mp4,a dog,what?,a dog,,",
        "train,a/v1,a dog,,,,",
        "train,v2, ,,,,",
        "train,v3,,who?,,,",
        "test,v4,,,2,a cat,a cow",
        "test,v5,,,1,a cat,",
    )
    args = arguments(datatype="csv", data_csv=path, object_path=str(tmp_path))
    assert args.split_names() == ["train", "test"] and args.task == "csv"
    (tmp_path / "v1.json").touch()
    train, test = (read_list(args, name) for name in args.split_names())
    assert train.video_ids == ["a/v1", "v2", "v3"] and train.object_names == {"a/v1": "v1"}
    assert train.files == {"a/v1": "a/v1.mp4", "v2": "v2", "v3": "v3"}
    assert set(train.findings) == {
        Finding("empty_caption", "v2", path, "1 in train"),
        Finding("repeated_row", "a/v1", path, "2 times in train: a dog"),
        Finding("empty_question", "v2", path, "question 2: no text or no answer"),
        Finding("empty_question", "v3", path, "question 3: no text or no answer"),
    }
    assert test.findings == [Finding("empty_question", "v5", path, "question 2: an option without text")]
    assert list(compare_splits(args, [train, test])) == []
    empty = write_lines(tmp_path / "none.csv", "video,text", "v1,a dog")
    with pytest.raises(
        ValueError, match=r"none\.csv: no row of test that a task reads; tables have the columns video, c"
    ):
        read_list(arguments(datatype="csv", test_csv=empty), "test")
    with pytest.raises(ValueError, match="--train_csv is required, or --data_csv"):
        read_list(arguments(datatype="csv", test_csv=empty), "train")


def test_videos_of_several_splits_and_captions_of_none_are_noted(tmp_path: Path):
    data = write_captions(tmp_path, v1=["a dog"], v3=["a cat", "a cow"], v4=["a hen"], v5=["a pig"])
    gone = Finding("no_caption", "v5", "", "")
    splits = [ListedSplit("train", ["v1", "v2"], [gone]), ListedSplit("test", ["v2"], [])]
    assert list(compare_splits(arguments(data_path=data), splits)) == [
        Finding("in_two_splits", "v2", "", "train, test"),
        Finding("unlisted_captions", "", data, "3 captions of 2 videos: v3, v4"),
    ]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


SPLITS = [ListedSplit("train", ["a", "b"], []), ListedSplit("test", ["b", "c"], [])]


def test_videos_are_found_by_their_stem_and_others_named(tmp_path: Path):
    folder = tmp_path / "videos"
    touch(folder / "deep" / "a.avi", folder / "c.mp4", folder / "more.webm", folder / "notes.txt")
    found = locate_videos(arguments(features_path=str(folder)), SPLITS)
    assert found.files == {"a": str(folder / "deep" / "a.avi"), "c": str(folder / "c.mp4")} and found.lmdb is None
    assert found.missing == ["b"]
    assert found.unreferenced == [Finding("unreferenced_video", "more", str(folder / "more.webm"), "")]


def test_videos_of_a_table_are_found_by_their_paths(tmp_path: Path):
    touch(tmp_path / "a" / "v.avi", tmp_path / "w.mp4", tmp_path / "b" / "more.mp4")
    split = ListedSplit("test", ["a/v", "b/w"], [], files={"a/v": "a/v.avi", "b/w": "b/w"})
    found = locate_videos(arguments(datatype="csv", features_path=str(tmp_path)), [split])
    assert found.files == {"a/v": str(tmp_path / "a" / "v.avi")} and found.missing == ["b/w"]
    assert {finding.video_id for finding in found.unreferenced} == {"w", "more"}


def test_videos_of_webvid_are_found_where_the_shard_writer_looks(tmp_path: Path):
    folder = tmp_path / "videos"
    touch(folder / "p" / "1.mp4", folder / "2.mp4", folder / "q" / "3.mp4")
    split = ListedSplit("train", ["1", "2", "3"], [], page_dirs={"1": "p", "2": "p", "3": ""})
    found = locate_videos(arguments(datatype="webvid", features_path=str(folder)), [split])
    assert found.files == {"1": str(folder / "p" / "1.mp4"), "2": str(folder / "2.mp4")} and found.missing == ["3"]
    assert [finding.video_id for finding in found.unreferenced] == ["3"], "it lies in no folder that is looked in"


def test_videos_may_be_keys_of_an_lmdb(tmp_path: Path):
    folder = tmp_path / "videos.lmdb"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as writing:
        for key in (b"a", b"c", b"more"):
            writing.put(key, b"x")
    found = locate_videos(arguments(features_path=str(folder)), SPLITS)
    assert (found.files, found.lmdb, found.missing) == ({}, str(folder), ["b"])
    assert found.unreferenced == [Finding("unreferenced_video", "more", str(folder), "")]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no such folder of videos \(--features_path\)"):
        locate_videos(arguments(features_path=str(tmp_path / "none")), SPLITS)
