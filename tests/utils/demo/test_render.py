"""Pictures of demo scenes, the boxes of what can be seen in them, and the videos they are written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataloaders.frames import all_frames
from utils.demo.render import FACES, OUTLINES, Rendering, render, write_video
from utils.demo.world import COLORS, SHAPES, Scene, Thing, make_scene, sample_scene

STILL = make_scene([Thing("red", "circle", "resting")])


def rendered(seed: int, scene: Scene | None = None, size: int = 48) -> Rendering:
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng, 3) if scene is None else scene, rng, size, 6, 4)


@pytest.mark.parametrize(("size", "shape"), [(48, (24, 48, 64, 3)), (45, (24, 44, 60, 3)), (32, (24, 32, 42, 3))])
def test_pictures_are_landscape_of_even_sides_and_as_many_as_the_seconds_have(size: int, shape: tuple[int, ...]):
    found = rendered(0, STILL, size)
    assert found.frames.shape == shape and found.frames.dtype == np.uint8
    assert found.boxes.shape == (24, 1, 4) and found.visible.shape == (24, 1)
    rng = np.random.default_rng(0)
    assert len(render(STILL, rng, 32, 0.1, 4).frames) == 1, "at least one"


def test_the_same_numbers_give_the_same_clip_and_others_another():
    one, again, other = rendered(3), rendered(3), rendered(4)
    for field in ("frames", "boxes", "visible"):
        np.testing.assert_array_equal(getattr(one, field), getattr(again, field))
    assert one.bar == again.bar and (one.frames != other.frames).any()


def test_a_box_holds_all_that_is_seen_of_a_thing_and_no_more():
    """Red is far from every background, and the face of a circle is in its middle."""
    for seed in range(20):
        found = rendered(seed, STILL, 96)
        if found.bar is not None:
            continue
        frame, (x1, y1, x2, y2) = found.frames[0].astype(int), found.boxes[0, 0].astype(int)
        is_red = np.abs(frame - COLORS["red"]).max(-1) < 60
        rows, columns = np.flatnonzero(is_red.any(1)), np.flatnonzero(is_red.any(0))
        edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(edges, (x1, y1, x2, y2))).max() <= 1
        assert (found.visible == 1).all()


def test_boxes_lie_in_the_picture_and_are_missing_where_nothing_is_seen():
    for seed in range(10):
        found = rendered(seed)
        height, width = found.frames.shape[1:3]
        assert (np.isnan(found.boxes[..., 0]) == (found.visible == 0)).all()
        boxes = found.boxes[found.visible > 0]
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all() and found.visible.max() <= 1


def test_a_bar_is_in_about_a_fifth_of_the_clips_lies_over_everything_and_alone_hides_a_thing_alone():
    clips = [rendered(seed, STILL, 32) for seed in range(100)]
    bars = [(found, found.bar) for found in clips if found.bar is not None]
    assert 10 <= len(bars) <= 30
    for found, (x1, y1, x2, y2) in bars:
        assert (found.frames[:, y1:y2, x1:x2] == (112, 104, 96)).all()
    assert min(found.visible.min() for found, _ in bars) < 0.9
    assert all((found.visible == 1).all() for found in clips if found.bar is None)


def test_every_shape_has_an_outline_and_a_face_of_its_own():
    assert set(OUTLINES) == set(FACES) == set(SHAPES)
    pictures = [rendered(0, make_scene([Thing("red", shape, "resting")])).frames[0] for shape in SHAPES]
    for place, one in enumerate(pictures):
        assert all((one != other).any() for other in pictures[:place])


def test_a_thing_that_has_blinked_off_is_darker_and_stays_where_it_is():
    found = rendered(1, make_scene([Thing("yellow", "circle", "blinking")]))
    x1, y1, x2, y2 = found.boxes[0, 0].astype(int)
    assert (found.boxes == found.boxes[0]).all()
    light = found.frames[:, y1:y2, x1:x2].mean((1, 2, 3))
    assert light.max() > 1.5 * light.min()


@pytest.mark.parametrize("name", ["a.mp4", "deep/a.avi"])
def test_videos_hold_the_frames_at_their_rate(tmp_path: Path, name: str):
    frames = rendered(2).frames
    write_video(tmp_path / name, frames, 4)
    read = np.stack(list(all_frames(tmp_path / name)))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 8


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(OSError, match=r"a\.txt: OpenCV cannot write this video"):
        write_video(tmp_path / "a.txt", rendered(2).frames, 4)
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        write_video(tmp_path / "file" / "a.mp4", rendered(2).frames, 4)
