"""Which texts are true of which clips, against the loop over samples; and that one process trains like two with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from modules.batch import Batch, clip_keys
from modules.collectives import rank
from modules.tasks.pretrain import PretrainModel
from modules.true_pairs import text_keys, true_pairs
from tests import tiny
from tests.processes import run_ranks

# Of clip a every text is true, and text 0 is true of every clip: samples 0 and 7 have no negative, 1 and 2 a wrong text
# alone, 3 and 4 a wrong video alone, 5 and 6 both.
CLIPS = ["a", "b", "c", "a", "a", "b", "c", "a"]
TEXTS = [0, 0, 0, 1, 2, 1, 2, 0]


def batch_of(clips: list[str], texts: list[int], model: PretrainModel, **choices: Any) -> Batch:
    """A batch whose samples have these clips by name, and these texts by number: the same pixels and the same ids."""
    items = []
    for place, (clip, text) in enumerate(zip(clips, texts, strict=True)):
        item = tiny.sample(ord(clip), model.config, **choices)
        words = tiny.sample(1000 + text, model.config)
        item |= {name: words[name] for name in ("text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask")}
        item |= {"random_keys": tiny.sample(place, model.config)["random_keys"], "plm_start": torch.tensor(1)}
        items.append(item)
    return {**tiny.collate(items), "clip_keys": clip_keys(clips)}


def plain(clips: list[Any], texts: list[Any]) -> Tensor:
    """[i, j]: whether the text of sample i is true of the clip of sample j: some sample has that text and that clip."""
    samples = set(zip(texts, clips, strict=True))
    return torch.tensor([[(text, clip) in samples for clip in clips] for text in texts])


def test_a_text_is_true_of_every_clip_that_has_it_in_any_sample():
    draw = torch.Generator().manual_seed(0)
    for size in (1, 2, 5, 30):
        for kinds in (2, 5, 40):
            clips, texts = torch.randint(-kinds, kinds, (2, size), generator=draw)
            found = true_pairs(texts, clips)
            expected = plain(clips.tolist(), texts.tolist())
            assert torch.equal(found.text_to_video, expected) and torch.equal(found.video_to_text, expected.t())
            assert found.text_to_video.diagonal().all()


def test_a_caption_that_two_clips_share_makes_all_samples_of_both_true():
    """Text 0 is true of clip 1 as sample 1 has it, so it is no wrong text for sample 2 of that clip either."""
    found = true_pairs(torch.tensor([7, 7, 8]), torch.tensor([0, 1, 1])).text_to_video
    assert found.tolist() == [[True, True, True], [True, True, True], [False, True, True]]


def test_without_keys_of_clips_each_sample_has_another_clip():
    found = true_pairs(torch.tensor([7, 8, 7]), None)
    assert found.text_to_video.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert torch.equal(found.text_to_video, found.video_to_text)


def test_texts_have_the_same_key_if_and_only_if_their_tokens_are_the_same():
    ids = torch.tensor([[98, 5, 6, 99, 0, 0], [98, 5, 6, 99, 7, 0], [98, 6, 5, 99, 0, 0], [98, 5, 99, 0, 0, 0]])
    lengths = torch.tensor([4, 4, 4, 3])
    keys = text_keys(ids, lengths)
    assert keys[0] == keys[1], "what stands behind the end is not read"
    assert len(set(keys[1:].tolist())) == 3, "order and length are"
    assert torch.equal(text_keys(ids[:, :4], lengths), keys), "wherever padding is cut"
    longer = text_keys(torch.tensor([[98, 5, 6, 99, 0, 0]]), torch.tensor([5]))
    assert longer[0] != keys[0], "token 0 is a token"


def test_texts_that_differ_in_little_have_different_keys():
    """All texts of three tokens of 40, all pairs of large ids, and every single token at each of 77 places."""
    small = torch.cartesian_prod(*[torch.arange(40)] * 3)
    large = torch.cartesian_prod(*[torch.arange(49000, 49408)] * 2)
    alone = torch.eye(77, dtype=torch.int64).repeat(50, 1) * torch.arange(1, 51).repeat_interleave(77)[:, None]
    for texts in (small, large, alone):
        keys = text_keys(texts, torch.full((len(texts),), texts.shape[1]))
        assert len(keys.unique()) == len(texts)


def outcome(model: PretrainModel, batch: Batch) -> dict[str, Any]:
    """Losses, and norms of the gradients of their sum by parameter."""
    losses = model(batch)
    tiny.total(losses).backward()
    gradients = {name: p.grad.flatten() for name, p in model.named_parameters() if p.grad is not None}
    return {"losses": {name: value.item() for name, value in losses.items()}, "gradients": gradients}


def make_model(**choices: Any) -> PretrainModel:
    model = tiny.model(**choices)
    model.set_active_losses({"vtm", "contrastive"})
    return model


def main(argv: list[str]) -> None:
    """One of two ranks: writes losses and gradients of its half of the batch to {rank}.pt in the folder of argv."""
    dist.init_process_group("gloo")
    model, own = make_model(**json.loads(argv[1])), slice(4 * rank(), 4 * rank() + 4)
    torch.save(outcome(model, batch_of(CLIPS[own], TEXTS[own], model)), Path(argv[0], f"{rank()}.pt"))
    dist.destroy_process_group()


@pytest.mark.parametrize("header", ["meanP", "tightTransf"])
def test_two_processes_are_one(tmp_path: Path, header: str):
    """Losses and gradients, with samples that lack one negative or both on either rank."""
    choices = {"sim_header": header, "header_layers": 1}
    run_ranks(main, [str(tmp_path), json.dumps(choices)], tmp_path / "logs", processes=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    model = make_model(**choices)
    whole = outcome(model, batch_of(CLIPS, TEXTS, model))
    released = make_model(behaviour="released", **choices)
    for name in ("vtm", "contrastive"):
        mean = (first["losses"][name] + second["losses"][name]) / 2
        assert mean == pytest.approx(whole["losses"][name], rel=1e-5) and mean > 0
        assert mean != pytest.approx(outcome(released, batch_of(CLIPS, TEXTS, released))["losses"][name], rel=1e-3)
    assert first["gradients"].keys() == second["gradients"].keys() == whole["gradients"].keys()
    for name, gradient in whole["gradients"].items():
        both = (first["gradients"][name] + second["gradients"][name]) / 2
        torch.testing.assert_close(both, gradient, rtol=1e-3, atol=1e-5, msg=name)
