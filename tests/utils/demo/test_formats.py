"""Annotations of the demo world are in the structures of the data sets that it imitates."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest

from dataloaders.frames import FrameSettings, read_clip
from tests.utils.demo.small_world import COUNTS, read_json, read_lines, read_table, values_in, values_of
from utils.demo.formats import (
    didemo_id,
    didemo_name,
    didemo_place,
    lsmdc_id,
    lsmdc_place,
    lsmdc_times,
    msrvtt_id,
    msrvtt_place,
    msvd_place,
    pack_didemo,
    webvid_place,
)
from utils.demo.world import SceneClip

CLIP_ID = r"\d{4}_[A-Za-z_]+_((?:\d\d\.){3}\d{3})-((?:\d\d\.){3}\d{3})"
DIDEMO_NAME = r"\d+@N\d\d_\d+_[0-9a-f]{10}\.[a-z0-9]*"


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists and strings only."""

    def find_class(self, module_name, global_name):
        raise pickle.UnpicklingError(f"{module_name}.{global_name}")


def test_every_dataset_has_its_files(demo_world: Path):
    webvid = read_table(demo_world / "webvid/results_demo_train.csv")
    assert list(webvid[0]) == ["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"]
    assert len(webvid) == COUNTS["train"] and webvid[0]["duration"] == "PT00H00M06S"
    for row in webvid:
        assert (demo_world / "webvid/videos" / row["page_dir"] / f"{row['videoid']}.mp4").is_file()
        assert len(read_json(demo_world / "webvid/objects" / f"{row['videoid']}.json")) == 12

    test = read_table(demo_world / "msrvtt/test.csv")
    assert list(test[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert [row["video_id"] for row in test] == [f"video{7010 + number}" for number in range(COUNTS["test"])]
    names = {row["video_id"] for split in COUNTS for row in read_table(demo_world / f"msrvtt/{split}.csv")}
    data = read_json(demo_world / "msrvtt/MSRVTT_data.json")
    assert {video["video_id"] for video in data["videos"]} == names
    assert Counter(item["video_id"] for item in data["sentences"]) == dict.fromkeys(names, 4)
    by_split = {video["video_id"]: video["split"] for video in data["videos"]}
    train = {item["caption"] for item in data["sentences"] if by_split[item["video_id"]] == "train"}
    train |= {row["name"] for row in webvid}
    others = {item["caption"] for item in data["sentences"] if by_split[item["video_id"]] != "train"}
    assert not train & (others | {row["sentence"] for row in test})
    answers = read_json(demo_world / "msrvtt/qa/train_ans2label.json")
    lines = read_lines(demo_world / "msrvtt/qa/train.jsonl")
    assert {line["answer"] for line in lines} == set(answers)
    assert {line["answer_type"] for line in lines} == {"what", "how"}
    for split in ("val", "test"):
        for line in read_lines(demo_world / f"msrvtt/mc_{split}.jsonl"):
            assert len(line["options"]) == 5 and line["options"][line["answer"]] == line["caption"]


def test_msvd_files_agree_with_each_other(demo_world: Path):
    tokens = _PlainUnpickler((demo_world / "msvd/raw-captions.pkl").open("rb")).load()
    mapping = read_json(demo_world / "msvd/qa/id_mapping.json")
    lists = {split: (demo_world / f"msvd/{split}_list.txt").read_text().split() for split in COUNTS}
    assert {split: len(names) for split, names in lists.items()} == {"train": 6, "val": 6, "test": 9}
    assert set(tokens) == set(mapping.values()) == {name for names in lists.values() for name in names}
    pairs = [line.split() for line in (demo_world / "msvd/qa/youtube_mapping.txt").read_text().splitlines()]
    assert {number.removeprefix("vid"): name for name, number in pairs} == mapping
    for split, names in lists.items():
        asked = {mapping[str(entry["video_id"])] for entry in read_json(demo_world / f"msvd/qa/{split}_qa.json")}
        assert asked == set(names)
        for name in names:
            assert len(read_clip(demo_world / "msvd/YouTubeClips" / f"{name}.avi", 12, FrameSettings(2)).frames) == 12


def test_lsmdc_has_one_sentence_for_each_clip(demo_world: Path):
    names = ("LSMDC16_annos_training.csv", "LSMDC16_annos_val.csv", "LSMDC16_challenge_1000_publictect.csv")
    lines = [[line.split("\t") for line in (demo_world / "lsmdc" / name).read_text().splitlines()] for name in names]
    assert [len(rows) for rows in lines] == [7, 6, 9]
    movies = [{row[0][:4] for row in rows} for rows in lines]
    assert not movies[0] & movies[1] and not (movies[0] | movies[1]) & movies[2]
    truths = read_json(demo_world / "lsmdc/truth.json")["videos"]
    videos = {path.stem: path for path in (demo_world / "lsmdc/videos").glob("*/*.avi")}
    ids = [row[0] for rows in lines for row in rows]
    assert len(set(ids)) == len(ids) and set(ids) == set(truths) == set(videos)
    for split, rows in zip(COUNTS, lines, strict=True):
        for clip_id, start_aligned, end_aligned, start_extracted, end_extracted, sentence in rows:
            match = re.fullmatch(CLIP_ID, clip_id)
            assert match and match.groups() == (start_aligned, end_aligned) == (start_extracted, end_extracted)
            assert videos[clip_id].parent.name == clip_id[: match.start(1) - 1]
            assert truths[clip_id]["split"] == split and values_in(sentence) == values_of(truths[clip_id])
            assert len(read_json(demo_world / "lsmdc/objects" / f"{clip_id}.json")) == 12


def test_didemo_describes_each_thing_in_an_entry_of_its_own(demo_world: Path):
    truths = read_json(demo_world / "didemo/truth.json")["videos"]
    ids, numbers, orders = [], [], set()
    for split, count in {**COUNTS, "train": 5}.items():
        names = (demo_world / f"didemo/{split}_list.txt").read_text().splitlines()
        assert len(names) == count and sum(name.endswith(".") for name in names) == 1
        entries = read_json(demo_world / f"didemo/{split}_data.json")
        assert {entry["video"] for entry in entries} == set(names)
        assert any(first["video"] != second["video"] for first, second in pairwise(entries))
        for name in names:
            ids.append(name.split(".")[0])
            truth = truths[ids[-1]]
            texts = [entry["description"] for entry in entries if entry["video"] == name]
            assert re.fullmatch(DIDEMO_NAME, name) and truth["split"] == split
            assert len(texts) == len(truth["objects"]) and values_in(" ".join(texts)) == values_of(truth)
            things = [Counter(thing.values()) for thing in truth["objects"]]
            orders.add(tuple(things.index(values_in(text)) for text in texts))
            assert len(read_json(demo_world / "didemo/objects" / f"{name}_[0]_[31].json")) == 12
        for entry in entries:
            assert set(entry) == {"video", "description", "times", "num_segments", "dl_link", "annotation_id"}
            assert all(0 <= start <= end < entry["num_segments"] == 6 for start, end in entry["times"])
            numbers.append(entry["annotation_id"])
    assert len(set(numbers)) == len(numbers)
    assert len(set(ids)) == len(ids) and set(ids) == set(truths)
    assert (0, 1) in orders and (1, 0) in orders


def test_didemo_videos_are_in_the_lmdb_byte_for_byte(demo_world: Path):
    files = {path.name.split(".")[0].encode(): path for path in (demo_world / "didemo/videos").iterdir()}
    folder = str(demo_world / "didemo/videos.lmdb")
    with lmdb.open(folder, readonly=True, lock=False) as environment, environment.begin() as transaction:
        stored = dict(transaction.cursor())
    assert stored == {key: path.read_bytes() for key, path in files.items()} and len(stored) == 20
    for path in files.values():
        assert len(read_clip(path, 12, FrameSettings(2)).frames) == 12


def test_didemo_and_lsmdc_names_look_like_the_real_ones(shared):
    names = [name for split in COUNTS for name in (shared / f"realdata/didemo/{split}_list.txt").read_text().split()]
    assert all(re.fullmatch(DIDEMO_NAME, name) for name in names)
    for split in ("val", "test"):
        for entry in read_json(shared / f"realdata/didemo/{split}_data.json"):
            assert set(entry) == {"video", "description", "times", "num_segments", "dl_link", "annotation_id"}
    clip_ids = (shared / "realdata/lsmdc/lsmdc16_val_clip_ids.head200.txt").read_text().split()
    assert all(re.fullmatch(CLIP_ID, clip_id) for clip_id in clip_ids)


def test_names_are_unique_in_worlds_of_every_size():
    clips = [SceneClip(split, number, ()) for split in COUNTS for number in range(4000)]
    for names in ([lsmdc_id(clip, 6) for clip in clips], [didemo_id(didemo_name(clip)) for clip in clips]):
        assert len(set(names)) == len(clips)


def test_an_lmdb_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos.lmdb/data.mdb").mkdir(parents=True)
    with pytest.raises(OSError, match="videos.lmdb.*--didemo_clips 0"):
        pack_didemo(tmp_path)


def test_numbers_of_msrvtt_are_those_of_its_usual_split():
    names = [msrvtt_id(SceneClip(split, 0, ())) for split in COUNTS]
    assert names == ["video0", "video6513", "video7010"]
    with pytest.raises(ValueError, match="MSR-VTT's numbering has room for 497 val clips, not for 498"):
        msrvtt_id(SceneClip("val", 497, ()))


def test_clips_lie_where_the_data_sets_have_them():
    clip = SceneClip("train", 50, ())
    assert webvid_place(clip) == ("1000050", "videos/000051_000100/1000050.mp4", "1000050.json")
    assert msrvtt_place(clip) == ("video50", "videos/video50.mp4", "video50.json")
    avi = msvd_place(clip, 6.0)
    assert avi.video == f"YouTubeClips/{avi.video_id}.avi" and re.fullmatch(r"[\w-]{11}_0_6", avi.video_id)
    movie = lsmdc_place(clip, 6.0)
    assert movie.video == f"videos/{movie.video_id[:15]}/{movie.video_id}.avi" and re.fullmatch(CLIP_ID, movie.video_id)
    flickr = didemo_place(clip)
    assert "." not in flickr.video_id and flickr.objects == f"{didemo_name(clip)}_[0]_[31].json"


def test_clips_of_a_movie_follow_each_other():
    times = [lsmdc_times(SceneClip("train", number, ()), 6.5) for number in range(2)]
    assert times == [("00.03.07.170", "00.03.13.670"), ("00.03.15.210", "00.03.21.710")]
