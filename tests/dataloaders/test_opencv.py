"""OpenCV is quiet and without threads, whichever module of the loaders comes first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["decoders", "tfrecord", "frame_cache", "transforms"])
def test_the_settings_are_made_before_opencv_starts(module: str):
    code = f"import dataloaders.{module}, os, cv2; print(cv2.getNumThreads(), os.environ['OPENCV_FFMPEG_LOGLEVEL'])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "-8"]
