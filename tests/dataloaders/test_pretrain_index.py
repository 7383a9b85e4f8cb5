"""The joined index of captions, tags and shard places."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from dataloaders import pretrain_index
from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index, resolve_shard
from modules.tokenizer import ClipTokenizer
from tests.dataloaders.test_files import refuse

CAPTIONS = [
    ("v2", "A man is riding a horse"),
    ("missing", "nobody sees this"),
    ("v1", "two dogs playing!"),
    ("v3", "   "),
    ("v1", "dogs in a garden"),
]


def write_set(folder: Path, captions: list[tuple[str, str]] = CAPTIONS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "path-00000.tfrecord").touch()
    lines = ["v1\tpath-00000.tfrecord\t0", f"v2 \t {folder}/path-00000.tfrecord \t 700", "v3\tpath-00001.tfrecord\t3"]
    lines += ["v1\tpath-00001.tfrecord\t9", "v4\tpath-00001.tfrecord\t90000000000", "v5\tpath-0000"]
    lines += [f"v6\tpath-00001.tfrecord\t{10**19}"]
    (folder / "path.index").write_text("\n".join(lines) + "\n")
    rows = [{"video_id": video_id, "caption": caption} for video_id, caption in captions]
    path = folder / "frozen_train_labels.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_captions_are_joined_with_their_clips(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_index, "CHUNK", 2)
    index = PretrainIndex(prepare_pretrain_index(write_set(tmp_path), tmp_path, workers=workers))
    tokenizer = ClipTokenizer()
    assert len(index) == 3
    first, second, third = index[0], index[1], index[-1]
    assert (first.video_id, first.offset) == ("v2", 700)
    assert first.shard_path == second.shard_path == str(tmp_path / "path-00000.tfrecord")
    assert first.token_ids.tolist() == tokenizer.encode("a man is riding a horse")
    assert first.is_noun.tolist() == [False, True, False, False, False, True]
    assert first.is_verb.tolist() == [False, False, False, True, False, False]
    assert (second.video_id, second.offset, second.token_ids.dtype) == ("v1", 0, np.int64)
    assert index.video_id(2) == third.video_id == "v1"
    with pytest.raises(IndexError):
        index[3]
    assert index.tagger == "hanta"
    report = dict(index.report)
    examples = report.pop("examples")
    assert report == {
        "samples": 3,
        "captions_without_clip": 1,
        "clips_without_caption": 1,
        "empty_captions": 1,
        "repeated_caption_ids": 1,
        "repeated_clips": 1,
        "broken_index_lines": 2,
    }
    assert examples["captions_without_clip"] == ["missing"]
    assert examples["clips_without_caption"] == ["v4"]
    assert pickle.loads(pickle.dumps(index))[1].token_ids.tolist() == second.token_ids.tolist()


def test_prepared_once_and_again_when_an_input_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_set(tmp_path / "shards")
    folder = prepare_pretrain_index(path, tmp_path / "shards", tmp_path / "cache")
    assert folder.parent == tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_index, "_build", None)
        assert prepare_pretrain_index(path, tmp_path / "shards", tmp_path / "cache") == folder
    write_set(tmp_path / "shards", CAPTIONS[:1])
    assert len(PretrainIndex(prepare_pretrain_index(path, tmp_path / "shards", tmp_path / "cache"))) == 1


def test_each_vocabulary_has_its_own(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    folders = [prepare_pretrain_index(path, tmp_path, vocab_size=size) for size in (49408, 1000)]
    whole, small = (PretrainIndex(folder)[0] for folder in folders)
    assert whole.token_ids.tolist() == ClipTokenizer().encode(CAPTIONS[0][1])
    assert small.token_ids.tolist() == ClipTokenizer(1000).encode(CAPTIONS[0][1]) != whole.token_ids.tolist()
    assert small.is_noun.sum() > 1 and len(small.is_noun) == len(small.token_ids)


def test_a_moved_data_set_stays_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_pretrain_index(write_set(tmp_path / "old"), tmp_path / "old")
    os.rename(tmp_path / "old", tmp_path / "new")
    monkeypatch.setattr(pretrain_index, "_build", None)
    index = PretrainIndex(prepare_pretrain_index(tmp_path / "new" / "frozen_train_labels.json", tmp_path / "new"))
    assert index[0].shard_path == str(tmp_path / "new" / "path-00000.tfrecord")


def test_captions_of_read_only_shards_are_prepared_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    shards = tmp_path / "shards"
    captions = write_set(shards)
    refuse(shards, errno.EROFS, monkeypatch)
    path = prepare_pretrain_index(captions, shards)
    assert path.parent == tmp_path / "home/stoa-vlp" and not list(shards.glob(".*"))
    index = PretrainIndex(path)
    assert {index[row].shard_path for row in range(len(index))} == {str(shards / "path-00000.tfrecord")}
    monkeypatch.setattr(pretrain_index, "_build", None)  # not called again
    assert prepare_pretrain_index(captions, shards) == path
    monkeypatch.chdir(tmp_path)
    assert prepare_pretrain_index("shards/frozen_train_labels.json", "shards").resolve() == path.resolve()


def test_missing_inputs_and_empty_joins_are_errors(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    with pytest.raises(FileNotFoundError, match="--data_path"):
        prepare_pretrain_index(tmp_path / "none.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="path.index"):
        prepare_pretrain_index(path, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="hanta, spacy"):
        prepare_pretrain_index(path, tmp_path, tagger="nltk")
    write_set(tmp_path, [("missing", "a"), ("v3", "")])
    with pytest.raises(ValueError, match="no caption of .* belongs to a clip"):
        prepare_pretrain_index(path, tmp_path)


def test_shards_are_looked_for_beside_the_index(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").touch()
    assert resolve_shard("a.tfrecord", tmp_path) == str(tmp_path / "a.tfrecord")
    assert resolve_shard("/gone/a.tfrecord", tmp_path) == str(tmp_path / "a.tfrecord")
    assert resolve_shard("sub/b.tfrecord", tmp_path) == str(tmp_path / "sub" / "b.tfrecord")
    assert resolve_shard("/gone/b.tfrecord", tmp_path) == str(tmp_path / "b.tfrecord")


def test_real_captions_have_nouns_and_verbs(shared: Path, tmp_path: Path) -> None:
    lines = (shared / "realdata" / "webvid" / "results_2M_val.csv").read_text().splitlines()[1:]
    rows = [line.split(",")[0] for line in lines]
    (tmp_path / "path.index").write_text("".join(f"{video_id}\ta.tfrecord\t0\n" for video_id in rows))
    (tmp_path / "captions.json").write_text(
        json.dumps([{"video_id": line.split(",")[0], "caption": line.split(",")[1]} for line in lines])
    )
    index = PretrainIndex(prepare_pretrain_index(tmp_path / "captions.json", tmp_path))
    assert len(index) == 9
    assert all(index[number].is_noun.any() for number in range(9))
    assert sum(index[number].is_verb.any() for number in range(9)) >= 5
