"""A folder of videos to search in: encoded once, brought up to date, and ranked as the model ranks."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.built_caches import CannotCache, fallback_place
from modules.tasks.captioning import CaptionModel
from tests.dataloaders.test_built_caches import refuse
from tests.utils.checkpoints import save_tiny
from tests.videos import write_noise, write_video
from utils.evaluation.bad_videos import BadVideos
from utils.inference.predictor import Predictor
from utils.inference.search_index import INDEX_NAME, SearchIndex, Update
from utils.runtime import precision as precisions

TEXTS = ["a dog runs", "two men sing"]
PLAIN = {"need_object": False, "use_action": False, "max_frames": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos a and c, and b in a folder of its own, beside other files."""
    (tmp_path / "videos" / "more").mkdir(parents=True)
    write_video(tmp_path / "videos" / "a.mp4", 30)
    write_noise(tmp_path / "videos" / "more" / "b.avi", "MJPG", 20)
    write_video(tmp_path / "videos" / "c.MP4", 50, step=11)
    (tmp_path / "videos" / "notes.txt").write_text("no video")
    return tmp_path / "videos"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), **PLAIN)


def make(checkpoint: Path, **flags: Any) -> Predictor:
    return Predictor(checkpoint, **{"device": "cpu", "precision": "fp32", "on_bad_video": "skip", **flags})


def update_of(predictor: Predictor, folder: Path) -> Update:
    return SearchIndex(predictor, folder).last_update


def test_videos_are_ranked_by_their_similarity_to_each_query(checkpoint: Path, folder: Path):
    predictor = make(checkpoint)
    index = SearchIndex(predictor, folder)
    assert sorted(index.names) == ["a.mp4", "c.MP4", "more/b.avi"] and (folder / INDEX_NAME).is_file()
    paths = [str(folder / name) for name in index.names]
    wanted = {(match.video, match.text): match.similarity for match in predictor.match(paths, TEXTS)}
    for text, found in zip(TEXTS, index.search(TEXTS), strict=True):
        values = [one.similarity for one in found]
        assert values == sorted(values, reverse=True) and {one.video for one in found} == set(paths)
        assert values == pytest.approx([wanted[one.video, text] for one in found], abs=1e-6)
        assert {one.probability for one in found} == {None}
    assert [len(found) for found in index.search(TEXTS, top=2)] == [2, 2]


@pytest.mark.parametrize("kind", ["dangling", "pipe"])
def test_what_is_no_file_does_not_end_a_search(checkpoint: Path, folder: Path, kind: str):
    bad = folder / "bad.mp4"
    if kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.symlink_to(folder / "nowhere.mp4")
    index = SearchIndex(make(checkpoint), folder)
    assert len(index.names) == 3 and len(index.search(TEXTS, top=5)[0]) == 3
    [reason] = index.last_update.unreadable
    assert reason.startswith(f"{bad}: a ")


def test_candidates_are_re_ranked_by_similarity_times_probability(checkpoint: Path, folder: Path):
    predictor = make(checkpoint)
    index = SearchIndex(predictor, folder)
    plain, found = index.search(TEXTS, top=3), index.search(TEXTS, top=3, rerank_top=2)
    for first, ranked in zip(plain, found, strict=True):
        assert len(ranked) == 3 and all(one.probability is not None for one in ranked), "top is more than rerank_top"
        logits = torch.tensor([one.similarity for one in first]).double() * predictor.logit_scale
        probability = {one.video: one.probability for one in ranked}
        scores = logits.softmax(-1) * torch.tensor([probability[one.video] for one in first]).double()
        assert [one.video for one in ranked] == [first[place].video for place in scores.argsort(descending=True)]
    assert [[one.video for one in row] for row in index.search(TEXTS, top=1, rerank_top=3)] == [
        [row[0].video] for row in found
    ]


def test_without_a_trained_matching_head_the_similarity_decides(tmp_path: Path, folder: Path):
    index = SearchIndex(make(save_tiny(tmp_path, CaptionModel, **PLAIN)), folder)
    assert index.search(TEXTS, rerank_top=3) == index.search(TEXTS)


def test_only_what_has_changed_is_encoded_again(checkpoint: Path, folder: Path):
    predictor = make(checkpoint)
    assert update_of(predictor, folder) == Update(3, 0, 0, [])
    written = (folder / INDEX_NAME).read_bytes()
    assert update_of(predictor, folder) == Update(0, 3, 0, []) and (folder / INDEX_NAME).read_bytes() == written
    os.utime(folder / "a.mp4", ns=(1, 1))
    (folder / "c.MP4").unlink()
    write_video(folder / "d.mp4", 40, step=5)
    index = SearchIndex(predictor, folder)
    assert index.last_update == Update(2, 1, 1, []) and index.names == ["more/b.avi", "a.mp4", "d.mp4"]
    found = {one.video: one.similarity for one in index.search(TEXTS)[0]}
    (folder / INDEX_NAME).unlink()
    fresh = {one.video: one.similarity for one in SearchIndex(predictor, folder).search(TEXTS)[0]}
    assert found == pytest.approx(fresh, abs=1e-6)


