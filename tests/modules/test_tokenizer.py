"""CLIP's tokenizer: ids, words of pieces, framing, and the way back."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modules.tokenizer import MAX_CHARACTERS, ClipTokenizer, clean_text, merged, split_words


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def _texts() -> list[str]:
    generator = random.Random(0)
    ranges = [(33, 126), (160, 0x600), (0x3000, 0x9000), (0x1F300, 0x1F700), (32, 32)]
    noise = ["".join(chr(generator.randint(*generator.choice(ranges))) for _ in range(20)) for _ in range(300)]
    written = [
        "It's Zoë&#39;s caf\u00e9 &amp;amp; \u0130stanbul!!! 1234",
        "they don't &lt;b&gt; \n stop",
        "schÃ¶n ﬁx",
        "",
        "!",
        "!?",
    ]
    return written + noise


def test_ids_are_those_of_open_clip(tokenizer: ClipTokenizer) -> None:
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    for text in _texts():
        assert tokenizer.encode(text) == reference.encode(text), text
    assert (tokenizer.start_id, tokenizer.end_id) == (reference.sot_token_id, reference.eot_token_id)
    assert tokenizer.vocab_size == reference.vocab_size


def test_ids_of_a_text_that_comes_again_are_the_same_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.tokenizer.CACHED_TEXTS", 2)
    small = ClipTokenizer()
    texts = ["a red square", "two circles", "a star that is spinning", "x" * 1000]
    expected = [ClipTokenizer().encode(text) for text in texts]
    for _ in range(3):
        assert [small.encode(text) for text in texts] == expected
        small.encode(texts[0]).append(7)
    assert len(small._texts) <= 2


def test_pieces_know_their_words(tokenizer: ClipTokenizer) -> None:
    text = "A skateboarder's photobombing 42 pelicans!"
    ids, word_index = tokenizer.encode_words(text)
    assert ids == tokenizer.encode(text)
    words = split_words(text)
    assert words == ["a", "skateboarder", "'s", "photobombing", "4", "2", "pelicans", "!"]
    assert len(ids) == len(word_index) > len(words)
    for index, word in enumerate(words):
        pieces = [piece for piece, owner in zip(ids, word_index, strict=True) if owner == index]
        assert tokenizer.decode(pieces) == word


@pytest.mark.parametrize("vocab_size", [514, 8192, 49408])
def test_the_last_piece_of_each_word_is_known_from_its_id(vocab_size: int) -> None:
    tokenizer = ClipTokenizer(vocab_size)
    for text in _texts():
        ids, words = tokenizer.encode_words(text)
        expected = [words[place : place + 2] != [word, word] for place, word in enumerate(words)]
        assert tokenizer.ends_word(ids).tolist() == expected


def test_a_text_is_framed_cut_and_padded(tokenizer: ClipTokenizer) -> None:
    pieces = tokenizer.encode("a man is riding a horse")
    ids, mask = tokenizer.to_tensor_ids("a man is riding a horse", 10)
    assert ids.dtype == np.int64
    assert ids.tolist() == [tokenizer.start_id, *pieces, tokenizer.end_id, 0, 0]
    assert mask.tolist() == [True] * 8 + [False] * 2
    ids, mask = tokenizer.to_tensor_ids("a man is riding a horse", 5)
    assert ids.tolist() == [tokenizer.start_id, *pieces[:3], tokenizer.end_id]
    assert mask.all()
    assert tokenizer.to_tensor_ids("", 3)[0].tolist() == [tokenizer.start_id, tokenizer.end_id, 0]
    with pytest.raises(ValueError, match="max_words"):
        tokenizer.to_tensor_ids("a", 1)


def test_id_zero_is_a_token_where_the_mask_says_so(tokenizer: ClipTokenizer) -> None:
    ids, mask = tokenizer.pad_ids([0, 256], 6)
    assert mask.tolist() == [True] * 4 + [False] * 2
    assert tokenizer.decode(ids[mask]) == "!!"


def test_text_comes_back(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("Young woman in gym. 日本 café")) == "young woman in gym . 日本 café"
    ids, _ = tokenizer.to_tensor_ids("two dogs", 12)
    assert tokenizer.decode(ids) == "two dogs"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])


def test_end_token_in_a_caption_is_plain_text(tokenizer: ClipTokenizer) -> None:
    assert tokenizer.end_id not in tokenizer.encode("a <|endoftext|> b <end_of_text>")


def test_a_smaller_vocabulary_has_the_first_merges(tokenizer: ClipTokenizer) -> None:
    small, bare = ClipTokenizer(2000), ClipTokenizer(514)
    text = "two triangles, a café 日本"
    for each in (small, bare):
        ids, words = each.encode_words(text)
        assert max(ids) < each.start_id == each.end_id - 1 == each.vocab_size - 2
        assert each.decode(ids) == tokenizer.decode(tokenizer.encode(text))
        assert sorted(set(words)) == [0, 1, 2, 3, 4, 5]
    assert small.encode("two red") == tokenizer.encode("two red")
    assert (
        len(tokenizer.encode(text))
        < len(small.encode(text))
        < len(bare.encode(text))
        == len(text.replace(" ", "").encode())
    )


@pytest.mark.parametrize("size", [513, 49409])
def test_sizes_that_no_vocabulary_has_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"no vocabulary of {size}"):
        ClipTokenizer(size)


def test_it_travels_to_worker_processes(tokenizer: ClipTokenizer) -> None:
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a red ball") == tokenizer.encode("a red ball")


def test_torch_stays_out_of_data_preparation() -> None:
    root = Path(__file__).resolve().parents[2]
    modules = (
        "modules.tokenizer",
        "modules.utils_object_tractor",
        "dataloaders.object_store",
        "dataloaders.pretrain_index",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_real_captions_are_those_of_open_clip(tokenizer: ClipTokenizer, shared: Path) -> None:
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    sentences = json.loads((shared / "realdata" / "msrvtt" / "MSRVTT_data.partial.json").read_text())["sentences"]
    for sentence in sentences[:2000]:
        assert tokenizer.encode(sentence["caption"]) == reference.encode(sentence["caption"])


def joined_round_by_round(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """OpenAI's way: find the pair of the lowest rank, join all of it, begin again."""
    while pairs := [pair for pair in zip(parts, parts[1:], strict=False) if pair in ranks]:
        best, found = min(pairs, key=ranks.__getitem__), []
        while parts:
            length = 2 if tuple(parts[:2]) == best else 1
            found.append("".join(parts[:length]))
            parts = parts[length:]
        parts = found
    return parts


def test_long_words_are_joined_as_round_by_round():
    draw = random.Random(0)
    pairs = [(a, b) for a in ("a", "b", "ab", "ba", "aa", "aba") for b in ("a", "b", "ab", "bb", "ba")]
    for _ in range(300):
        draw.shuffle(pairs)
        ranks = {pair: rank for rank, pair in enumerate(pairs[: draw.randint(1, len(pairs))])}
        word = draw.choices("ab", k=draw.randint(1, 40))
        assert merged(list(word), ranks) == joined_round_by_round(list(word), ranks)


def test_of_an_endless_text_only_the_beginning_is_read():
    assert len(clean_text("a" * 10**6)) == MAX_CHARACTERS
    assert clean_text("&" + "amp;" * 10**5)
