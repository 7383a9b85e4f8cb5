"""Fine-tune and evaluate captioning: `python tasks/eval_captioning.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.captions import CaptionTrainDataset
from dataloaders.retrieval import VideoDataset
from modules.objectives.captions import Captions
from modules.tasks.captioning import CaptionModel
from utils.data.captions import CaptionArguments, has_validation, open_split
from utils.data.clips import evaluation_loader, training_pairs
from utils.evaluation.captions import generate_captions, score_captions
from utils.evaluation.loop import with_missing
from utils.evaluation.result import Evaluation
from utils.models.setup import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class Captioning(FineTuning):
    """Trained on every caption, chosen by CIDEr. The contrastive loss is added on MSR-VTT, as released."""

    selection_metric = "CIDEr"
    heads = ("vocabulary",)
    model_class: type[CaptionModel] = CaptionModel

    def __init__(self, args: CaptionArguments, runtime: Runtime, log: RunLog) -> None:
        model = setup_model(self.model_class, args, log.info, heads=args.init_heads)
        super().__init__(args, runtime, log, model)
        self.args: CaptionArguments = args
        self.model: CaptionModel = model
        model.objective(Captions).label_smoothing = args.label_smoothing
        self.search = args.search_settings(model.config)
        open_one = partial(open_split, args, model.config, log=log.info)
        self.open_splits(open_one, has_validation=has_validation(args))

    def loss_weights(self) -> dict[str, float]:
        """As `FineTuning`, but beyond MSR-VTT the contrastive loss only where --loss_weights names it."""
        weights = super().loss_weights()
        if self.args.data_set != "msrvtt" and "contrastive" not in self.args.loss_weights:
            weights["contrastive"] = 0.0
        return weights

    def train_dataset(self) -> Dataset:
        """Every caption of the training videos, or one per video drawn anew in each epoch."""
        return training_pairs(self.args, self.splits["train"], CaptionTrainDataset)

    def evaluate(self, split: str) -> Evaluation:
        """Caption a split's videos and score the captions; those of the test split under both protocols."""
        clips, args = self.splits[split], self.args
        batches = evaluation_loader(args, VideoDataset(clips.split.video_ids, clips.reader), self.runtime)
        captions, bad = generate_captions(self.model, batches, self.runtime, self.search, args)
        return score_captions(
            captions,
            clips.split,
            with_missing(clips.missing, bad),
            self.runtime,
            max_words=self.model.config.max_words,
            both_protocols=split == "test",
            timeout=args.metric_timeout,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit status."""
    return run_task(Captioning, CaptionArguments, argv, __doc__, defaults={"datatype": "msrvtt_caption"})


if __name__ == "__main__":
    sys.exit(main())
