"""Objects found on the fly are those of object files made beforehand, from frames that are decoded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders import frames as frames_module
from dataloaders.frames import Clip
from dataloaders.label_map import load_label_map
from modules.beam_search import SearchSettings
from modules.tasks.captioning import CaptionModel
from tasks import predict
from tests.utils.checkpoints import save_tiny
from tests.utils.preparation import tiny_detectors
from tests.videos import write_noise, write_video
from utils import extract_objects
from utils.inference.predictor import Predictor
from utils.inference.search_index import SearchIndex
from utils.pictures.explain import explain
from utils.preparation.choosing import Naming
from utils.preparation.detectors import Frame
from utils.preparation.extraction import Extraction, extract_all

CLASSES = ("dog", "man", "thing 34", "thing 4", "thing 7")
GREEDY = SearchSettings(1, 6)


@dataclass
class Bright:
    """Finds a box in each frame whose place follows from the frame's pixels; counts the clips that it saw."""

    names: tuple[str, ...] = ("Dogs", "unicorn", "man")
    name: str = "bright"
    settings: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        self.seen.append(video_id)
        if video_id == "unknown":
            raise ValueError("nothing is known of it")
        return [self._objects(frame) for frame in clip.frames]

    def _objects(self, frame: np.ndarray) -> Frame:
        height, width = frame.shape[:2]
        x, y = (int(value) % 20 for value in frame.mean((0, 1))[:2])
        box = [x, y, x + width / 2, y + height / 2]
        return [{"class": name, "rect": [v + i for v in box], "conf": 0.9} for i, name in enumerate(self.names)]


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Two videos in a folder of their own."""
    (tmp_path / "videos").mkdir()
    write_noise(tmp_path / "videos" / "b.avi", "MJPG", 20)
    return [write_video(tmp_path / "videos" / "a.mp4", 30), tmp_path / "videos" / "b.avi"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with objects, and its label map."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, max_frames=3)
    indices = {name: place for place, name in enumerate(CLASSES, 1)}
    (folder / "map.json").write_text(json.dumps({"label_to_idx": indices}))
    return folder


@pytest.fixture
def make(folder: Path) -> Callable[..., Predictor]:
    """A predictor of that checkpoint."""

    def make(**flags: Any) -> Predictor:
        own = {"device": "cpu", "precision": "fp32", "labelmap_path": str(folder / "map.json")}
        return Predictor(folder / "PretrainModel.bin", **{**own, **flags})

    return make


def write_objects(predictor: Predictor, videos: list[Path], output: Path, detector: Bright) -> None:
    """Object files as utils/extract_objects.py makes them with --labelmap_path."""
    settings = predictor.settings
    naming = Naming(None, load_label_map(settings.labelmap_path))
    extraction = Extraction(detector, output, 3, settings.frames, naming.find, naming.made_from)
    assert not extract_all(extraction, videos, overwrite=False).failed


def files_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_what_is_found_is_what_files_made_beforehand_say_and_nothing_is_written(
    make: Callable[..., Predictor], folder: Path, videos: list[Path], tmp_path: Path
):
    before = files_below(folder, tmp_path)
    predictor = make(detector=Bright())
    captions, tokens = predictor.caption(videos, GREEDY), predictor.encode(videos).tokens
    assert files_below(folder, tmp_path) == before
    write_objects(predictor, videos, tmp_path / "objects", Bright())
    from_files = make(object_path=str(tmp_path / "objects"))
    assert from_files.caption(videos, GREEDY) == captions
    wanted, blind = from_files.encode(videos).tokens, make().encode(videos).tokens
    assert tokens.trajectory_mask is not None and tokens.trajectory_mask.any(1).all()
    for own, theirs in zip(tokens, wanted, strict=True):
        assert (own is None) == (theirs is None) and (own is None or torch.equal(own, theirs))
    assert not blind.trajectory_mask.any()


def test_each_video_is_decoded_once(
    make: Callable[..., Predictor], videos: list[Path], monkeypatch: pytest.MonkeyPatch
):
    opened: list[str] = []
    open_video = frames_module.open_video

    def counted(path: Path, *args: Any) -> Any:
        opened.append(path.name)
        return open_video(path, *args)

    monkeypatch.setattr(frames_module, "open_video", counted)
    detector = Bright()
    make(detector=detector).caption(videos, GREEDY)
    assert opened == ["a.mp4", "b.avi"] and detector.seen == ["a", "b"]


def test_with_a_folder_what_is_found_is_kept_and_read_the_next_time(
    make: Callable[..., Predictor], videos: list[Path], tmp_path: Path
):
    first, again, other = Bright(), Bright(), Bright(settings={"threshold": 0.5})
    flags = {"object_path": str(tmp_path / "kept"), "frame_cache": str(tmp_path / "cache")}
    captions = make(detector=first, **flags).caption(videos, GREEDY)
    write_objects(make(), videos, tmp_path / "objects", Bright())
    kept = {path.relative_to(tmp_path / "kept"): data for path, data in files_below(tmp_path / "kept").items()}
    assert kept == {p.relative_to(tmp_path / "objects"): d for p, d in files_below(tmp_path / "objects").items()}
    assert make(detector=again, **flags).caption(videos, GREEDY) == captions
    assert (first.seen, again.seen) == (["a", "b"], [])
    make(detector=other, **flags).caption(videos, GREEDY)
    assert other.seen == ["a", "b"], "made in another way"


def test_files_of_others_are_never_written_over(make: Callable[..., Predictor], videos: list[Path], tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "b.json").write_text("[]")
    with pytest.raises(ValueError, match=r"own/b\.json: not made by a --detector, and it would be written over"):
        make(detector=Bright(), object_path=str(tmp_path / "own")).caption(videos, GREEDY)
    assert (tmp_path / "own" / "b.json").read_text() == "[]"


def test_boxes_are_in_pixels_of_the_video_whatever_the_files_of_the_training_were(
    make: Callable[..., Predictor], videos: list[Path]
):
    wanted = make(detector=Bright()).encode(videos).tokens
    found = make(detector=Bright(), box_coordinates="crop", rect_order="xxyy").encode(videos).tokens
    assert all(own is None or torch.equal(own, theirs) for own, theirs in zip(found, wanted, strict=True))


def test_classes_that_the_model_does_not_have_are_counted_in_a_remark(
    make: Callable[..., Predictor], folder: Path, videos: list[Path], tmp_path: Path
):
    said: list[str] = []
    (tmp_path / "names.json").write_text(json.dumps({"unicorn": "man"}))
    make(detector=Bright(), log=said.append).caption(videos, GREEDY)
    assert said == [f"boxes of classes that {folder / 'map.json'} does not have, left out: unicorn 6"]
    make(detector=Bright(), log=said.append, class_map=str(tmp_path / "names.json")).caption(videos, GREEDY)
    assert len(said) == 1
    make(detector=Bright(("unicorn",)), log=said.append).caption(videos, GREEDY)
    assert said[1:] == [said[0], "bright: no object found in 2 videos; the model sees none"]


def test_pictures_of_what_a_model_sees_are_of_object_files(make: Callable[..., Predictor], videos: list[Path]):
    with pytest.raises(ValueError, match=r"make object files of it \(--object_path\)"):
        explain(make(detector=Bright()), videos[0], "a dog")


def test_a_clip_that_the_detector_has_nothing_for_is_left_out_and_named(
    make: Callable[..., Predictor], videos: list[Path]
):
    lost = videos[0].rename(videos[0].with_stem("unknown"))
    captions = make(detector=Bright(), on_bad_video="skip").caption([lost, videos[1]], GREEDY)
    assert list(captions) == [str(videos[1])]
    [reason] = captions.skipped
    assert "unknown.mp4: nothing is known of it" in reason


def test_no_objects_are_looked_for_where_none_are_needed(
    make: Callable[..., Predictor], videos: list[Path], tmp_path: Path
):
    detector = Bright()
    make(detector=detector).embed(videos)
    without_matching = Predictor(save_tiny(tmp_path, CaptionModel, max_frames=3), device="cpu", detector=detector)
    assert not without_matching.can_rerank and len(without_matching.encode(videos).kept) == 2
    said: list[str] = []
    plain = save_tiny(tmp_path, need_object=False, use_action=False, max_frames=3)
    Predictor(plain, said.append, device="cpu", detector=detector).caption(videos, GREEDY)
    assert detector.seen == [] and said == ["--detector: this model was trained without objects; none are looked for"]


def test_a_search_index_knows_the_detector(make: Callable[..., Predictor], videos: list[Path], tmp_path: Path):
    def update(detector: Bright, **flags: Any) -> tuple[int, int]:
        index = SearchIndex(make(detector=detector, **flags), videos[0].parent, tmp_path / "index.npz")
        return index.last_update.encoded, index.last_update.kept

    assert update(Bright()) == (2, 0)
    assert update(Bright()) == (0, 2)
    assert update(Bright(settings={"threshold": 0.5})) == (2, 0)
    kept = {"object_path": str(tmp_path / "kept")}
    assert update(Bright(), **kept) == (2, 0) and len(list((tmp_path / "kept").glob("*.json"))) == 2
    assert update(Bright(), **kept) == (0, 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"detector": "vinvl"}, "--detector vinvl needs --detections"),
        ({"detector": "hf"}, "--weights is required"),
        ({"detector": "hf", "weights": "none"}, "none: no such folder"),
        ({"weights": "x"}, "--weights is for --detector, which is not given"),
        ({"detector": "hf", "num_thread_reader": 2}, "leave out --num_thread_reader"),
        ({"detector": "hf", "score_threshold": 2.0}, "--score_threshold 2.0"),
    ],
)
def test_what_is_wrong_with_the_flags_is_said(
    make: Callable[..., Predictor], videos: list[Path], flags: dict[str, Any], message: str
):
    if flags.get("detector") == "hf":
        pytest.importorskip("transformers", reason="detectors of transformers: requirements-optional.txt")
    with pytest.raises(ValueError, match=message):
        make(**flags).caption(videos, GREEDY)


@pytest.mark.parametrize("kind", ["made", "real"])
def test_one_command_captions_with_a_detector_of_transformers(
    request: pytest.FixtureRequest, folder: Path, videos: list[Path], tmp_path: Path, kind: str, capsys
):
    pytest.importorskip("transformers", reason="detectors of transformers: requirements-optional.txt")
    video = videos[1]
    if kind == "real":
        video = sorted((request.getfixturevalue("shared") / "realdata/msrvtt/videos").glob("*.mp4"))[0]
    detector = ["--detector", "hf", "--weights", str(tiny_detectors.save_detr(tmp_path / "detr"))]
    detector += ["--score_threshold", "0.1", "--device", "cpu"]
    labels = ["--labelmap_path", str(folder / "map.json")]
    command = ["caption", str(video), "--checkpoint", str(folder / "PretrainModel.bin"), *labels, "--json"]
    before = files_below(tmp_path, folder, video.parent)
    capsys.readouterr()
    assert predict.main([*command, *detector, "--precision", "fp32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert files_below(tmp_path, folder, video.parent) == before
    argv = [str(video), "--output", str(tmp_path / "objects"), "--max_frames", "3", *detector, *labels]
    assert extract_objects.main(argv) == 0
    frames = json.loads((tmp_path / "objects" / f"{video.stem}.json").read_bytes())
    assert sum(len(frame["objects"]) for frame in frames) > 3
    capsys.readouterr()
    own = ["--object_path", str(tmp_path / "objects"), "--device", "cpu", "--precision", "fp32"]
    assert predict.main([*command, *own]) == 0
    assert json.loads(capsys.readouterr().out) == found
    stamp = (tmp_path / "objects" / f"{video.stem}.json").stat().st_mtime_ns
    assert predict.main([*command, *detector, "--precision", "fp32", *own[:2]]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (tmp_path / "objects" / f"{video.stem}.json").stat().st_mtime_ns == stamp, "made in the same way"
