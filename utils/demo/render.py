"""Pictures of the demo world: backgrounds, shapes, occlusion, and the true boxes that follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.demo.motion import Track, place
from utils.demo.world import COLORS, Scene

SUBPIXEL_BITS = 4
LINE = (40, 40, 40)  # strings, rails and shelves
BAR_SHARE = 0.2  # of the clips have a bar in front of everything


@dataclass
class Rendering:
    """A rendered clip.

    Attributes:
        frames: uint8 (F, H, W, 3), RGB.
        boxes: float32 (F, N, 4), x1, y1, x2, y2 in pixels of what can be seen of each thing; nan where nothing can.
        visible: float32 (F, N), the share of each thing's area that can be seen.
        bar: x1, y1, x2, y2 of the bar in front, or None.
    """

    frames: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    bar: tuple[int, int, int, int] | None


def render(scene: Scene, rng: np.random.Generator, size: int, seconds: float, fps: float) -> Rendering:
    """Draw a scene as a landscape clip of 4:3 whose short side has `size` pixels."""
    width, height = _even(size * 4 / 3), _even(size)
    times = np.arange(max(1, round(seconds * fps))) / fps
    tracks = place(scene, times, seconds, rng)
    background = _background(rng, width, height)
    bar = _bar(rng, width, height)
    front_to_back = rng.permutation(len(scene))
    frames = np.empty((len(times), height, width, 3), np.uint8)
    boxes = np.full((len(times), len(scene), 4), np.nan, np.float32)
    visible = np.zeros((len(times), len(scene)), np.float32)
    for moment in range(len(times)):
        masks = [_mask(thing.shape, track, moment, width, height) for thing, track in zip(scene, tracks, strict=True)]
        canvas = background.copy()
        for track in tracks:
            _paint_lines(canvas, track, moment)
        for index in front_to_back[::-1]:
            _paint(canvas, masks[index], COLORS[scene[index].color], scene[index].shape, tracks[index], moment)
        if bar is not None:
            cv2.rectangle(canvas, bar[:2], (bar[2] - 1, bar[3] - 1), (112, 104, 96), -1)
        frames[moment] = canvas
        _measure(masks, front_to_back, bar, boxes[moment], visible[moment])
    return Rendering(frames, boxes, visible, bar)


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames, uint8 (F, H, W, 3) RGB, as MPEG-4 in the container that the suffix names (.mp4 or .avi).

    Raises:
        OSError: OpenCV cannot write the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*("XVID" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, fps, (frames.shape[2], frames.shape[1]))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write this video (no MPEG-4 encoder, or the folder is not writable)")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def _even(length: float) -> int:
    return 2 * round(length / 2)  # MPEG-4 halves the colour planes


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A muted colour with a faint texture: a gradient, stripes, a chequerboard or clouds. uint8 (H, W, 3)."""
    base = rng.uniform(88, 150) + rng.uniform(-14, 14, 3)
    x, y = np.meshgrid(np.arange(width) / height, np.arange(height) / height)
    angle, scale = rng.uniform(0, np.pi), rng.uniform(5, 12)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        texture = 2 * (along - along.min()) / np.ptp(along) - 1
    elif kind == 1:
        texture = np.sign(np.sin(2 * np.pi * along * scale / 2))
    elif kind == 2:
        texture = np.sign(np.sin(np.pi * along * scale) * np.sin(np.pi * across * scale))
    else:
        coarse = rng.uniform(-1, 1, (6, 8)).astype(np.float32)
        texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = base + rng.uniform(4, 9) * texture[..., None] + rng.normal(0, 2, (height, width, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _bar(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int] | None:
    """A bar over the whole height or width of the central square, thinner than a thing."""
    has_bar, upright, place_along, thickness = rng.uniform(0, 1, 4)
    if has_bar >= BAR_SHARE:
        return None
    thick = round(height * (0.06 + 0.04 * thickness))
    start = round(height * (0.25 + 0.45 * place_along))
    left = (width - height) // 2
    if upright < 0.5:
        return left + start, 0, left + start + thick, height
    return 0, start, width, start + thick


def _mask(shape: str, track: Track, moment: int, width: int, height: int) -> np.ndarray:
    """Coverage of one thing, uint8 (H, W), 0 to 255."""
    mask = np.zeros((height, width), np.uint8)
    _fill(mask, OUTLINES[shape], track, moment)
    return mask


def _fill(mask: np.ndarray, outlines: list[np.ndarray], track: Track, moment: int) -> None:
    """Fill polygons given in units of the radius; two outlines leave the inner one open."""
    height, width = mask.shape
    angle = track.angle[moment]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = _pixel(track.x[moment], track.y[moment], width, height)
    scale = track.radius[moment] * height
    points = [np.rint((outline @ turn * scale + centre) * 2**SUBPIXEL_BITS).astype(np.int32) for outline in outlines]
    cv2.fillPoly(mask, points, 255, cv2.LINE_AA, SUBPIXEL_BITS)


def _pixel(x: float, y: float, width: int, height: int) -> np.ndarray:
    return np.array([(width - height) / 2 + x * height, y * height]) - 0.5


def _paint_lines(canvas: np.ndarray, track: Track, moment: int) -> None:
    """Paint what a thing hangs from, rolls on or stands on."""
    height, width = canvas.shape[:2]
    thickness = max(1, round(height / 48))
    x, y = track.x[moment], track.y[moment]

    def pixel(x: float, y: float) -> list[int]:
        return np.rint(_pixel(x, y, width, height)).astype(int).tolist()

    if track.anchor is not None:
        cv2.line(canvas, pixel(*track.anchor), pixel(x, y), LINE, thickness, cv2.LINE_AA)
    if track.orbit is not None:
        cv2.circle(canvas, pixel(*track.orbit[:2]), round(track.orbit[2] * height), LINE, thickness, cv2.LINE_AA)
    if track.shelf:
        reach = track.radius[moment, 0]
        cv2.line(canvas, pixel(x - reach, y + reach), pixel(x + reach, y + reach), LINE, 2 * thickness, cv2.LINE_AA)


def _paint(
    canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], shape: str, track: Track, moment: int
) -> None:
    """Blend a thing into the canvas, with its face."""
    light = track.brightness[moment]
    _blend(canvas, mask, light * np.asarray(color))
    for outlines, tone in FACES[shape]:
        face = np.zeros_like(mask)
        _fill(face, outlines, track, moment)
        _blend(canvas, cv2.min(face, mask), light * np.asarray(tone))


def _blend(canvas: np.ndarray, mask: np.ndarray, color: np.ndarray) -> None:
    """Paint one colour, (3,), with the coverage of a mask."""
    x, y, width, height = cv2.boundingRect(mask)
    region = (slice(y, y + height), slice(x, x + width))
    share = mask[region][..., None].astype(np.float32) / 255
    canvas[region] = np.rint(canvas[region] * (1 - share) + color * share).astype(np.uint8)


def _measure(
    masks: list[np.ndarray],
    front_to_back: np.ndarray,
    bar: tuple[int, int, int, int] | None,
    boxes: np.ndarray,
    visible: np.ndarray,
) -> None:
    """Fill in one frame's boxes (N, 4) and visible shares (N,)."""
    hidden = np.zeros(masks[0].shape, bool)
    if bar is not None:
        hidden[bar[1] : bar[3], bar[0] : bar[2]] = True
    for index in front_to_back:
        whole = masks[index] >= 128
        seen = (whole & ~hidden).view(np.uint8)
        if count := cv2.countNonZero(seen):
            x, y, width, height = cv2.boundingRect(seen)
            boxes[index] = x, y, x + width, y + height
            visible[index] = count / cv2.countNonZero(whole.view(np.uint8))
        hidden |= whole


def _ring(count: int, radius: float, start: float = -np.pi / 2) -> np.ndarray:
    """`count` points on a circle, (count, 2), the first straight up."""
    angles = start + 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _star() -> np.ndarray:
    points = _ring(10, 1.12)
    points[1::2] *= 0.45
    return points


def _cross() -> np.ndarray:
    arm, half = 1.0, 0.34
    corner = np.array([[-half, -arm], [half, -arm], [half, -half]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([corner @ np.linalg.matrix_power(quarter, k) for k in range(4)])


# Outlines in units of the radius, of about the same area; circles are polygons so that all are drawn alike.
OUTLINES: dict[str, list[np.ndarray]] = {
    "circle": [_ring(40, 0.95)],
    "square": [_ring(4, 1.16, np.pi / 4)],
    "triangle": [_ring(3, 1.2)],
    "star": [_star()],
    "cross": [_cross()],
    "ring": [_ring(40, 1.0), _ring(40, 0.55)],
}
LIGHT, DARK = (245, 245, 245), (20, 20, 20)
MARK = np.array([[-0.17, -0.62], [0.17, -0.62], [0.17, 0.02], [-0.17, 0.02]])
RING_MARK = np.array([[-0.24, -1.02], [0.24, -1.02], [0.24, -0.5], [-0.24, -0.5]])
ARMS = np.array([[-1.0, -0.34], [1.0, -0.34], [1.0, 0.34], [-1.0, 0.34]])
# What is painted on each shape, in units of the radius. A face of its own lets a model of a few minutes tell shapes;
# the mark off the centre shows rotation.
FACES: dict[str, list[tuple[list[np.ndarray], tuple[int, int, int]]]] = {
    "circle": [([MARK], DARK)],
    "square": [([_ring(4, 1.16, np.pi / 4), _ring(4, 0.78, np.pi / 4)], LIGHT), ([MARK], DARK)],
    "triangle": [([_ring(3, 0.8)], DARK), ([MARK], LIGHT)],
    "star": [([_ring(24, 0.55)], LIGHT), ([MARK], DARK)],
    "cross": [([ARMS], DARK), ([MARK], LIGHT)],
    "ring": [([RING_MARK], LIGHT)],
}
