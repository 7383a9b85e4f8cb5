"""Fine-tune and evaluate multiple choice on MSR-VTT: `python tasks/eval_mc.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.choices import ChoiceDataset, collate_choices
from dataloaders.retrieval import RetrievalTrainDataset
from modules.multiple_choice import MultipleChoiceModel
from utils.data.clips import evaluation_loader
from utils.data.retrieval import ChoiceArguments, can_rerank, has_split, open_choices, open_split
from utils.evaluation.choices import evaluate_choices
from utils.models.weights import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.evaluation.result import Evaluation
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class MultipleChoice(FineTuning):
    """Trained on MSR-VTT's retrieval pairs. With objects, the matching head weighs the scores."""

    selection_metric = "accuracy"

    def __init__(self, args: ChoiceArguments, runtime: Runtime, log: RunLog) -> None:
        model = setup_model(MultipleChoiceModel, args, log.info)
        super().__init__(args, runtime, log, model)
        self.model: MultipleChoiceModel = model
        self.use_matching = bool(args.rerank_top) and can_rerank(args, model, log.warning)
        splits = ["test"]
        splits += ["val"] if args.do_train and has_split(args, "val") and args.select_on == "val" else []
        self.choices = {name: open_choices(args, model.config, name, log.info) for name in splits}
        self.train_clips = open_split(args, model.config, "train", log.info) if args.do_train else None

    @property
    def has_validation(self) -> bool:
        return "val" in self.choices

    def train_dataset(self) -> Dataset:
        assert self.train_clips is not None
        clips = self.train_clips
        return RetrievalTrainDataset(clips.split, clips.reader, expand=self.args.expand_msrvtt_sentences)

    def evaluate(self, split: str) -> Evaluation:
        choices = self.choices[split]
        dataset = ChoiceDataset(choices.items, choices.clips.reader)
        return evaluate_choices(
            self.model,
            choices.items,
            evaluation_loader(self.args, dataset, self.runtime, collate_choices),
            self.runtime,
            precision=self.args.precision,
            on_bad_video=self.args.on_bad_video,
            use_matching=self.use_matching,
            missing=choices.clips.missing,
        )


def main(argv: list[str] | None = None) -> int:
    return run_task(MultipleChoice, ChoiceArguments, argv, __doc__, defaults={"datatype": "msrvtt_mc"})


if __name__ == "__main__":
    sys.exit(main())
