"""Sizes of the model, the choices between released and intended behaviour, and how a setting is declared.

A setting is a dataclass field made by `setting`: its default, help, range and choices stand where it acts, and the
command lines of the tasks are made of such fields (utils/settings/). No PyTorch here: every kind of process imports it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VOCAB_SIZE = 49408  # of CLIP's tokenizer
OBJECT_FUSES = ("fusion", "attention")
SIM_HEADERS = ("meanP", "seqLSTM", "seqTransf", "tightTransf")
LINEAR_PATCHES = ("2d", "3d")
MAX_PIXEL_VALUE = 1000  # of a mean or deviation; pixels are from 0 to 1
HEAD_WIDTH = 64  # of every CLIP that OpenAI published
QUICK_GELU = "quick_gelu"  # its activation; most others have GELU
ACTIVATIONS = ("gelu", QUICK_GELU)
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # by which it normalises pixels; most others do too
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_LAYERS, MAX_SIZE = 1000, 1 << 31  # of a model; the largest CLIP has 56 layers
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
NAMED = {
    "object_fuse": OBJECT_FUSES,
    "sim_header": SIM_HEADERS,
    "linear_patch": LINEAR_PATCHES,
    "activation": ACTIVATIONS,
}
FORMER_SIZES = ("frame_dropout",)  # in the configuration of checkpoints that an earlier version wrote
# Fields of `Behaviour` that files of an earlier version lack, and what their models were trained with.
UNSTATED: Mapping[str, Any] = {"same_clip_negatives": True, "matching_loss": "released"}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[Any, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    metavar: str | None = None,
    flag: str | None = None,
    seen: bool = False,
    of_tensors: bool = False,
) -> Any:
    """A dataclass field that is a command-line flag.

    Args:
        default: a dict is copied for each instance.
        help: what the flag does, for --help.
        choices: the values allowed.
        minimum, maximum: inclusive bounds.
        above: an exclusive lower bound.
        metavar: how --help shows the value.
        flag: the flag's name, where it is not that of the field.
        seen: it decides what a model sees of a clip, so a trained model is used with the value of its run.
        of_tensors: it decides the shape of stored tensors, so the value of a checkpoint is kept.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "metavar": metavar,
        "flag": flag,
        "seen": seen,
        "of_tensors": of_tensors,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(group: Any) -> None:
    """Check types and ranges of all settings of a dataclass instance, a dict by its values: they may be of a file.

    Raises:
        ValueError: a value is of another type or out of range; the message names the flag.
    """
    for field in dataclasses.fields(group):
        value, rules = getattr(group, field.name), field.metadata
        if "help" not in rules:
            continue
        name, kind = f"--{rules['flag'] or field.name}", str(field.type)
        values = [value]
        if kind.startswith("dict"):
            if not isinstance(value, dict):
                raise ValueError(f"{name} {reprlib.repr(value)}: must be a dictionary of numbers")
            kind, values = "float", list(value.values())
        for one in values:
            if not _is_of(one, kind):
                wanted = " or ".join(KINDS[part] for part in kind.split(" | ") if part in KINDS)
                raise ValueError(f"{name} {reprlib.repr(one)}: must be {wanted}")
            if one is not None:
                _check_range(f"{name} {one}", one, rules)


