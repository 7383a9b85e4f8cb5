"""The settings that belong to no lower floor, each declared once; utils/settings/fields.py makes them flags.

Where the released parsers' defaults contradict every released script (`--max_frames 100` with a model built for 12,
`--coef_lr 1`, `--batch_size 256`), the default here is what the scripts pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataloaders.frame_cache import FrameCacheSettings
from dataloaders.frames import FrameSettings
from dataloaders.object_records import ObjectRules
from dataloaders.samples import SampleChoices
from modules.config import ModelChoices, ModelConfig, check_settings, setting
from utils.settings.fields import group

HUB_PREFIX = "hf-hub:"  # a file of weights that is named so is fetched from the Hugging Face hub


@dataclass
class ComputeSettings:
    """Where and how exactly to compute."""

    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    precision: str = setting(
        "auto",
        "arithmetic; auto: bf16 on CUDA, fp32 on CPU (tasks/predict.py: bf16 where the CPU has it)",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    seed: int = setting(42, "seed of all random choices", minimum=0)


@dataclass
class ReadSettings(ComputeSettings):
    """Reading clips, in training, evaluation and use."""

    num_thread_reader: int = setting(1, "worker processes of each data loader; 0 reads in the main process", minimum=0)
    batch_size_val: int = setting(32, "clips per process in evaluation", minimum=1)
    on_bad_video: str = setting("error", "unreadable video in evaluation", choices=("error", "skip"))


@dataclass
class UseSettings(ReadSettings):
    """Weights, objects and words: what training a model and using a trained one have in common.

    Its groups are declared where they act: which frames, how samples are made, which boxes, and the model.
    """

    clip_archive: str = setting(
        "data/models/clip",
        "CLIP weights: file or folder of OpenAI, open_clip, Hugging Face or CLIP4Clip, or hf-hub:OWNER/NAME[@REVISION]",
        seen=True,
    )
    clip_model: str | None = setting(
        None, "name in open_clip's table of CLIP weights that come without a configuration, e.g. ViT-B-16"
    )
    init_model: str | None = setting(
        None, "checkpoint to start from, own, exported or released, or hf-hub:OWNER/NAME[@REVISION]"
    )
    behaviour: str | None = setting(
        None,
        "model behaviour; default: the checkpoint's own, intended for a new model",
        choices=("intended", "released"),
    )
    labelmap_path: str = setting("data/object_feature/label_map.json", "label map of the object classes", seen=True)
    object_path: str = setting("data/object_feature", "folder of the object files {video_id}.json")
    tagger: str = setting("hanta", "part-of-speech tagger", choices=("hanta", "spacy"), seen=True)
    frames: FrameSettings = group(FrameSettings)
    cache: FrameCacheSettings = group(FrameCacheSettings)
    samples: SampleChoices = group(SampleChoices)
    objects: ObjectRules = group(ObjectRules)
    model: ModelChoices = group(ModelChoices)

    def __post_init__(self) -> None:
        check_settings(self)

    def follow(self, config: ModelConfig) -> None:
        """Take sizes and parts of the model that has been built for what the weight file decided."""
        self.model = ModelChoices.of(config)


@dataclass
class DataSettings:
    """Where data lie."""

    datatype: str = setting("pretrain", "data set and task, e.g. pretrain, msrvtt_retrieval, msvd_qa; csv: your own")
    train_csv: str = setting(
        "data/.train.csv", "training list or table (csv); for pre-training the shard folder or a file in it"
    )
    val_csv: str = setting("data/.val.csv", "evaluation list or table (csv)")
    data_path: str = setting("data/caption.pickle", "caption file, or folder of the data set's annotation files")
    features_path: str = setting("data/videos_feature.pickle", "folder of the videos (pre-training: of the shards)")
    val_features_path: str | None = setting(None, "pre-training: folder of the validation videos")
    val_object_path: str | None = setting(None, "pre-training: folder of the validation clips' objects")
    expand_msrvtt_sentences: bool = setting(False, "one training item per caption instead of one per clip")
    frame_sizes: str | None = setting(None, "sizes of videos of released shards: JSON {id: [width, height]}, or csv")


@dataclass
class TrainSettings(ComputeSettings):
    """Optimisation and the run itself; all that `utils.training.trainer.Trainer` reads."""

    output_dir: str = setting("", "folder for logs, checkpoints and results (required)")
    init_heads: str | None = setting(
        None, "own checkpoint that gives the heads which --init_model lacks, e.g. the pre-trained model's"
    )
    epochs: int = setting(20, "passes over the data", minimum=1)
    max_steps: int | None = setting(None, "end after this many updates; the schedule ends there too", minimum=1)
    batch_size: int = setting(8, "clips per process and update; divided by --gradient_accumulation_steps", minimum=1)
    gradient_accumulation_steps: int = setting(1, "parts in which each update's batch is computed", minimum=1)
    lr: float = setting(1e-4, "learning rate of parameters outside the groups below", minimum=0)
    coef_lr: float = setting(1e-3, "CLIP's own towers learn at lr * coef_lr", minimum=0)
    fusion_lr: float = setting(1e-5, "learning rate of fusion-named parameters", minimum=0)
    object_lr: float | None = setting(
        None, "learning rate of new object and action parameters; default: --lr", minimum=0
    )
    action_lr: float | None = setting(
        None, "learning rate of the whole action encoder; default: --fusion_lr, its queries --object_lr", minimum=0
    )
    weight_decay: float = setting(0.2, "decoupled decay, biases excepted", minimum=0)
    warmup_proportion: float = setting(0.1, "share of all updates that is warm-up", minimum=0, maximum=1)
    schedule: str = setting(
        "warmup_cosine",
        "course of the learning rate",
        choices=("warmup_cosine", "warmup_linear", "warmup_constant"),
    )
    max_grad_norm: float = setting(1.0, "norm to which all gradients together are cut; 0: not cut", minimum=0)
    frame_dropout: float = setting(
        0.0,
        "share of training samples that show language losses and answers trajectories alone, without frames and "
        "actions, so that these are learned to be read",
        minimum=0,
        maximum=1,
    )
    freeze_layer_num: int = setting(
        0, "CLIP blocks frozen in both towers, with all below; -1: nothing is frozen", minimum=-1
    )
    n_display: int = setting(100, "updates between two log lines", minimum=1)
    save_every: int = setting(1000, "updates between two checkpoints, besides ends of epochs", minimum=1)
    eval_every: int = setting(500, "updates between two evaluations, besides ends of epochs", minimum=1)
    every_epochs: int = setting(1, "epochs between two ends of epoch at which is saved and evaluated", minimum=1)
    keep_checkpoints: int | None = setting(None, "newest files kept in ckpt/; default: all", minimum=1)
    tensorboard: bool = setting(False, "write TensorBoard files too")

    @property
    def micro_batch_size(self) -> int:
        """Clips per process in one forward pass."""
        return self.batch_size // self.gradient_accumulation_steps


@dataclass
class RunSettings:
    """What to do, where, and how losses are weighed."""

    do_train: bool = setting(False, "train")
    do_eval: bool = setting(False, "evaluate")
    select_on: str = setting("val", "split that the best model is chosen on", choices=("val", "test"))
    loss_weights: dict[str, float] = setting(
        {},
        "weights of named losses, e.g. vtm=1,mlm=0.5; 0 switches one off, the rest stay 1",
        minimum=0,
        metavar="NAME=W,...",
    )
    contrastive_weight: float = setting(1.0, "weight of the contrastive loss", minimum=0)
    contrastive_epochs: int | None = setting(
        None, "epochs with the contrastive loss; default: all, 1 in released behaviour", minimum=0
    )
    use_sim_loss: bool = setting(False, "released behaviour: contrastive loss on, in epoch 0 only")
    loose_type: bool = setting(False, "compare clips and captions by a dot product (off with tightTransf)")
    grad_checkpoint: bool = setting(False, "compute activations again in the backward pass to save memory")
    local_rank: int | None = setting(None, "set by the launcher; --local-rank is the same", minimum=0)


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
