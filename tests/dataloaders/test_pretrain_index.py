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
from dataloaders.built_caches import FINGERPRINT_FILE
from dataloaders.caption_store import array_path
from dataloaders.pretrain_index import (
    ClipPlace,
    PretrainIndex,
    prepare_pretrain_index,
    read_path_index,
)
from dataloaders.stored_clips import resolve_shard
from dataloaders.tag_rules import TAGS_VERSION
from modules.tokenizer import ClipTokenizer
from tests.dataloaders.test_built_caches import refuse

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


@pytest.mark.parametrize("version", [None, 1, TAGS_VERSION + 1])
def test_tags_of_other_rules_are_made_anew(
    tmp_path: Path, version: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_set(tmp_path)
    folder = prepare_pretrain_index(path, tmp_path)
    kinds, tags = array_path(folder, "kinds"), array_path(folder, "kinds").read_bytes()
    kinds.write_bytes(bytes(len(tags)))
    assert prepare_pretrain_index(path, tmp_path) == folder and kinds.read_bytes() != tags, "it is current"
    fingerprint = json.loads((folder / FINGERPRINT_FILE).read_text())
    assert fingerprint.pop("tags_version") == TAGS_VERSION
    if version is not None:
        fingerprint["tags_version"] = version
    (folder / FINGERPRINT_FILE).write_text(json.dumps(fingerprint))
    with caplog.at_level("INFO"):
        assert prepare_pretrain_index(path, tmp_path) == folder
    assert kinds.read_bytes() == tags and f"{folder} was built from other inputs" in caplog.text


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


@pytest.mark.parametrize("content", ["", "[]", '{"tagger": "hanta"}', '{"tagger": "x", "report": {"samples": "3"}}'])
def test_a_damaged_index_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    index = prepare_pretrain_index(write_set(tmp_path), tmp_path)
    for path in index.glob("*.[ui][0-9]"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=rf"damaged index of captions .*{path.name} has .* delete the folder"):
            PretrainIndex(index)
        path.write_bytes(whole)
    assert len(PretrainIndex(index)) == 3
    (index / "index.json").write_text(content)
    with pytest.raises(ValueError, match="damaged index of captions .* delete the folder"):
        PretrainIndex(index)


def test_shards_are_looked_for_beside_the_index(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").touch()
    assert resolve_shard("a.tfrecord", tmp_path) == str(tmp_path / "a.tfrecord")
    assert resolve_shard("/gone/a.tfrecord", tmp_path) == str(tmp_path / "a.tfrecord")
    assert resolve_shard("sub/b.tfrecord", tmp_path) == str(tmp_path / "sub" / "b.tfrecord")
    assert resolve_shard("/gone/b.tfrecord", tmp_path) == str(tmp_path / "b.tfrecord")


@pytest.mark.parametrize(
    "named", ["../b.tfrecord", "{outside}/b.tfrecord", "a/../../b.tfrecord", "../index2/b.tfrecord"]
)
def test_an_index_opens_no_file_outside_of_its_folder(tmp_path: Path, named: str) -> None:
    folder, written = tmp_path / "index", named.format(outside=tmp_path)
    for place in (folder, tmp_path / "index2"):
        place.mkdir()
    for place in (tmp_path / "b.tfrecord", tmp_path / "index2" / "b.tfrecord"):
        place.touch()
    assert resolve_shard(written, folder) == str(folder / "b.tfrecord")
    (folder / "b.tfrecord").symlink_to(tmp_path / "b.tfrecord")  # the user's own link may lead anywhere
    assert resolve_shard(written, folder) == str(folder / "b.tfrecord")
    assert resolve_shard(f"{folder}/b.tfrecord", folder) == str(folder / "b.tfrecord")


def test_shards_that_lie_elsewhere_are_named_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path / "index")
    (tmp_path / "index" / "path-00000.tfrecord").rename(tmp_path / "other.tfrecord")
    (tmp_path / "index" / "path.index").write_text(f"v2\t{tmp_path}/other.tfrecord\t0\n")
    PretrainIndex(prepare_pretrain_index(tmp_path / "index" / "frozen_train_labels.json", tmp_path / "index"))
    assert (
        "1 shards of" in caplog.text and "other.tfrecord, ...), where none is opened; move or link them" in caplog.text
    )


def test_lines_without_a_usable_id_shard_or_offset_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "path.index"
    bad = [
        "../v\ta\t0",
        "\ta\t0",
        "None\ta\t0",
        "v\x1b\ta\t0",
        "v\t\t0",
        "v\ta\t-1",
        "v\ta\t\u0663",
        "v\ta\t1e3",
        "v\ta\t0\tb",
    ]
    path.write_text("\ufeff" + "\r\n".join(["v1\ta.tfrecord\t7", *bad, "v2\ta.tfrecord\t9"]), encoding="utf-8")
    noted: list[str] = []
    places = list(read_path_index(path, lambda name, example: noted.append(name)))
    assert places == [ClipPlace("v1", "a.tfrecord", 7), ClipPlace("v2", "a.tfrecord", 9)]
    assert noted == ["broken_index_lines"] * len(bad)


@pytest.mark.parametrize(("line", "message"), [(b"v\xe9\ta\t0", "not UTF-8"), (b"v\0\ta\t0", "a NUL character")])
def test_an_index_that_is_no_text_is_refused_by_line(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "path.index").write_bytes(b"v1\ta\t0\n" + line)
    with pytest.raises(ValueError, match=rf"path\.index, line 2: {message}"):
        list(read_path_index(tmp_path / "path.index"))


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
