"""Sizes of the model and the choices between released and intended behaviour."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from modules.tokenizer import VOCAB_SIZE

OBJECT_FUSES = ("fusion", "attention")
SIM_HEADERS = ("meanP", "seqLSTM", "seqTransf", "tightTransf")
LINEAR_PATCHES = ("2d", "3d")
HEAD_WIDTH = 64  # of every CLIP that OpenAI published


@dataclass
class ModelConfig:
    """Every size of the model; the defaults are those of the released ViT-B/16 run.

    Raises:
        ValueError: a value is outside its range, or two values contradict each other.
    """

    image_resolution: int = 224  # side of the square input picture R, pixels
    patch_size: int = 16  # side of a patch, pixels
    vision_width: int = 768
    vision_layers: int = 12
    embed_dim: int = 512  # width of the joint space and of the fusion encoder
    context_length: int = 77  # positions of CLIP's text tower
    vocab_size: int = VOCAB_SIZE
    text_width: int = 512
    text_layers: int = 12
    head_width: int = HEAD_WIDTH  # of every attention; a width has width / head_width heads, at least one

    max_frames: int = 12  # T
    max_words: int = 32  # L, start and end tokens included
    fusion_layers: int = 6
    dropout: float = 0.5  # before vocabulary heads and on both sides of the matching head, nowhere else
    frame_dropout: float = 0.0  # share of training samples of which language losses see trajectories alone

    need_object: bool = False
    object_count: int = 10  # O, boxes per frame; a clip has 2 * O trajectories
    object_layer: int | None = None  # from 1; k > 0: at block k, k < 0: in the first |k| blocks, 0: nowhere, None: last
    object_fuse: str = "fusion"  # "fusion": tokens leave the visual tower; "attention": they take part in its blocks
    use_action: bool = False
    action_only: bool = False  # actions enter the fusion encoder, trajectories do not
    num_actions: int = 4  # A

    linear_patch: str = "2d"
    sim_header: str = "meanP"
    header_layers: int = 4  # layers of seqTransf and tightTransf

    answers: tuple[str, ...] = ()  # question answering: the classes of the answer classifier

    def __post_init__(self) -> None:
        for name in ("object_fuse", "sim_header", "linear_patch"):
            allowed = {"object_fuse": OBJECT_FUSES, "sim_header": SIM_HEADERS, "linear_patch": LINEAR_PATCHES}[name]
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        if self.image_resolution % self.patch_size:
            raise ValueError(f"image_resolution {self.image_resolution} is no multiple of patch_size {self.patch_size}")
        if self.vision_layers < 2:
            raise ValueError("vision_layers must be at least 2: the last two blocks attend jointly over all frames")
        if self.max_words > self.context_length:
            raise ValueError(f"max_words {self.max_words} exceeds the text tower's {self.context_length} positions")
        if abs(self.object_layer or 0) > self.vision_layers:
            raise ValueError(f"object_layer {self.object_layer}: the visual tower has {self.vision_layers} blocks")
        if self.head_width < 1:
            raise ValueError(f"head_width {self.head_width} must be at least 1")
        self.answers = tuple(self.answers)
        if (self.use_action or self.action_only) and not self.need_object:
            raise ValueError("use_action and action_only need need_object: actions are pooled from object tokens too")
        if self.need_object and self.object_fuse == "fusion" and self.object_layer == 0:
            raise ValueError("object_fuse=fusion with object_layer=0 would have no object tokens: choose a block")

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_resolution // self.patch_size

    @property
    def start_token(self) -> int:
        """Id of the token before every text."""
        return self.vocab_size - 2

    @property
    def end_token(self) -> int:
        """Id of the token behind every text."""
        return self.vocab_size - 1

    @property
    def num_trajectories(self) -> int:
        return 2 * self.object_count

    @property
    def object_blocks(self) -> tuple[int, ...]:
        """Indices (from 0) of the visual blocks whose input the object encoder reads."""
        layer = self.vision_layers if self.object_layer is None else self.object_layer
        if not self.need_object or layer == 0:
            return ()
        return (layer - 1,) if layer > 0 else tuple(range(-layer))

    @property
    def has_trajectories(self) -> bool:
        """Whether trajectory tokens enter the fusion encoder."""
        return self.need_object and self.object_fuse == "fusion" and not self.action_only

    @property
    def has_actions(self) -> bool:
        """Whether action tokens enter the fusion encoder."""
        return self.need_object and self.object_fuse == "fusion" and (self.use_action or self.action_only)

    @property
    def fusion_positions(self) -> int:
        """Rows of the fusion position table: the longest layout, whatever parts are switched on, so that a checkpoint
        fits any.
        """
        return self.max_frames + 1 + self.num_trajectories + self.num_actions + self.context_length + 1


@dataclass
class Behaviour:
    """Where the released code departs from what it intends, in the model or its losses. The defaults are the intended
    side.
    """

    matching_norm_axis: str = (
        "feature"  # released "batch": the matching score divides the text row by its norm over the batch
    )
    next_token_frame_positions: bool = (
        True  # released False: frames carry no position in the prefix-LM loss when objects are used
    )
    action_matching_needs_objects: bool = (
        False  # released True: a clip without boxes takes no part in action set prediction
    )
    shifted_frame_mask: bool = (
        False  # released True: frame j is masked by the validity of frame j-1, and the mean by the last
    )
    contrastive_video_gradient: bool = (
        True  # released False: the contrastive loss of pre-training reaches the text tower alone
    )
    choice_frames_normalised: bool = (
        True  # released False: multiple choice is trained on pooled normalised frames, but scored on plain ones
    )
    answer_head: str = (
        "classifier"  # released "vocabulary": answers are known by their first token, chosen among the whole vocabulary
    )

    @classmethod
    def preset(cls, name: str) -> Behaviour:
        """`intended` or `released`."""
        if name == "intended":
            return cls()
        if name == "released":
            return cls(
                matching_norm_axis="batch",
                next_token_frame_positions=False,
                action_matching_needs_objects=True,
                shifted_frame_mask=True,
                contrastive_video_gradient=False,
                choice_frames_normalised=False,
                answer_head="vocabulary",
            )
        raise ValueError(f"behaviour {name!r}: choose intended or released")


def from_dict(cls: type, values: dict):
    """Rebuild a ModelConfig or Behaviour from a checkpoint's plain dict; names it does not know are an error."""
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{cls.__name__}: unknown fields {', '.join(unknown)}; was the file written by a newer version?"
        )
    return cls(**values)
