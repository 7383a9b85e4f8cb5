"""The parts of a sample: text positions, random targets, clips and the boxes that belong to their frames."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dataloaders.decoders import Misfit, UnreadableVideo
from dataloaders.object_records import ObjectRecord
from dataloaders.samples import (
    MIN_MISFITS,
    OUTSIDE,
    REVERSED,
    SHUFFLED,
    ClipFrames,
    Replacements,
    Sample,
    SampleChoices,
    SampleSettings,
    TooManyMisfits,
    clip_part,
    collate,
    tag_part,
    text_part,
    training_targets,
)
from dataloaders.tagging import make_tagger, tag_caption
from modules.random_streams import sample_key
from modules.tokenizer import ClipTokenizer

FRAMES, OBJECTS = 4, 3
SETTINGS = SampleSettings(resolution=32, max_frames=FRAMES, max_words=12, object_count=OBJECTS)


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def frames(width: int = 64, height: int = 32) -> list[np.ndarray]:
    """Frame i is grey of level 50 * i."""
    return [np.full((height, width, 3), 50 * i, dtype=np.uint8) for i in range(FRAMES)]


def record(boxes: dict[tuple[int, int], tuple[float, float, float, float]], count: int = FRAMES) -> ObjectRecord:
    """Boxes by (frame, slot); the trajectory of slot o is o + 1, the class of all is 1."""
    placed = np.full((count, OBJECTS, 4), -1, dtype=np.float32)
    classes, tracks = np.zeros((2, count, OBJECTS), dtype=np.int64)
    for (frame, slot), box in boxes.items():
        placed[frame, slot], classes[frame, slot], tracks[frame, slot] = box, 1, slot + 1
    ids = [*sorted({slot + 1 for _, slot in boxes}), *[0] * (2 * OBJECTS)][: 2 * OBJECTS]
    return ObjectRecord(placed, classes, tracks, np.array(ids, dtype=np.int64))


def clip(**changes) -> ClipFrames:
    return dataclasses.replace(ClipFrames(frames(), (64, 32), (64, 32)), **changes)


def test_tags_stand_at_the_positions_of_their_pieces(tokenizer: ClipTokenizer):
    tagged = tag_caption("A snowboarder is jumping, dogs!", tokenizer, make_tagger("hanta"))
    text = text_part(tagged.ids, tokenizer, 12)
    noun, verb, ends = tag_part(tagged.ids, tagged.is_noun, tagged.is_verb, tokenizer, 12).values()
    assert text["text_ids"][0] == tokenizer.start_id and text["text_mask"].dtype == torch.bool
    length = int(text["text_mask"].sum())
    assert text["text_ids"][length - 1] == tokenizer.end_id and not text["text_ids"][length:].any()
    assert tokenizer.decode(text["text_ids"][noun].tolist()) == "snowboarder dogs"
    assert tokenizer.decode(text["text_ids"][verb].tolist()) == "jumping"
    assert noun.nonzero()[:, 0].tolist() == [2, 3, 7], "both pieces of snowboarder"
    assert (noun & ends).nonzero()[:, 0].tolist() == [3, 7], "the last piece ends it"
    assert ends.nonzero()[:, 0].tolist() == [1, 3, 4, 5, 6, 7, 8], "neither the start nor the end token is a word"


def test_a_cut_caption_keeps_its_end_token_and_its_tags(tokenizer: ClipTokenizer):
    tagged = tag_caption("dogs and cats and birds are chasing a red ball in a garden", tokenizer, make_tagger("hanta"))
    text = text_part(tagged.ids, tokenizer, 7)
    assert text["text_mask"].all() and text["text_ids"][-1] == tokenizer.end_id
    assert tokenizer.decode(text["text_ids"].tolist()) == "dogs and cats and birds"
    part = tag_part(tagged.ids, tagged.is_noun, tagged.is_verb, tokenizer, 7)
    assert part["noun_mask"].tolist() == [False, True, False, True, False, True, False]
    assert not part["verb_mask"].any()


def test_the_last_piece_that_is_left_ends_a_word_that_is_cut(tokenizer: ClipTokenizer):
    tagged = tag_caption("a snowboarder", tokenizer, make_tagger("hanta"))
    assert len(tagged.ids) == 3
    for words, ends in ((5, [1, 3]), (4, [1, 2]), (3, [1]), (2, [])):
        part = tag_part(tagged.ids, tagged.is_noun, tagged.is_verb, tokenizer, words)
        assert part["word_ends"].nonzero()[:, 0].tolist() == ends, words


def test_targets_are_a_function_of_the_key_alone():
    first, again, other = (training_targets(10, SETTINGS, sample_key(42, 0, i)) for i in (7, 7, 8))
    for name, value in first.items():
        assert torch.equal(value, again[name])
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    assert int(first["random_keys"]) == sample_key(42, 0, 7)


@pytest.mark.parametrize("length", [3, 5, 12])
def test_marks_lie_inside_the_text_and_about_their_share_is_drawn(length: int):
    settings = dataclasses.replace(SETTINGS, choices=SampleChoices(mask_ratio=0.4))
    drawn = [training_targets(length, settings, sample_key(0, 0, index)) for index in range(2000)]
    marks = torch.stack([targets["mlm_mask"] for targets in drawn])
    assert marks.any(1).all()
    assert not marks[:, 0].any() and not marks[:, length - 1 :].any()
    none_drawn = 0.6 ** (length - 2)  # then one mark is set all the same
    expected = 0.4 * (length - 2) + none_drawn
    assert abs(marks.sum(1).float().mean().item() - expected) < 0.1
    starts = torch.stack([targets["plm_start"] for targets in drawn])
    assert sorted(set(starts.tolist())) == list(range(1, length))


def test_an_empty_text_is_marked_at_its_end_token():
    for index in range(20):
        targets = training_targets(2, SETTINGS, sample_key(0, 0, index))
        assert targets["mlm_mask"].nonzero().tolist() == [[1]] and targets["plm_start"] == 1


def test_without_a_mask_ratio_one_token_is_marked_at_any_place():
    settings = dataclasses.replace(SETTINGS, choices=SampleChoices(mask_ratio=0.0))
    marks = torch.stack([training_targets(6, settings, sample_key(0, 0, i))["mlm_mask"] for i in range(200)])
    assert (marks.sum(1) == 1).all() and marks.any(0).nonzero()[:, 0].tolist() == [1, 2, 3, 4]


def test_boxes_are_mapped_into_the_crop():
    """64 x 32 pixels become a crop of the central 32 x 32 that starts at x = 16."""
    found = clip_part(
        clip(), record({(0, 0): (20, 4, 40, 30), (1, 1): (0, 0, 64, 32), (2, 2): (0, 0, 10, 10)}), SETTINGS, 1, "v"
    )
    assert found["boxes"][0, 0].tolist() == [4, 4, 24, 30]
    assert found["boxes"][1, 1].tolist() == [0, 0, 32, 32]
    assert found["boxes"][2, 2].tolist() == [-1] * 4, "a box outside the crop is padding"
    assert found["box_trajectory"][0].tolist() == [1, 0, 0]
    assert not found["box_trajectory"][2].any()
    assert found["trajectory_ids"].tolist() == [1, 2, 0, 0, 0, 0], "no trajectory without a box in the crop"
    assert found["video"].shape == (FRAMES, 3, 32, 32) and found["video_mask"].all()


def test_original_and_stored_sizes_may_differ():
    half = clip(frames=frames(64, 64), original_size=(256, 128), stored_size=(64, 64))
    found = clip_part(half, record({(0, 0): (64, 32, 128, 128)}), SETTINGS, 1, "v")
    assert found["boxes"][0, 0].tolist() == [8, 8, 16, 32]


def test_crop_coordinates_are_taken_as_they_are():
    settings = dataclasses.replace(SETTINGS, choices=SampleChoices(box_coordinates="crop"))
    boxes = record({(0, 0): (20, 4, 30, 30), (0, 1): (20, 4, 40, 30)})
    found = clip_part(clip(original_size=None), boxes, settings, 1, "v")
    assert found["boxes"][0, :2].tolist() == [[20, 4, 30, 30], [20, 4, 32, 30]]


def test_a_changed_frame_order_takes_the_boxes_along():
    boxes = record({(i, 0): (16, 0, 20 + i, 10) for i in range(FRAMES)})
    for kind in (REVERSED, SHUFFLED):
        settings = dataclasses.replace(SETTINGS, choices=SampleChoices(eval_frame_order=kind))
        found = clip_part(clip(), boxes, settings, sample_key(0, 0, 3), "v")
        order = (found["video"][:, 0, 0, 0] // 50).tolist()
        assert sorted(order) == list(range(FRAMES)) != order
        assert (found["boxes"][:, 0, 2] - 4).tolist() == order
        assert kind == SHUFFLED or order == [3, 2, 1, 0]
        again = clip_part(clip(), boxes, settings, sample_key(0, 0, 3), "v")
        assert torch.equal(found["video"], again["video"])


def test_other_numbers_of_frames_and_boxes_are_an_error_naming_both():
    with pytest.raises(ValueError, match="clip7: 4 sampled frames, but objects of 6 frames"):
        clip_part(clip(), record({}, count=6), SETTINGS, 1, "clip7")


def test_an_unknown_original_size_is_an_error_naming_the_remedy():
    with pytest.raises(ValueError, match=re.escape("clip7: the shard does not say") + ".*--frame_sizes"):
        clip_part(clip(original_size=None), record({}), SETTINGS, 1, "clip7")


def test_a_clip_without_objects_has_padding_only_and_a_model_without_objects_nothing():
    found = clip_part(clip(original_size=None), None, SETTINGS, 1, "v")
    assert (found["boxes"] == -1).all() and not found["box_trajectory"].any() and not found["trajectory_ids"].any()
    assert found["boxes"].shape == (FRAMES, OBJECTS, 4) and found["trajectory_ids"].shape == (2 * OBJECTS,)
    plain = clip_part(clip(), None, dataclasses.replace(SETTINGS, object_count=0), 1, "v")
    assert set(plain) == {"video", "video_mask", "notes"}


def test_boxes_of_other_frames_than_those_that_are_read_are_refused_by_name():
    """A detector's report says which frames it saw; an earlier rule chose others of a video whose rate varies."""
    shown, boxes = clip(), record({(0, 0): (8, 4, 24, 20)})
    same = np.arange(FRAMES) * 10
    for sampled, detected in ((None, None), (None, same), (same, None), (same, same)):
        numbered = dataclasses.replace(shown, frame_indices=None if sampled is None else sampled.tolist())
        assert "boxes" in clip_part(numbered, boxes._replace(frame_indices=detected), SETTINGS, 1, "v")
    numbered = dataclasses.replace(shown, frame_indices=(same + 1).tolist())
    with pytest.raises(ValueError, match=r"v: its object file is of the frames \[0, 10.*run utils/extract_objects\.py"):
        clip_part(numbered, boxes._replace(frame_indices=same), SETTINGS, 1, "v")


