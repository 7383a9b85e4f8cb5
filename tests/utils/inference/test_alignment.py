"""Where the clips and captions of a folder are found, and what is made of those that cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.utils.checkpoints import save_tiny
from tests.world import World
from utils.demo.scoring import true_words
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.open_alignment import Sentence, TrueWords
from utils.inference.alignment import CAPTION_FILES, WORDS, Clips, find_clips, score_alignment
from utils.inference.alignment import World as Truth
from utils.predictor import Predictor

SENTENCES = [Sentence("a star is growing", "star", "growing")]


def test_the_caption_file_of_a_held_out_split_comes_first(tmp_path: Path):
    (tmp_path / "v.mp4").touch()
    for name in reversed(CAPTION_FILES[-4:-1]):
        text = '[{"video": "v", "caption": "a"}]' if name.endswith(".json") else "video,caption\nv,a\n"
        (tmp_path / name).write_text(text.replace(",", "\t") if name.endswith("tsv") else text)
        assert find_clips(tmp_path, None, None).caption_file == tmp_path / name
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\n0,m,v,b\n1,m,gone,c\n")
    assert find_clips(tmp_path, None, 5) == Clips({str(tmp_path / "v.mp4"): ["b"]}, tmp_path / "test.csv", 1)


def test_unreadable_clips_are_left_out_where_asked_and_those_without_truth_stay(world: World, tmp_path: Path):
    clips = find_clips(world.msrvtt, None, 3)
    first, second, third = clips.captions
    broken = tmp_path / Path(third).name
    broken.write_bytes(b"no video")
    some = Clips({first: clips.captions[first], second: ["a star"], str(broken): ["a star"]}, clips.caption_file, 0)
    flags = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map), "device": "cpu"}
    model = save_tiny(tmp_path)
    truth = true_words(world.msrvtt / "truth.json")
    own = {Path(first).stem: TrueWords(*truth[Path(first).stem])}
    only = Truth(own, SENTENCES)
    with pytest.raises(BadVideos, match="no video|not a video"):
        score_alignment(Predictor(model, **flags), some, only)
    found = score_alignment(Predictor(model, on_bad_video="skip", **flags), some, only)
    assert (found.clips, found.texts, len(found.skipped)) == (2, 2, 1)
    assert found.figures["recall"].of == len(truth[Path(first).stem][1])
    assert set(found.figures) <= {*WORDS, *(f"nouns_{count}" for count in (1, 2, 3))}
    assert len(found.by_words()) == len(found.figures)
    assert found.content()["figures"]["end"]["of"] == found.figures["end"].of


def test_a_broken_object_file_is_a_clip_that_cannot_be_read(world: World, tmp_path: Path):
    clips = find_clips(world.msrvtt, None, 3)
    first, second, _ = clips.captions
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / f"{Path(first).stem}.json").write_text("[")
    shutil.copy(world.msrvtt / "objects" / f"{Path(second).stem}.json", objects)
    truth = Truth({video: TrueWords(*own) for video, own in true_words(world.msrvtt / "truth.json").items()}, SENTENCES)
    flags = {"object_path": str(objects), "labelmap_path": str(world.label_map), "device": "cpu"}
    model = save_tiny(tmp_path)
    with pytest.raises(BadVideos, match=f"{Path(first).stem}.json"):
        score_alignment(Predictor(model, **flags), clips, truth)
    found = score_alignment(Predictor(model, on_bad_video="skip", **flags), clips, truth)
    assert found.clips == 2 and Path(first).stem in found.skipped[0] and found.figures["nouns"].of > 0
