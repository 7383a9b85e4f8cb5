"""What objectives read of a batch: encoded once, detached where it is asked for, and frame dropout."""

from __future__ import annotations

import torch

from modules.encoded import Encoded
from modules.tasks.captioning import CaptionModel
from tests import tiny
from tests.modules.tasks.test_task_model import shown_batch


def hiding(model: CaptionModel, batch: dict, rate: float) -> Encoded:
    return Encoded(model, batch, model.active_losses, {"frames", "text"}, rate)


def test_share_of_hidden_samples_follows_the_rate_and_clips_without_boxes_are_shown():
    model = tiny.model(CaptionModel)
    keys = torch.randint(0, 2**62, (2000,))
    video = model.encode_video(tiny.batch(2, model.config, boxes=2))
    video = video.select(torch.zeros(2000, dtype=torch.int64))
    hidden = hiding(model, {"random_keys": keys}, 0.3).hidden_frames(video)
    assert hidden is not None and 0.25 < hidden.float().mean() < 0.35
    few = hiding(model, {"random_keys": keys[:7]}, 0.3).hidden_frames(video.select(torch.arange(7)))
    assert few is not None and torch.equal(hidden[:7], few)
    none = video._replace(trajectory_mask=torch.zeros_like(video.trajectory_mask))
    found = hiding(model, {"random_keys": keys}, 0.3).hidden_frames(none)
    assert found is not None and not found.any()


def test_nothing_is_hidden_in_evaluation_or_without_trajectories():
    model = tiny.model(CaptionModel)
    encoded = hiding(model, shown_batch(model), 1.0)
    hidden = encoded.hidden_frames(encoded.video)
    assert hidden is not None and hidden.all()
    assert hiding(model, shown_batch(model), 0.0).hidden_frames(encoded.video) is None
    model.eval()
    assert hiding(model, shown_batch(model), 1.0).hidden_frames(encoded.video) is None
    without = tiny.model(CaptionModel, need_object=False, use_action=False)
    encoded = hiding(without, shown_batch(without), 1.0)
    assert encoded.hidden_frames(encoded.video) is None


def test_each_tower_runs_once_and_keeps_a_graph_only_if_it_is_trained():
    model = tiny.model()
    batch, calls = tiny.batch(2, model.config), {"video": 0, "text": 0}

    def count(name: str) -> None:
        calls[name] += 1

    model.clip.visual.register_forward_pre_hook(lambda *_: count("video"))
    model.clip.ln_final.register_forward_pre_hook(lambda *_: count("text"))
    for parts, frames, text in (({"frames"}, True, False), ({"text"}, False, True)):
        encoded = Encoded(model, batch, model.active_losses, parts)
        assert encoded.video.frames.requires_grad is frames and encoded.text.requires_grad is text
        assert not encoded.detached_video.frames.requires_grad and not encoded.detached_text.requires_grad
        assert encoded.detached_video.trajectories.requires_grad, "only frames are detached"
        assert encoded.similarity is encoded.similarity
    assert calls == {"video": 2, "text": 2}
