"""Losses in evaluation mode."""

import torch

from tests import tiny
from utils.evaluation.pretraining import collate_whole_captions, evaluate_losses
from utils.runtime.distributed import find_runtime


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
