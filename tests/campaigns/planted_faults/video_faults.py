"""Faults of video files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.campaigns.planted_faults.faults import HARMLESS, Fault, stops
from tests.campaigns.planted_faults.worlds import DataSet
from tests.videos import write_noise, write_video

Change = Callable[[bytes], bytes]
LOST = ("unreadable_video", "truncated_video")
# Data types in which the files of a folder are videos, with a training video of each and one that is only evaluated.
FOLDERS = {
    "msrvtt_retrieval": ("video3", "video7011"),
    "msrvtt_qa": ("video5", "video7013"),
    "msrvtt_mc": ("video8", "video7015"),
    "msrvtt_caption": ("video9", "video7012"),
    "webvid": ("1000007", "1000041"),
}


def _edit(change: Change) -> Callable[[DataSet, Path], object]:
    return lambda data, path: data.write(path, change(path.read_bytes()))


def _instead(make: Callable[[Path], object]) -> Callable[[DataSet, Path], object]:
    def put(_: DataSet, path: Path) -> None:
        path.unlink()
        make(path)

    return put


def _rename(suffix: str) -> Callable[[DataSet, Path], object]:
    return lambda data, path: path.rename(path.with_suffix(suffix))


def _flip_codec(content: bytes) -> bytes:
    """One byte of the name of the codec's parameters."""
    return content.replace(b"esds", b"eszs")


def _index_of_frames(content: bytes) -> bytes:
    """The sizes of all frames beyond the end of the file."""
    place = content.index(b"stsz") + 16
    (count,) = struct.unpack_from(">I", content, place - 4)
    return content[:place] + struct.pack(">I", 2**31 - 1) * count + content[place + 4 * count :]


def _no_index(content: bytes) -> bytes:
    return content[: content.index(b"moov") - 4]


def _middle_zeroed(content: bytes) -> bytes:
    start, end = content.index(b"mdat") + 4, content.index(b"moov")
    return content[:start] + bytes(end - start) + content[end:]


