"""The command that checks a data set, on the shards of pre-training."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataloaders.datasets.webvid import WebVidPretrainDataset
from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index
from dataloaders.samples import SampleSettings
from dataloaders.stored_clips import Features, parse_clip
from dataloaders.tfrecord import iterate_records, parse_example
from tests.test_readme import python_commands
from tests.tfrecords import encode, record
from tests.utils.test_check_data import kinds, rewrite
from tests.world import FRAMES, WITHOUT_OBJECT_FILE, WITHOUT_OBJECTS, World
from utils import check_data
from utils.checks.findings import COLUMNS
from utils.checks.shards import longest_run

LOSING = ("outside_shard", "other_clip", "damaged_record", "undecodable_frame")
STORED = 8  # frames of every record of the world
IDS = [str(1000000 + number) for number in range(24)]


class ShardSet:
    """A copy of the world's shards and object files that a test may damage; every clip has objects."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.shards = world.copy_shards(folder / "shards")
        self.labels = self.shards / "frozen_train_labels.json"
        self.index = self.shards / "path.index"
        self.objects = Path(shutil.copytree(world.webvid / "objects", folder / "objects", ignore=_stores))
        for video_id in (*WITHOUT_OBJECT_FILE, *WITHOUT_OBJECTS):
            shutil.copy(self.object_file(IDS[0]), self.object_file(video_id))

    def object_file(self, video_id: str) -> Path:
        return self.objects / f"{video_id}.json"

    def rows(self) -> dict[str, tuple[Path, int]]:
        """Shard and offset of each clip as the index says."""
        lines = [line.split("\t") for line in self.index.read_text().splitlines()]
        return {video_id: (self.shards / shard, int(offset)) for video_id, shard, offset in lines}

    def change_index(self, change: Callable[[list[str]], list[str]]) -> None:
        self.index.write_text("\n".join(change(self.index.read_text().splitlines())) + "\n")

    def flags(self, *more: str) -> list[str]:
        """A command line of pre-training, less what says nothing about data."""
        return [*self.world.flags(self.folder / "out", "--object_path", str(self.objects), shards=self.shards),
                "--datatype", "pretrain", "--min_candidates", str(STORED), "--workers", "1", *more]  # fmt: skip

    def run(self, *more: str) -> tuple[int, list[dict[str, str]]]:
        """Exit status and the lines of the report."""
        status = check_data.main(self.flags(*more))
        lines = [line.split("\t") for line in (self.folder / "out" / "data_check.tsv").read_text("utf-8").splitlines()]
        return status, [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def _stores(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".json")]


@pytest.fixture
def shard_set(world: World, tmp_path: Path) -> ShardSet:
    return ShardSet(world, tmp_path)


