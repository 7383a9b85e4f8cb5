"""The MLP that keeps only its hidden layer, against the plain formula; the weights that a block attends with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import ACTIVATIONS
from modules.layers import (
    FEW_KEYS,
    GELUS,
    MLP,
    NARROW_HEAD,
    Attention,
    ResidualBlock,
    attention,
    count_heads,
    maybe_checkpoint,
    perceptron,
)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": 1e-5, "bf16": 3e-2, "fp16": 4e-3}  # of the largest value


class PlainMLP(MLP):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        return self.c_proj(F.gelu(hidden) if self.activation == "gelu" else hidden * torch.sigmoid(1.702 * hidden))


def mlps(activation: str = "quick_gelu", width: int = 16) -> tuple[MLP, PlainMLP]:
    torch.manual_seed(0)
    fast, plain = MLP(width, activation), PlainMLP(width, activation)
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def run(mlp: MLP, x: Tensor, precision: str, *, checkpointed: bool = False) -> dict[str, Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32"):
        out = maybe_checkpoint(checkpointed, mlp, x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out.float() * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in mlp.named_parameters() if parameter.grad is not None}
    return {"output": out.detach(), "input": x.grad, **gradients}


@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_the_plain_formula(activation: str, precision: str, checkpointed: bool):
    fast, plain = mlps(activation)
    x = 3 * torch.randn(2, 5, 16)
    found, expected = run(fast, x, precision, checkpointed=checkpointed), run(plain, x, precision)
    assert found.keys() == expected.keys() and len(found) == 6
    tolerance = TOLERANCES[precision]
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance * float(value.abs().max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation: str):
    first, second = nn.Linear(5, 6).double(), nn.Linear(6, 4).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    parameters = (first.weight, first.bias, second.weight, second.bias)
    assert torch.autograd.gradcheck(lambda x, *_: perceptron(x, first, second, activation), (x, *parameters))


def test_each_activation_that_a_configuration_may_name_is_another_function():
    assert set(GELUS) == set(ACTIVATIONS)
    x = torch.linspace(-4, 4, 101)
    quick, exact = GELUS["quick_gelu"](x), GELUS["gelu"](x)
    torch.testing.assert_close(quick, x * torch.sigmoid(1.702 * x))
    torch.testing.assert_close(exact, 0.5 * x * (1 + torch.erf(x / 2**0.5)))
    assert 0.005 < (quick - exact).abs().max() < 0.05
    fast, other = mlps("gelu")[0], mlps("quick_gelu")[0]
    assert not torch.allclose(fast(x[:16]), other(x[:16]), atol=1e-4)


@pytest.mark.parametrize("frozen", ["c_fc", "c_fc.weight", "c_fc.bias", "c_proj", "c_proj.weight", "c_proj.bias"])
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(frozen: str):
    fast, plain = mlps()
    x = torch.randn(5, 16)
    expected = run(plain, x, "fp32")
    for name, parameter in fast.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    found = run(fast, x, "fp32")
    assert {name for name in expected if name not in found} == {n for n in expected if n.startswith(frozen)}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_gradient_is_recorded_where_none_is_wanted(activation: str, precision: str):
    fast, plain = mlps(activation)
    x = torch.randn(5, 16)
    with torch.no_grad(), torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32"):
        out = fast(x)
        expected, tolerance = plain(x), TOLERANCES[precision]
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    assert not out.requires_grad


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_the_hidden_layer_is_kept(activation: str):
    kept: list[tuple[int, ...]] = []
    fast, _ = mlps(activation)
    x = torch.randn(7, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(tuple(saved.shape)) or saved, lambda x: x):
        fast(x)
    assert kept.count((7, 64)) == 1


@pytest.mark.parametrize(
    ("width", "head_width", "heads"),
    [
        (768, 64, 12), (1280, 80, 16), (1280, 64, 20), (640, 64, 10), (640, 80, 8), (128, 128, 1), (48, 64, 1),
        (1, 64, 1), (100, 30, 2), (97, 10, 1), (96, 40, 2), (64, 1, 64),
    ],
)  # fmt: skip
def test_heads_are_as_many_of_the_width_asked_for_as_divide_the_whole_evenly(width: int, head_width: int, heads: int):
    assert count_heads(width, head_width) == heads == Attention(width, head_width).heads
    assert width % heads == 0 and (heads == 1 or width // heads >= head_width)


def masks() -> dict[str, Tensor | None]:
    """Of 3 clips, 2 heads, 5 queries and 7 keys, in all shapes that broadcast to them; one row of one sees nothing."""
    torch.manual_seed(0)
    whole = torch.rand(3, 2, 5, 7) > 0.4
    whole[..., 0] = True
    blind = whole[:, :1].clone()
    blind[1, 0, 2] = False
    return {
        "none": None,
        "keys of each clip": whole[:, :1, :1],
        "keys of each query": whole[:, :1],
        "every head its own": whole,
        "the same for all clips": whole[0, 0],
        "a row without keys": blind,
    }


def attended(mask: Tensor | None, is_causal: bool, fused: bool, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Output and gradients of queries, keys and values, as the model has them: heads transposed behind the tokens."""
    torch.manual_seed(1)
    parts = [torch.randn(3, rows, 2, 16, dtype=dtype).requires_grad_() for rows in (5, 7, 7)]
    queries, keys, values = (part.transpose(1, 2) for part in parts)
    function = F.scaled_dot_product_attention if fused else attention
    out = function(queries, keys, values, mask, is_causal=is_causal)
    return [out.detach(), *torch.autograd.grad(out, parts, torch.randn(out.shape, dtype=dtype))]


@pytest.mark.parametrize("name", masks())
def test_narrow_heads_attend_as_the_fused_kernel_does(name: str):
    for found, expected in zip(
        attended(masks()[name], False, False), attended(masks()[name], False, True), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_narrow_heads_are_causal_as_the_fused_kernel_is():
    for found, expected in zip(attended(None, True, False), attended(None, True, True), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "keys", "dtype", "is_fused"),
    [
        (NARROW_HEAD, FEW_KEYS, torch.float32, False),
        (NARROW_HEAD + 1, FEW_KEYS, torch.float32, True),
        (NARROW_HEAD, FEW_KEYS + 1, torch.float32, True),
        (NARROW_HEAD, FEW_KEYS, torch.bfloat16, True),
    ],
)
def test_wide_heads_many_keys_and_short_numbers_have_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, width: int, keys: int, dtype: torch.dtype, is_fused: bool
):
    fused = F.scaled_dot_product_attention
    calls: list[int] = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    queries, others = torch.randn(1, 2, 3, width, dtype=dtype), torch.randn(1, 2, keys, width, dtype=dtype)
    found = attention(queries, others, others)
    assert bool(calls) == is_fused
    torch.testing.assert_close(found, fused(queries, others, others), rtol=1e-4, atol=1e-5)


def test_row_weights_reproduce_a_block_s_attention():
    torch.manual_seed(0)
    block = ResidualBlock(128, 64)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 5, 128)
    weights = block.row_weights(x, x[:, :2])
    keys, values = block.keys_values(x)
    assert weights.shape == (2, 2, 2, 5) and weights.std() > 0.05
    read = block.attn.out_proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(read, block.attn.attend(block.attn.queries(block.ln_1(x[:, :2])), keys, values, None))
