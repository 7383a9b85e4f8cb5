"""What is trimmed from a batch, and the indices that it gets on the host."""

from __future__ import annotations

import torch

from modules.batch import Batch, clip_keys, finish_batch, to_device
from tests import tiny

LENGTHS = (3, 5, 2)


def flags(*rows: list[int], width: int = 7) -> torch.Tensor:
    """(B, width) mask, True at these positions."""
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, positions in enumerate(rows):
        mask[row, positions] = True
    return mask


def texts(**more: torch.Tensor) -> Batch:
    """Three texts of `LENGTHS` tokens, 1, 2, 3, ..., in rows of seven."""
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    return {"text_ids": torch.arange(1, 8) * mask, "text_mask": mask, **more}


def test_texts_are_cut_to_the_longest():
    batch = finish_batch(texts(mlm_mask=flags([1], [1], [1]), noun_mask=flags([], [], []), verb_mask=flags([], [], [])))
    for name in ("text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask"):
        assert batch[name].shape == (3, 5), name
    assert batch["text_lengths"].tolist() == [3, 5, 2]
    assert batch["text_ids"].tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5], [1, 2, 0, 0, 0]]


def test_questions_in_the_same_words_are_counted_once():
    ids = torch.tensor([[1, 2, 0], [1, 3, 4], [1, 2, 0], [1, 2, 4], [1, 3, 4]])
    questions = {"text_ids": ids, "text_mask": ids != 0, "text_clip": torch.tensor([0, 0, 1, 1, 2])}
    batch = finish_batch(questions)
    assert batch["distinct_texts"].tolist() == [0, 1, 3] and batch["text_wording"].tolist() == [0, 1, 0, 2, 1]
    assert torch.equal(ids[batch["distinct_texts"]][batch["text_wording"]], ids)
    assert "text_wording" not in finish_batch(texts())


def test_marked_positions_are_packed_to_the_front():
    batch = finish_batch(texts(mlm_mask=flags([1], [1, 3], [])))
    assert batch["mlm_positions"].tolist() == [[1, 0], [1, 3], [0, 0]]
    assert batch["mlm_index"].tolist() == [0, 2, 3]
    none = finish_batch(texts(mlm_mask=flags([], [], [])))
    assert none["mlm_positions"].shape == (3, 1) and none["mlm_index"].tolist() == []


def test_rows_of_the_next_token_loss_run_from_the_start_to_the_end_token():
    """Row i of a text of five predicts token i + 1; the three texts have four rows each."""
    batch = finish_batch(texts(plm_start=torch.tensor([2, 3, 1])))
    assert batch["plm_index"].tolist() == [1, 4 + 2, 4 + 3, 8]
    from_one = finish_batch(texts(mlm_mask=flags([1], [1], [1])))
    assert from_one["plm_index"].tolist() == [0, 1, 4, 5, 6, 7, 8]
    assert "plm_index" not in finish_batch(texts())


def test_words_to_match_include_the_end_token():
    batch = finish_batch(texts(noun_mask=flags([1], [1, 2], []), verb_mask=flags([], [3], [])))
    assert batch["noun_positions"] == [[1, 2], [1, 2, 4], [1]]
    assert batch["verb_positions"] == [[2], [3, 4], [1]]
    assert batch["noun_mask"].sum() == 3, "the mask itself stays"
    assert (batch["noun_words"], batch["verb_words"]) == (batch["noun_positions"], batch["verb_positions"])


def test_the_last_piece_stands_for_a_word_where_ends_are_known():
    tags = {"noun_mask": flags([1], [1, 2], []), "verb_mask": flags([], [3], [])}
    batch = finish_batch(texts(**tags, word_ends=flags([1], [2, 3], [])))
    assert batch["noun_words"] == [[1, 2], [2, 4], [1]] and batch["verb_words"] == [[2], [3, 4], [1]]
    assert batch["noun_positions"] == [[1, 2], [1, 2, 4], [1]] and batch["word_ends"].shape == (3, 5)


def test_boxes_are_counted_and_lists_of_trajectories_cut_to_the_longest():
    boxes = torch.full((2, 2, 2, 4), -1.0)
    boxes[0, 0, 1] = boxes[0, 1, 0] = boxes[1, 1, 1] = torch.tensor([0.0, 1.0, 5.0, 6.0])
    ids = torch.tensor([[3, 1, 0, 0], [2, 0, 0, 0]])
    batch = finish_batch({"boxes": boxes, "trajectory_ids": ids})
    assert batch["box_index"].tolist() == [1, 2, 7]
    assert batch["trajectory_ids"].tolist() == [[3, 1], [2, 0]] and batch["trajectory_counts"] == [2, 1]


def test_a_batch_without_any_box_keeps_one_column_of_trajectories():
    batch = finish_batch({"boxes": torch.full((2, 2, 2, 4), -1.0), "trajectory_ids": torch.zeros(2, 4).long()})
    assert batch["box_index"].shape == (0,) and batch["trajectory_ids"].shape == (2, 1)
    assert batch["trajectory_counts"] == [0, 0]


def test_the_given_batch_stays_and_what_it_lacks_is_not_added():
    given = texts()
    finish_batch(given)
    assert set(given) == {"text_ids", "text_mask"} and given["text_ids"].shape == (3, 7)
    video = {"video": torch.zeros(2, 3)}
    assert finish_batch(video) == video


def test_tensors_are_moved_and_lists_stay():
    batch = to_device(finish_batch(texts(noun_mask=flags([1], [1], []))), torch.device("meta"))
    assert {value.device.type for value in batch.values() if torch.is_tensor(value)} == {"meta"}
    assert batch["noun_positions"] == [[1, 2], [1, 4], [1]]


def test_trimmed_batch_equals_untrimmed():
    model = tiny.model()
    items = [tiny.sample(i, model.config, words=3 + i, boxes=2) for i in range(3)]
    trimmed = tiny.collate(items)
    full = dict(trimmed)
    for name in ("text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask", "word_ends", "trajectory_ids"):
        full[name] = torch.stack([item[name] for item in items])
    assert full["text_ids"].shape[1] > trimmed["text_ids"].shape[1]
    assert full["trajectory_ids"].shape[1] > trimmed["trajectory_ids"].shape[1]
    columns = full["text_ids"].shape[1] - 1
    old = trimmed["text_ids"].shape[1] - 1
    full["plm_index"] = trimmed["plm_index"] // old * columns + trimmed["plm_index"] % old
    a, b = model(trimmed), model(full)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def test_clips_have_keys_by_their_ids_which_are_the_same_on_every_machine():
    batch = finish_batch({"video_id": ["video7", "video8", "video7", "bär"]})
    keys = batch["clip_keys"]
    assert keys.dtype == torch.int64 and keys[0] == keys[2] and len(set(keys.tolist())) == 3 and (keys >= 0).all()
    assert clip_keys(["video7"]).tolist() == [int(keys[0])] and clip_keys([]).shape == (0,)
    assert int(keys[0]) == 0xC0E894BF4762E197 >> 1, "as `b2sum -l 64` gives it"
    assert len(clip_keys([f"video{number}" for number in range(50_000)]).unique()) == 50_000
    assert "clip_keys" not in finish_batch(texts())