def _is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type by its annotation, such as "int | None"; a float is finite, a text may be a path."""
    if value is None or isinstance(value, bool):
        return type(value).__name__.removesuffix("Type") in kind.split(" | ")
    if isinstance(value, int | float) and "float" in kind:
        return abs(value) < math.inf
    return isinstance(value, int) and "int" in kind or isinstance(value, str | os.PathLike) and "str" in kind


def _check_range(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"{name}: choose one of {', '.join(map(str, rules['choices']))}")
    if rules["minimum"] is not None and not value >= rules["minimum"]:
        raise ValueError(f"{name}: must be at least {rules['minimum']}")
    if rules["maximum"] is not None and not value <= rules["maximum"]:
        raise ValueError(f"{name}: must be at most {rules['maximum']}")
    if rules["above"] is not None and not value > rules["above"]:
        raise ValueError(f"{name}: must be above {rules['above']}")


@dataclass(frozen=True)
class ModelChoices:
    """Sizes and parts of the model; what is not given comes from the checkpoint, else it is ModelConfig's default.

    Fields are named as those of `ModelConfig` that they choose.
    """

    image_resolution: int | None = setting(
        None,
        "side of the square picture in pixels; the table of positions is interpolated to it; default: the weights' own",
        minimum=1,
    )
    activation: str | None = setting(
        None,
        "activation of CLIP weights that come without a configuration which states it",
        choices=ACTIVATIONS,
        of_tensors=True,
    )
    max_frames: int | None = setting(None, "frames per clip; default: the checkpoint's, else 12", minimum=1)
    max_words: int | None = setting(
        None, "tokens of a caption, start and end token included; default: the checkpoint's, else 32", minimum=3
    )
    fusion_layers: int | None = setting(None, "layers of the fusion encoder; default: 6", minimum=1, of_tensors=True)
    dropout: float = setting(
        0.5, "dropout before vocabulary heads and around the matching head", minimum=0, maximum=0.99
    )
    linear_patch: str | None = setting(
        None,
        "patch layer over one frame or three; default: the checkpoint's, else 2d",
        choices=LINEAR_PATCHES,
        of_tensors=True,
    )
    sim_header: str | None = setting(
        None, "similarity header; default: the checkpoint's, else meanP", choices=SIM_HEADERS
    )
    header_layers: int | None = setting(
        None,
        "layers of the seqTransf and tightTransf headers; default: the checkpoint's, else 4",
        minimum=1,
        flag="cross_num_hidden_layers",
    )
    need_object: bool = setting(False, "use object files")
    use_action: bool = setting(False, "add action tokens (needs --need_object)")
    action_only: bool = setting(False, "action tokens without trajectories (needs --need_object)")
    object_count: int | None = setting(
        None, "boxes per frame; a clip has twice as many trajectories; default: the checkpoint's, else 10", minimum=1
    )
    object_layer: int | None = setting(
        None,
        "visual block that objects are read at, from 1; -k: the first k blocks; 0: none; default: the checkpoint's, "
        "else the last",
    )
    object_fuse: str | None = setting(
        None,
        "object tokens leave the visual tower, or take part in it; default: the checkpoint's, else fusion",
        choices=OBJECT_FUSES,
    )
    num_actions: int | None = setting(None, "action tokens per clip; default: the checkpoint's, else 4", minimum=1)

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("use_action", "action_only"):
            if getattr(self, name) and not self.need_object:
                raise ValueError(f"--{name} needs --need_object: actions are pooled from patches and objects")
        if self.need_object and self.object_fuse in (None, "fusion") and self.object_layer == 0:
            raise ValueError("--object_layer 0 with --object_fuse fusion leaves no object tokens: choose a block")

    @classmethod
    def of(cls, config: ModelConfig) -> ModelChoices:
        """Choices that are all made, as in `config`."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})

    def given(self) -> dict[str, Any]:
        """The fields of `ModelConfig` that are chosen."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def over(self, saved: ModelConfig) -> ModelConfig:
        """A checkpoint's configuration with what is chosen instead; sizes of its tensors stay as they are.

        The position table has room for objects and actions in a model without them too.
        """
        fixed = {field.name for field in dataclasses.fields(self) if field.metadata["of_tensors"]}
        fixed |= set() if self.need_object else {"object_count", "num_actions"}
        chosen = {name: value for name, value in self.given().items() if name not in fixed}
        return dataclasses.replace(saved, **chosen)


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
    head_width: int = HEAD_WIDTH  # of the visual tower, trajectories and actions: width / head_width heads, at least 1
    text_head_width: int | None = None  # of the text tower, fusion encoder and headers; None: as head_width
    activation: str = QUICK_GELU  # of every perceptron in a block
    pixel_mean: tuple[float, ...] = PIXEL_MEAN  # of red, green and blue from 0 to 1, subtracted
    pixel_std: tuple[float, ...] = PIXEL_STD  # divided by

    max_frames: int = 12  # T
    max_words: int = 32  # L, start and end tokens included
    fusion_layers: int = 6
    dropout: float = 0.5  # before vocabulary heads and on both sides of the matching head, nowhere else

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
        _check_types(self)
        for name, allowed in NAMED.items():
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
        if self.text_head_width == self.head_width:
            self.text_head_width = None  # one form of what is the same
        self.answers = tuple(self.answers)
        self.pixel_mean, self.pixel_std = tuple(self.pixel_mean), tuple(self.pixel_std)
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std {self.pixel_std}: must be above 0")
        if (self.use_action or self.action_only) and not self.need_object:
            raise ValueError("use_action and action_only need need_object: actions are pooled from object tokens too")
        if self.need_object and self.object_fuse == "fusion" and self.object_layer == 0:
            raise ValueError("object_fuse=fusion with object_layer=0 would have no object tokens: choose a block")

    @property
    def text_heads_width(self) -> int:
        """Width of an attention head of the text tower, the fusion encoder and the similarity headers."""
        return self.text_head_width or self.head_width

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
        """Trajectories of a clip at most, N."""
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
        """Rows of the fusion position table: enough for the longest layout, so that a checkpoint fits any."""
        return self.max_frames + 1 + self.num_trajectories + self.num_actions + self.context_length + 1


MATCHING_LOSSES = ("released", "contrastive")


@dataclass
class Behaviour:
    """Choices between what the released model or its losses do and what they intend, which is the default.

    Attributes:
        matching_norm_axis: "feature"; released "batch": the matching head normalises the text row over the batch.
        next_token_frame_positions: released False: with objects, frames have no position in the prefix-LM loss.
        action_matching_needs_objects: released True: a clip without boxes takes no part in action set prediction.
        shifted_frame_mask: released True: frame j is masked by the validity of frame j-1, and the mean by the last.
        contrastive_video_gradient: released False: the contrastive loss of pre-training reaches the text tower alone.
        choice_frames_normalised: released False: multiple choice trains on normalised frames, but scores plain ones.
        answer_head: "classifier"; released "vocabulary": an answer is its first token, among the whole vocabulary.
        same_clip_negatives: released True: another caption of a clip, or a caption that it shares with another clip,
            may be a negative (modules/true_pairs.py).
        matching_loss: "contrastive"; released "released": the squared distance of tokens and their words.
    """

    matching_norm_axis: str = "feature"
    next_token_frame_positions: bool = True
    action_matching_needs_objects: bool = False
    shifted_frame_mask: bool = False
    contrastive_video_gradient: bool = True
    choice_frames_normalised: bool = True
    answer_head: str = "classifier"
    same_clip_negatives: bool = False
    matching_loss: str = "contrastive"

    def __post_init__(self) -> None:
        _check_types(self)
        if self.matching_loss not in MATCHING_LOSSES:
            raise ValueError(f"matching_loss {self.matching_loss!r}: choose one of {', '.join(MATCHING_LOSSES)}")

    @classmethod
    def preset(cls, name: str) -> Behaviour:
        """The behaviour called `intended` or `released`; ValueError for another name."""
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
                same_clip_negatives=True,
                matching_loss="released",
            )
        raise ValueError(f"behaviour {name!r}: choose intended or released")


def _check_types(config: ModelConfig | Behaviour) -> None:
    """Raise ValueError for a value that a damaged or hostile file may have instead of a size, a switch or a name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "answers":
            is_right = isinstance(value, list | tuple) and all(type(one) is str for one in value)
        elif field.name in ("pixel_mean", "pixel_std"):
            is_right = isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_pixel_value, value))
        elif field.type == "int" or (field.name == "text_head_width" and value is not None):
            largest = MAX_LAYERS if field.name.endswith("_layers") else MAX_SIZE
            is_right = type(value) is int and 1 <= value <= largest
        elif field.type == "float":
            is_right = type(value) in (int, float) and 0 <= value < 1
        else:
            is_right = type(value).__name__ in str(field.type).replace("None", "NoneType").split(" | ")
        if not is_right:
            raise ValueError(f"{field.name} {reprlib.repr(value)}: no {field.type} that a model can have")


def _is_pixel_value(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_PIXEL_VALUE  # NaN is not


def from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """Rebuild a ModelConfig or Behaviour from a checkpoint's plain dict; ValueError for names that it does not have.

    Fields that were of the model once, and are of its training now, are left out; what `UNSTATED` names is filled in.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    values = {name: value for name, value in values.items() if name not in FORMER_SIZES}
    values = {**{name: value for name, value in UNSTATED.items() if name in known}, **values}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{cls.__name__}: unknown fields {', '.join(unknown)}; was the file written by a newer version?"
        )
    return cls(**values)
