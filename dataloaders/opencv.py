"""OpenCV as the loaders need it: quiet, and without threads of its own. Import `cv2` from here."""

from __future__ import annotations

import os

# FFmpeg writes a line to stderr for every damaged packet; what matters of it is in UnreadableVideo.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

# Of FFmpeg's formats those that hold their pictures themselves. Lists of other files (concat, hls, dash, sdp) would
# have whatever they name opened, and text is no video.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,flv,live_flv,asf,asf_o,ogg,rm,mxf,nut,dv,ivf,obu,av1,h261,h263,"
    "h264,hevc,vvc,vc1,vc1test,dirac,gxf,wtv,nsv,nuv,amv,swf,mjpeg,mjpeg_2000,gif,apng,yuv4mpegpipe,jpeg_pipe,png_pipe,"
    "bmp_pipe,webp_pipe,webp,tiff_pipe,mpegtsraw,pva,dhav,bink,smk,flic,mp3,wav,flac,aac"
)
FFMPEG_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
os.environ.setdefault(
    "OPENCV_FFMPEG_CAPTURE_OPTIONS", "|".join(f"{name};{value}" for name, value in FFMPEG_OPTIONS.items())
)

import cv2  # after the settings, which OpenCV reads when it starts

# Data-loader workers are forked: OpenCV's thread pool does not survive that, and one thread per worker is enough.
cv2.setNumThreads(0)

__all__ = ["FFMPEG_OPTIONS", "cv2"]
