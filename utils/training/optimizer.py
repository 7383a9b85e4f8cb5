"""BertAdam, the parameter groups and the frozen layers of the released training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modules.parts import owners
from utils.training.schedule import SCHEDULES


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decoupled decay inside the update and a schedule of the optimizer's own step.

    Each update: every gradient is scaled to norm `max_grad_norm` where it is longer (per tensor, in place), then
    m = b1·m + (1 - b1)·g, v = b2·v + (1 - b2)·g², p -= rate · (m / (sqrt(v) + eps) + weight_decay · p), with
    rate = lr · schedule(step / t_total, warmup). The rate is a Python float and nothing is read from the device.
    Parameters without a gradient keep their value and their moments. Source: CLIP4Clip's BertAdam, as released.

    Args:
        params: parameters, or groups with `params` and optionally `lr`, `weight_decay`, `label`, `names`.
        lr: peak rate of groups without their own.
        schedule: a key of `utils.training.schedule.SCHEDULES`.
        warmup: share of `t_total` that is warm-up.
        t_total: updates of the whole run.
        b1, b2, eps: Adam's constants.
        weight_decay: decay of groups without their own.
        max_grad_norm: norm to which each tensor's gradient is cut; 0 leaves gradients as they are.

    Raises:
        ValueError: an unknown schedule or a constant out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        schedule: str = "warmup_cosine",
        warmup: float = 0.1,
        t_total: int = 1,
        b1: float = 0.9,
        b2: float = 0.98,
        eps: float = 1e-6,
        weight_decay: float = 0.2,
        max_grad_norm: float = 1.0,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if lr < 0 or not 0 <= warmup <= 1 or t_total < 1 or not 0 <= b1 < 1 or not 0 <= b2 < 1 or eps < 0:
            raise ValueError(f"BertAdam: out of range among {lr=} {warmup=} {t_total=} {b1=} {b2=} {eps=}")
        defaults = {
            "lr": lr,
            "schedule": schedule,
            "warmup": warmup,
            "t_total": t_total,
            "b1": b1,
            "b2": b2,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "step": 0,
            "label": "all",
            "names": [],
        }
        super().__init__(params, defaults)
        self._is_clipped = False

    @staticmethod
    def rate(group: dict[str, Any]) -> float:
        """The rate that a group's next update applies."""
        return group["lr"] * SCHEDULES[group["schedule"]](group["step"] / group["t_total"], group["warmup"])

    def rates(self) -> dict[str, float]:
        """The rate of the next update by label; groups of one label differ in decay only."""
        return {group["label"]: self.rate(group) for group in self.param_groups}

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Scale all gradients to a common norm of at most `max_norm`, then each to its group's, as `step` would.

        Gradients are read once and written once for both; the next step leaves them as they are.

        Args:
            max_norm: infinity leaves the common norm as it is.

        Returns:
            The common norm as it was, a scalar.
        """
        parts = [(group["max_grad_norm"], _gradients(group)) for group in self.param_groups]
        parts = [(limit, grads) for limit, grads in parts if grads]
        if not parts:
            return torch.zeros(())
        norms = [torch.stack(torch._foreach_norm(grads)) for _, grads in parts]
        total = torch.linalg.vector_norm(torch.cat(norms))
        common = _at_most(max_norm, total)
        for (limit, grads), own in zip(parts, norms, strict=True):
            factors = common * _at_most(limit, common * own) if limit > 0 else common.expand_as(own)
            torch._foreach_mul_(grads, list(factors.unbind()))
        self._is_clipped = True
        return total

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As every optimizer's."""
        super().zero_grad(set_to_none)
        self._is_clipped = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; gradients are cut in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update([p for p in group["params"] if p.grad is not None], group)
            group["step"] += 1
        self._is_clipped = False
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        if not params:
            return
        grads = _gradients(group)
        for p in params:
            if not self.state[p]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        if group["max_grad_norm"] > 0 and not self._is_clipped:
            factors = _at_most(group["max_grad_norm"], torch.stack(torch._foreach_norm(grads)))
            torch._foreach_mul_(grads, list(factors.unbind()))
        if group["weight_decay"]:  # apart, since the kernel's factor 1 - rate · decay loses a digit in single precision
            torch._foreach_add_(params, params, alpha=-self.rate(group) * group["weight_decay"])
        # PyTorch's own kernel reads and writes each tensor once. It corrects the moments' bias by the number of steps
        # so far, which BertAdam does not: after so many steps the correction is exactly 1.
        steps = torch.full((), 1e6, device=params[0].device)
        torch._fused_adamw_(
            params,
            grads,
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [steps] * len(params),
            lr=self.rate(group),
            beta1=group["b1"],
            beta2=group["b2"],
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def _gradients(group: dict[str, Any]) -> list[Tensor]:
    return [p.grad for p in group["params"] if p.grad is not None]


def _at_most(limit: float, norms: Tensor) -> Tensor:
    """Factors that cut `norms` to a limit; 1 where they are not above it."""
    return (norms + 1e-6).reciprocal_().mul_(limit).clamp_(max=1.0)


def parameter_groups(
    model: nn.Module,
    lr: float,
    coef_lr: float,
    fusion_lr: float,
    object_lr: float | None = None,
    action_lr: float | None = None,
    weight_decay: float = 0.2,
) -> list[dict[str, Any]]:
    """Groups for `BertAdam` by what the parameters' owners state (modules/parts.py).

    | label  | parameters                                       | rate                      |
    |--------|--------------------------------------------------|---------------------------|
    | clip   | CLIP's own towers                                | lr · coef_lr              |
    | fusion | what the released names call fusion              | fusion_lr                 |
    | object | new object and action parameters                 | object_lr, None means lr  |
    | head   | similarity header and heads of downstream tasks  | lr                        |
    | action | the action encoder, if `action_lr` is given      | action_lr                 |

    Biases (any name with "bias" in it) have no decay. The released code gives `fusion` 1e-5 whatever --lr says and
    `object` lr · coef_lr.

    Raises:
        ValueError: a parameter without an owner, or whose owner names another group.
    """
    rates = {"clip": lr * coef_lr, "fusion": fusion_lr, "object": lr if object_lr is None else object_lr, "head": lr}
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    if action_lr is not None:
        rates["action"] = action_lr
    own = owners(model)
    for name, parameter in model.named_parameters():
        label, decays = own[name].rate, "bias" not in name
        if own[name].part == "actions" and action_lr is not None:
            label = "action"
        if label not in rates:
            raise ValueError(f"parameter {name}: no learning-rate group {label}; choose one of {', '.join(rates)}")
        decay = weight_decay if decays else 0.0
        empty = {"params": [], "names": [], "label": label, "lr": rates[label], "weight_decay": decay}
        group = groups.setdefault((label, decays), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def freeze_layers(model: Any, freeze_layer_num: int) -> list[str]:
    """Freeze CLIP's first `freeze_layer_num` blocks of both towers and everything below them; -1 freezes nothing.

    What stays trainable inside `clip.` is said by `CLIP.lower_parameters`. With 0 the patch layer, class and position
    embeddings, `ln_pre` and the token embedding are frozen. Parameters outside `clip.` are not touched.

    Returns:
        Names of the parameters frozen here.
    """
    if freeze_layer_num < 0:
        return []
    frozen = []
    for name, parameter in model.clip.lower_parameters(freeze_layer_num):
        parameter.requires_grad_(False)
        frozen.append(f"clip.{name}")
    return frozen
