"""Clips in shards, read without TensorFlow. (That TensorFlow reads and writes the same: test_webvid_to_tfrecord.)"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.stored_clips import ShardReader, jpeg_size, parse_clip
from dataloaders.tfrecord import DamagedRecord, iterate_records, masked_crc
from tests.tfrecords import encode, write_shard


def raw_frames(num_frames: int, size: int = 256) -> np.ndarray:
    frames = np.zeros((num_frames, size, size, 3), dtype=np.uint8)
    frames[..., 0] = 200  # blue in BGR
    frames[..., 2] = np.arange(num_frames, dtype=np.uint8).reshape(-1, 1, 1)
    return frames


def jpeg_example(num_frames: int, video_id: str = "v1") -> bytes:
    images = []
    for level in range(num_frames):
        image = np.full((24, 32, 3), (200, 100, 10 * level), dtype=np.uint8)
        images.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return encode(
        {
            "image": images,
            "format": [b"jpeg"],
            "video_id": [video_id.encode()],
            "width": [640],
            "height": [480],
            "stored_width": [32],
            "stored_height": [24],
            "fps": [29.97],
            "frame_indices": list(range(0, 30 * num_frames, 30)),
        }
    )


def changed_example(num_frames: int = 4, **changes: list) -> bytes:
    """A record as `jpeg_example`'s, evenly spaced, with some features replaced, or left out if empty."""
    image = cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()
    base: dict[str, list] = {
        "image": [image] * num_frames, "format": [b"jpeg"], "video_id": [b"v1"], "width": [640], "height": [480],
        "stored_width": [32], "stored_height": [24], "fps": [29.97],
        "frame_indices": [30 * number for number in range(num_frames)],
    }  # fmt: skip
    return encode({name: values for name, values in {**base, **changes}.items() if values})


@pytest.mark.parametrize("payload", [b"\xff" * 12, b"\x0a\x50abc", b"\x0a", b"\x0b", b"\x08\x01"])
def test_bytes_that_are_no_example_are_damaged_records(payload: bytes):
    with pytest.raises(DamagedRecord, match="here"):
        parse_clip(payload, "here")


def test_jpeg_clip(tmp_path: Path):
    offsets = write_shard(tmp_path / "path-00000.tfrecord", [jpeg_example(2, "v0"), jpeg_example(5)])
    clip = ShardReader(tmp_path).read("path-00000.tfrecord", offsets[1], "v1")
    assert (clip.num_frames, clip.width, clip.height, clip.stored_width, clip.stored_height) == (5, 640, 480, 32, 24)
    assert clip.fps == pytest.approx(29.97)
    assert clip.frame_indices is not None
    assert clip.frame_indices.tolist() == [0, 30, 60, 90, 120]
    images = clip.decode([0, 3, 3])
    assert images[1] is images[2]
    assert images[1].shape == (24, 32, 3)
    assert np.abs(images[1].astype(int) - (30, 100, 200)).max() <= 4  # RGB


def test_only_picked_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = parse_clip(jpeg_example(6), "here")
    decoded = []
    imdecode = cv2.imdecode

    def counting(data: np.ndarray, flags: int) -> np.ndarray | None:
        decoded.append(len(data))
        return imdecode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counting)
    clip.decode([1, 1, 4])
    assert len(decoded) == 2


def test_released_raw_clip():
    clip = parse_clip(encode({"image": [raw_frames(3).tobytes()]}), "here", "any id")
    assert (clip.num_frames, clip.stored_width, clip.stored_height) == (3, 256, 256)
    assert clip.width is clip.height is clip.fps is clip.frame_indices is None
    images = clip.decode([2, 0])
    assert images[0][5, 5].tolist() == [2, 0, 200]
    assert images[1][5, 5].tolist() == [0, 0, 200]


def test_our_raw_clip_of_another_size():
    features: dict[str, list] = {
        "image": [raw_frames(3, 64).tobytes()],
        "format": [b"raw"],
        "stored_width": [64],
        "stored_height": [64],
        "width": [640],
        "height": [480],
        "frame_indices": [0, 25, 50],
    }
    clip = parse_clip(encode(features), "here")
    assert clip.num_frames == 3
    assert clip.decode([1])[0].shape == (64, 64, 3)
    features["frame_indices"] = [0, 25]
    with pytest.raises(DamagedRecord, match="3 frames but 2"):
        parse_clip(encode(features), "here")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": [b"x" * 1000]}, "no whole number"),
        ({"label": [1]}, "no feature `image`"),
        ({"image": [b""]}, "no feature `image`"),
    ],
)
def test_examples_that_are_no_clip(features: dict[str, list], message: str):
    with pytest.raises(DamagedRecord, match=message):
        parse_clip(encode(features), "here")


def test_wrong_video_and_undecodable_frame_are_named():
    with pytest.raises(DamagedRecord, match="of video v1"):
        parse_clip(jpeg_example(1), "here", "v2")
    features: dict[str, list] = {"image": [b"no jpeg"], "format": [b"jpeg"], "stored_width": [4], "stored_height": [4]}
    with pytest.raises(DamagedRecord, match="here.*frame 0 of 1"):
        parse_clip(encode(features), "here").decode([0])


