"""Videos and captions of one split, grouped and filtered."""

from __future__ import annotations

from dataloaders.caption_split import CaptionSplit, TextVideoPair

PAIRS = [TextVideoPair(*pair) for pair in (("b", "b one"), ("a", "a one"), ("b", "b two"), ("c", "c one"))]


def test_captions_of_a_video_stand_together_in_the_order_of_the_list():
    split = CaptionSplit.from_pairs(PAIRS, ["a", "b"])
    assert split.video_ids == ["a", "b", "c"]
    assert split.captions == ["a one", "b one", "b two", "c one"]
    assert split.caption_video.tolist() == [0, 1, 1, 2]
    assert split.captions_per_video.tolist() == [1, 2, 1]


def test_without_a_list_videos_come_in_the_order_of_their_first_caption():
    assert CaptionSplit.from_pairs(PAIRS).video_ids == ["b", "a", "c"]


def test_a_listed_video_without_caption_stays_and_has_none():
    split = CaptionSplit.from_pairs(PAIRS, ["silent", "a"])
    assert split.video_ids == ["silent", "a", "b", "c"]
    assert split.captions_per_video.tolist() == [0, 1, 2, 1]


def test_only_keeps_order_captions_and_names_of_objects():
    files = {"b": "b.mp4"}
    split = CaptionSplit.from_pairs(PAIRS, (), {"b": "b_objects"}, files).only({"c", "b", "unknown"})
    assert split.files == split.without_empty_captions().files == files
    assert split.video_ids == ["b", "c"] and split.captions == ["b one", "b two", "c one"]
    assert split.caption_video.tolist() == [0, 0, 1] and split.object_names == {"b": "b_objects"}
    assert split.only([]).video_ids == [] and split.only([]).captions == []


def test_captions_by_video_and_pairs():
    split = CaptionSplit.from_pairs(PAIRS, ["silent", "a"])
    assert split.by_video() == {"silent": [], "a": ["a one"], "b": ["b one", "b two"], "c": ["c one"]}
    assert CaptionSplit.from_pairs(split.pairs(), split.video_ids).captions == split.captions


def test_captions_without_a_word_go_and_videos_that_have_no_other():
    pairs = [*PAIRS, TextVideoPair("a", " \t"), TextVideoPair("d", "")]
    kept = CaptionSplit.from_pairs(pairs, ["silent"], {"a": "x"}).without_empty_captions()
    assert kept.video_ids == ["b", "a", "c"] and kept.captions == ["b one", "b two", "a one", "c one"]
    assert kept.object_names == {"a": "x"}
