"""The object store: built once, read from any process, honest about bad files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from dataloaders import object_records, object_store
from dataloaders.built_caches import CannotCache, fallback_place
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectRules, ObjectSettings, split_object_folder
from dataloaders.object_store import ObjectStore, RectOrderError, build_object_store, default_store_path
from tests.dataloaders.test_built_caches import refuse

LABELS = {"label_to_idx": {"man": 1, "dog": 2}}
SETTINGS = ObjectSettings(object_count=2, frames=2)


def write_clip(folder: Path, video_id: str, left: int = 10, frames: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    objects = [
        {"class": "man", "rect": [left, 20, left + 40, 90], "conf": 0.5},
        {"class": "dog", "rect": [200, 20, 220, 40], "conf": 0.9},
    ]
    (folder / f"{video_id}.json").write_text(json.dumps([{"objects": objects}] * frames))


@pytest.mark.parametrize("workers", [1, 2])
def test_clips_are_found_in_both_folders(tmp_path: Path, workers: int) -> None:
    write_clip(tmp_path, "a", 10)
    write_clip(tmp_path / "tsv_files", "a", 30)
    write_clip(tmp_path / "tsv_files", "b", 50)
    store = ObjectStore(build_object_store(tmp_path, LABELS, SETTINGS, workers=workers))
    assert len(store) == 2
    record = store.get("a")
    assert record is not None
    assert record.boxes[0].tolist() == [[10, 20, 50, 90], [200, 20, 220, 40]]
    assert record.classes.tolist() == [[1, 2], [1, 2]]
    assert record.tracks.tolist() == [[1, 2], [1, 2]]
    assert record.trajectory_ids.tolist() == [2, 1, 0, 0]
    second = store.get("b")
    assert second is not None
    assert second.boxes[1, 0, 0] == 50
    assert store.problem("b") is None
    assert store.get("c") is None
    assert "no object file" in str(store.problem("c"))
    assert store.settings == SETTINGS
    assert store.report["files"] == 2


def test_named_clips_may_lie_in_folders_and_are_stored_again_when_their_files_change(tmp_path: Path) -> None:
    names = ["a/x", "b/c/x", "y", "gone/z"]
    for number, name in enumerate(names[:3]):
        write_clip((tmp_path / name).parent, "xxy"[number], left=10 + number)
    store = ObjectStore(build_object_store(tmp_path, LABELS, SETTINGS, names))
    records = [store.get(name) for name in names[:3]]
    assert [None if record is None else record.boxes[0, 0, 0] for record in records] == [10, 11, 12]
    assert store.get("x") is store.get("gone/z") is None and store.report["missing_files"] == 1
    write_clip(tmp_path / "b/c", "x", left=150)
    again = ObjectStore(build_object_store(tmp_path, LABELS, SETTINGS, names)).get("b/c/x")
    assert again is not None and again.boxes[0, 0, 0] == 150


def test_bad_files_are_stored_as_without_objects_and_listed(tmp_path: Path) -> None:
    write_clip(tmp_path, "good")
    write_clip(tmp_path, "cut", left=-20)
    write_clip(tmp_path, "short", frames=1)
    (tmp_path / "broken.json").write_text("[{")
    path = build_object_store(tmp_path, LABELS, SETTINGS, ["good", "cut", "short", "broken", "absent"])
    store = ObjectStore(path)
    assert store.get("good") is not None
    assert store.get("short") is None
    assert "1 frames, 2 frames" in str(store.problem("short"))
    assert "JSON" in str(store.problem("broken"))
    counts = {name: store.report[name] for name in ("files", "broken_files", "wrong_frame_counts", "missing_files")}
    assert counts == {"files": 3, "broken_files": 1, "wrong_frame_counts": 1, "missing_files": 1}
    lines = [line.split("\t")[:3] for line in (path / object_store.PROBLEMS_FILE).read_text().splitlines()]
    assert sorted(lines) == [
        ["broken_files", "broken", "1"],
        ["clipped_boxes", "cut", "2"],
        ["missing_files", "absent", "1"],
        ["wrong_frame_counts", "short", "1"],
    ]


def test_names_that_are_no_files_are_broken_files_and_end_no_build(tmp_path: Path) -> None:
    write_clip(tmp_path, "good")
    write_clip(tmp_path / "tsv_files", "in_both")
    for folder in ("folder", "in_both"):
        (tmp_path / f"{folder}.json").mkdir()
    (tmp_path / "link.json").symlink_to("gone.json")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json")).write_text("[")
    for ids in (None, ["good", "in_both", "folder", "link", "\udcff", "long" * 100]):
        path = build_object_store(tmp_path, LABELS, SETTINGS, ids)
        store = ObjectStore(path)
        assert store.get("good") is not None and store.get("in_both") is not None
        assert store.report["files"] == 2 and store.report["broken_files"] == 3
        assert store.report["missing_files"] == (0 if ids is None else 1)
        assert "link to gone.json" in str(store.problem("link")) and "folder" in str(store.problem("folder"))
        assert "\\udcff.json" in (path / object_store.PROBLEMS_FILE).read_text(encoding="utf-8")
    assert build_object_store(tmp_path, LABELS, SETTINGS) == object_store.default_store_path(tmp_path, SETTINGS)


def test_built_once_and_again_when_a_file_or_a_setting_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Any] = []
    monkeypatch.setattr(object_store, "_build", _counting(object_store._build, builds))
    write_clip(tmp_path, "a")
    path = build_object_store(tmp_path, LABELS, SETTINGS)
    first = ObjectStore(path)
    assert first.get("a") is not None
    assert build_object_store(tmp_path, LABELS, SETTINGS) == path
    assert len(builds) == 1
    write_clip(tmp_path, "a", left=60)
    write_clip(tmp_path, "new")
    build_object_store(tmp_path, LABELS, SETTINGS)
    assert len(builds) == 2
    rebuilt = ObjectStore(path).get("a")
    assert rebuilt is not None
    assert rebuilt.boxes[0, 0, 0] == 60
    assert build_object_store(tmp_path, LABELS, ObjectSettings(2, 2, ObjectRules("released"))) != path
    build_object_store(tmp_path, {"label_to_idx": {"man": 2, "dog": 1}}, SETTINGS)
    assert len(builds) == 4


def _counting(function: Any, calls: list[Any]) -> Any:
    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    return counted


def test_a_store_outlives_its_json_files(tmp_path: Path) -> None:
    write_clip(tmp_path, "a")
    path = build_object_store(tmp_path, LABELS, SETTINGS)
    (tmp_path / "a.json").unlink()
    assert build_object_store(tmp_path, LABELS, SETTINGS) == path
    assert ObjectStore(path).get("a") is not None
    with pytest.raises(FileNotFoundError, match="tsv_files"):
        build_object_store(tmp_path, LABELS, ObjectSettings(3, frames=2))


def test_the_store_of_a_read_only_folder_lies_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    objects = tmp_path / "objects"
    write_clip(objects, "a")
    refuse(objects, errno.EROFS, monkeypatch)
    path = build_object_store(objects, LABELS, SETTINGS)
    assert path == fallback_place(default_store_path(objects, SETTINGS)) and len(ObjectStore(path)) == 1
    calls: list[Any] = []
    monkeypatch.setattr(object_store, "_build", _counting(object_store._build, calls))
    assert build_object_store(objects, LABELS, SETTINGS) == path and not calls
    write_clip(objects, "b")
    assert len(ObjectStore(build_object_store(objects, LABELS, SETTINGS))) == 2 and len(calls) == 1
    for name in ("a.json", "b.json"):
        (objects / name).unlink()
    assert build_object_store(objects, LABELS, SETTINGS) == path and len(calls) == 1, "as a store beside its files"
    write_clip(objects, "a")
    with pytest.raises(CannotCache, match=r"cannot build .*named: .*Read-only"):
        build_object_store(objects, LABELS, SETTINGS, store_path=objects / "named")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(environment: Any, values: Any) -> None:
        raise lmdb.Error("mdb_txn_commit: Input/output error")  # as it is on a full tmpfs

    monkeypatch.setattr(object_store, "_write_values", full)
    write_clip(tmp_path, "a")
    with pytest.raises(CannotCache, match=r"objects_2.*Input/output error.*free space"):
        build_object_store(tmp_path, LABELS, SETTINGS)
    assert not default_store_path(tmp_path, SETTINGS).exists()


def test_files_in_the_other_rect_order_stop_the_build(tmp_path: Path) -> None:
    for name in ("a", "b"):
        objects = [{"class": "man", "rect": [100, 140, 20, 90], "conf": 0.5}]
        (tmp_path / f"{name}.json").write_text(json.dumps([{"objects": objects}] * 2))
    with pytest.raises(RectOrderError, match="--rect_order xxyy"):
        build_object_store(tmp_path, LABELS, SETTINGS)
    path = build_object_store(tmp_path, LABELS, ObjectSettings(2, 2, ObjectRules(rect_order="xxyy")))
    record = ObjectStore(path).get("a")
    assert record is not None
    assert record.boxes[0, 0].tolist() == [100, 20, 140, 90]


def test_the_map_grows_with_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "INITIAL_MAP_SIZE", 1 << 16)
    monkeypatch.setattr(object_store, "CHUNK", 16)
    for number in range(300):
        write_clip(tmp_path, f"clip{number}")
    store = ObjectStore(build_object_store(tmp_path, LABELS, ObjectSettings(8, frames=2)))
    assert len(store) == 300
    assert all(store.get(f"clip{number}") is not None for number in range(300))


def write_two_men(folder: Path) -> None:
    """A man walks to the right, one in red, more surely found, comes the other way on the same path; a dog sits."""
    frames = []
    for time in range(4):
        men = [(50 * time, ["tall"], 0.5), (150 - 50 * time, ["red"], 0.6)]
        objects: list[dict[str, Any]] = [
            {"class": "man", "rect": [left, 20, left + 40, 90], "conf": conf, "attributes": names, "attr_scores": [0.9]}
            for left, names, conf in men
        ]
        objects.append({"class": "dog", "rect": [10, 120, 110, 200], "conf": 0.1})
        frames.append({"objects": objects})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_text(json.dumps(frames))


def test_tracks_tell_two_of_a_class_apart_and_list_each(tmp_path: Path) -> None:
    write_two_men(tmp_path)
    settings = ObjectSettings(object_count=3, frames=4)
    by_class = ObjectStore(build_object_store(tmp_path, LABELS, settings)).get("a")
    tracked_store = ObjectStore(
        build_object_store(tmp_path, LABELS, replace(settings, rules=ObjectRules(trajectory="track")))
    )
    tracked = tracked_store.get("a")
    assert by_class is not None and tracked is not None
    assert tracked_store.path.name.endswith("_track.lmdb") and tracked_store.settings.rules.trajectory == "track"
    np.testing.assert_array_equal(tracked.boxes, by_class.boxes)
    np.testing.assert_array_equal(tracked.classes, by_class.classes)
    np.testing.assert_array_equal(by_class.tracks, by_class.classes)
    assert by_class.trajectory_ids.tolist() == [1, 2, 0, 0, 0, 0]
    lefts = {int(one): tracked.boxes[tracked.tracks == one][:, 0].tolist() for one in np.unique(tracked.tracks)}
    dog, right, left = ([10.0] * 4, [0.0, 50.0, 100.0, 150.0], [150.0, 100.0, 50.0, 0.0])
    assert sorted(lefts.values()) == sorted([dog, right, left])
    assert [lefts[one] for one in tracked.trajectory_ids[:3]] == [left, right, dog], "by falling summed confidence"
    assert not tracked.trajectory_ids[3:].any()


def test_boxes_of_trajectories_beyond_the_list_keep_another_number(tmp_path: Path) -> None:
    """One box per frame, each time in another size: more trajectories than the two that are listed."""
    frames = [
        {"objects": [{"class": "man", "rect": [0, 0, side, side], "conf": 0.1 + side / 1000}]} for side in (5, 60, 700)
    ]
    (tmp_path / "a.json").write_text(json.dumps(frames))
    settings = ObjectSettings(1, 3, ObjectRules(trajectory="track"))
    record = ObjectStore(build_object_store(tmp_path, LABELS, settings)).get("a")
    assert record is not None
    assert record.tracks.tolist() == [[1], [2], [3]] and record.trajectory_ids.tolist() == [3, 2]


def test_a_store_of_an_earlier_format_is_built_again_and_never_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path, "a")
    with monkeypatch.context() as earlier:
        earlier.setattr(object_store, "FORMAT", 1)
        earlier.setattr(object_records, "MAGIC", b"OBJ1")
        path = build_object_store(tmp_path, LABELS, SETTINGS)
    with pytest.raises(ValueError, match="not an object record; delete the folder"):
        ObjectStore(path).get("a")
    assert build_object_store(tmp_path, LABELS, SETTINGS) == path
    assert ObjectStore(path).get("a") is not None
    (tmp_path / "a.json").unlink()
    monkeypatch.setattr(object_store, "FORMAT", object_store.FORMAT + 1)
    with pytest.raises(FileNotFoundError, match="built with other settings or by another version"):
        build_object_store(tmp_path, LABELS, SETTINGS)


def test_an_unknown_trajectory_rule_is_an_error(tmp_path: Path) -> None:
    write_clip(tmp_path, "a")
    with pytest.raises(ValueError, match="colour"):
        build_object_store(tmp_path, LABELS, replace(SETTINGS, rules=ObjectRules(trajectory="colour")))


def _read(store: ObjectStore, results: Any) -> None:
    record = store.get("a")
    results.put(None if record is None else record.boxes[0, 0].tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_a_store_that_is_already_open(tmp_path: Path, method: str) -> None:
    write_clip(tmp_path, "a")
    store = ObjectStore(build_object_store(tmp_path, LABELS, SETTINGS))
    assert store.get("a") is not None
    assert pickle.loads(pickle.dumps(store)).get("a") is not None
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    processes = [context.Process(target=_read, args=(store, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [[10, 20, 50, 90]] * 2
    for process in processes:
        process.join()
    assert store.get("a") is not None


def test_frame_sizes_find_boxes_beyond_the_frame(tmp_path: Path) -> None:
    write_clip(tmp_path, "a")
    path = build_object_store(tmp_path, LABELS, SETTINGS, frame_sizes={"a": (210, 50)})
    store = ObjectStore(path)
    assert store.report["clipped_boxes"] == 4
    record = store.get("a")
    assert record is not None
    assert record.boxes[0, 0].tolist() == [10, 20, 50, 50]


def test_object_folder_of_a_split_is_the_released_one_or_its_own_or_the_shared_one(tmp_path: Path) -> None:
    assert split_object_folder(tmp_path, "train") == tmp_path
    (tmp_path / "train").mkdir()
    assert split_object_folder(tmp_path, "train") == tmp_path / "train"
    released = tmp_path / "train/inference/vinvl_vg_x152c4"
    write_clip(released / "tsv_files", "1.mov_[0]_[31]")
    assert split_object_folder(tmp_path, "train") == released
    assert split_object_folder(tmp_path, "test") == tmp_path
    store = ObjectStore(build_object_store(split_object_folder(tmp_path, "train"), LABELS, SETTINGS))
    assert store.get("1.mov_[0]_[31]") is not None


def test_no_store_at_a_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not an object store"):
        ObjectStore(tmp_path)


@pytest.mark.parametrize("content", ["", "null", "[]", '{"settings": 5}', '{"settings": {}}', "\xff"])
def test_a_damaged_store_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "store.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"{tmp_path.name}, store\.json is not that.*delete the folder"):
        ObjectStore(tmp_path)


def test_real_object_files_make_a_store_without_problems(shared: Path, tmp_path: Path) -> None:
    label_map = load_label_map(shared / "realdata" / "vinvl" / "label_map.json")
    objects = shared / "realdata" / "objects" / "webvid"
    before = sorted(os.listdir(objects))
    store = ObjectStore(
        build_object_store(objects, label_map, ObjectSettings(10, frames=12), store_path=tmp_path / "store")
    )
    assert sorted(os.listdir(objects)) == before, "a store elsewhere leaves the folder of object files as it is"
    assert len(store) == 5
    record = store.get("5641526")
    assert record is not None
    assert record.boxes.shape == (12, 10, 4)
    horse = label_map["label_to_idx"]["horse"]
    assert horse in record.trajectory_ids
    assert store.report["files"] == 5
    assert store.report["examples"] == {}


@pytest.mark.parametrize("content", ["", "[" * 10**5, "[]", "{}", '{"settings": {}, "report": 3}', '{"settings": 3}'])
def test_a_store_whose_description_is_damaged_names_the_remedy(tmp_path: Path, content: str):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(ValueError, match=r"store\.json.*delete the folder to have it built again"):
        ObjectStore(tmp_path)