def test_files_that_cannot_be_read_are_left_out_or_an_error_and_tried_again(checkpoint: Path, folder: Path):
    (folder / "broken.mp4").write_bytes(b"no video")
    update = update_of(make(checkpoint), folder)
    assert (update.encoded, len(update.unreadable)) == (3, 1) and "broken.mp4" in update.unreadable[0]
    assert update_of(make(checkpoint), folder) == Update(0, 3, 0, [f"{folder / 'broken.mp4'}: cannot be read"])
    with pytest.raises(BadVideos, match=r"broken\.mp4"):
        SearchIndex(make(checkpoint, on_bad_video="error"), folder)
    write_video(folder / "broken.mp4", 30, step=3)
    assert update_of(make(checkpoint), folder) == Update(1, 3, 0, [])


def test_a_folder_of_files_that_cannot_be_read_is_an_error(checkpoint: Path, tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(BadVideos, match="none of the clips can be read"):
        SearchIndex(make(checkpoint), tmp_path)
    assert not (tmp_path / INDEX_NAME).exists()


@pytest.mark.parametrize("other", ["another checkpoint", "other frames", "other precision"])
def test_an_index_of_another_model_other_frames_or_precision_is_made_anew(
    checkpoint: Path, folder: Path, tmp_path: Path, other: str
):
    assert update_of(make(checkpoint), folder).encoded == 3
    said: list[str] = []
    predictor = {
        "another checkpoint": lambda: make(save_tiny(tmp_path, seed=1, **PLAIN), log=said.append),
        "other frames": lambda: make(checkpoint, log=said.append, feature_framerate=2.0),
        "other precision": lambda: make(checkpoint, log=said.append, precision="bf16"),
    }[other]()
    assert update_of(predictor, folder) == Update(3, 0, 0, [])
    assert said == [f"{folder / INDEX_NAME}: of another model or other settings; made anew"]


def test_an_index_belongs_to_the_precision_that_auto_stands_for(
    checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precisions, "has_bf16_products", lambda: True)
    assert update_of(make(checkpoint, precision="auto"), folder).encoded == 3
    assert update_of(make(checkpoint, precision="bf16"), folder).kept == 3
    monkeypatch.setattr(precisions, "has_bf16_products", lambda: False)
    assert update_of(make(checkpoint, precision="auto"), folder).encoded == 3
    assert update_of(make(checkpoint), folder).kept == 3


def test_a_damaged_index_is_made_anew(checkpoint: Path, folder: Path):
    said: list[str] = []
    predictor = make(checkpoint, log=said.append)
    assert update_of(predictor, folder).encoded == 3
    whole = (folder / INDEX_NAME).read_bytes()
    for content in (b"", b"no index", whole[: len(whole) // 2]):
        (folder / INDEX_NAME).write_bytes(content)
        assert update_of(predictor, folder) == Update(3, 0, 0, [])
        assert "not a readable index" in said.pop()


def test_the_index_may_lie_elsewhere(checkpoint: Path, folder: Path, tmp_path: Path):
    place = tmp_path / "kept" / "search.npz"
    place.parent.mkdir()
    assert SearchIndex(make(checkpoint), folder, place).last_update.encoded == 3
    assert place.is_file() and not (folder / INDEX_NAME).exists()
    assert SearchIndex(make(checkpoint), folder, place).last_update.kept == 3


def test_the_index_of_a_read_only_folder_lies_in_the_users_cache(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    predictor = make(checkpoint)
    assert update_of(predictor, folder) == Update(3, 0, 0, [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with monkeypatch.context() as patched:
        refuse(folder, errno.EROFS, patched)
        index = SearchIndex(predictor, folder)
        assert index.last_update == Update(0, 3, 0, []) and index.path == folder / INDEX_NAME, "used where it is"
    os.utime(folder / "a.mp4", ns=(1, 1))
    refuse(folder, errno.EROFS, monkeypatch)
    written = (folder / INDEX_NAME).read_bytes()
    place = fallback_place(folder / INDEX_NAME)
    for expected in (Update(1, 2, 0, []), Update(0, 3, 0, [])):
        index = SearchIndex(predictor, folder)
        assert index.last_update == expected and index.path == place and place.is_file()
    assert (folder / INDEX_NAME).read_bytes() == written
    monkeypatch.setattr(Predictor, "encode", None)  # not called before the place is known to be of no use
    with pytest.raises(CannotCache, match=r"named\.npz cannot be written \(Read-only file system\)"):
        SearchIndex(predictor, folder, folder / "named.npz")


def test_a_full_disk_loses_the_index_but_no_answer(checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(file: Any, **arrays: Any) -> None:
        file.write(b"PK")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []
    monkeypatch.setattr(np, "savez", full)
    index = SearchIndex(make(checkpoint, log=said.append), folder)
    assert len(index.search(TEXTS)[0]) == 3 and not list(folder.glob(".*"))
    assert said == [
        f"{index.path}: cannot be written ([Errno 28] No space left on device); what was encoded is not kept"
    ]


def test_links_to_folders_are_followed_and_links_to_nowhere_are_left_out(
    checkpoint: Path, folder: Path, tmp_path: Path
):
    write_video(tmp_path / "disk/d.mp4", 30, step=7)
    (folder / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(folder)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    index = SearchIndex(make(checkpoint), folder)
    assert sorted(index.names) == ["a.mp4", "c.MP4", "linked/d.mp4", "more/b.avi"]
    assert len(index.last_update.unreadable) == 1 and "gone.mp4" in index.last_update.unreadable[0]
    (folder / "gone.mp4").unlink()
    assert update_of(make(checkpoint), folder) == Update(0, 4, 0, [])


def test_a_video_is_encoded_again_when_its_object_file_changes(tmp_path: Path, folder: Path):
    objects = tmp_path / "objects"
    objects.mkdir()
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    flags = {"object_path": str(objects), "labelmap_path": str(tmp_path / "map.json")}
    model = save_tiny(tmp_path, max_frames=3)
    assert update_of(make(model, **flags), folder).encoded == 3
    box = {"class": "dog", "rect": [1, 1, 40, 40], "conf": 0.9}
    (objects / "b.json").write_text(json.dumps([{"objects": [box]}] * 3))
    index = SearchIndex(make(model, **flags), folder)
    assert index.last_update == Update(1, 2, 0, []) and index.names[-1] == "more/b.avi"
    assert index.tokens.trajectory_mask is not None
    assert index.tokens.trajectory_mask.any(1).tolist() == [False, False, True]
    assert update_of(make(model, **flags, trajectory="track"), folder).encoded == 3


def test_no_folder_and_no_video_are_errors(checkpoint: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none: no such folder of videos"):
        SearchIndex(make(checkpoint), tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no video in it .*mp4"):
        SearchIndex(make(checkpoint), tmp_path)


def rewritten(path: Path, compressed: bool = False, **changed: np.ndarray) -> None:
    with np.load(path) as file:
        arrays = {**{name: file[name] for name in file}, **changed}
    (np.savez_compressed if compressed else np.savez)(path, **arrays)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def larger_header(path: Path) -> None:
    content = path.read_bytes()
    shape = content.index(b"(3, 3, 64)")
    path.write_bytes(content[:shape] + b"(3, 9, 64)" + content[shape + 10 :])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        cut_short,
        larger_header,
        lambda path: rewritten(path, compressed=True, frames=np.zeros((3, 10**6, 64), np.float16)),
        lambda path: rewritten(path, frames=np.zeros((2, 3, 64), np.float32)),
        lambda path: rewritten(path, frames=np.full((3, 3, 64), np.nan, np.float32)),
        lambda path: rewritten(path, frames=np.zeros((3, 3, 32), np.float32)),
        lambda path: rewritten(path, frame_mask=np.ones((3, 4), bool)),
        lambda path: rewritten(path, frame_mask=np.ones((3, 3), np.float32)),
        lambda path: rewritten(path, stamps=np.array("[" * 10**5)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"'shape': (), }", b"'shape': ((, }", 1)),
        lambda path: rewritten(path, stamps=np.array("[1, 2, 3]")),
        lambda path: rewritten(path, stamps=np.array(["a"], dtype=object)),
    ],
)
def test_a_damaged_index_is_made_anew_with_a_line(checkpoint: Path, folder: Path, damage: Any):
    lines: list[str] = []
    predictor = make(checkpoint, log=lines.append)
    SearchIndex(predictor, folder)
    damage(folder / INDEX_NAME)
    assert SearchIndex(predictor, folder).last_update == Update(3, 0, 0, [])
    assert [line for line in lines if "not a readable index" in line and "made anew" in line]
    assert SearchIndex(predictor, folder).last_update == Update(0, 3, 0, [])
