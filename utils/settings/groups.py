"""Every flag once: a field of a dataclass with its type, default, range and help; arguments.py makes the parser.

Where the released parsers' defaults contradict every released script (`--max_frames 100` with a model built for 12,
`--coef_lr 1`, `--batch_size 256`), the default here is what the scripts pass.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


def flag(
    default: Any,
    help: str,
    choices: tuple[Any, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that is a command-line flag; `minimum` and `maximum` are allowed values."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum, "metavar": metavar}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class DataSettings:
    """Where data lie and how clips and captions become tensors."""

    datatype: str = flag("pretrain", "data set and task, e.g. pretrain, msrvtt_retrieval, msvd_caption, msrvtt_qa")
    train_csv: str = flag("data/.train.csv", "training list (csv); for pre-training the shard folder or a file in it")
    val_csv: str = flag("data/.val.csv", "evaluation list (csv)")
    data_path: str = flag("data/caption.pickle", "caption file, or folder of the data set's annotation files")
    features_path: str = flag("data/videos_feature.pickle", "folder of the videos (pre-training: of the shards)")
    val_features_path: str | None = flag(None, "pre-training: folder of the validation videos")
    val_object_path: str | None = flag(None, "pre-training: folder of the validation clips' objects")
    num_thread_reader: int = flag(1, "worker processes of each data loader; 0 reads in the main process", minimum=0)
    max_words: int = flag(32, "tokens of a caption, start and end token included", minimum=3)
    max_frames: int = flag(12, "frames per clip", minimum=1)
    feature_framerate: float = flag(1, "candidate frames per second")
    end_seconds: float | None = flag(None, "frames are taken before this second of a video; default: the whole video")
    train_frame_order: int = flag(0, "order of frames in training: 0 as is, 1 reversed, 2 shuffled", choices=(0, 1, 2))
    eval_frame_order: int = flag(0, "order of frames in evaluation: 0 as is, 1 reversed, 2 shuffled", choices=(0, 1, 2))
    slice_framepos: int = flag(2, "frames taken of a longer clip: 0 head, 1 tail, 2 evenly spread", choices=(0, 1, 2))
    expand_msrvtt_sentences: bool = flag(False, "one training item per caption instead of one per clip")
    frame_sizes: str | None = flag(None, "JSON {video id: [width, height]} for released shards, which keep no sizes")
    on_bad_video: str = flag("error", "unreadable video in evaluation", choices=("error", "skip"))
    tagger: str = flag("hanta", "part-of-speech tagger", choices=("hanta", "spacy"))
    mask_ratio: float = flag(0.15, "share of tokens masked for masked language modelling", minimum=0, maximum=1)


@dataclass
class ModelSettings:
    """The model's files, sizes and behaviour."""

    clip_archive: str = flag("data/models/clip", "OpenAI's ViT-B-16.pt, a state dict or safetensors, or its folder")
    init_model: str | None = flag(None, "checkpoint to start from, own or released")
    loose_type: bool = flag(False, "compare clips and captions by a dot product (off with tightTransf)")
    linear_patch: str = flag("2d", "patch layer over one frame or three", choices=("2d", "3d"))
    sim_header: str = flag("meanP", "similarity header", choices=("meanP", "seqLSTM", "seqTransf", "tightTransf"))
    cross_num_hidden_layers: int = flag(4, "layers of the seqTransf and tightTransf headers", minimum=1)
    fusion_layers: int | None = flag(None, "layers of the fusion encoder; default: 6", minimum=1)
    dropout: float = flag(0.5, "dropout before vocabulary heads and around the matching head", minimum=0, maximum=0.99)
    frame_dropout: float = flag(
        0.0,
        "share of training samples that show language losses and answers trajectories alone, without frames and "
        "actions, so that these are learned to be read",
        minimum=0,
        maximum=1,
    )
    behaviour: str | None = flag(
        None,
        "model behaviour; default: the checkpoint's own, intended for a new model",
        choices=("intended", "released"),
    )


@dataclass
class ObjectSettings:
    """Objects, trajectories and actions."""

    need_object: bool = flag(False, "use object files")
    use_action: bool = flag(False, "add action tokens (needs --need_object)")
    action_only: bool = flag(False, "action tokens without trajectories (needs --need_object)")
    labelmap_path: str = flag("data/object_feature/label_map.json", "label map of the object classes")
    object_path: str = flag("data/object_feature", "folder of the object files {video_id}.json")
    object_count: int = flag(10, "boxes per frame; a clip has twice as many trajectories", minimum=1)
    object_layer: int | None = flag(
        None, "visual block that objects are read at, from 1; -k: the first k blocks; 0: none; default: the last"
    )
    object_fuse: str = flag(
        "fusion", "object tokens leave the visual tower, or take part in it", choices=("fusion", "attention")
    )
    num_actions: int = flag(4, "action tokens per clip", minimum=1)
    object_rule: str = flag(
        "intended", "which boxes are kept of a frame's detections", choices=("intended", "released")
    )
    trajectory: str = flag(
        "class", "boxes of one trajectory: all of a class, or tracked over frames", choices=("class", "track")
    )
    box_coordinates: str = flag("original", "pixels of the boxes in the files", choices=("original", "crop"))
    rect_order: str = flag("xyxy", "order of a box's numbers in the files", choices=("xyxy", "xxyy"))


