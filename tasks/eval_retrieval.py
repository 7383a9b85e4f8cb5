"""Fine-tune and evaluate text-video retrieval: `python tasks/eval_retrieval.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.retrieval import VideoDataset
from modules.tasks.retrieval import CaptionRankedModel, RetrievalModel
from utils.data.clips import evaluation_loader, training_pairs
from utils.data.retrieval import RetrievalArguments, has_validation, open_split, ranking_of
from utils.evaluation.result import Evaluation
from utils.evaluation.retrieval import CAPTION, evaluate_retrieval
from utils.evaluation.retrieval_report import describe
from utils.models.setup import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class Retrieval(FineTuning):
    """Fine-tuning on one data set; the second stage re-ranks where what it reads has been trained.

    Attributes:
        caption_ranked_class: `model_class` of `--rerank_by caption`.
    """

    selection_metric = "t2v_R1"
    model_class: type[RetrievalModel] = RetrievalModel
    caption_ranked_class: type[CaptionRankedModel] = CaptionRankedModel

    def __init__(self, args: RetrievalArguments, runtime: Runtime, log: RunLog) -> None:
        kind = self.caption_ranked_class if args.ranking.rerank_by == CAPTION else self.model_class
        model = setup_model(kind, args, log.info, heads=args.init_heads)
        super().__init__(args, runtime, log, model)
        self.args: RetrievalArguments = args
        self.ranking = ranking_of(args, model, log.warning)
        open_one = partial(open_split, args, model.config, log=log.info)
        self.open_splits(open_one, has_validation=has_validation(args))

    def train_dataset(self) -> Dataset:
        """Text-video pairs: every caption, or one per video drawn anew in each epoch."""
        return training_pairs(self.args, self.splits["train"])

    def evaluate(self, split: str) -> Evaluation:
        """Rank a split's videos by its texts, and its texts by its videos."""
        clips = self.splits[split]
        batches = evaluation_loader(self.args, VideoDataset(clips.split.video_ids, clips.reader), self.runtime)
        result = evaluate_retrieval(self.model, clips.split, batches, self.runtime, self.args, self.ranking)
        return describe(result, clips.missing)


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit status."""
    return run_task(Retrieval, RetrievalArguments, argv, __doc__, defaults={"datatype": "msrvtt_retrieval"})


if __name__ == "__main__":
    sys.exit(main())
