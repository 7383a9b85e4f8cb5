"""Set matching: scores of video tokens with words, and both forms of the loss."""

from __future__ import annotations

import pytest
import torch

from modules.config import MATCHING_LOSSES, Behaviour
from modules.objectives.assignment import Pairs
from modules.objectives.set_matching import SetMatching, dot_products, squared_distance, word_scores
from modules.objectives.word_contrast import cosines
from tests import tiny


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def test_scores_are_a_softmax_over_the_words_of_a_sample():
    tokens, text = normal(2, 3, 8), normal(2, 5, 8)
    is_word = torch.tensor([[False, True, False, True, True], [False, True, False, False, False]])
    scores = word_scores(dot_products(tokens, text), is_word)
    assert scores.shape == (2, 3, 5) and not scores[~is_word[:, None].expand_as(scores)].any()
    torch.testing.assert_close(scores[0][:, [1, 3, 4]], (tokens[0] @ text[0, [1, 3, 4]].t()).softmax(-1))
    assert (scores[1, :, 1] == 1).all()


@pytest.mark.parametrize("similarities", [dot_products, cosines])
def test_similarities_are_single_precision_under_autocast(similarities):
    tokens, text = 5 * normal(1, 3, 64), normal(1, 4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarities(tokens, text)
    assert torch.equal(found, similarities(tokens, text))


def test_the_distance_is_the_mean_square_summed_over_pairs():
    tokens, text = normal(2, 3, 8).requires_grad_(), normal(2, 5, 8)
    pairs = Pairs([0, 1, 1], [2, 0, 1], [4, 1, 1])
    expected = sum((tokens[s, r] - text[s, w]).square().mean() for s, r, w in zip(*pairs, strict=True))
    found = squared_distance(tokens, text, pairs)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert tokens.grad is not None
    assert tokens.grad.any(-1).nonzero().tolist() == [[0, 2], [1, 0], [1, 1]]


def test_no_pair_has_distance_zero_with_a_gradient_path():
    tokens = normal(2, 3, 8).requires_grad_()
    found = squared_distance(tokens, normal(2, 5, 8), Pairs([], [], []))
    found.backward()
    assert found == 0 and tokens.grad is not None and not tokens.grad.any()


def test_only_the_wanted_kinds_are_scored_and_a_clip_without_boxes_takes_part_with_its_actions():
    model = tiny.model()
    items = [tiny.sample(i, model.config, boxes=2 * i) for i in range(2)]
    batch, matching = tiny.collate(items), model.objective(SetMatching)
    encoded = model.encoded(batch)
    found = matching.scores(batch, encoded.video, encoded.text, {"action_verb"})
    assert found.keys() == {"action_verb"} and found["action_verb"].shape[:2] == (2, model.config.num_actions)
    assert set(matching.solve(batch, found)["action_verb"].sample) == {0, 1}
    both = matching.scores(batch, encoded.video, encoded.text, set(matching.available))
    assert set(matching.solve(batch, both)["object_noun"].sample) == {1}
    assert matching.solve(batch, {}) == {}


@pytest.mark.parametrize("form", MATCHING_LOSSES)
def test_either_form_teaches_trajectories_and_actions(form: str):
    model = tiny.model(behaviour=Behaviour(matching_loss=form))
    batch, matching = (
        tiny.collate([tiny.sample(i, model.config, boxes=4) for i in range(3)]),
        model.objective(SetMatching),
    )
    losses = matching.losses(model.encoded(batch))
    assert losses.keys() == set(matching.available)
    for name, part in (("object_noun", "trajectories"), ("action_verb", "actions")):
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        assert any(model.get_parameter(name).grad is not None for name in model.part(part))


def test_in_the_contrastive_form_every_trajectory_and_action_has_a_word_or_the_end_token():
    model = tiny.model()
    batch, matching = (
        tiny.collate([tiny.sample(i, model.config, boxes=4) for i in range(3)]),
        model.objective(SetMatching),
    )
    encoded = model.encoded(batch)
    solved = matching.solve(batch, matching.scores(batch, encoded.video, encoded.text, set(matching.available)))
    assert len(solved["object_noun"].row) == sum(batch["trajectory_counts"])
    assert len(solved["action_verb"].row) == 3 * model.config.num_actions
    named = [set(positions) for positions in batch["verb_words"]]
    assert all(word in named[sample] for sample, _, word in zip(*solved["action_verb"], strict=True))


def test_what_a_caption_leaves_out_may_be_a_thing_of_another_caption_but_no_action():
    """Of a caption that names nothing every row is for the end token: only actions are told from others' words."""
    model = tiny.model()
    items = [tiny.sample(i, model.config, boxes=4) for i in range(2)]
    for kind in ("noun_mask", "verb_mask"):
        items[0][kind][:] = False
        assert items[1][kind].any()
    batch, matching = tiny.collate(items), model.objective(SetMatching)
    encoded = model.encoded(batch)
    losses = matching.losses(encoded)
    for name, part in (("object_noun", encoded.video.trajectories), ("action_verb", encoded.video.actions)):
        (gradient,) = torch.autograd.grad(losses[name], part, retain_graph=True)
        assert bool(gradient[0].any()) == (name == "action_verb") and gradient[1].any()


@pytest.mark.parametrize("form", MATCHING_LOSSES)
def test_a_word_of_two_pieces_takes_one_token_in_the_contrastive_form_and_two_in_the_released_one(form: str):
    model = tiny.model(behaviour=Behaviour(matching_loss=form))
    items = [tiny.sample(i, model.config, words=6, boxes=4) for i in range(2)]
    for item in items:
        item["verb_mask"][:] = item["word_ends"][:] = False
        item["verb_mask"][2:4], item["word_ends"][3] = True, True
    batch, matching = tiny.collate(items), model.objective(SetMatching)
    encoded = model.encoded(batch)
    scores = matching.scores(batch, encoded.video, encoded.text, {"action_verb"})
    assert set(matching.solve(batch, scores)["action_verb"].word) <= ({3, 7} if form == "contrastive" else {2, 3, 7})
    scored = scores["action_verb"].any((0, 1)).nonzero()[0].tolist()
    assert scored == ([3, 7] if form == "contrastive" else [2, 3, 7])
    assert matching.losses(encoded)["action_verb"].isfinite()


def test_a_model_without_the_tokens_does_not_have_the_loss():
    assert tiny.model(use_action=False).objective(SetMatching).available == ("object_noun",)
    assert tiny.model(action_only=True).objective(SetMatching).available == ("action_verb",)
    assert tiny.model(object_fuse="attention").objective(SetMatching).available == ()
