"""The training step on CUDA: the CPU's numbers, and no wait of the host within a step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from modules.batch import to_device
from modules.beam_search import SearchSettings
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.modules.objectives.test_answers import answer_model, question_batch
from tests.modules.tasks.test_captioning import caption_batch
from utils.runtime.precision import autocast
from utils.training.optimizer import BertAdam, parameter_groups

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CUDA = torch.device("cuda")
WAITING = {"object_noun", "action_verb"}  # their assignment is solved on the host


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """fp32 products in fp32: TF32 keeps ten bits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def losses_and_gradients(model: torch.nn.Module, batch: dict) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    out = model(batch)
    tiny.total(out).backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: float(value.detach()) for name, value in out.items()}, gradients


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize("cls", [PretrainModel, CaptionModel, RetrievalModel, MultipleChoiceModel, AnswerModel])
def test_losses_and_gradients_are_the_cpus(cls: type, behaviour: str):
    if cls is AnswerModel:
        model = answer_model(behaviour)
        batch = question_batch(model, [0, 0, 1, 2])
    else:
        model = tiny.model(cls, behaviour)
        batch = tiny.batch(6, model.config)
    model.set_active_losses(set(model.available_losses))
    expected, expected_gradients = losses_and_gradients(model.train(), batch)
    model.zero_grad(set_to_none=True)
    found, gradients = losses_and_gradients(model.to(CUDA), to_device(batch, CUDA))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(expected_gradients[name].abs().max())
        assert float((gradient - expected_gradients[name]).abs().max()) <= 2e-3 * scale + 1e-6, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("behaviour", ["intended", "released"])
def test_the_host_does_not_wait_within_a_step(precision: str, behaviour: str):
    model = tiny.model(PretrainModel, behaviour).to(CUDA).train()
    model.remember_trainable()
    model.set_active_losses(set(model.available_losses) - WAITING)
    optimizer = BertAdam(parameter_groups(model, 1e-4, 1e-4, 1e-4), 1e-4, t_total=10)
    batch = to_device(tiny.batch(6, model.config), CUDA)

    def step() -> None:
        with autocast(precision, CUDA):
            out = model(batch)
            total = sum((v for n, v in out.items() if not n.endswith("_accuracy")), torch.zeros((), device=CUDA))
        total.backward()
        optimizer.clip(1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.after_update()

    step()  # makes the moments, and what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captions_are_decoded_without_a_fault(precision: str):
    model = tiny.model(CaptionModel).eval()
    batch = caption_batch(range(3), model)
    settings = SearchSettings(beam_size=3, max_tokens=12)
    expected = model.generate(batch, settings)
    model.to(CUDA)
    with autocast(precision, CUDA):
        found = model.generate(to_device(batch, CUDA), settings)
    if precision == "fp32":
        assert found.tokens.cpu().tolist() == expected.tokens.tolist()
    assert bool(found.score.isfinite().all())
