"""Transformer parts shared by every encoder, named as in CLIP's state dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from modules.config import QUICK_GELU


def draw_positions(table: nn.Parameter) -> None:
    """Initial values of a table of positions: N(0, .01)."""
    nn.init.normal_(table, std=0.01)


def draw_rows(rows: nn.Parameter) -> None:
    """Initial values of vectors or of a bilinear form (..., D): N(0, 1) / sqrt(D)."""
    nn.init.normal_(rows, std=rows.shape[-1] ** -0.5)


def draw_projection(matrix: nn.Parameter) -> None:
    """Initial values of a matrix (D, E) that tokens are multiplied by: N(0, 1) / sqrt(D)."""
    nn.init.normal_(matrix, std=matrix.shape[0] ** -0.5)


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in fp32 whatever the autocast type."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), fp32."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class Gelu(NamedTuple):
    """An activation as gelu(x) = function(scale · x) / scale, which the layers around it can scale for nothing.

    backward: (gradient of gelu(x), scale · x) -> gradient of x.
    """

    scale: float
    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """gelu(x), of any shape."""
        return self.function(x) if self.scale == 1 else self.function(self.scale * x).div_(self.scale)


# By their names in `ModelConfig.activation`. OpenAI's is x · sigmoid(1.702 x).
GELUS = {
    "quick_gelu": Gelu(1.702, F.silu, torch.ops.aten.silu_backward),
    "gelu": Gelu(1.0, F.gelu, torch.ops.aten.gelu_backward),
}


class _Perceptron(torch.autograd.Function):
    """second(gelu(first(x))) that keeps one hidden tensor for backward, and reads it as seldom as it can be.

    The hidden tensor is a block's largest: beside the products, passes over it are what a small model's step consists
    of. The products multiply by the activation's scale themselves.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor, activation: str
    ) -> Tensor:
        ctx.gelu = gelu = GELUS[activation]
        rows = x.reshape(-1, x.shape[-1])
        scaled = torch.addmm(first_bias, rows, first.t(), beta=gelu.scale, alpha=gelu.scale)
        ctx.save_for_backward(rows, scaled, first, second)
        out = torch.addmm(second_bias, gelu.function(scaled), second.t(), alpha=1 / gelu.scale)
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, scaled, first, second = ctx.saved_tensors
        needs = ctx.needs_input_grad
        shape, grad = grad.shape, grad.reshape(-1, grad.shape[-1])
        for_x = for_first = for_second = for_hidden = None
        if any(needs[:3]):
            for_hidden = ctx.gelu.backward(grad @ second, scaled)
            for_x = (for_hidden @ first).view(*shape[:-1], first.shape[1]) if needs[0] else None
            for_first = for_hidden.t() @ rows if needs[1] else None
        if needs[3]:
            for_second = (grad.t() @ ctx.gelu.function(scaled)).div_(ctx.gelu.scale)
        for_first_bias = for_hidden.sum(0) if needs[2] and for_hidden is not None else None
        return for_x, for_first, for_first_bias, for_second, grad.sum(0) if needs[4] else None, None


def perceptron(x: Tensor, first: nn.Linear, second: nn.Linear, activation: str = QUICK_GELU) -> Tensor:
    """second(gelu(first(x))), (..., D) -> (..., E); `activation` is a name of `GELUS`.

    Autocast's conversions are made out here, where they are recorded: inside, the pass back to the fp32 weights would
    be missing, and the converted weights would be cached without it.
    """
    if not torch.is_grad_enabled():
        return second(GELUS[activation](first(x)))
    inputs: tuple[Tensor, ...] = (x, first.weight, first.bias, second.weight, second.bias)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        inputs = tuple(part.to(dtype) for part in inputs)
    return _Perceptron.apply(*inputs, activation)