def _zeroed_tail(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def _sound_only(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _avi(change: Change) -> Callable[[DataSet, Path], object]:
    def put(data: DataSet, path: Path) -> None:
        path.unlink()
        target = path.with_suffix(".avi")
        write_noise(target, "MJPG", 12, fps=4)
        data.write(target, change(target.read_bytes()))

    return put


def _header(offset: int, value: int) -> Change:
    """A number of an AVI's main header, by its place in it."""

    def change(content: bytes) -> bytes:
        place = content.index(b"avih") + 8 + offset
        return content[:place] + struct.pack("<I", value) + content[place + 4 :]

    return change


def _rate(scale: int, rate: int) -> Change:
    """The rate of an AVI's stream, whose header begins with a type and a handler of four bytes each."""

    def change(content: bytes) -> bytes:
        place = content.index(b"strh") + 8 + 20
        return content[:place] + struct.pack("<II", scale, rate) + content[place + 8 :]

    return change


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone" / path.name)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


# Name, what names it, and how it is made of a sound file.
FILES: list[tuple[str, tuple[str, ...], Callable[[DataSet, Path], object]]] = [
    ("video missing", ("missing_video",), lambda _, path: path.unlink()),
    ("video empty", ("empty_video",), _edit(lambda _: b"")),
    ("video cut in the frames", LOST, _edit(lambda content: content[: len(content) // 3])),
    ("video cut in its table of frames", LOST, _edit(lambda content: content[:-400])),
    ("video is text", LOST, _edit(lambda _: b"<html>404 not found</html>" * 50)),
    ("video is zeros", LOST, _edit(lambda content: bytes(len(content)))),
    ("video dangling link", ("missing_video", "unreadable_video"), _instead(_dangling)),
    ("video link to itself", ("missing_video", "unreadable_video"), _instead(_loop)),
    ("video of sound only", LOST, _instead(_sound_only)),
    ("video tail zeroed", LOST, _edit(_zeroed_tail)),
    ("video one byte of its codec", LOST, _edit(_flip_codec)),
    ("video without index", LOST, _edit(_no_index)),
    ("video frames beyond the end", LOST, _edit(_index_of_frames)),
    ("video frames zeroed", LOST, _edit(_middle_zeroed)),
    ("video with the start of another file", LOST, _edit(lambda content: b"\x89PNG\r\n\x1a\n" + content[8:])),
    ("video is a folder", ("missing_video", "unreadable_video"), _instead(Path.mkdir)),
    ("video is a named pipe", ("missing_video", "unreadable_video"), _instead(os.mkfifo)),
]
SHORT: list[tuple[str, tuple[str, ...], Callable[[DataSet, Path], object]]] = [
    ("video of one frame", ("short_video",), _instead(lambda path: write_video(path, 1, fps=4))),
    ("video too short", ("short_video",), _instead(lambda path: write_video(path, 5, fps=4))),
]
ONLY_ONCE: list[tuple[str, tuple[str, ...], Callable[[DataSet, Path], object]]] = [
    ("video with the wrong extension", ("missing_video",), _rename(".txt")),
    ("video of another name", ("missing_video",), lambda _, path: path.rename(path.with_name("clip.mp4"))),
    ("video in another case", ("missing_video",), lambda _, path: path.rename(path.with_name("VIDEO3.mp4"))),
    ("video with an extension in capitals", HARMLESS, _rename(".MP4")),
    ("video states no frames", HARMLESS, _avi(_header(16, 0))),
    ("video states 2^31 frames", HARMLESS, _avi(_header(16, 2**31 - 1))),
    ("video states 0.01 frames per second", HARMLESS, _avi(_rate(100, 1))),
    ("video states a million frames per second", ("short_video", "no_time_stamps"), _avi(_rate(1, 10**6))),
    ("video states a rate of 0", HARMLESS, _avi(_rate(0, 0))),
]


def _unreadable_name(data: DataSet) -> None:
    path = data.video("video3")
    os.link(path, os.path.join(os.fsencode(path.parent), b"vid\xe9o.mp4"))


def _listed_unreadable_name(data: DataSet) -> None:
    """A folder whose name is not UTF-8 holds the only file of a video."""
    path = data.video("video3")
    folder = os.path.join(os.fsencode(path.parent), b"caf\xe9")
    os.mkdir(folder)
    os.rename(os.fsencode(path), os.path.join(folder, b"video3.mp4"))


def _extra(data: DataSet) -> None:
    os.link(data.video("video3"), data.root / "videos" / "video99.mp4")


def _all_gone(data: DataSet) -> None:
    for path in (data.root / "videos").rglob("*.mp4"):
        data.write(path, b"")


def _no_folder(data: DataSet) -> None:
    (data.root / "videos").rename(data.root / "films")


def _file_for_folder(data: DataSet) -> None:
    _no_folder(data)
    (data.root / "videos").write_bytes(b"")


def faults() -> Iterator[Fault]:
    """All of them."""
    for number, (datatype, (trained, evaluated)) in enumerate(FOLDERS.items()):
        for name, kinds, change in FILES[:: 1 if number == 0 else 2]:
            yield Fault(name, datatype, _at(trained, change), kinds, trained, also=("unreferenced_video",))
        for name, kinds, change in SHORT[: 1 if number else 2]:
            yield Fault(name, datatype, _at(trained, change), kinds, trained)
        for name, kinds, change in FILES[1:3] if number < 4 else ():
            yield Fault(f"{name}, evaluated", datatype, _at(evaluated, change), kinds, evaluated)
    for name, kinds, change in ONLY_ONCE:
        yield Fault(name, "msrvtt_retrieval", _at("video3", change), kinds, "video3", also=("unreferenced_video",))
    kind = "msrvtt_retrieval"
    yield Fault("video whose name is not UTF-8", kind, _unreadable_name, ("unreferenced_video",))
    yield Fault("video in a folder whose name is not UTF-8", kind, _listed_unreadable_name, HARMLESS)
    yield Fault("video of no list", kind, _extra, ("unreferenced_video",), "video99")
    yield Fault(
        "every video empty", kind, _all_gone, ("cannot_start",), words=("--features_path",), also=("empty_video",)
    )
    yield stops("no folder of videos", kind, _no_folder, "--features_path")
    yield stops("folder of videos is a file", kind, _file_for_folder, "--features_path")


def _at(video_id: str, change: Callable[[DataSet, Path], object]) -> Callable[[DataSet], object]:
    return lambda data: change(data, data.video(video_id))
