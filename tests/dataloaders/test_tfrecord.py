"""Reading of shards without TensorFlow. (That TensorFlow reads and writes the same is in test_webvid_to_tfrecord.)"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.tfrecord import (
    DamagedRecord,
    ShardReader,
    iterate_records,
    masked_crc,
    parse_clip,
    parse_example,
    read_record,
    record_length,
)
from tests.tfrecords import encode, field, record, varint


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


def write_shard(path: Path, payloads: list[bytes]) -> list[int]:
    offsets = [0]
    for payload in payloads:
        offsets.append(offsets[-1] + record_length(len(payload)))
    path.write_bytes(b"".join(map(record, payloads)))
    assert path.stat().st_size == offsets[-1]
    return offsets[:-1]


def test_crc_of_the_standard():
    # RFC 3720, B.4: CRC32C of 32 zero bytes is 0x8a9136aa; masking is TFRecord's rotation and offset.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def test_records_by_offset_and_in_order(tmp_path: Path):
    payloads = [b"", b"abc", bytes(1000)]
    offsets = write_shard(tmp_path / "s", payloads)
    assert list(iterate_records(tmp_path / "s")) == list(zip(offsets, payloads, strict=True))
    with (tmp_path / "s").open("rb") as file:
        assert read_record(file, offsets[1]) == b"abc"
        assert file.tell() == 0


def test_numbers_packed_and_unpacked_and_negative():
    unpacked = field(3, b"".join(varint(1 << 3 | 0) + varint(value) for value in (5, -7, 2**40)))
    floats = field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (0.5, -2.0)))
    entries = b"".join(
        field(1, field(1, name) + field(2, feature)) for name, feature in ((b"i", unpacked), (b"f", floats))
    )
    example = parse_example(field(1, entries))
    assert list(example["i"]) == [5, -7, 2**40]
    assert list(example["f"]) == [0.5, -2.0]
    packed = parse_example(encode({"i": [5, -7, 2**40], "f": [0.5, -2.0], "b": [b"x", b""]}))
    assert list(packed["i"]) == [5, -7, 2**40]
    assert np.asarray(packed["i"]).dtype == np.int64
    assert list(packed["f"]) == [0.5, -2.0]
    assert packed["b"] == [b"x", b""]
    assert parse_example(b"") == {}


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
