"""Fine-tune and evaluate multiple choice: `python tasks/eval_mc.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from torch.utils.data import Dataset

from dataloaders.choices import ChoiceDataset, collate_choices
from modules.tasks.multiple_choice import MultipleChoiceModel
from utils.data.clips import SplitClips, evaluation_loader, training_pairs
from utils.data.retrieval import ChoiceArguments, Choices, has_validation, open_choices, open_split, ranking_of
from utils.evaluation.choices import evaluate_choices
from utils.evaluation.result import Evaluation
from utils.models.setup import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.training.fine_tuning import FineTuning
from utils.training.task_main import run_task


class MultipleChoice(FineTuning):
    """Trained on pairs of clip and caption. With objects, the matching head weighs the scores."""

    selection_metric = "accuracy"
    model_class: type[MultipleChoiceModel] = MultipleChoiceModel

    def __init__(self, args: ChoiceArguments, runtime: Runtime, log: RunLog) -> None:
        model = setup_model(self.model_class, args, log.info, heads=args.init_heads)
        super().__init__(args, runtime, log, model)
        self.args: ChoiceArguments = args
        self.model: MultipleChoiceModel = model
        self.use_matching = bool(ranking_of(args, model, log.warning).rerank_top)

        def open_one(name: str) -> SplitClips | Choices:
            return (open_split if name == "train" else open_choices)(args, model.config, name, log.info)

        self.open_splits(open_one, has_validation=has_validation(args))

    def train_dataset(self) -> Dataset:
        """Text-video pairs: every caption, or one per video drawn anew in each epoch."""
        return training_pairs(self.args, self.splits["train"])

    def evaluate(self, split: str) -> Evaluation:
        """Answer a split's questions and compare."""
        choices = self.splits[split]
        dataset = ChoiceDataset(choices.items, choices.clips.reader)
        return evaluate_choices(
            self.model,
            choices.items,
            evaluation_loader(self.args, dataset, self.runtime, collate_choices),
            self.runtime,
            self.args,
            use_matching=self.use_matching,
            missing=choices.clips.missing,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit status."""
    return run_task(MultipleChoice, ChoiceArguments, argv, __doc__, defaults={"datatype": "msrvtt_mc"})


if __name__ == "__main__":
    sys.exit(main())
