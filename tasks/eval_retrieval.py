"""Fine-tune and evaluate text-video retrieval: `python tasks/eval_retrieval.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.retrieval import RetrievalTrainDataset, VideoDataset
from modules.retrieval import RetrievalModel
from utils.data.clips import evaluation_loader
from utils.data.retrieval import RetrievalArguments, can_rerank, has_split, open_split
from utils.evaluation.retrieval import evaluate_retrieval
from utils.evaluation.retrieval_report import describe
from utils.models.weights import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.evaluation.result import Evaluation
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class Retrieval(FineTuning):
    """Fine-tuning on one data set; the second stage re-ranks where the matching head has been trained."""

    selection_metric = "t2v_R1"

    def __init__(self, args: RetrievalArguments, runtime: Runtime, log: RunLog) -> None:
        model = setup_model(RetrievalModel, args, log.info)
        super().__init__(args, runtime, log, model)
        self.settings = args.evaluation_settings(can_rerank=can_rerank(args, model, log.warning))
        splits = ["test"] + (["train"] if args.do_train else [])
        splits += ["val"] if args.do_train and has_split(args, "val") and args.select_on == "val" else []
        self.clips = {name: open_split(args, model.config, name, log.info) for name in splits}

    @property
    def has_validation(self) -> bool:
        return "val" in self.clips

    def train_dataset(self) -> Dataset:
        clips = self.clips["train"]
        return RetrievalTrainDataset(clips.split, clips.reader, expand=self.args.expand_msrvtt_sentences)

    def evaluate(self, split: str) -> Evaluation:
        clips = self.clips[split]
        batches = evaluation_loader(self.args, VideoDataset(clips.split.video_ids, clips.reader), self.runtime)
        result = evaluate_retrieval(self.model, clips.split, batches, self.runtime, self.settings)
        return describe(result, clips.missing)


def main(argv: list[str] | None = None) -> int:
    return run_task(Retrieval, RetrievalArguments, argv, __doc__, defaults={"datatype": "msrvtt_retrieval"})


if __name__ == "__main__":
    sys.exit(main())
