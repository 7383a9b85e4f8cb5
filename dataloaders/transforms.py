"""From decoded frames to the uint8 tensor that a batch carries; normalisation is the model's, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dataloaders.opencv import cv2


def frames_to_tensor(frames: Sequence[np.ndarray], resolution: int) -> torch.Tensor:
    """Resize the short side to R (bicubic, antialiased) and cut out the centre: CLIP's preparation of an image.

    The long side becomes int(R * long / short) and the crop starts at int(round((size - R) / 2)), the geometry that
    `modules.boxes.map_boxes_to_crop` follows.

    Args:
        frames: T images, uint8 (H, W, 3), RGB; sizes may differ.
        resolution: R, in pixels.

    Returns:
        uint8 (T, 3, R, R), contiguous.
    """
    video = torch.empty(len(frames), 3, resolution, resolution, dtype=torch.uint8)
    planes, done = video.numpy(), dict[int, int]()
    for position, frame in enumerate(frames):
        # A short clip repeats frames, as the same array.
        first = done.setdefault(id(frame), position)
        if first != position:
            video[position] = video[first]
        elif frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and min(frame.shape[:2]) == resolution:
            cv2.split(_centre(frame, resolution), list(planes[position]))  # ten times as fast as torch's copy
        else:
            video[position] = _prepare(frame, resolution)
    return video


def load_resizing() -> None:
    """Load what resizes frames, which takes two seconds: at its first use otherwise.

    For processes that are forked from this one, so that each need not do it.
    """
    from torchvision.transforms.v2 import functional  # noqa: F401


def crop_frame(frame: np.ndarray, resolution: int) -> np.ndarray:
    """One frame (H, W, 3) as `frames_to_tensor` prepares it: uint8 (R, R, 3)."""
    return np.ascontiguousarray(_prepare(frame, resolution).permute(1, 2, 0).numpy())


def _centre(frame: np.ndarray, resolution: int) -> np.ndarray:
    """Centre of a frame (H, W, 3) whose short side is R already: a view (R, R, 3)."""
    top, left = (int(round((side - resolution) / 2.0)) for side in frame.shape[:2])
    return frame[top : top + resolution, left : left + resolution]


def _prepare(frame: np.ndarray, resolution: int) -> torch.Tensor:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    # Here, since it takes two seconds to load and frames of the right size do without (`load_resizing`).
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    # A view with channels last, for which torchvision has its fast uint8 kernel.
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    image = functional.resize(image, [resolution], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return functional.center_crop(image, [resolution, resolution])
