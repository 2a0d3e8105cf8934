"""How do networks become better than what the supernet gave them? Trained alone, or several on one stream of images."""

from hwnas.finetune.alone import finetune
from hwnas.finetune.config import FinetuneConfig, FinishConfig, relative_cost
from hwnas.finetune.together import FinetuneResult, Student, seconds_per_epoch, train_together

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "FinishConfig",
    "Student",
    "finetune",
    "relative_cost",
    "seconds_per_epoch",
    "train_together",
]
