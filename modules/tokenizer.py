"""CLIP's byte-pair tokenizer, without PyTorch, with the word that each piece belongs to.

The vocabulary file is the one inside the open_clip package; only the file is read, the package (and with it PyTorch) is
not imported, because data preparation and its worker processes use this module too.
"""

from __future__ import annotations

import gzip
import heapq
import html
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import ftfy
import numpy as np
import regex

from modules.config import VOCAB_SIZE

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"
NOT_MERGED = 256 + 256 + 2  # symbols beside the merges: bytes, final bytes, and the two above
WORD_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
CACHED_WORDS, CACHED_TEXTS = 1 << 17, 1 << 16
CACHED_CHARACTERS = 256  # of a text whose ids are kept: questions and captions come again in every epoch
MAX_CHARACTERS = 8192  # of a text that are read; CLIP's 77 tokens end long before


def clean_text(text: str) -> str:
    """Return `text` as CLIP reads it: encoding mended, HTML entities resolved twice, single spaces, lower case.

    Mending takes time with the square of the length, so no more than MAX_CHARACTERS are read.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text[:MAX_CHARACTERS]))).split()).lower()


def split_words(text: str) -> list[str]:
    """Return a text's words in CLIP's sense: runs of letters, single digits, runs of other signs, English clitics."""
    return WORD_PATTERN.findall(clean_text(text))


def _keep(cache: dict[str, tuple[int, ...]], key: str, ids: tuple[int, ...], limit: int) -> None:
    """Add to a cache; a full one begins anew."""
    if len(cache) >= limit:
        cache.clear()
    cache[key] = ids


class ClipTokenizer:
    """Text to CLIP's token ids and back.

    A literal "<|endoftext|>" in a caption is split like any other text: it must not end the caption. Otherwise the ids
    are those of OpenAI's tokenizer (github.com/openai/CLIP, simple_tokenizer.py; MIT).

    A smaller vocabulary has the first merges alone, which are the most frequent ones; rarer words have more pieces.

    Args:
        vocab_size: number of ids: rows of the text tower's token embedding.
        vocabulary_path: CLIP's merges, if not those of the package open_clip.

    Raises:
        ValueError: there is no vocabulary of that size.

    Attributes:
        start_id, end_id: ids of the tokens put around every text.
        pad_id: what fills unused places, 0. It is also the id of a "!" that is not the last of its word, so padding is
            told by the mask, never by the id.
    """

    pad_id = 0

    def __init__(self, vocab_size: int = VOCAB_SIZE, vocabulary_path: str | Path | None = None) -> None:
        if not NOT_MERGED <= vocab_size <= VOCAB_SIZE:
            raise ValueError(
                f"CLIP's tokenizer has no vocabulary of {vocab_size}: from {NOT_MERGED} (bytes alone) to {VOCAB_SIZE}"
            )
        merges = _read_merges(Path(vocabulary_path) if vocabulary_path else find_vocabulary())
        merges = merges[: vocab_size - NOT_MERGED]
        self._byte_symbols = _byte_symbols()
        symbols = list(self._byte_symbols.values())
        vocabulary = [
            *symbols,
            *(symbol + "</w>" for symbol in symbols),
            *("".join(pair) for pair in merges),
            START,
            END,
        ]
        self._ids = {symbol: index for index, symbol in enumerate(vocabulary)}
        self._symbols = vocabulary
        self._ends_word = np.array([symbol.endswith("</w>") for symbol in vocabulary])
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._symbol_bytes = {symbol: byte for byte, symbol in self._byte_symbols.items()}
        self._cache: dict[str, tuple[int, ...]] = {}
        self._texts: dict[str, tuple[int, ...]] = {}
        self.vocab_size = vocab_size
        self.start_id = self._ids[START]
        self.end_id = self._ids[END]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        cached = self._texts.get(text)
        if cached is None:
            cached = tuple(piece for word in split_words(text) for piece in self.word_ids(word))
            if len(text) <= CACHED_CHARACTERS:
                _keep(self._texts, text, cached, CACHED_TEXTS)
        return list(cached)

    def encode_words(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text and, for each, the index of its word in `split_words(text)`."""
        ids: list[int] = []
        word_index: list[int] = []
        for index, word in enumerate(split_words(text)):
            pieces = self.word_ids(word)
            ids.extend(pieces)
            word_index.extend([index] * len(pieces))
        return ids, word_index

    def word_ids(self, word: str) -> tuple[int, ...]:
        """Return the ids of one word as `split_words` gives it."""
        cached = self._cache.get(word)
        if cached is None:
            cached = tuple(self._ids[piece] for piece in self._merge(word))
            _keep(self._cache, word, cached, CACHED_WORDS)
        return cached

    def ends_word(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return (L,) bool for ids (L,): whether each is the last piece of its word."""
        return self._ends_word[np.asarray(ids, dtype=np.int64)]

    def to_tensor_ids(self, text: str, max_words: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (W,) int64 ids and (W,) bool mask of a text: start, at most W-2 pieces, end, padding (mask False)."""
        return self.pad_ids(self.encode(text), max_words)

    def pad_ids(self, ids: Sequence[int] | np.ndarray, max_words: int) -> tuple[np.ndarray, np.ndarray]:
        """Put start, end and padding around encoded pieces; the result is as in `to_tensor_ids`.

        Raises:
            ValueError: if `max_words` leaves no room for start and end.
        """
        if max_words < 2:
            raise ValueError(f"max_words is {max_words}; start and end alone need 2")
        kept = min(len(ids), max_words - 2)
        row = np.full(max_words, self.pad_id, dtype=np.int64)
        row[0] = self.start_id
        row[1 : 1 + kept] = ids[:kept]
        row[1 + kept] = self.end_id
        return row, np.arange(max_words) < kept + 2

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids up to the first end token, words separated by single spaces; start tokens are skipped.

        Raises:
            ValueError: for an id outside the vocabulary.
        """
        symbols = []
        for index in map(int, ids):
            if index == self.end_id:
                break
            if not 0 <= index < self.vocab_size:
                raise ValueError(f"token id {index} is outside the vocabulary of {self.vocab_size}")
            if index != self.start_id:
                symbols.append(self._symbols[index])
        words = "".join(symbols).split("</w>")
        return " ".join(self._decode_word(word) for word in words if word)

    def _decode_word(self, word: str) -> str:
        return bytes(self._symbol_bytes[symbol] for symbol in word).decode(errors="replace")

    def _merge(self, word: str) -> list[str]:
        """Apply the learned merges to a word, the earliest learned one first."""
        parts = [self._byte_symbols[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        return merged(parts, self._ranks)


def merged(parts: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join neighbouring symbols as long as a pair of them has a rank: all pairs of the lowest rank, from the left.

    The time grows with the length of the word, not with its square.
    """
    symbols: list[str | None] = [*parts, None]
    before, after = list(range(-1, len(parts))), list(range(1, len(parts) + 2))
    waiting: list[tuple[int, int, str, str]] = []

    def offer(place: int) -> None:
        if place < 0 or after[place] >= len(parts):
            return
        pair = (symbols[place] or "", symbols[after[place]] or "")
        if pair in ranks:
            heapq.heappush(waiting, (ranks[pair], place, *pair))

    for place in range(len(parts) - 1):
        offer(place)
    while waiting:
        rank, changed = waiting[0][0], []
        while waiting and waiting[0][0] == rank:  # pairs that a merge makes wait until all of a rank are merged
            _, place, first, second = heapq.heappop(waiting)
            follower = after[place]
            if symbols[place] != first or follower >= len(parts) or symbols[follower] != second:
                continue
            symbols[place], symbols[follower] = first + second, None
            after[place] = after[follower]
            before[after[place]] = place
            changed += [before[place], place]
        for place in changed:
            offer(place)
    return [symbol for symbol in symbols if symbol is not None]


def find_vocabulary() -> Path:
    """Return the path of CLIP's vocabulary file inside the installed open_clip package, without importing the package.

    Raises:
        FileNotFoundError: if the package or its file is missing.
    """
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / VOCABULARY_FILE
        if path.is_file():
            return path
    raise FileNotFoundError(f"{VOCABULARY_FILE} not found in the package open_clip: pip install open-clip-torch")


@lru_cache(maxsize=2)
def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : VOCAB_SIZE - NOT_MERGED + 1]
    return [(first, second) for first, second in (line.split() for line in lines)]


@lru_cache(maxsize=1)
def _byte_symbols() -> dict[int, str]:
    """Return a printable character for every byte: itself where it is printable, else one beyond the 256th."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    # The order matters: it is the order of the first 256 ids.
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