def test_damage_is_found_and_named(tmp_path: Path):
    shard = tmp_path / "s.tfrecord"
    offsets = write_shard(shard, [jpeg_example(2), jpeg_example(3)])
    content = bytearray(shard.read_bytes())

    def read(offset: int, content: bytes | bytearray, **settings: bool) -> None:
        shard.write_bytes(content)
        ShardReader(tmp_path, **settings).read("s.tfrecord", offset, "v1")

    flipped = content.copy()
    flipped[offsets[1] + 400] ^= 1
    with pytest.raises(DamagedRecord, match=rf"s\.tfrecord, offset {offsets[1]}.*checksum.*v1"):
        read(offsets[1], flipped)
    read(offsets[0], flipped)
    read(offsets[1], flipped, check_payload=False)
    with pytest.raises(DamagedRecord, match="no record starts here"):
        read(offsets[1] + 1, content)
    for end in (offsets[1] + 5, offsets[1] + 50, len(content) - 1):
        with pytest.raises(DamagedRecord, match="file ends"):
            read(offsets[1], content[:end])
    with pytest.raises(DamagedRecord, match="file ends"):
        read(len(content) + 99, content)


def test_shards_are_found_beside_the_index(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    write_shard(tmp_path / "a.tfrecord", [jpeg_example(1)])
    write_shard(tmp_path / "sub/b.tfrecord", [jpeg_example(1)])
    reader = ShardReader(tmp_path)
    assert reader.locate("sub/b.tfrecord") == tmp_path / "sub/b.tfrecord"
    assert reader.locate(str(tmp_path / "a.tfrecord")) == tmp_path / "a.tfrecord"
    assert reader.locate("/another/machine/a.tfrecord") == tmp_path / "a.tfrecord"
    assert reader.locate("./data/webvid/a.tfrecord") == tmp_path / "a.tfrecord"
    with pytest.raises(FileNotFoundError, match=r"/x/gone.*looked at.*/gone"):
        reader.read("/x/gone", 0)


def test_open_files_are_bounded(tmp_path: Path):
    names = [f"{number}.tfrecord" for number in range(5)]
    for name in names:
        write_shard(tmp_path / name, [jpeg_example(1)])
    before = len(os.listdir("/proc/self/fd"))
    reader = ShardReader(tmp_path, max_open_files=2)
    for name in names * 2:
        assert reader.read(name, 0).num_frames == 1
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reader.read(names[0], 0).num_frames == 1
    reader.close()


def _read_many(reader: ShardReader, offsets: list[int], errors: multiprocessing.Queue) -> None:
    for _ in range(100):
        for number, offset in enumerate(offsets):
            if reader.read("s", offset).num_frames != number + 1:
                errors.put(offset)


def test_forked_workers_share_a_reader_and_spawned_ones_get_a_copy(tmp_path: Path):
    offsets = write_shard(tmp_path / "s", [jpeg_example(number) for number in (1, 2, 3)])
    reader = ShardReader(tmp_path)
    reader.read("s", 0)
    context = multiprocessing.get_context("fork")
    errors = context.Queue()
    workers = [context.Process(target=_read_many, args=(reader, offsets, errors)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert errors.empty()
    assert pickle.loads(pickle.dumps(reader)).read("s", offsets[2]).num_frames == 3


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**33, 5000])
def test_a_stated_length_beyond_the_file_takes_no_memory(tmp_path: Path, length: int):
    payload = jpeg_example(1)
    stated = struct.pack("<Q", length)
    (tmp_path / "s").write_bytes(stated + struct.pack("<I", masked_crc(stated)) + payload + bytes(4))
    with pytest.raises(DamagedRecord, match=r"s, offset 0: the file ends inside the record .*v1"):
        ShardReader(tmp_path).read("s", 0, "v1")
    with pytest.raises(DamagedRecord, match="the file ends inside"):
        list(iterate_records(tmp_path / "s"))


def test_a_record_that_is_larger_than_a_message_can_be_takes_no_memory(tmp_path: Path):
    stated = struct.pack("<Q", 2**40)
    with (tmp_path / "s").open("wb") as file:
        file.write(stated + struct.pack("<I", masked_crc(stated)))
        file.truncate(2**41)
    with pytest.raises(DamagedRecord, match="more than a tf.train.Example can have"):
        ShardReader(tmp_path).read("s", 0)


@pytest.mark.parametrize("offset", [-1, -(2**70), 2**40, 2**63, 2**70])
def test_places_outside_the_shard(tmp_path: Path, offset: int):
    write_shard(tmp_path / "s", [jpeg_example(1)])
    with pytest.raises(DamagedRecord, match="the file ends before"):
        ShardReader(tmp_path).read("s", offset)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"fps": [value]}, "`fps` is .*not a frame rate") for value in (NAN, INF, 0.0, -1.0, 1e-20, 1e30)),
        *(({"feature_framerate": [value], "frame_rule": [2]}, "`feature_framerate` is") for value in (NAN, 0.0, -1.0)),
        *(({"width": [value]}, "`width` is .*not a number of pixels") for value in (INF, NAN, 0.5, -0.0, 1e30)),
        *(({"height": [value]}, "`height` is") for value in (0, -480, 2**62)),
        *(({"stored_height": [value]}, "`stored_height` is") for value in (0, -24)),
        ({"stored_width": [60000], "stored_height": [60000]}, "60000x60000, more than"),
        ({"width": [2**20], "height": [2**20]}, "more than"),
        ({"stored_width": [60000], "stored_height": [1]}, "no shape of a video"),
        ({"frame_indices": [-30, 0, 30, 60]}, "from -30 to 60"),
        ({"frame_indices": [90, 60, 30, 0]}, "not in order"),
        ({"frame_indices": [0, 30, 60, 2**62]}, "from 0 to"),
        ({"frame_indices": [0, 30, 60, 2_000_000_000]}, "longer than any video"),
        ({"frame_indices": [0, 30, 60, 9000]}, "not evenly spaced"),
        ({"frame_indices": [0.0, 30.0, 60.0, 90.0]}, "no numbers of frames"),
        ({"frame_indices": [b"0"] * 4}, "`frame_indices` holds bytes"),
        ({"fps": [b"29.97"]}, "`fps` holds bytes"),
        ({"frame_rule": [b"2"]}, "`frame_rule` holds bytes"),
        ({"width": [b"640"]}, "`width` holds bytes"),
        ({"image": [1, 2, 3, 4]}, "no feature `image`"),
        ({"image": []}, "no feature `image`"),
        ({"format": [1]}, "`format` holds numbers"),
        ({"format": [b"heic"]}, "stored as 'heic', neither raw nor jpeg"),
        ({"video_id": [5]}, "`video_id` holds numbers"),
        ({"video_id": [b"v\xff"]}, "`video_id` is not UTF-8"),
        ({"format": [b"raw"]}, "no whole number of raw frames of 32x24"),
    ],
)
def test_features_that_no_clip_has(changes: dict[str, list], message: str):
    with pytest.raises(DamagedRecord, match=f"here.*{message}"):
        parse_clip(changed_example(**changes), "here", "v1")