@pytest.mark.parametrize("coordinates", ["original", "crop"])
def test_boxes_that_are_all_outside_the_frame_are_named(coordinates: str):
    settings = dataclasses.replace(SETTINGS, choices=SampleChoices(box_coordinates=coordinates))
    inside, outside = (2, 4, 24, 20), (400, 4, 450, 20)
    assert (clip_part(clip(), record({(0, 0): inside, (1, 0): outside}), settings, 1, "v")["boxes"] != -1).any()
    assert clip_part(clip(), record({}), settings, 1, "v")["notes"] == []
    found = clip_part(clip(), record({(0, 0): outside, (1, 0): outside}), settings, 1, "v")
    assert not (found["boxes"] != -1).any() and len(found["notes"]) == 1
    assert re.match("v: all boxes of its object file are outside the frame; .* of another size", found["notes"][0])


def test_what_is_to_be_said_of_a_clip_goes_with_it():
    noted = dataclasses.replace(clip(), notes=["v.avi: by number"])
    assert clip_part(noted, None, SETTINGS, 1, "v")["notes"] == ["v.avi: by number"]


def test_collate_stacks_tensors_keeps_lists_and_trims(tokenizer: ClipTokenizer):
    samples = []
    for index, words in enumerate(("a dog", "a dog is running")):
        text = text_part(tokenizer.encode(words), tokenizer, 12)
        targets = training_targets(int(text["text_mask"].sum()), SETTINGS, sample_key(0, 0, index))
        boxes = record({(0, slot): (20, 4, 40, 30) for slot in range(index + 1)})
        samples.append(
            {**text, **targets, **clip_part(clip(), boxes, SETTINGS, 1, "v"), "video_id": f"v{index}", "skipped": []}
        )
    batch = collate(samples)
    assert batch["video"].dtype == torch.uint8 and batch["video"].shape == (2, FRAMES, 3, 32, 32)
    assert batch["video_id"] == ["v0", "v1"] and batch["skipped"] == [[], []]
    assert batch["text_ids"].shape == (2, 6) and batch["text_lengths"].tolist() == [4, 6]
    assert batch["trajectory_ids"].tolist() == [[1, 0], [1, 2]] and batch["trajectory_counts"] == [1, 2]