@dataclass
class TrainSettings:
    """Optimisation and the run itself; all that `utils.training.trainer.Trainer` reads."""

    output_dir: str = flag("", "folder for logs, checkpoints and results (required)")
    epochs: int = flag(20, "passes over the data", minimum=1)
    max_steps: int | None = flag(None, "end after this many updates; the schedule ends there too", minimum=1)
    batch_size: int = flag(8, "clips per process and update; divided by --gradient_accumulation_steps", minimum=1)
    gradient_accumulation_steps: int = flag(1, "parts in which each update's batch is computed", minimum=1)
    lr: float = flag(1e-4, "learning rate of parameters outside the groups below", minimum=0)
    coef_lr: float = flag(1e-3, "CLIP's own towers learn at lr * coef_lr", minimum=0)
    fusion_lr: float = flag(1e-5, "learning rate of fusion-named parameters", minimum=0)
    object_lr: float | None = flag(None, "learning rate of new object and action parameters; default: --lr", minimum=0)
    weight_decay: float = flag(0.2, "decoupled decay, biases excepted", minimum=0)
    warmup_proportion: float = flag(0.1, "share of all updates that is warm-up", minimum=0, maximum=1)
    schedule: str = flag(
        "warmup_cosine",
        "course of the learning rate",
        choices=("warmup_cosine", "warmup_linear", "warmup_constant"),
    )
    max_grad_norm: float = flag(1.0, "norm to which all gradients together are cut; 0: not cut", minimum=0)
    freeze_layer_num: int = flag(
        0, "CLIP blocks frozen in both towers, with all below; -1: nothing is frozen", minimum=-1
    )
    precision: str = flag(
        "auto", "arithmetic; auto: bf16 on CUDA, fp32 on CPU", choices=("auto", "fp32", "bf16", "fp16")
    )
    seed: int = flag(42, "seed of all random choices", minimum=0)
    n_display: int = flag(100, "updates between two log lines", minimum=1)
    save_every: int = flag(1000, "updates between two checkpoints, besides ends of epochs", minimum=1)
    eval_every: int = flag(500, "updates between two evaluations, besides ends of epochs", minimum=1)
    every_epochs: int = flag(1, "epochs between two ends of epoch at which is saved and evaluated", minimum=1)
    keep_checkpoints: int | None = flag(None, "newest files kept in ckpt/; default: all", minimum=1)
    tensorboard: bool = flag(False, "write TensorBoard files too")

    @property
    def micro_batch_size(self) -> int:
        """Clips per process in one forward pass."""
        return self.batch_size // self.gradient_accumulation_steps


@dataclass
class RunSettings:
    """What to do, where, and how losses are weighed."""

    do_train: bool = flag(False, "train")
    do_eval: bool = flag(False, "evaluate")
    batch_size_val: int = flag(32, "clips per process in evaluation", minimum=1)
    select_on: str = flag("val", "split that the best model is chosen on", choices=("val", "test"))
    loss_weights: dict[str, float] = flag(
        {}, "weights of named losses, e.g. vtm=1,mlm=0.5; 0 switches one off, the rest stay 1", metavar="NAME=W,..."
    )
    contrastive_weight: float = flag(1.0, "weight of the contrastive loss", minimum=0)
    contrastive_epochs: int | None = flag(
        None, "epochs with the contrastive loss; default: all, 1 in released behaviour", minimum=0
    )
    use_sim_loss: bool = flag(False, "released behaviour: contrastive loss on, in epoch 0 only")
    grad_checkpoint: bool = flag(False, "compute activations again in the backward pass to save memory")
    device: str = flag("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    local_rank: int | None = flag(None, "set by the launcher; --local-rank is the same", minimum=0)


# Flags of the released parsers that did nothing: True where a value follows.
WITHOUT_EFFECT: dict[str, bool] = {
    "do_pretrain": False,
    "lr_decay": True,
    "video_dim": True,
    "margin": True,
    "hard_negative_rate": True,
    "negative_weighting": True,
    "n_pair": True,
    "cross_model": True,
    "do_lower_case": False,
    "n_gpu": True,
    "cache_dir": True,
    "fp16": False,
    "fp16_opt_level": True,
    "task_type": True,
    "world_size": True,
    "rank": True,
    "use_mil": False,
    "sampled_use_mil": False,
    "text_num_hidden_layers": True,
    "visual_num_hidden_layers": True,
    "worker_index": True,
}

# Options of the released code that no released script uses and that are not offered: True where a value follows.
UNSUPPORTED: dict[str, bool] = {
    "phrase_fuse": True,
    "insert_attr": False,
    "attr_sim": False,
    "replace_cls": False,
    "attr_vtm": False,
    "frame_loc": False,
}
