"""Which words trajectories are matched to: exact counts, chance as a random assignment gives it, and whole shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, cast

import numpy as np
import pytest
import torch

from dataloaders.label_map import class_names, load_label_map
from dataloaders.object_store import ObjectStore
from dataloaders.retrieval import ClipReader, VideoDataset
from dataloaders.samples import collate
from dataloaders.tagged_text import TaggedText
from dataloaders.video_files import open_videos
from modules.config import MATCHING_LOSSES, Behaviour
from modules.objectives.assignment import Pairs, assign, assign_all
from modules.objectives.word_contrast import cosines
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.utils.checkpoints import SIZES
from tests.world import World
from utils.data.clips import prepare_objects, sample_settings
from utils.evaluation.alignment import (
    Matched,
    alignment_lines,
    alignment_metrics,
    caption_matching,
    count_matches,
    figure,
    shares,
)
from utils.settings.fields import from_flat
from utils.settings.groups import UseSettings

CAPTION = ["a", "star", "and", "two", "rings"]


def text(words: Sequence[str] = CAPTION, pieces: Sequence[int] = ()) -> TaggedText:
    """A text of words with one piece each, or with so many."""
    numbers = [number for number, count in enumerate(pieces or [1] * len(words)) for _ in range(count)]
    return TaggedText({}, list(words), [-1, *numbers, -1])


def by_scores(scores: list[list[float]], positions: Sequence[int], solve: Callable = assign) -> dict[int, int]:
    """The position of each trajectory by an assignment of training, from scores with those positions."""
    table = np.zeros((1, len(scores), max(positions) + 1))
    table[0][:, list(positions)] = scores
    pairs: Pairs = solve(table, [len(scores)], [list(positions)])
    return dict(zip(pairs.row, pairs.word, strict=True))


def whole(found: Matched) -> dict[str, Any]:
    """What is counted, without chance."""
    return {name: value for name, value in found._asdict().items() if not name.endswith("_by_chance")}


def test_counts_of_hand_made_scores():
    """Star and ring are in the caption, the wall is not; the ring loses its noun to it, and gets the end token."""
    positions = [2, 5, 6]
    matched = by_scores([[0.8, 0.1, 0.1], [0.1, 0.4, 0.5], [0.0, 0.9, 0.1]], positions)
    assert matched == {0: 2, 1: 6, 2: 5}
    found = count_matches(["star", "ring", "wall"], text(), positions, matched, end_is_word=True)
    expected = {"things": 2, "right": 1, "trajectories": 3, "in_caption": 2, "named": 1, "in_caption_end": 1}
    assert whole(found) == {**expected, "pairs": 3, "end": 1}


def test_either_noun_is_right_for_two_of_one_class():
    words = ["a", "dog", "sees", "a", "dog"]
    for first, second in ((2, 5), (5, 2)):
        found = count_matches(["dog", "dog"], text(words), [2, 5, 6], {0: first, 1: second}, end_is_word=True)
        assert (found.things, found.right, found.in_caption, found.named) == (2, 2, 2, 2)
    one = count_matches(["dog"], text(words), [2, 5, 6], {0: 5}, end_is_word=True)
    assert (one.things, one.right) == (1, 1)


def test_two_trajectories_of_a_class_with_one_noun_are_one_thing():
    for matched, right in (({0: 2, 1: 6}, 1), ({0: 6, 1: 2}, 1), ({0: 5, 1: 6}, 0)):
        found = count_matches(["star", "star"], text(), [2, 5, 6], matched, end_is_word=True)
        assert (found.things, found.right, found.in_caption, found.named) == (1, right, 2, right)


def test_two_pieces_of_one_word_are_one_noun():
    """Each piece may be matched; two trajectories of a class on two pieces of a noun have found one thing."""
    words = text(["a", "triangle"], [1, 2])
    found = count_matches(["triangle", "triangle"], words, [2, 3, 4], {0: 3, 1: 2}, end_is_word=True)
    assert (found.things, found.right, found.in_caption, found.named) == (1, 1, 2, 2)


def test_a_clip_without_trajectories_and_a_caption_without_nouns():
    nothing = count_matches([], text(), [2, 5, 6], {}, end_is_word=True)
    assert not any(nothing)
    assert not any(count_matches([], text(["it", "runs"]), [3], {}, end_is_word=False))
    alone = count_matches(["star", "ring"], text(["it", "runs"]), [3], {1: 3}, end_is_word=True)
    assert whole(alone) == {**dict.fromkeys(whole(nothing), 0), "trajectories": 2, "pairs": 1, "end": 1}
    assert alone.end_by_chance == 1


@pytest.mark.parametrize(
    ("classes", "words", "pieces"),
    [
        (["star", "ring", "wall"], CAPTION, [1] * 5),
        (["star"], CAPTION, [1] * 5),
        (["star", "star", "ring", "wall", "ring"], CAPTION, [1] * 5),
        (["star", "star"], CAPTION, [1, 3, 1, 1, 2]),
        (["light", "traffic light"], ["the", "light", "light"], [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("end_is_word", [True, False])
def test_chance_is_the_mean_over_all_assignments(
    classes: list[str], words: list[str], pieces: list[int], end_is_word: bool
):
    tagged = text(words, pieces)
    others = ("a", "the", "and", "two")
    positions = [at for at, number in enumerate(tagged.word_numbers) if number >= 0 and words[number] not in others]
    positions.append(len(tagged.word_numbers) - 1)
    rows, columns = len(classes), len(positions)
    if not end_is_word:  # the nouns, and the end token for as many as are left
        *nouns, end = positions
        filled = nouns + [end] * max(0, rows - len(nouns))
        every = [dict(enumerate(chosen)) for chosen in permutations(filled, rows)]
    elif rows <= columns:
        every = [dict(enumerate(chosen)) for chosen in permutations(positions, rows)]
    else:
        every = [dict(zip(chosen, positions, strict=True)) for chosen in permutations(range(rows), columns)]
    counts = [count_matches(classes, tagged, positions, one, end_is_word=end_is_word) for one in every]
    for name in ("right", "named", "in_caption_end", "end"):
        mean = np.mean([getattr(one, name) for one in counts])
        assert all(getattr(one, f"{name}_by_chance") == pytest.approx(mean) for one in counts), name


def matched(things: int, right: int, **more: float) -> Matched:
    """Counts of a caption with three trajectories, all matched."""
    values = {**dict.fromkeys(Matched._fields, 0), "trajectories": 3, "pairs": 3, "in_caption": things, "named": right}
    return Matched(**cast(Any, {**values, "things": things, "right": right, **more}))


def test_shares_are_of_all_things_together_not_means_of_clips():
    clips = [[matched(1, 1), matched(3, 0, end=1)], [matched(3, 3, right_by_chance=1.5)], []]
    found = {name: figure(one) for name, one in shares(clips).items()}
    assert found["nouns"].percent == pytest.approx(400 / 7) and found["nouns"].of == 7
    assert found["nouns"].chance == pytest.approx(150 / 7)
    assert (found["nouns_1"].percent, found["nouns_3"].percent, found["nouns_3"].of) == (100, 50, 6)
    assert "nouns_2" not in found and found["end"].percent == pytest.approx(100 / 9)
    assert found["in_caption"].chance is None and found["in_caption"].percent == pytest.approx(700 / 9)
    assert found["nouns"].low < found["nouns"].percent < found["nouns"].high <= 100
    metrics = alignment_metrics(clips)
    assert metrics["alignment_things"] == 7 and metrics["alignment_nouns"] == found["nouns"].percent
    assert metrics["alignment_nouns_chance"] == found["nouns"].chance
    assert alignment_metrics([[], []]) == {"alignment_things": 0} and shares([]) == {}
    table = alignment_lines({"things": found["nouns"], "of which": found["in_caption"]})
    assert len({len(line) for line in table}) == 1 and table[1].split()[:2] == ["things", "57.1"]


@pytest.fixture(scope="module")
def settings(world: World) -> UseSettings:
    return from_flat(UseSettings, {"labelmap_path": str(world.label_map), "max_frames": 12, "object_count": 4})


def reader_of(world: World, model: Any, settings: UseSettings) -> ClipReader:
    store = ObjectStore(prepare_objects(settings, model.config, str(world.msrvtt / "objects"), lambda line: None))
    videos = open_videos(world.msrvtt / "videos", list(world.truth("msrvtt")))
    return ClipReader(videos, sample_settings(settings, model.config, training=False), store)


@pytest.mark.parametrize("form", MATCHING_LOSSES)
def test_trajectories_are_matched_as_training_matches_them(world: World, settings: UseSettings, form: str):
    """Against a plain assignment of the model's tokens; the batch has an unreadable clip, and one without a caption."""
    model = tiny.model(behaviour=Behaviour(matching_loss=form), **SIZES).eval()
    reader = reader_of(world, model, settings)
    ids = [video for video, entry in world.truth("msrvtt").items() if entry["split"] == "test"][:4]
    captions = {ids[0]: ["a star and a ring", "a wall"], ids[1]: ["a square is spinning while a triangle is resting"]}
    captions[ids[3]] = ["a circle"]
    matching = caption_matching(model, captions, reader, settings)
    assert matching is not None
    samples = [VideoDataset(ids, reader)[0, index] for index in range(4)]
    samples[3]["bad_video"] = "broken"
    batch = collate(samples)
    with torch.no_grad():
        video = model.encode_video(batch)
        found = matching(batch, video)
    assert [len(own) for own in found] == [2, 1, 0, 0]
    names = class_names(load_label_map(world.label_map))
    for row in (0, 1):
        count = batch["trajectory_counts"][row]
        classes = [names[index] for index in batch["trajectory_ids"][row, :count]]  # under the class rule
        assert matching.classes(batch, row) == classes and count > 0
        for caption, counts in zip(captions[ids[row]], found[row], strict=True):
            tagged = matching._tagged(caption)
            own = collate([tagged.part])
            with torch.no_grad():
                tokens = model.encode_text(own["text_ids"])[0]
            positions = own["noun_words" if form == "contrastive" else "noun_positions"][0]
            own_trajectories = video.trajectories[row, :count]
            if form == "contrastive":
                logits, solve = cosines(own_trajectories[None], tokens[None])[0], assign_all
            else:
                logits, solve = own_trajectories @ tokens.T, assign
            matched = by_scores(logits[:, positions].softmax(-1).tolist(), positions, solve)
            end_is_word = form == "released"
            assert counts == count_matches(classes, tagged, positions, matched, end_is_word=end_is_word)


def test_a_model_without_trajectories_or_objects_is_not_measured(world: World, settings: UseSettings):
    model = tiny.model(**SIZES)
    reader = reader_of(world, model, settings)
    assert caption_matching(model, {}, ClipReader(reader.videos, reader.settings), settings) is None
    assert caption_matching(tiny.model(**SIZES, action_only=True), {}, reader, settings) is None
    assert caption_matching(tiny.model(RetrievalModel, **SIZES), {}, reader, settings) is None
    assert isinstance(model, PretrainModel) and caption_matching(model, {}, reader, settings) is not None
