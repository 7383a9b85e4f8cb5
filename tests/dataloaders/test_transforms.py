"""Frames to tensors: the geometry and values of CLIP's own preparation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from dataloaders.transforms import frames_to_tensor

ROOT = Path(__file__).parents[2]


def smooth_image(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [(596, 336), (204, 360), (320, 240), (64, 64), (333, 97), (455, 256)])
@pytest.mark.parametrize("resolution", [64, 224])
def test_equals_resize_and_centre_crop_of_pil(size: tuple[int, int], resolution: int):
    image = smooth_image(*size)
    video = frames_to_tensor([image], resolution)
    resize = transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BICUBIC)
    expected = np.asarray(transforms.CenterCrop(resolution)(resize(Image.fromarray(image))), dtype=int)
    difference = np.abs(video[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


@pytest.mark.parametrize("size", [(96, 64), (97, 64), (67, 64), (64, 65), (64, 1000), (64, 64)])
def test_a_frame_whose_short_side_fits_is_cut_as_torchvision_does(size: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = transforms.CenterCrop(64)(torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(frames_to_tensor([image], 64)[0], expected)


def test_torchvision_is_loaded_for_frames_that_are_resized_alone():
    steps = [
        "import sys, numpy",
        "from dataloaders.transforms import frames_to_tensor, load_resizing",
        "frame = numpy.zeros((40, 32, 3), numpy.uint8)",
        "frames_to_tensor([frame], 32)",
        "print('torchvision' in sys.modules)",
        "load_resizing()",
        "print('torchvision' in sys.modules)",
        "print(tuple(frames_to_tensor([frame], 16).shape))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(steps)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split("\n")[:3] == ["False", "True", "(1, 3, 16, 16)"]


def test_frames_of_different_sizes_and_repeated_ones_keep_their_order():
    wide, tall = smooth_image(96, 48), smooth_image(40, 80)
    video = frames_to_tensor([wide, tall, wide, wide], 32)
    assert video.shape == (4, 3, 32, 32)
    assert video.dtype == torch.uint8
    assert video.is_contiguous()
    assert torch.equal(video[0], video[2])
    assert torch.equal(video[0], video[3])
    assert torch.equal(video[1], frames_to_tensor([tall], 32)[0])


def test_wrong_kind_of_frame_is_an_error():
    with pytest.raises(ValueError, match="uint8"):
        frames_to_tensor([np.zeros((8, 8, 3), dtype=np.float32)], 4)
    with pytest.raises(ValueError, match="8, 8"):
        frames_to_tensor([np.zeros((8, 8), dtype=np.uint8)], 4)
