"""Decoding with everything kept that was computed for earlier tokens, against encoding it all again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.decoder import CachedDecoder
from tests import plain_forms
from tests.modules.tasks.test_captioning import VARIANTS, caption_batch, caption_model


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_cached_log_probabilities_equal_encoding_everything_again(choices, beams):
    """Beams are filled with different texts and reordered on the way, as a search does."""
    model = caption_model(**choices).eval()
    batch, draw = caption_batch(range(3), model), torch.Generator().manual_seed(0)
    video, steps = model.encode_video(batch), model.config.max_words - 1
    decoder = CachedDecoder(model, model.vocabulary_head, video, beams, steps)
    texts = torch.full((3, beams, 1), model.config.start_token)
    for _ in range(steps):
        found = decoder.advance(texts[..., -1])
        flat = texts.flatten(0, 1)
        ids = F.pad(flat, (0, 1))
        clips = video.select(torch.arange(3).repeat_interleave(beams))
        row = plain_forms.next_token(model, model.fusion.context(clips), ids)[-1]
        expected = plain_forms.vocabulary_logits(model.vocabulary_head, row, model.clip.token_embedding.weight)
        torch.testing.assert_close(found.flatten(0, 1), expected.log_softmax(-1), rtol=1e-4, atol=1e-4)
        source = torch.randint(0, beams, (3, beams), generator=draw)
        decoder.reorder(source)
        words = torch.randint(0, 90, (3, beams, 1), generator=draw)
        texts = torch.cat([texts.gather(1, source[..., None].expand_as(texts)), words], dim=-1)


@torch.no_grad()
def test_log_probabilities_are_single_precision_under_autocast():
    model = caption_model().eval()
    video, start = model.encode_video(caption_batch(range(3), model)), torch.full((3, 2), model.config.start_token)
    exact = CachedDecoder(model, model.vocabulary_head, video, 2, 4).advance(start)
    with torch.autocast("cpu", torch.bfloat16):
        found = CachedDecoder(model, model.vocabulary_head, video, 2, 4).advance(start)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.4)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3, 2))