def test_records_that_are_unusual_and_sound():
    by_time = parse_clip(changed_example(frame_indices=[0, 7, 7, 300], frame_rule=[2], feature_framerate=[2.0]), "here")
    assert by_time.feature_framerate == 2 and by_time.frame_indices is not None
    slow = parse_clip(changed_example(fps=[0.01], frame_indices=[0, 1, 2, 3]), "here")
    assert slow.fps == pytest.approx(0.01)
    assert parse_clip(changed_example(fps=[30], width=[640.0]), "here").width == 640
    assert parse_clip(changed_example(video_id=["vidéo".encode()]), "here", "vidéo").num_frames == 4
    assert len(parse_clip(changed_example(format=[b"jpeg"]), "here").decode([0, 3])) == 2


def grey_jpeg(width: int = 32, height: int = 24) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def stating(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG file with another size in its header."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def test_the_size_in_a_jpeg_header_is_found_as_libjpeg_finds_it():
    jpeg = grey_jpeg(40, 30)
    assert jpeg_size(jpeg) == (40, 30)
    progressive = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert jpeg_size(progressive) == (40, 30)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg)) + stating(jpeg, 5, 5)
    odd = jpeg[:2] + thumbnail + b"garbage\xff\x00\xff\xff\xff\xd0" + jpeg[2:]
    assert jpeg_size(odd) == (40, 30)
    assert cv2.imdecode(np.frombuffer(odd, np.uint8), cv2.IMREAD_COLOR).shape == (30, 40, 3)
    png = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    for broken in (b"", b"\xff", b"\xff\xd8", jpeg[:8], b"\xff\xd8\xff\xe0\x00\x01" + jpeg, b"\xff\xd8" + jpeg, png):
        with pytest.raises(ValueError, match="JPEG"):
            jpeg_size(broken)


@pytest.mark.parametrize("size", [(60000, 60000), (8192, 8192), (24, 32), (32, 0)])
def test_a_frame_of_another_size_than_stated_is_not_decoded(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]):
    clip = parse_clip(changed_example(image=[grey_jpeg(), stating(grey_jpeg(), *size)] * 2), "here")
    assert clip.decode([0, 2])[0].shape == (24, 32, 3)
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(
        DamagedRecord, match=f"here: frame 1 of 4 does not decode: its header states {size[0]}x{size[1]}"
    ):
        clip.decode([1])


def test_pictures_of_other_formats_are_no_frames():
    png = cv2.imencode(".png", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    with pytest.raises(DamagedRecord, match="frame 0 of 4 does not decode: no JPEG file"):
        parse_clip(changed_example(image=[png] * 4), "here").decode([0])