@pytest.mark.parametrize("kind", ["lacks frames", "boxes outside"])
def test_most_clips_that_do_not_fit_the_settings_are_an_error_and_one_is_not(kind: str):
    def make(is_misfit: bool) -> Callable[[int], Sample]:
        def one(attempt: int) -> Sample:
            if is_misfit and not attempt and kind == "lacks frames":
                raise Misfit("a: lacks frames")
            notes = [f"a: {OUTSIDE}"] if is_misfit and kind == "boxes outside" else []
            return {"attempt": attempt, "notes": notes}

        return one

    few, many = Replacements(), Replacements()
    for number in range(100):
        few.sample(5, make(number % 2 == 1))
    for _ in range(MIN_MISFITS - 1):
        many.sample(5, make(True))
    with pytest.raises(TooManyMisfits, match="20 of 20 clips do not fit the settings, the last: a: "):
        many.sample(5, make(True))


def test_a_clip_that_does_not_fit_is_replaced_and_named():
    def make(attempt: int) -> Sample:
        if attempt < 2:
            raise (Misfit("a: lacks frames"), UnreadableVideo("b: cut"))[attempt]
        return {"attempt": attempt, "notes": []}

    sample = Replacements().sample(5, make)
    assert sample == {"attempt": 2, "notes": [], "skipped": ["a: lacks frames", "b: cut"]}
    with pytest.raises(UnreadableVideo, match="2 clips in a row cannot be used, the last one: b: cut"):
        Replacements().sample(2, make)
