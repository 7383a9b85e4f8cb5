"""Pieces of the pictures that explain a model: text, coloured boxes with labels, heat maps. Images are uint8 RGB."""

from __future__ import annotations

import cv2
import numpy as np

from modules.boxes import iou_matrix, map_boxes_from_crop
from utils.pictures.explain import NOTHING, Explanation, Trajectory, WordMatch

Color = tuple[int, int, int]

# Okabe and Ito's colours, then those of Paul Tol's muted scheme that differ from them: told apart by colour-blind eyes.
PALETTE: tuple[Color, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (51, 34, 136), (221, 204, 119), (136, 34, 85), (68, 170, 153), (153, 153, 51), (170, 68, 153), (17, 119, 51),
)  # fmt: skip
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
GREY: Color = (96, 96, 96)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 30.0  # pixels from ascender to descender at scale 1
HAS_UNICODE = int(cv2.__version__.split(".")[0]) >= 5  # earlier ones draw "?" for each byte that is not ASCII
HEAT_OPACITY = 0.75


def color_of(place: int) -> Color:
    """The colour of the trajectory at this place of a list; they repeat after the palette's end."""
    return PALETTE[place % len(PALETTE)]


def score_text(score: float) -> str:
    """A share of 1 in two digits; what would read 0.00 is "<0.01"."""
    return f"{score:.2f}" if score >= 0.005 else "<0.01"


def match_text(match: WordMatch | None) -> str:
    """The matched word and its score."""
    return "not matched" if match is None else f"{match.word} {score_text(match.score)}"


def trajectory_label(trajectory: Trajectory) -> str:
    """Class and matched noun, for the border of a box."""
    return trajectory.class_name + (f": {trajectory.match.word}" if trajectory.match else "")


def text_size(text: str, height: int) -> tuple[int, int]:
    """(width, height) in pixels of a line whose letters, with ascender and descender, are `height` high."""
    (width, _), _ = cv2.getTextSize(_drawable(text), FONT, height / FONT_HEIGHT, _weight(height))
    return width, height


def put_text(image: np.ndarray, text: str, x: int, y: int, height: int, color: Color = BLACK) -> None:
    """Draw a line of text into `image`; (x, y) is its top left corner."""
    baseline = y + round(0.77 * height)
    cv2.putText(image, _drawable(text), (x, baseline), FONT, height / FONT_HEIGHT, color, _weight(height), cv2.LINE_AA)


def wrap_text(text: str, height: int, width: int) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_size(longer, height)[0] <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def crop_picture(frame: np.ndarray, resolution: int, side: int) -> np.ndarray:
    """The part of an original frame that the model sees, (side, side, 3).

    Args:
        frame: (H, W, 3).
        resolution: R, side of the model's own picture, which decides where the crop lies.
    """
    height, width = frame.shape[:2]
    left, top, right, bottom = map_boxes_from_crop(
        np.array([0, 0, resolution, resolution]), (width, height), resolution
    )
    scale = side / (right - left), side / (bottom - top)
    shrinks = max(scale) < 1
    if shrinks:  # average over pixels first: an affine warp takes single ones
        size = max(side, round(width * scale[0])), max(side, round(height * scale[1]))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        left, top = left * size[0] / width, top * size[1] / height
        scale = 1.0, 1.0
    # Pixel centres lie at halves of the boxes' coordinates.
    shift = [scale[0] * (0.5 - left) - 0.5, scale[1] * (0.5 - top) - 0.5]
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    flags = cv2.INTER_LINEAR if shrinks else cv2.INTER_CUBIC
    return cv2.warpAffine(frame, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def draw_box(image: np.ndarray, box: np.ndarray, color: Color, thickness: int) -> None:
    """Draw the border of a box (4,), x1, y1, x2, y2 in pixels of `image`, inside it."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    inset = thickness // 2
    cv2.rectangle(image, (x1 + inset, y1 + inset), (x2 - 1 - inset, y2 - 1 - inset), color, thickness)


class Labels:
    """Labels of the boxes of one picture; each goes where it covers the others least."""

    def __init__(self, image: np.ndarray, height: int) -> None:
        self.image, self.height = image, height
        self.taken: list[list[int]] = []

    def add(self, text: str, box: np.ndarray, color: Color) -> None:
        """Draw a label at a box (4,): above it, or inside or below it where there is no room."""
        width, height = text_size(text, self.height)
        width, height = width + 6, height + 2
        x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
        places = [(x1, y1 - height), (x1, y1), (x1, y2), (x1, y2 - height), (x2 - width, y1 - height), (x2, y1)]
        rows, columns = self.image.shape[:2]
        inside = [(min(max(x, 0), columns - width), min(max(y, 0), rows - height)) for x, y in places]
        spots = [[max(x, 0), y, max(x, 0) + width, y + height] for x, y in inside]
        taken = np.array(self.taken, dtype=np.float64).reshape(-1, 4)
        spot = min(spots, key=lambda spot: round(float(iou_matrix(np.array([spot]), taken).sum()), 3))
        self.taken.append(spot)
        cv2.rectangle(self.image, (spot[0], spot[1]), (spot[2] - 1, spot[3] - 1), color, -1)
        put_text(self.image, text, spot[0] + 3, spot[1] + 1, self.height, contrasting(color))


def draw_boxes(explanation: Explanation, frame: int, image: np.ndarray, label_height: int) -> None:
    """Draw the boxes of one frame, coloured by trajectory, into its picture of any side, (S, S, 3)."""
    places = {trajectory.id: place for place, trajectory in enumerate(explanation.trajectories)}
    labels = Labels(image, label_height)
    shown = [
        (places[int(index)], box * (len(image) / explanation.resolution))
        for index, box in zip(explanation.box_trajectory[frame], explanation.boxes[frame], strict=True)
        if index
    ]
    for place, box in shown:
        draw_box(image, box, color_of(place), 3)
    for place, box in shown:
        labels.add(trajectory_label(explanation.trajectories[place]), box, color_of(place))


def heat_overlay(picture: np.ndarray, weights: np.ndarray, largest: float) -> np.ndarray:
    """Lay attention (G, G) over a picture (S, S, 3) in grey; what has the weight `largest` is the most opaque."""
    side = len(picture)
    share = cv2.resize((weights / max(largest, 1e-12)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    share = np.clip(share, 0, 1)
    heat = cv2.cvtColor(
        cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = HEAT_OPACITY * np.sqrt(share)[..., None]
    return np.rint(opacity * heat + (1 - opacity) * grey).astype(np.uint8)


def contrasting(color: Color) -> Color:
    """Black or white, whichever reads better on a colour."""
    return BLACK if np.dot(color, (0.299, 0.587, 0.114)) > 128 else WHITE


def _drawable(text: str) -> str:
    return text if HAS_UNICODE else text.replace(NOTHING, "-").encode("ascii", "replace").decode()


def _weight(height: int) -> int:
    return 1 if height < 24 else 2
