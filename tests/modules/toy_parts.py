"""An objective, an encoder and a task from outside: what somebody writes who adds an idea of their own."""

from __future__ import annotations

from collections.abc import Set

from torch import Tensor, nn

from modules.backbone import TokenEncoder
from modules.batch import Batch
from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.losses import token_loss
from modules.module_clip import VisionOutput
from modules.objectives.base import Heads, Objective
from modules.parts import Owner
from modules.tasks.pretrain import PretrainModel
from tasks.pre_training import Pretraining
from utils.data.pretraining import PretrainArguments
from utils.training.task_main import run_task


class CountHead(nn.Linear):
    """The number of boxes of a frame, as a class."""

    owners = {"": Owner("box_count", "head")}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.embed_dim, config.object_count + 1)


class BoxCount(Objective):
    """Predict the number of boxes of a frame from its frame token."""

    NAMES = ("box_count",)
    NEEDS_FUSION = False

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        super().__init__(config, behaviour, heads)
        self.head = heads.get("count_head", lambda: CountHead(config))

    def trains(self, active: Set[str]) -> set[str]:
        return {"frames", "box_count"}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        counts = (encoded.batch["boxes"][..., 0] != -1).sum(-1)
        loss = token_loss(self.head(encoded.video.frames).flatten(0, 1), counts.flatten())
        return {"box_count": loss.loss, "box_count_accuracy": loss.accuracy}


class Shades(TokenEncoder):
    """A token of each frame's mean patch."""

    name = "shades"
    owners = {"": Owner("shades", "head")}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.proj = nn.Linear(config.vision_width, config.embed_dim)

    def forward(self, batch: Batch, visual: VisionOutput) -> tuple[Tensor, Tensor]:
        frames = batch["video_mask"].shape
        return self.proj(visual.early_tokens[:, 1:].mean(1)).unflatten(0, frames), batch["video_mask"]


class ExtendedModel(PretrainModel):
    """Pre-training with both."""

    OBJECTIVES = (*PretrainModel.OBJECTIVES, BoxCount)
    ENCODERS = (Shades,)


class ExtendedPretraining(Pretraining):
    """The task with that model."""

    model_class = ExtendedModel


def main(argv: list[str] | None = None) -> int:
    """As tasks/pre_training.py."""
    return run_task(ExtendedPretraining, PretrainArguments, argv, __doc__)
