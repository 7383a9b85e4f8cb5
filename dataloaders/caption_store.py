"""Captions of a pre-training set: a stream from their JSON file, and flat arrays of their tagged pieces on disk.

Millions of captions neither fit into Python objects nor may be parsed at every start; here they are a few flat files
that a process maps into memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.tagging import NOUN, VERB, TaggedCaption
from modules.characters import whole_characters
from modules.foreign_text import JSON_DECODER, is_no_caption, iterate_text, log_replaced, video_id

WHITE_SPACE = " \t\r\n"
MAX_ROW = 1 << 22  # characters of a row
ARRAYS: dict[str, np.dtype[Any]] = {
    "tokens": np.dtype("<u2"),
    "kinds": np.dtype("u1"),
    "token_ends": np.dtype("<i8"),
    "ids": np.dtype("u1"),
    "id_ends": np.dtype("<i8"),
    "shards": np.dtype("<i4"),
    "offsets": np.dtype("<i8"),
}


class CaptionRow(NamedTuple):
    """One row of a caption file."""

    video_id: str
    caption: str


def iter_captions(path: str | Path) -> Iterator[CaptionRow]:
    """Yield the rows of a JSON list of {"video_id", "caption"}, reading a part of the file at a time.

    What a program wrote for a caption that is not there, such as "nan", becomes an empty caption.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not such a list; the message names the file and the row.
    """
    replaced = 0
    for number, row in enumerate(iter_json_list(Path(path))):
        if not isinstance(row, dict) or "video_id" not in row or not isinstance(row.get("caption"), str):
            raise ValueError(
                f'{path}: row {number} is {str(row)[:100]!r}; rows are {{"video_id": ..., "caption": "..."}}'
            )
        caption, count = whole_characters(row["caption"])
        replaced += count
        yield CaptionRow(video_id(row["video_id"], f"{path}: row {number}"), "" if is_no_caption(caption) else caption)
    log_replaced(path, replaced)


def iter_json_list(path: Path) -> Iterator[Any]:
    """Values of a JSON list; a part of the file is in memory at a time; errors as `iter_captions`."""
    parts = iterate_text(path, is_streamed=True)
    buffer, position = _behind_space("", 0, parts)
    if not buffer.startswith("[", position):
        raise ValueError(f"{path} is not a JSON list of captions: it starts with {buffer[position : position + 20]!r}")
    buffer, position = _behind_space(buffer, position + 1, parts)
    row, is_open = 0, not buffer.startswith("]", position)
    while is_open:
        value, buffer, position = _value(buffer, position, parts, f"{path}: row {row}")
        yield value
        buffer, position = _behind_space(buffer, position, parts)
        is_open = not buffer.startswith("]", position)
        if is_open:
            if position == len(buffer):
                raise ValueError(f"{path} ends before its list does: the file is incomplete")
            if buffer[position] != ",":
                raise ValueError(f"{path}: no comma behind row {row} but {buffer[position : position + 20]!r}")
            buffer, position = _behind_space(buffer, position + 1, parts)
            row += 1
    buffer, position = _behind_space(buffer, position + 1, parts)
    if position < len(buffer):
        raise ValueError(f"{path}: behind the end of its list is more: {buffer[position : position + 20]!r}")


def _behind_space(buffer: str, position: int, parts: Iterator[str]) -> tuple[str, int]:
    """The first place behind white space, the end of the buffer only at the end of the file."""
    while True:
        while position < len(buffer) and buffer[position] in WHITE_SPACE:
            position += 1
        more = next(parts, None) if position >= len(buffer) else None
        if more is None:
            return buffer, position
        buffer, position = more, 0


def _value(buffer: str, position: int, parts: Iterator[str], place: str) -> tuple[Any, str, int]:
    """The value at a place of the buffer, a buffer, and the place behind the value there."""
    while True:
        try:
            value, end = JSON_DECODER.raw_decode(buffer, position)
            return value, buffer, end
        except RecursionError as error:
            raise ValueError(f"{place}: lists inside each other, too deep for a list of captions") from error
        except json.JSONDecodeError as error:  # or there is more of it in the next part
            more = next(parts, None) if len(buffer) - position < MAX_ROW else None
            if more is None:
                raise ValueError(f"{place} is not valid JSON ({error.msg}); is the file complete?") from error
            buffer, position = buffer[position:] + more, 0
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error


class PackedCaptions(NamedTuple):
    """Tagged captions in the form in which they are stored: N of them, their pieces one after the other."""

    lengths: np.ndarray  # (N,) int64, number of pieces
    tokens: np.ndarray  # (sum of lengths,) uint16
    kinds: np.ndarray  # (sum of lengths,) uint8, NOUN, VERB or 0


def pack_captions(captions: Sequence[TaggedCaption]) -> PackedCaptions:
    """Put tagged captions one after the other."""
    lengths = np.array([len(caption.ids) for caption in captions], dtype=np.int64)
    tokens = np.concatenate([caption.ids for caption in captions]).astype(ARRAYS["tokens"])
    kinds = np.concatenate([caption.is_noun * NOUN + caption.is_verb * VERB for caption in captions])
    return PackedCaptions(lengths, tokens, kinds.astype(ARRAYS["kinds"]))


class CaptionWriter:
    """Writes caption rows into the flat files of a folder; memory does not grow with the number of rows."""

    def __init__(self, folder: str | Path) -> None:
        self._files = {name: array_path(folder, name).open("wb") for name in ARRAYS}
        self._tokens = 0
        self._id_bytes = 0
        self.rows = 0

    def extend(
        self, video_ids: Sequence[str], shards: np.ndarray, offsets: np.ndarray, captions: PackedCaptions
    ) -> None:
        """Add N rows: clip ids, numbers of their shards, byte offsets there, and the pieces of their captions."""
        encoded = [video_id.encode() for video_id in video_ids]
        token_ends = self._tokens + np.cumsum(captions.lengths)
        id_ends = self._id_bytes + np.cumsum([len(name) for name in encoded], dtype=np.int64)
        values = {
            "tokens": captions.tokens,
            "kinds": captions.kinds,
            "token_ends": token_ends,
            "ids": np.frombuffer(b"".join(encoded), dtype=ARRAYS["ids"]),
            "id_ends": id_ends,
            "shards": shards,
            "offsets": offsets,
        }
        for name, value in values.items():
            self._files[name].write(value.astype(ARRAYS[name], copy=False).tobytes())
        self.rows += len(encoded)
        self._tokens += int(captions.lengths.sum())
        self._id_bytes += sum(map(len, encoded))

    def close(self) -> None:
        """Write what is buffered and close the files."""
        for file in self._files.values():
            file.close()


class CaptionArrays:
    """Read-only view of the files that `CaptionWriter` wrote; opened on first use, in each process by itself."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._arrays: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_arrays": {}}

    def __len__(self) -> int:
        return len(self._array("token_ends"))

    def check(self, rows: int) -> None:
        """Raise ValueError unless the files fit each other and hold `rows` rows."""
        for name in ("token_ends", "id_ends", "shards", "offsets"):
            self._check_length(name, rows)
        for names, ends in ((("tokens", "kinds"), "token_ends"), (("ids",), "id_ends")):
            for name in names:
                self._check_length(name, int(self._array(ends)[-1]))

    def _check_length(self, name: str, wanted: int) -> None:
        path = array_path(self._folder, name)
        size = path.stat().st_size
        if size != wanted * ARRAYS[name].itemsize:
            raise ValueError(f"{path.name} has {size} bytes, not the {wanted * ARRAYS[name].itemsize} of the others")

    def video_id(self, row: int) -> str:
        """Return the clip id of a row."""
        return self._slice("ids", "id_ends", row).tobytes().decode()

    def place(self, row: int) -> tuple[int, int]:
        """Return the shard number and the byte offset of a row's clip."""
        return int(self._array("shards")[row]), int(self._array("offsets")[row])

    def shards(self) -> np.ndarray:
        """Return the shard numbers of all rows."""
        return self._array("shards")

    def caption(self, row: int) -> TaggedCaption:
        """Return the pieces of a row's caption, all of them."""
        kinds = self._slice("kinds", "token_ends", row)
        tokens = self._slice("tokens", "token_ends", row)
        return TaggedCaption(tokens.astype(np.int64), kinds == NOUN, kinds == VERB)

    def _slice(self, values: str, ends: str, row: int) -> np.ndarray:
        bounds = self._array(ends)
        start = int(bounds[row - 1]) if row else 0
        return np.asarray(self._array(values)[start : int(bounds[row])])

    def _array(self, name: str) -> np.ndarray:
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = np.memmap(array_path(self._folder, name), dtype=ARRAYS[name], mode="r")
        return array


def array_path(folder: str | Path, name: str) -> Path:
    """Return the file of the array `name` (a key of ARRAYS) in a caption store."""
    return Path(folder) / f"{name}.{ARRAYS[name].str.lstrip('<|')}"
