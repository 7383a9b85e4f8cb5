"""Readers of what the product wrote before: object stores, caption indexes, frame caches, search indexes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import numpy as np

from dataloaders.caption_store import ARRAYS, array_path, iter_captions
from dataloaders.frame_cache import CachedClip, FrameCache
from dataloaders.frame_segments import index_line
from dataloaders.lmdb_files import forget_environment
from dataloaders.object_records import HEADER, ObjectSettings, pack_record, read_record
from dataloaders.object_store import META_FILE, ObjectStore, build_object_store
from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index
from dataloaders.tagging import HantaTagger, Tagger, tag_caption
from modules.tokenizer import ClipTokenizer
from modules.utils_object_tractor import ObjectReport
from tests.campaigns.fuzzing.annotation_files import IDS, WORDS
from tests.campaigns.fuzzing.archives import array_of_npz, bomb, members_changed
from tests.campaigns.fuzzing.forms import JSON, drop, known, rearranged, replace
from tests.campaigns.fuzzing.mutators import cut_short, damaged, flipped
from tests.campaigns.fuzzing.objects import LABELS, T, write_objects
from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator, Reader, Taken
from tests.utils.checkpoints import save_tiny
from tests.videos import write_video
from utils.inference.predictor import Predictor
from utils.inference.search_index import INDEX_NAME, SearchIndex

SETTINGS = ObjectSettings(2, T)
ERRORS = (ValueError, FileNotFoundError)


def _make_store(folder: Path) -> None:
    (folder / "objects").mkdir()
    write_objects(folder / "objects")
    build_object_store(folder / "objects", LABELS, SETTINGS, store_path=folder / "store.lmdb")
    record = read_record(folder / "objects" / "v.json", LABELS, SETTINGS, ObjectReport())
    (folder / "value").write_bytes(pack_record(record))


def _read_store(folder: Path) -> Taken:
    forget_environment(folder / "store.lmdb")
    store = ObjectStore(folder / "store.lmdb")
    record = store.get("v")
    problem = store.problem("v")
    return Taken(0 if record is None else 1, int(problem is not None), None if record is None else pack_record(record))


def _read_value(folder: Path) -> Taken:
    """The store with the value of the file planted in it."""
    forget_environment(folder / "store.lmdb")
    environment = lmdb.open(str(folder / "store.lmdb"), sync=False, metasync=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"v", (folder / "value").read_bytes())
    environment.close()
    return _read_store(folder)


def _other_header(content: bytes, draw: Random) -> Mutant:
    magic, kind, count, frames = HEADER.unpack_from(content)
    changed = draw.choice(
        ((kind, 65_535, frames), (kind, count, draw.choice((-1, 0, 4, 2**31 - 1, -(2**31)))), (7, count, frames))
    )
    return Mutant(HEADER.pack(magic, *changed) + content[HEADER.size :], "a value out of range", Expected.REFUSED)


STORE_META = (
    rearranged(JSON),
    cut_short(),
    known(JSON, "no settings", Expected.REFUSED, replace("settings", (None, 5, [], "x", {}))),
)


def _make_captions(folder: Path) -> None:
    rows = [{"video_id": IDS[n], "caption": WORDS[n]} for n in range(6)]
    (folder / "labels.json").write_text(json.dumps(rows))
    (folder / "path.index").write_text("".join(f"{name}\tpath-0.tfrecord\t{1000 * n}\n" for n, name in enumerate(IDS)))


def _make_index(folder: Path) -> None:
    _make_captions(folder)
    prepare_pretrain_index(folder / "labels.json", folder).rename(folder / "index")


def _read_index(folder: Path) -> Taken:
    index = PretrainIndex(folder / "index")
    items = [index[number] for number in range(min(len(index), 1000))]
    return Taken(
        len(index), 0, [(item.video_id, item.shard_path, item.offset, item.token_ids.tolist()) for item in items]
    )


@functools.cache
def _tagger() -> tuple[ClipTokenizer, Tagger]:
    return ClipTokenizer(), HantaTagger()


def _tagged(folder: Path) -> Taken:
    """Captions as `prepare_pretrain_index` tags them."""
    captions = [tag_caption(row.caption, *_tagger()) for row in iter_captions(folder / "labels.json")]
    return Taken(len(captions), 0, [caption.ids.tolist() for caption in captions])


def _long_word(value: Any, draw: Random) -> None:
    letters = draw.choice(("x", "ab", "schön", "don't", "1", "\u0301", "中"))
    value[draw.randrange(len(value))]["caption"] = letters * draw.choice((100, 2000, 50_000))


KEY = "0123456789abcdef"


def _make_cache(format: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        cache = FrameCache(folder / "made", format)
        pictures = np.random.default_rng(0)
        for number in range(3):
            frames = [pictures.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(2)]
            cache.put(f"{KEY}{number}", CachedClip([*frames, frames[0]], (64, 48), [0, 5, 9], [f"note {number}"]))
        cache.put_unreadable(f"{KEY}x", "not a video")
        (folder / "cache").mkdir()
        for path in (folder / "made").iterdir():
            path.rename(folder / "cache" / f"a{path.suffix}")

    return make


def _read_cache(format: str) -> Callable[[Path], Taken]:
    def read(folder: Path) -> Taken:
        cache = FrameCache(folder / "cache", format)
        found = [cache.get(f"{KEY}{name}") for name in "012x"]
        for clip in found:
            if isinstance(clip, CachedClip):
                assert len(clip.frames) == len(clip.frame_indices)
                assert all(frame.shape[2] == 3 and frame.dtype == np.uint8 for frame in clip.frames)
        missing = sum(clip is None for clip in found)
        return Taken(len(found) - missing, missing, [repr(clip) for clip in found])

    return read


def _strange_line(content: bytes, draw: Random) -> Mutant:
    """A line of an index with strange values and the checksum that it then has."""
    lines = content.splitlines()
    number = draw.randrange(1, len(lines))
    record = json.loads(lines[number])
    record.pop("check")
    record = json.loads(rearranged(JSON)(json.dumps(record).encode(), draw).content)
    if not isinstance(record, dict):
        raise ValueError("no record")
    lines[number] = index_line(record)[:-1]
    return Mutant(b"\n".join(lines) + b"\n", "strange values in a line")


CACHE: dict[str, tuple[Mutator, ...]] = {
    "cache/a.index": (flipped(Expected.COUNTED), _strange_line, _strange_line, _strange_line),
    "cache/a.frames": (flipped(Expected.COUNTED), damaged),
}


@functools.cache
def _predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, device="cpu", precision="fp32", on_bad_video="skip")


def _make_search(folder: Path) -> None:
    sizes: dict[str, Any] = {
        "vision_layers": 2,
        "text_layers": 1,
        "fusion_layers": 1,
        "need_object": False,
        "use_action": False,
        "max_frames": 2,
    }
    checkpoint = save_tiny(folder, **sizes)
    (folder / "videos").mkdir()
    for number in range(2):
        write_video(folder / "videos" / f"{number}.mp4", 8, step=3 + number)
    predictor = Predictor(checkpoint, device="cpu", precision="fp32", on_bad_video="skip")
    SearchIndex(predictor, folder / "videos", folder / INDEX_NAME)


def _search(folder: Path) -> Taken:
    index = SearchIndex(_predictor(folder / "PretrainModel.bin"), folder / "videos", folder / INDEX_NAME)
    found = index.search(["a dog runs"], rerank_top=2)
    return Taken(len(index.names), 0, sorted((one.video, round(one.similarity, 5)) for one in found[0]))


STORE_LIMITS: dict[str, Any] = {"names": ("store.lmdb",)}


def _bomb(content: bytes, draw: Random) -> Mutant:
    """An index that is not read is made anew."""
    return bomb(content, draw)._replace(expected=Expected.SAME)


SEARCH = (flipped(Expected.SAME), members_changed, _bomb, array_of_npz, array_of_npz)
READERS = (
    Reader(
        "object-store",
        _make_store,
        {"store.lmdb/data.mdb": (), f"store.lmdb/{META_FILE}": STORE_META},
        _read_store,
        (*ERRORS, lmdb.Error),
        inputs=1000,
        **STORE_LIMITS,
    ),
    Reader(
        "object-store-value", _make_store, {"value": (cut_short(), _other_header)}, _read_value, ERRORS, **STORE_LIMITS
    ),
    Reader(
        "caption-index",
        _make_index,
        {
            "index/index.json": (rearranged(JSON), cut_short()),
            **{str(array_path("index", name)): (cut_short(),) for name in ARRAYS},
        },
        _read_index,
        ERRORS,
        names=("index",),
    ),
    Reader(
        "caption-words",
        _make_captions,
        {
            "labels.json": (
                known(JSON, "a long word", None, _long_word),
                known(JSON, "a row dropped", Expected.FEWER, drop()),
            )
        },
        _tagged,
        ERRORS,
        inputs=1000,
    ),
    Reader("frame-cache", _make_cache("raw"), CACHE, _read_cache("raw"), ()),
    Reader("frame-cache-jpeg", _make_cache("jpeg"), CACHE, _read_cache("jpeg"), ()),
    Reader("search-index", _make_search, {INDEX_NAME: SEARCH}, _search, (), inputs=1000, seconds=20, megabytes=600),
)
