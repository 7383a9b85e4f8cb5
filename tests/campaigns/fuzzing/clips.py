"""Readers of clips: WebVid's csv, shards and videos."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

from dataloaders.decoders import UnreadableVideo, has_av
from dataloaders.frames import FrameSettings, read_clip
from dataloaders.stored_clips import ShardReader
from dataloaders.stored_frames import stored_candidates
from dataloaders.tfrecord import DamagedRecord, masked_crc
from tests.campaigns.fuzzing.forms import NAN, csv_mutators
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, cut_short, damaged, flipped
from tests.campaigns.fuzzing.reader import Expected, Mutant, Reader, Taken
from tests.tfrecords import encode, record
from tests.videos import write_noise, write_video
from utils.preparation.webvid_rows import BadCsv, read_rows, survey_csv


def _make_webvid(folder: Path) -> None:
    rows = [f"{1000 + n},clip {n} of a dog,pages,PT00H00M1{n}S" for n in range(6)]
    (folder / "results.csv").write_text("\n".join(["videoid,name,page_dir,duration", *rows]) + "\n")


def _webvid(folder: Path) -> Taken:
    _, repeated = survey_csv(folder / "results.csv")
    rows = list(read_rows(folder / "results.csv", 4, repeated))
    faults = [row for row in rows if row.fault]
    return Taken(len(rows) - len(faults), len(faults), rows)


FEATURES: dict[str, list] = {
    "image": [cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()] * 4,
    "format": [b"jpeg"],
    "video_id": [b"v"],
    "width": [640],
    "height": [480],
    "stored_width": [32],
    "stored_height": [24],
    "fps": [30.0],
    "frame_indices": [0, 30, 60, 90],
    "frame_rule": [2],
    "feature_framerate": [1.0],
}
RAW: dict[str, list] = {"image": [bytes(2 * 256 * 256 * 3)]}
BAD_FEATURES: dict[str, list] = {
    "fps": [[0.0], [-1.0], [NAN], [float("inf")], [1e30], [1e-30], [b"30"]],
    "width": [[0], [-1], [2**31], [2**62], [b"x"]],
    "height": [[0], [-1], [2**31], [2**62], [b"x"]],
    "stored_width": [[0], [-1], [33], [2**31], [2**62]],
    "stored_height": [[0], [-1], [25], [2**62]],
    "frame_indices": [
        [1, 2, 3],
        [4, 3, 2, 1],
        [0, 1, 2, 2**31 + 5],
        [0, 1, 2, 2_000_000_000],
        [-5, 0, 1, 2],
        [NAN] * 4,
    ],
    "video_id": [[b"w"], [b"\xff\xfe"], [5]],
    "image": [[b""], [b"x"] * 4, [1, 2, 3, 4]],
    "feature_framerate": [[0.0], [-1.0], [NAN], [float("inf")]],
}


def _make_shard(features: dict[str, list]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "path-0.tfrecord").write_bytes(record(encode(features)))

    return make


def _read_shard(video_id: str) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        reader = ShardReader(folder)
        try:
            clip = reader.read("path-0.tfrecord", 0, video_id)
            frames = clip.decode(stored_candidates(clip, 1, video_id)[:4])
        except ValueError as error:
            if "the shard lacks frames for --feature_framerate" in str(error):  # of another rate, which is said so
                raise DamagedRecord(f"path-0.tfrecord: {error}") from error
            raise
        finally:
            reader.close()
        return Taken(len(frames), 0, (b"".join(frame.tobytes() for frame in frames), clip.width, clip.height, clip.fps))

    return read


def _bad_feature(content: bytes, draw: Random) -> Mutant:
    name = draw.choice(sorted(BAD_FEATURES))
    payload = encode({**FEATURES, name: draw.choice(BAD_FEATURES[name])})
    return Mutant(record(payload), f"a value out of range of {name}", Expected.REFUSED)


def _sound_checksum(content: bytes, draw: Random) -> Mutant:
    """What a record holds, damaged, with the checksum that it then has."""
    return Mutant(record(damaged(content[12:-4], draw).content), "a damaged message")


def _other_length(content: bytes, draw: Random) -> Mutant:
    length = struct.unpack_from("<Q", content)[0]
    stated = draw.choice((0, 1, length - 1, length + 1, 2 * length, 2**31, 2**60, 2**63, 2**64 - 1))
    packed = struct.pack("<Q", stated)
    header = packed + struct.pack("<I", masked_crc(packed))
    return Mutant(header + content[12:], f"a length of {stated}", Expected.REFUSED)


def _other_picture_size(content: bytes, draw: Random) -> Mutant:
    """A picture whose header states another size than the record does."""
    picture = bytearray(FEATURES["image"][0])
    place = picture.index(b"\xff\xc0") + 5
    picture[place : place + 4] = struct.pack(
        ">HH", *draw.choice(((60_000, 60_000), (0, 32), (24, 0), (25, 32), (65_535, 1)))
    )
    images = [bytes(picture) if number == draw.randrange(4) else one for number, one in enumerate(FEATURES["image"])]
    images[draw.randrange(4)] = bytes(picture)
    return Mutant(record(encode({**FEATURES, "image": images})), "another size of a picture", Expected.REFUSED)


def _strange_features(content: bytes, draw: Random) -> Mutant:
    names = draw.sample(sorted(FEATURES), draw.randint(1, 3))
    values = [value for options in BAD_FEATURES.values() for value in options]
    mixed = {**FEATURES, **{name: draw.choice(values) for name in names}}
    without = draw.choice(("", "frame_rule", "video_id", "format", "fps"))
    return Mutant(record(encode({name: mixed[name] for name in mixed if name != without})), "strange features")


SHARD = (
    flipped(Expected.REFUSED),
    cut_short(),
    _bad_feature,
    _sound_checksum,
    _sound_checksum,
    _other_length,
    _other_picture_size,
    _strange_features,
    _strange_features,
)
RAW_SHARD = (flipped(Expected.REFUSED), cut_short(), _sound_checksum, _other_length)


def _make_mp4(folder: Path) -> None:
    write_video(folder / "v.mp4", 20)


def _make_avi(folder: Path) -> None:
    write_noise(folder / "v.avi", "MJPG", 12)


def _read_video(name: str, backend: str) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        clip = read_clip(folder / name, 4, FrameSettings(video_backend=backend))
        assert all(frame.shape == (clip.height, clip.width, 3) for frame in clip.frames)
        return Taken(len(clip.frames), clip.decoded_frames)

    return read


def _videos(backend: str) -> tuple[Reader, ...]:
    """Both containers with a decoder."""
    limits: dict[str, Any] = {"inputs": 1000, "seconds": 20, "megabytes": 600}
    return tuple(
        Reader(
            f"{backend}-{suffix}",
            make,
            {f"v.{suffix}": ()},
            _read_video(f"v.{suffix}", backend),
            (UnreadableVideo,),
            **limits,
        )
        for suffix, make in (("mp4", _make_mp4), ("avi", _make_avi))
    )


WEBVID = (*KNOWN_TEXT, *csv_mutators("name", "videoid"))
READERS = (
    Reader("webvid-csv", _make_webvid, {"results.csv": WEBVID}, _webvid, (BadCsv, ValueError)),
    Reader("shard", _make_shard(FEATURES), {"path-0.tfrecord": SHARD}, _read_shard("v"), (DamagedRecord,)),
    Reader(
        "shard-raw", _make_shard(RAW), {"path-0.tfrecord": RAW_SHARD}, _read_shard("v"), (DamagedRecord,), inputs=1000
    ),
    *_videos("opencv"),
    *(_videos("av") if has_av() else ()),
)
