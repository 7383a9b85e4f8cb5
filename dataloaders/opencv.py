"""OpenCV as the loaders need it: quiet, and without threads of its own. Import `cv2` from here."""

from __future__ import annotations

import os

# FFmpeg writes a line to stderr for every damaged packet; what matters of it is in UnreadableVideo.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

import cv2  # after the two settings, which OpenCV reads when it starts

# Data-loader workers are forked: OpenCV's thread pool does not survive that, and one thread per worker is enough.
cv2.setNumThreads(0)

__all__ = ["cv2"]
