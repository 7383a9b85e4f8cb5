"""Losses in evaluation mode."""

import torch

from dataloaders.retrieval import VideoDataset
from dataloaders.samples import collate
from tests import tiny
from tests.utils.evaluation.test_alignment import matched
from tests.utils.evaluation.test_retrieval import Clips, captioned
from utils.evaluation.pretraining import collate_whole_captions, evaluate_losses, evaluate_zero_shot
from utils.runtime.distributed import find_runtime
from utils.settings.groups import ReadSettings


def items(model, count):
    return [{**tiny.sample(i, model.config), "video_id": str(i)} for i in range(count)]


def test_whole_captions_are_predicted_whatever_start_was_drawn():
    model = tiny.model()
    samples = items(model, 3)
    batch = collate_whole_captions(samples)
    assert len(batch["plm_index"]) == int(batch["text_lengths"].sum()) - 3
    assert samples[0]["plm_start"] == items(model, 1)[0]["plm_start"]


def test_means_over_batches_without_dropout_and_without_touching_the_model():
    model = tiny.model(dropout=0.5)
    model.set_active_losses({"mlm"})
    batches = [collate_whole_captions(items(model, 4)[i : i + 2]) for i in (0, 2)]
    result = evaluate_losses(model, batches, find_runtime(device="cpu"))
    assert model.active_losses == {"mlm"} and result["clips"] == 4
    model.active_losses = frozenset(model.available_losses)
    with torch.no_grad():
        expected = [model.eval()(batch) for batch in batches]
    for name in (*model.available_losses, "plm_accuracy", "vtm_accuracy"):
        assert abs(result[name] - sum(float(e[name]) for e in expected) / 2) < 1e-6


def test_one_pass_over_the_clips_gives_retrieval_and_alignment():
    model = tiny.model(vocab_size=2000)
    split, read = captioned(range(5)), Clips(model.config)
    data = VideoDataset(split.video_ids, read)
    batches = [collate([data[0, index] for index in part]) for part in ((0, 1, 2), (3, 4))]
    shown = []

    def matching(batch, tokens):
        """Clip i has i things and none of them right but in the last clip."""
        assert tokens.trajectories is not None and len(tokens.trajectories) == len(batch["index"])
        shown.extend(batch["index"])
        return [[matched(index, index * (index == 4))] for index in batch["index"]]

    runtime = find_runtime(device="cpu")
    scored, found = evaluate_zero_shot(model, split, batches, runtime, ReadSettings(), matching)
    assert shown == [0, 1, 2, 3, 4] and found["alignment_nouns"] == 40 and found["alignment_things"] == 10
    alone, nothing = evaluate_zero_shot(model, split, batches, runtime, ReadSettings(), None)
    assert nothing == {} and alone.metrics() == scored.metrics()