def stops(findings: list[dict[str, str]]) -> list[str]:
    return [finding["detail"] for finding in findings if finding["severity"] == "stop"]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def rewrite_shard(shard_set: ShardSet, change: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Write all records of the first shard again, those named changed, and the index with their new places."""
    path = shard_set.shards / "path-00000.tfrecord"
    content, places = b"", {}
    for _, payload in list(iterate_records(path)):
        features = {
            name: list(values.tolist() if isinstance(values, np.ndarray) else values)
            for name, values in parse_example(payload).items()
        }
        video_id = features[Features.VIDEO_ID][0].decode()
        places[video_id] = len(content)
        changed = change.get(video_id, change.get("", dict))(features)
        content += record(encode({name: values for name, values in changed.items() if values}))
    path.write_bytes(content)

    def move(lines: list[str]) -> list[str]:
        cells = [line.split("\t") for line in lines]
        return ["\t".join([cell[0], cell[1], str(places.get(cell[0], cell[2]))]) for cell in cells]

    shard_set.change_index(move)


def test_sound_shards_have_no_findings(shard_set: ShardSet, capsys: pytest.CaptureFixture[str]):
    assert shard_set.run() == (0, [])
    assert "pretrain: videos listed: train 24; 24 records and 24 object files read" in capsys.readouterr().out
    status, findings = shard_set.run("--min_candidates", "12", "--workers", "2")
    assert status == 0
    assert kinds(findings) == {("short_video", video_id) for video_id in IDS}


def test_the_readmes_command_of_pre_training_is_taken(shard_set: ShardSet):
    words = next(words for words in python_commands() if words[0] == "tasks/pre_training.py" and "--datatype" in words)
    assert "--train_csv" in words and "--need_object" in words
    own = shard_set.flags()
    assert check_data.main([*words[1:], "--eval_samples", "5", *own]) == 0


@pytest.mark.parametrize("flag", ["--features_path", "--train_csv"])
def test_shards_are_looked_for_where_the_task_looks(shard_set: ShardSet, flag: str):
    elsewhere = str(shard_set.folder / "none" / "a.csv")
    beside = str(shard_set.shards / "a.csv")
    place = str(shard_set.shards) if flag == "--features_path" else beside
    assert shard_set.run("--train_csv", elsewhere, flag, place) == (0, [])
    status, findings = shard_set.run("--train_csv", elsewhere)
    assert status == 2 and len(findings) == 1 and "no shards: looked for" in findings[0]["detail"]


def test_planted_faults_and_nothing_else(shard_set: ShardSet):
    rows, expected = shard_set.rows(), set()

    def plant(kind: str, video_id: str) -> str:
        expected.add((kind, video_id))
        return video_id

    def plant_record(kind: str, number: int, **features: Any) -> None:
        changes[plant(kind, IDS[number])] = lambda old: {**old, **features}

    changes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
    cut = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()[:-100]
    changes[plant("undecodable_frame", IDS[0])] = lambda old: {**old, "image": [*old["image"][:7], cut]}
    plant_record("damaged_record", 1, image=[])
    plant_record("other_clip", 2, video_id=[b"9"])
    changes[plant("short_video", IDS[3])] = lambda old: {
        **old, **{name: old[name][:4] for name in (Features.IMAGE, Features.FRAME_INDICES)}
    }  # fmt: skip
    plant_record("damaged_record", 4, frame_indices=[0])
    rewrite_shard(shard_set, changes)

    rows = shard_set.rows()
    shard, offset = rows[plant("damaged_record", IDS[5])]
    overwrite(shard, offset + 500, bytes(20))
    shard, offset = rows[plant("damaged_record", IDS[6])]
    overwrite(shard, offset, bytes(4))
    shard = rows[IDS[10]][0]
    (shard_set.shards / "parts").mkdir()  # not a shard, not looked at
    size = shard.stat().st_size
    places = {
        plant("outside_shard", IDS[10]): size + 7,
        plant("damaged_record", IDS[11]): rows[IDS[11]][1] + 3,
        plant("other_clip", IDS[12]): rows[IDS[13]][1],
    }
    last = rows[IDS[20]][0]
    with last.open("r+b") as file:
        file.truncate(rows[IDS[22]][1] + 100)
    plant("truncated_shard", last.name)
    plant("broken_index_line", "")
    plant("repeated_id", IDS[14])

    def spoil(lines: list[str]) -> list[str]:
        cells = [line.split("\t") for line in lines]
        moved = [f"{cell[0]}\t{cell[1]}\t{places.get(cell[0], cell[2])}" for cell in cells]
        return [*moved, moved[14], "1000099 path-00000.tfrecord"]

    shard_set.change_index(spoil)

    def spoil_captions(captions: list[dict[str, str]]) -> list[dict[str, str]]:
        captions[15]["caption"] = " &nbsp; "
        more = [{"video_id": video_id, "caption": "a dog"} for video_id in (IDS[16], "77", "77")]
        return [*captions[:17], *captions[18:], *more]

    rewrite(shard_set.labels, spoil_captions)
    plant("empty_caption", IDS[15])
    plant("more_captions", IDS[16])
    plant("no_caption", IDS[17])
    plant("no_clip", "77")
    plant_objects(shard_set, plant)

    status, findings = shard_set.run("--json", str(shard_set.folder / "r.json"))
    assert kinds(findings) == expected
    assert status == 1
    saved = json.loads((shard_set.folder / "r.json").read_bytes())
    assert saved["counts"]["damaged_record"] == 5 and saved["read"] == 21 and saved["videos"] == {"train": 24}
    details = {finding["kind"]: finding["detail"] for finding in findings}
    assert details["truncated_shard"].startswith("2 of 4 clips lie beyond its end, byte ")
    assert details["truncated_shard"].endswith(f": {IDS[22]}, {IDS[23]}")
    assert details["outside_shard"] == f"offset {size + 7} of {size} bytes"
    assert details["no_clip"] == "2 captions" and details["more_captions"] == "2 captions"
    assert details["broken_index_line"].startswith("line 26: ")
    assert "does not decode" in details["undecodable_frame"]
    reasons = [finding["detail"] for finding in findings if finding["kind"] == "damaged_record"]
    for part in ("with frames", "frame numbers", "fails its checksum", "no record starts here"):
        assert any(part in reason for reason in reasons), part
    lost = {finding["id"] for finding in findings if finding["kind"] in LOSING} | {IDS[22], IDS[23]}
    assert left_out_by_training(shard_set) == lost


def left_out_by_training(shard_set: ShardSet) -> set[str]:
    """Clips with a caption for which training takes another sample."""
    index = PretrainIndex(prepare_pretrain_index(shard_set.labels, shard_set.shards))
    data = WebVidPretrainDataset(index, shard_set.shards, SampleSettings(resolution=32, max_frames=FRAMES))
    return {index.video_id(number) for number in range(len(data)) if data[0, number]["skipped"]}


def plant_objects(shard_set: ShardSet, plant: Callable[[str, str], str]) -> None:
    """Faults in object files of the second shard, whose records are sound."""
    box = {"class": "circle", "conf": 0.9}

    def spoil(kind: str, number: int, change: Callable[[Any], Any]) -> None:
        rewrite(shard_set.object_file(plant(kind, IDS[number])), change)

    def add(**fields: Any) -> Callable[[Any], Any]:
        return lambda frames: [{"objects": [*frames[0]["objects"], {**box, **fields}]}, *frames[1:]]

    spoil("wrong_frame_count", 13, lambda frames: frames[1:])
    spoil("unknown_class", 14, add(**{"class": "unicorn", "rect": [1, 1, 9, 9]}))
    spoil("degenerate_box", 15, add(rect=[5, 5, 5, 9]))
    spoil("outside_box", 16, add(rect=[500, 5, 600, 9]))
    shard_set.object_file(plant("broken_objects", IDS[18])).write_text("[")
    shard_set.object_file(plant("missing_objects", IDS[19])).rename(shard_set.objects / "stray.json")
    plant("orphan_objects", "stray")


def test_a_missing_shard_stops_training_where_its_clips_have_captions(shard_set: ShardSet):
    (shard_set.shards / "path-00002.tfrecord").unlink()
    status, findings = shard_set.run()
    assert status == 2
    assert kinds(findings) == {("missing_shard", "path-00002.tfrecord"), ("cannot_start", "")}
    assert stops(findings) == ["4 of 24 captions belong to clips of shards that are not there"]
    assert findings[1]["detail"].startswith(f"4 clips ({', '.join(IDS[20:])}): ")
    rewrite(shard_set.labels, lambda captions: captions[:20])
    status, findings = shard_set.run()
    assert status == 1
    assert kinds(findings) == {
        ("missing_shard", "path-00002.tfrecord"),
        *(("no_caption", video_id) for video_id in IDS[20:]),
    }


@pytest.mark.parametrize(("first_lost", "more"), [(15, 0), (15, 5), (10, 0)])
def test_shards_cut_at_and_in_a_header(shard_set: ShardSet, first_lost: int, more: int):
    shard, offset = shard_set.rows()[IDS[first_lost]]
    with shard.open("r+b") as file:
        file.truncate(offset + more)
    status, findings = shard_set.run()
    assert status == 1 and kinds(findings) == {("truncated_shard", shard.name)}
    assert findings[0]["detail"].startswith(f"{20 - first_lost} of 10 clips lie beyond its end, byte {offset + more}: ")


def test_nothing_but_damage_stops_training(shard_set: ShardSet):
    for shard in shard_set.shards.glob("*.tfrecord"):
        shard.write_bytes(bytes(shard.stat().st_size))
    status, findings = shard_set.run()
    assert status == 2
    assert stops(findings) == ["24 samples in a row, of 24, cannot be read: training gives up after 24"]


def test_thelongest_run_of_lost_samples_goes_round():
    assert longest_run(np.array([1, 0, 1, 1, 0, 0, 1, 1], dtype=bool)) == 3
    assert longest_run(np.array([0, 0, 1, 1, 0], dtype=bool)) == 2
    assert longest_run(np.zeros(3, dtype=bool)) == 0
    assert longest_run(np.ones(3, dtype=bool)) == 3


def test_a_rate_that_the_shards_lack_stops_training(shard_set: ShardSet):
    status, findings = shard_set.run("--feature_framerate", "2")
    assert status == 2 and len(findings) == 25
    assert {finding["kind"] for finding in findings[1:]} == {"missing_rate"}
    assert "records of 24 clips lack frames for --feature_framerate 2" in stops(findings)[0]


def test_single_clips_without_frames_of_the_rate_are_left_out(shard_set: ShardSet):
    """As training leaves them out."""
    shard, offset = shard_set.rows()[IDS[3]]
    content = shard.read_bytes()
    payload = dict(iterate_records(shard))[offset]
    slower = payload.replace(struct.pack("<f", 1.0), struct.pack("<f", 0.5))
    shard.write_bytes(content.replace(record(payload), record(slower)))
    status, findings = shard_set.run()
    assert status == 1 and kinds(findings) == {("missing_rate", IDS[3])}


def test_missing_and_damaged_lists_stop_training(shard_set: ShardSet):
    status, findings = shard_set.run("--data_path", str(shard_set.folder / "none.json"))
    assert status == 2 and "(--data_path)" in stops(findings)[0]
    status, findings = shard_set.run("--frame_sizes", str(shard_set.folder / "none.json"))
    assert status == 2 and len(findings) == 1
    rewrite(shard_set.labels, lambda _: [{"video_id": "5", "caption": "a dog"}])
    assert "belongs to a clip" in stops(shard_set.run()[1])[0]
    shard_set.labels.write_text('[{"video_id": "5"')
    assert "frozen_train_labels.json" in stops(shard_set.run()[1])[0]


def make_released(shard_set: ShardSet, count: int) -> None:
    """Replace the shards by one of the released format: raw frames, 256x256, nothing else; `count` clips."""
    rows, content, lines = shard_set.rows(), b"", []
    payloads = dict(iterate_records(shard_set.shards / "path-00000.tfrecord"))
    for video_id in IDS[:count]:
        clip = parse_clip(payloads[rows[video_id][1]], video_id)
        frames = [cv2.resize(frame, (256, 256))[..., ::-1] for frame in clip.decode(range(clip.num_frames))]
        lines.append(f"{video_id}\t/elsewhere/released.tfrecord\t{len(content)}")
        content += record(encode({"image": [np.stack(frames).tobytes()]}))
    for shard in shard_set.shards.glob("*.tfrecord"):
        shard.unlink()
    (shard_set.shards / "released.tfrecord").write_bytes(content)
    shard_set.change_index(lambda _: lines)
    rewrite(shard_set.labels, lambda captions: captions[:count])
    for video_id in IDS[count:]:
        shard_set.object_file(video_id).unlink()


@pytest.mark.slow
def test_released_shards_with_objects_need_sizes(shard_set: ShardSet):
    make_released(shard_set, 4)
    shard_set.object_file(IDS[3]).write_text(json.dumps([]))  # gives no objects, so its size is not asked for
    status, findings = shard_set.run()
    assert status == 2
    unknown = {("unknown_size", video_id) for video_id in IDS[:3]}
    assert kinds(findings) == {*unknown, ("wrong_frame_count", IDS[3]), ("cannot_start", "")}
    assert "no size is known of 3 clips" in stops(findings)[0] and "--frame_sizes FILE" in stops(findings)[0]

    shutil.copy(shard_set.object_file(IDS[0]), shard_set.object_file(IDS[3]))
    sizes = {video_id: truth["size"] for video_id, truth in shard_set.world.truth().items()}
    (shard_set.folder / "sizes.json").write_text(json.dumps(sizes))
    assert shard_set.run("--frame_sizes", str(shard_set.folder / "sizes.json")) == (0, [])
    assert shard_set.run("--box_coordinates", "crop") == (0, [])


def test_damage_in_released_shards(shard_set: ShardSet):
    make_released(shard_set, 5)
    (shard_set.folder / "sizes.json").write_text(json.dumps({video_id: [500, 400] for video_id in IDS}))
    shard = shard_set.shards / "released.tfrecord"
    content = shard.read_bytes()
    length = len(content) // 5
    shard.write_bytes(content[: 2 * length + 99] + bytes(9) + content[2 * length + 108 : -length - 50])
    status, findings = shard_set.run("--frame_sizes", str(shard_set.folder / "sizes.json"))
    assert status == 1
    assert kinds(findings) == {("damaged_record", IDS[2]), ("truncated_shard", "/elsewhere/released.tfrecord")}
    assert findings[0]["detail"].startswith("2 of 5 clips")


def test_a_store_whose_object_files_are_gone_is_used(shard_set: ShardSet):
    for path in shard_set.objects.glob("*.json"):
        path.unlink()
    assert "hold no object files" in stops(shard_set.run("--trajectory", "track")[1])[0]
    (shard_set.objects / f"objects_4_intended_xyxy_{FRAMES}frames_track.lmdb").mkdir()
    assert shard_set.run("--trajectory", "track") == (0, [])
