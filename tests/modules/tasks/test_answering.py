"""The answers that a model gives, and their probabilities."""

from __future__ import annotations

import pytest
import torch

from tests.modules.objectives.test_answers import ANSWERS, answer_model, question_batch


@pytest.mark.parametrize("behaviour", ["intended", "released"])
def test_an_answer_is_the_most_probable_one(behaviour: str):
    model = answer_model(behaviour).eval()
    batch = question_batch(model, [0, 0, 1, 2, 2, 2])
    probabilities, predicted = model.probabilities(batch), model.predict(batch)
    classes = len(ANSWERS) if behaviour == "intended" else model.config.vocab_size
    assert probabilities.shape == (6, classes) and not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    assert torch.equal(probabilities.argmax(1), predicted)