def count_heads(width: int, head_width: int) -> int:
    """Heads of an attention: as many of at least `head_width` as divide its width evenly, one of less than that."""
    heads = max(1, width // head_width)
    while width % heads:
        heads -= 1
    return heads


# Up to which head width and number of keys the plain formula is the faster one on the CPU: half the time with heads of
# 16 and 50 keys, none saved with heads of 64 or hundreds of keys (tests/README, "A small model's step").
NARROW_HEAD, FEW_KEYS = 32, 128


def attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Scaled dot-product attention, (B, heads, Q, W), (B, heads, K, W), (B, heads, K, W) -> (B, heads, Q, W).

    On the CPU the fused kernel works off one head after the other, which for narrow heads and few keys takes longer
    than the products themselves: there all heads are multiplied at once.

    Args:
        mask: boolean, True = may be attended; broadcasts to (B, heads, Q, K).
        is_causal: row i sees keys 0..i; instead of a mask.
    """
    is_small = queries.shape[-1] <= NARROW_HEAD and keys.shape[-2] <= FEW_KEYS
    if is_small and queries.device.type == "cpu" and queries.dtype == torch.float32:
        if is_causal:
            mask = torch.ones(queries.shape[-2], keys.shape[-2], dtype=torch.bool).tril()
        return _SmallAttention.apply(queries, keys, values, mask)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal)


class _SmallAttention(torch.autograd.Function):
    """The plain formula, with the weights kept for the backward pass; a row that sees no key becomes 0."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        heads, width = queries.shape[:2], queries.shape[-1]
        queries, keys, values = (part.flatten(0, 1) for part in (queries, keys, values))
        scores = _scaled_product(queries, keys.transpose(1, 2), width**-0.5)
        if mask is not None:
            hidden = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
            scores.view(*heads, *scores.shape[1:]).add_(hidden)
        weights = torch.softmax(scores, -1)
        if mask is not None and (blind := ~mask.any(-1, keepdim=True)).any():
            weights.view(*heads, *weights.shape[1:]).masked_fill_(blind, 0)
        ctx.save_for_backward(queries, keys, values, weights)
        return torch.bmm(weights, values).unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, weights = ctx.saved_tensors
        heads, grad, scale = grad.shape[:2], grad.flatten(0, 1), queries.shape[-1] ** -0.5
        for_values = torch.bmm(weights.transpose(1, 2), grad)
        for_weights = torch.bmm(grad, values.transpose(1, 2))
        for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        for_queries = _scaled_product(for_scores, keys, scale)
        for_keys = _scaled_product(for_scores.transpose(1, 2), queries, scale)
        return for_queries.unflatten(0, heads), for_keys.unflatten(0, heads), for_values.unflatten(0, heads), None


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a·b of (N, R, S) and (N, S, C) in one pass."""
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)


class Attention(nn.Module):
    """Multi-head attention with CLIP's packed input projection.

    Masks are boolean, True = may be attended, and broadcast to (B, heads, queries, keys).
    """

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = count_heads(width, head_width)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def draw(self) -> None:
        """Initial values of its own parameters: Xavier, as torch's MultiheadAttention."""
        nn.init.xavier_uniform_(self.in_proj_weight)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, heads, S, D / heads)."""
        width = x.shape[-1]
        return self._split(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> two of (B, heads, S, D / heads)."""
        width = x.shape[-1]
        keys, values = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of the same tokens in one product: (B, S, D) -> (B, S, 3·D)."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, 3·D) -> queries, keys and values, each (B, heads, S, D / heads)."""
        queries, keys, values = packed.chunk(3, dim=-1)
        return self._split(queries), self._split(keys), self._split(values)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        """Scaled dot-product attention and the output projection, -> (B, queries, D)."""
        out = attention(queries, keys, values, mask, is_causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    @staticmethod
    def weights(queries: Tensor, keys: Tensor) -> Tensor:
        """Attention weights without a mask: (B, heads, queries, keys), fp32."""
        with torch.autocast(queries.device.type, enabled=False):
            return (queries.float() @ keys.float().transpose(2, 3) / queries.shape[-1] ** 0.5).softmax(-1)


class MLP(nn.Module):
    """CLIP's perceptron with a hidden width of 4·D; `activation` is a name of `GELUS`."""

    def __init__(self, width: int, activation: str = QUICK_GELU) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return perceptron(x, self.c_fc, self.c_proj, self.activation)


class ResidualBlock(nn.Module):
    """CLIP's pre-norm residual attention block."""

    def __init__(self, width: int, head_width: int, activation: str = QUICK_GELU) -> None:
        super().__init__()
        self.attn = Attention(width, head_width)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, activation)
        self.ln_2 = LayerNorm(width)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens (B, S, D) that this block's queries may attend to."""
        return self.attn.keys_values(self.ln_1(x))

    def attend(self, rows: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the block for `rows` (B, R, D) over given keys and values."""
        return self.finish(rows, self.attn.queries(self.ln_1(rows)), keys, values, mask)

    def row_weights(self, x: Tensor, rows: Tensor) -> Tensor:
        """Attention weights of `rows` (B, R, D) over tokens x (B, S, D) in this block: (B, heads, R, S), fp32."""
        return self.attn.weights(self.attn.queries(self.ln_1(rows)), self.keys_values(x)[0])

    def project(self, x: Tensor) -> Tensor:
        """Packed queries, keys and values of tokens: (B, S, D) -> (B, S, 3·D). They depend on nothing but the token."""
        return self.attn.project(self.ln_1(x))

    def complete(self, x: Tensor, packed: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the block for tokens x (B, S, D) whose projections are known."""
        return self.finish(x, *self.attn.unpack(packed), mask)

    def finish(
        self,
        x: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Output of the block for tokens x (B, R, D) whose queries are known, over given keys and values."""
        x = x + self.attn.attend(queries, keys, values, mask, is_causal)
        return x + self.mlp(self.ln_2(x))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        rows: Tensor | None = None,
        extra_keys: Tensor | None = None,
    ) -> Tensor:
        """Run the block on x (B, S, D).

        Args:
            mask: boolean, True = may be attended; broadcasts to (B, heads, queries, keys).
            rows: (B, R, D), tokens of x whose outputs alone are computed; keys and values come from all of x.
            extra_keys: (B, K, D), tokens that are attended to after those of x but not computed further.

        Returns:
            (B, S, D), or (B, R, D) with `rows`.
        """
        if rows is not None:
            keys_from = x if extra_keys is None else torch.cat([x, extra_keys], dim=1)
            return self.attend(rows, *self.keys_values(keys_from), mask)
        queries, keys, values = self.attn.unpack(self.project(x))
        if extra_keys is not None:
            more_keys, more_values = self.keys_values(extra_keys)
            keys, values = torch.cat([keys, more_keys], dim=2), torch.cat([values, more_values], dim=2)
        return self.finish(x, queries, keys, values, mask, is_causal)


class Transformer(nn.Module):
    """A stack of blocks under CLIP's name `resblocks`."""

    def __init__(self, width: int, layers: int, head_width: int, activation: str = QUICK_GELU) -> None:
        super().__init__()
        self.resblocks: Any = nn.ModuleList(ResidualBlock(width, head_width, activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None, *, is_causal: bool = False) -> Tensor:
        """(B, S, D) -> (B, S, D); `mask` as in `ResidualBlock.forward`."""
        for block in self.resblocks:
            x = block(x, mask, is_causal=is_causal)
        return x


def maybe_checkpoint(enabled: bool, function, *args, **kwargs):
    """Call `function`; if enabled, recompute it in the backward pass instead of keeping its activations."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
    return function(*args, **kwargs)
