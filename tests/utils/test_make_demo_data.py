import csv
import json
import pickle
import re
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import lmdb
import numpy as np
import pytest

from dataloaders.frames import FrameSettings, read_clip
from utils import make_demo_data
from utils.demo.formats import didemo_id, didemo_name, lsmdc_id, pack_didemo
from utils.demo.wording import captions, options, questions
from utils.demo.world import COLORS, MOTIONS, SHAPES, Scene, SceneClip, Thing, make_scene, neighbours, plan_clips

COUNTS = {"train": 24, "val": 6, "test": 9}
FLAGS = ["--train_clips", "24", "--val_clips", "6", "--test_clips", "9", "--seed", "3"]
FLAGS += ["--msvd_clips", "6", "--lsmdc_clips", "7", "--didemo_clips", "5"]
CLIP_ID = r"\d{4}_[A-Za-z_]+_((?:\d\d\.){3}\d{3})-((?:\d\d\.){3}\d{3})"
DIDEMO_NAME = r"\d+@N\d\d_\d+_[0-9a-f]{10}\.[a-z0-9]*"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "world"
    assert make_demo_data.main(["--output_dir", str(folder), "--workers", "1", *FLAGS]) == 0
    return folder


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists and strings only."""

    def find_class(self, module_name, global_name):
        raise pickle.UnpicklingError(f"{module_name}.{global_name}")


def _read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _values(text: str) -> Counter[str]:
    """The colours, shapes and motions that a text names, each as often as it does."""
    return Counter(word for word in text.replace(",", "").split() if word in {*COLORS, *SHAPES, *MOTIONS})


def _values_of(truth: dict) -> Counter[str]:
    return Counter(value for thing in truth["objects"] for value in thing.values())


def _scenes(clips, split: str) -> list[Scene]:
    return [clip.scene for clip in clips if clip.split == split]


@pytest.mark.parametrize("test, same_shape", [(100, False), (500, False), (500, True)])
def test_held_out_scenes_are_distinct_new_and_have_neighbours(test, same_shape):
    clips = plan_clips(0, 2000, 100, test, same_shape=same_shape)
    held_out = _scenes(clips, "val") + _scenes(clips, "test")
    assert len(set(held_out)) == len(held_out) == 100 + test
    assert not set(held_out) & set(_scenes(clips, "train"))
    for split in ("val", "test"):
        scenes = set(_scenes(clips, split))
        assert np.mean([any(other in scenes for other in neighbours(scene)) for scene in scenes]) >= 0.5
    for split in ("train", "val", "test"):
        numbers = Counter(len(scene) for scene in _scenes(clips, split))
        assert set(numbers) == {1, 2, 3} and max(numbers.values()) - min(numbers.values()) <= 1


def test_things_differ_in_shape_or_else_in_colour():
    for same_shape, values in ((False, "color"), (True, "shape")):
        seen = set()
        for clip in plan_clips(2, 200, 20, 20, same_shape=same_shape):
            colors, shapes = ({getattr(thing, name) for thing in clip.scene} for name in ("color", "shape"))
            seen.add((len(clip.scene), len(colors if values == "color" else shapes)))
            assert len(colors if same_shape else shapes) == len(clip.scene)
        assert seen == (
            {(1, 1), (2, 1), (3, 1)} if same_shape else {(n, k) for n in (1, 2, 3) for k in range(1, n + 1)}
        )


def test_training_sees_every_pair_of_attribute_values_in_scenes_of_one_thing():
    single = [scene[0] for scene in _scenes(plan_clips(0, 4000, 100, 500), "train") if len(scene) == 1]
    seen = {pair for thing in single for pair in combinations(thing, 2)}
    assert len(seen) == len(COLORS) * len(SHAPES) + len(COLORS) * len(MOTIONS) + len(SHAPES) * len(MOTIONS)


def test_reserve_makes_smaller_worlds_safe_for_larger_test_sets():
    small, large = plan_clips(0, 300, 20, 50, reserve=500), plan_clips(0, 300, 20, 500)
    assert _scenes(small, "test") == _scenes(large, "test")[:50]
    assert not set(_scenes(small, "train")) & set(_scenes(large, "test"))


def test_too_many_held_out_clips_is_an_error():
    with pytest.raises(ValueError, match="fewer validation and test clips"):
        plan_clips(0, 1, 100, 1500)


def test_captions_name_everything_and_determine_the_scene():
    rng = np.random.default_rng(0)
    owner: dict[str, Scene] = {}
    for clip in plan_clips(1, 300, 30, 30):
        texts = captions(clip.scene, rng, 4)
        assert len(set(texts)) == len(texts) == 4
        for text in texts:
            assert owner.setdefault(text, clip.scene) == clip.scene
            words = text.replace(",", "").split()
            for names, field in ((COLORS, "color"), (SHAPES, "shape"), (MOTIONS, "motion")):
                expected = Counter(getattr(thing, field) for thing in clip.scene)
                assert Counter(word for word in words if word in names) == expected


def test_questions_have_one_answer():
    scene = make_scene([Thing("red", "circle", "bouncing"), Thing("red", "star", "bouncing")])
    asked = {item.question: item.answer for item in questions(scene, np.random.default_rng(0), 100)}
    assert asked["how many shapes are there?"] == "two"
    assert asked["what color is the circle?"] == "red"
    assert asked["what is the red star doing?"] == "bouncing"
    assert "what is bouncing?" not in asked


def test_questions_about_things_of_one_shape_have_one_answer():
    scene = make_scene(
        [Thing("red", "star", "bouncing"), Thing("blue", "star", "bouncing"), Thing("pink", "star", "resting")]
    )
    asked = {item.question: item.answer for item in questions(scene, np.random.default_rng(0), 100)}
    assert asked == {
        "how many shapes are there?": "three",
        "what is the red star doing?": "bouncing",
        "what is the blue star doing?": "bouncing",
        "what is the pink star doing?": "resting",
        "what color is the star that is resting?": "pink",
        "what is resting?": "star",
        "what shape is resting?": "star",
    }


@pytest.mark.parametrize("same_shape", [False, True])
def test_options_hold_one_truth_and_one_that_differs_in_one_attribute(same_shape):
    scenes = _scenes(plan_clips(0, 1, 0, 60, same_shape=same_shape), "test")
    for number, scene in enumerate(scenes):
        texts, answer = options(scene, scenes, np.random.default_rng(number))
        values = [_values(text) for text in texts]
        assert len(set(texts)) == 5
        assert values[answer] == Counter(value for thing in scene for value in thing)
        assert any((values[answer] - bag).total() == 1 for k, bag in enumerate(values) if k != answer)


def test_every_dataset_has_its_files(world):
    webvid = _rows(world / "webvid/results_demo_train.csv")
    assert list(webvid[0]) == ["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"]
    assert len(webvid) == COUNTS["train"] and webvid[0]["duration"] == "PT00H00M06S"
    for row in webvid:
        assert (world / "webvid/videos" / row["page_dir"] / f"{row['videoid']}.mp4").is_file()
        assert len(_read(world / "webvid/objects" / f"{row['videoid']}.json")) == 12

    test = _rows(world / "msrvtt/test.csv")
    assert list(test[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert [row["video_id"] for row in test] == [f"video{7010 + number}" for number in range(COUNTS["test"])]
    names = {row["video_id"] for split in COUNTS for row in _rows(world / f"msrvtt/{split}.csv")}
    data = _read(world / "msrvtt/MSRVTT_data.json")
    assert {video["video_id"] for video in data["videos"]} == names
    assert Counter(item["video_id"] for item in data["sentences"]) == dict.fromkeys(names, 4)
    by_split = {video["video_id"]: video["split"] for video in data["videos"]}
    train = {item["caption"] for item in data["sentences"] if by_split[item["video_id"]] == "train"}
    train |= {row["name"] for row in webvid}
    others = {item["caption"] for item in data["sentences"] if by_split[item["video_id"]] != "train"}
    assert not train & (others | {row["sentence"] for row in test})
    answers = _read(world / "msrvtt/qa/train_ans2label.json")
    lines = _lines(world / "msrvtt/qa/train.jsonl")
    assert {line["answer"] for line in lines} == set(answers)
    assert {line["answer_type"] for line in lines} == {"what", "how"}
    for split in ("val", "test"):
        for line in _lines(world / f"msrvtt/mc_{split}.jsonl"):
            assert len(line["options"]) == 5 and line["options"][line["answer"]] == line["caption"]


def test_msvd_files_agree_with_each_other(world):
    tokens = _PlainUnpickler((world / "msvd/raw-captions.pkl").open("rb")).load()
    mapping = _read(world / "msvd/qa/id_mapping.json")
    lists = {split: (world / f"msvd/{split}_list.txt").read_text().split() for split in COUNTS}
    assert {split: len(names) for split, names in lists.items()} == {"train": 6, "val": 6, "test": 9}
    assert set(tokens) == set(mapping.values()) == {name for names in lists.values() for name in names}
    pairs = [line.split() for line in (world / "msvd/qa/youtube_mapping.txt").read_text().splitlines()]
    assert {number.removeprefix("vid"): name for name, number in pairs} == mapping
    for split, names in lists.items():
        asked = {mapping[str(entry["video_id"])] for entry in _read(world / f"msvd/qa/{split}_qa.json")}
        assert asked == set(names)
        for name in names:
            assert len(read_clip(world / "msvd/YouTubeClips" / f"{name}.avi", 12, FrameSettings(2)).frames) == 12


def test_lsmdc_has_one_sentence_for_each_clip(world):
    names = ("LSMDC16_annos_training.csv", "LSMDC16_annos_val.csv", "LSMDC16_challenge_1000_publictect.csv")
    lines = [[line.split("\t") for line in (world / "lsmdc" / name).read_text().splitlines()] for name in names]
    assert [len(rows) for rows in lines] == [7, 6, 9]
    movies = [{row[0][:4] for row in rows} for rows in lines]
    assert not movies[0] & movies[1] and not (movies[0] | movies[1]) & movies[2]
    truths = _read(world / "lsmdc/truth.json")["videos"]
    videos = {path.stem: path for path in (world / "lsmdc/videos").glob("*/*.avi")}
    ids = [row[0] for rows in lines for row in rows]
    assert len(set(ids)) == len(ids) and set(ids) == set(truths) == set(videos)
    for split, rows in zip(COUNTS, lines, strict=True):
        for clip_id, start_aligned, end_aligned, start_extracted, end_extracted, sentence in rows:
            match = re.fullmatch(CLIP_ID, clip_id)
            assert match and match.groups() == (start_aligned, end_aligned) == (start_extracted, end_extracted)
            assert videos[clip_id].parent.name == clip_id[: match.start(1) - 1]
            assert truths[clip_id]["split"] == split and _values(sentence) == _values_of(truths[clip_id])
            assert len(_read(world / "lsmdc/objects" / f"{clip_id}.json")) == 12


def test_didemo_describes_each_thing_in_an_entry_of_its_own(world):
    truths = _read(world / "didemo/truth.json")["videos"]
    ids, numbers, orders = [], [], set()
    for split, count in {**COUNTS, "train": 5}.items():
        names = (world / f"didemo/{split}_list.txt").read_text().splitlines()
        assert len(names) == count and sum(name.endswith(".") for name in names) == 1
        entries = _read(world / f"didemo/{split}_data.json")
        assert {entry["video"] for entry in entries} == set(names)
        assert any(first["video"] != second["video"] for first, second in pairwise(entries))
        for name in names:
            ids.append(name.split(".")[0])
            truth = truths[ids[-1]]
            texts = [entry["description"] for entry in entries if entry["video"] == name]
            assert re.fullmatch(DIDEMO_NAME, name) and truth["split"] == split
            assert len(texts) == len(truth["objects"]) and _values(" ".join(texts)) == _values_of(truth)
            things = [Counter(thing.values()) for thing in truth["objects"]]
            orders.add(tuple(things.index(_values(text)) for text in texts))
            assert len(_read(world / "didemo/objects" / f"{name}_[0]_[31].json")) == 12
        for entry in entries:
            assert set(entry) == {"video", "description", "times", "num_segments", "dl_link", "annotation_id"}
            assert all(0 <= start <= end < entry["num_segments"] == 6 for start, end in entry["times"])
            numbers.append(entry["annotation_id"])
    assert len(set(numbers)) == len(numbers)
    assert len(set(ids)) == len(ids) and set(ids) == set(truths)
    assert (0, 1) in orders and (1, 0) in orders


def test_didemo_videos_are_in_the_lmdb_byte_for_byte(world):
    files = {path.name.split(".")[0].encode(): path for path in (world / "didemo/videos").iterdir()}
    folder = str(world / "didemo/videos.lmdb")
    with lmdb.open(folder, readonly=True, lock=False) as environment, environment.begin() as transaction:
        stored = dict(transaction.cursor())
    assert stored == {key: path.read_bytes() for key, path in files.items()} and len(stored) == 20
    for path in files.values():
        assert len(read_clip(path, 12, FrameSettings(2)).frames) == 12


def test_didemo_and_lsmdc_names_look_like_the_real_ones(shared):
    names = [name for split in COUNTS for name in (shared / f"realdata/didemo/{split}_list.txt").read_text().split()]
    assert all(re.fullmatch(DIDEMO_NAME, name) for name in names)
    for split in ("val", "test"):
        for entry in _read(shared / f"realdata/didemo/{split}_data.json"):
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


def test_a_clip_is_encoded_once_per_container(world):
    """Files of one clip in several data sets share an inode: 24 + 15 as .mp4, and 7 + 15 as .avi."""
    places = {"webvid": "videos/*/*", "msrvtt": "videos/*", "didemo": "videos/*"}
    assert len({path.stat().st_ino for name, place in places.items() for path in (world / name).glob(place)}) == 39
    msvd = {path.stat().st_ino for path in (world / "msvd/YouTubeClips").iterdir()}
    lsmdc = {path.stat().st_ino for path in (world / "lsmdc/videos").glob("*/*.avi")}
    assert len(msvd) == 21 and len(lsmdc) == 22 and msvd < lsmdc
    assert len({path.stat().st_ino for path in world.glob("*/objects/*.json")}) == 39


def test_sampled_frames_are_those_of_the_boxes_and_show_the_things(world):
    truths = _read(world / "msrvtt/truth.json")["videos"]
    right, total = 0, 0
    for name, truth in truths.items():
        clip = read_clip(world / "msrvtt/videos" / f"{name}.mp4", 12, FrameSettings(2))
        assert clip.frame_indices.tolist() == truth["frame_indices"]
        assert [clip.width, clip.height] == truth["size"]
        for frame, boxes in zip(clip.frames, truth["boxes"], strict=True):
            for thing, box in zip(truth["objects"], boxes, strict=True):
                is_lit = thing["motion"] != "blinking"
                if box is not None and is_lit and min(box[2] - box[0], box[3] - box[1]) >= 12:
                    x1, y1, x2, y2 = box
                    distance = np.abs(frame[y1:y2, x1:x2].astype(int) - COLORS[thing["color"]]).max(-1)
                    right += (distance < 60).mean() > 0.04  # the rest is the face and the background
                    total += 1
    assert right / total > 0.97


def test_things_stay_within_the_central_square(world):
    for truth in _read(world / "msrvtt/truth.json")["videos"].values():
        width, height = truth["size"]
        boxes = np.array([box for frame in truth["boxes"] for box in frame if box is not None])
        assert boxes[:, 0].min() >= (width - height) / 2 - 3 and boxes[:, 2].max() <= (width + height) / 2 + 3


def test_detections_follow_the_truth_with_a_detectors_errors(world):
    label_map = _read(world / "label_map.json")
    truths = _read(world / "webvid/truth.json")["videos"]
    found, shown, spurious, frames = 0, 0, 0, 0
    for name, truth in truths.items():
        for boxes, detected in zip(truth["boxes"], _read(world / f"webvid/objects/{name}.json"), strict=True):
            frames += 1
            for item in detected["objects"]:
                x1, y1, x2, y2 = item["rect"]
                assert 0 <= x1 < x2 <= truth["size"][0] and 0 <= y1 < y2 <= truth["size"][1]
                assert item["class"] in label_map["label_to_idx"] and 0 < item["conf"] < 1
                assert item["attributes"][0] in label_map["attribute_to_idx"]
            for thing, box in zip(truth["objects"], boxes, strict=True):
                matches = [item for item in detected["objects"] if item["class"] == thing["shape"]]
                shown += box is not None
                found += box is not None and any(np.abs(np.subtract(item["rect"], box)).max() < 8 for item in matches)
            spurious += sum(
                item["conf"] < 0.46 and item["class"] not in ("pole", *SHAPES) for item in detected["objects"]
            )
    assert 0.75 < found / shown < 0.97
    assert 0.1 < spurious / frames < 0.5
    assert min(label_map["label_to_idx"].values()) == 1


def test_files_do_not_depend_on_the_number_of_workers(world, tmp_path):
    again = tmp_path / "again"
    assert make_demo_data.main(["--output_dir", str(again), "--workers", "2", *FLAGS]) == 0
    files = sorted(path.relative_to(world) for path in world.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((world / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_a_finished_world_is_kept_and_a_folder_of_something_else_refused(world, tmp_path, capsys):
    assert make_demo_data.main(["--output_dir", str(world), *FLAGS]) == 0
    assert "up to date" in capsys.readouterr().out
    (tmp_path / "thesis.txt").write_text("mine")
    assert make_demo_data.main(["--output_dir", str(tmp_path), *FLAGS]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_very_small_world_without_validation_and_with_two_data_sets_only(tmp_path):
    flags = ["--train_clips", "2", "--val_clips", "0", "--test_clips", "2", "--workers", "1"]
    flags += ["--msvd_clips", "0", "--lsmdc_clips", "0", "--didemo_clips", "0"]
    assert make_demo_data.main(["--output_dir", str(tmp_path / "tiny"), "--max_frames", "8", *flags]) == 0
    assert {path.name for path in (tmp_path / "tiny").iterdir() if path.is_dir()} == {"webvid", "msrvtt"}
    assert len(_read(tmp_path / "tiny/msrvtt/objects/video7010.json")) == 8
    assert all(len(set(line["options"])) == 5 for line in _lines(tmp_path / "tiny/msrvtt/mc_test.jsonl"))
