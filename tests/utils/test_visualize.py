"""The command that draws what a model sees in videos."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest
import torch

from dataloaders.frames import all_frames
from tests.utils.checkpoints import released_state, save_tiny
from tests.utils.pictures.pictured import TEXT, clip_with_boxes
from tests.world import World
from utils import visualize
from utils.pictures.contact_sheet import GAP, MARGIN, SIDE
from utils.pictures.drawing import match_text
from utils.pictures.explain import WordMatch


@pytest.fixture(scope="module")
def video(world: World) -> Path:
    """A test clip of 86x64 pixels and 32 frames, with an object file."""
    return clip_with_boxes(world)


def flags(world: World, model: Path, output: Path, *more: str) -> list[str]:
    labels = ["--labelmap_path", str(world.label_map), "--device", "cpu"]
    return ["--checkpoint", str(model), "--output", str(output), *labels, *more]


def test_the_command_writes_picture_video_and_text(
    world: World, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, output = save_tiny(tmp_path), tmp_path / "out"
    objects = ["--object_path", str(world.msrvtt / "objects")]
    assert visualize.main([str(video), *flags(world, model, output, *objects, "--text", TEXT)]) == 0
    stem = video.stem
    assert {path.name for path in output.iterdir()} == {f"{stem}.png", f"{stem}.mp4", f"{stem}.txt"}
    assert (output / f"{stem}.txt").read_text() == TEXT + "\n"
    assert cv2.imread(str(output / f"{stem}.png")).shape[1] == 6 * (SIDE + GAP) - GAP + 2 * MARGIN
    assert sum(1 for _ in all_frames(output / f"{stem}.mp4")) == sum(1 for _ in all_frames(video))
    said = capsys.readouterr().out
    assert "action 3: " in said and "32 frames" in said
    other = shutil.copy(video, tmp_path / "other.mp4")
    more = flags(world, model, tmp_path / "two", *objects, "--text", TEXT, "--no_video")
    assert visualize.main([str(video), str(other), *more]) == 0
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        f"{stem}.png", f"{stem}.txt", "other.png", "other.txt",
    }  # fmt: skip
    assert "no other.json" in capsys.readouterr().err
    texts = tmp_path / "texts.csv"
    texts.write_text(f"video_id,sentence\nother,a square\n{stem},a circle\n")
    assert visualize.main([str(video), str(other), *more, "--texts", str(texts)]) == 0
    assert (tmp_path / "two" / f"{stem}.txt").read_text() == "a circle\n"
    assert (tmp_path / "two" / "other.txt").read_text() == "a square\n"
    sheets = [cv2.imread(str(folder / f"{stem}.png")) for folder in (output, tmp_path / "two")]
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()
    assert match_text(WordMatch("dog", 0.837)) == "dog 0.84" and match_text(None) == "not matched"


def test_a_released_checkpoint_is_drawn_with_its_own_sizes(world: World, video: Path, tmp_path: Path, capsys):
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    more = flags(world, tmp_path / "stoa.bin", tmp_path / "out", "--no_video", "--text", "a dog is running")
    assert visualize.main([str(video), *more]) == 1
    assert "a model without objects" in capsys.readouterr().err
    assert visualize.main([str(video), *more, "--need_object", "--use_action"]) == 0
    assert "action 1: " in capsys.readouterr().out


def test_errors_name_the_file_and_the_remedy(
    world: World, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = save_tiny(tmp_path)
    again = Path(shutil.copy(video, tmp_path / video.name))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "gone.mp4")], "gone.mp4: no such video"),
        ([str(video), str(again)], "would have the same output"),
        ([str(bad)], "bad.mp4: not a video"),
        ([str(video), "--object_path", str(tmp_path / "nothing")], "no such folder of object files (--object_path)"),
    ]
    for arguments, message in cases:
        assert visualize.main([*flags(world, model, tmp_path / "out", "--text", TEXT), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert visualize.main([str(video), "--checkpoint", str(tmp_path / "no.bin")]) == 1
    assert "no.bin: no such checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
