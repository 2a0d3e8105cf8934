"""From random weights to a trained supernet: phases, sampling of subnets, distillation, loop, checkpoints."""

from hwnas.train.checkpoint import load_supernet, save_supernet
from hwnas.train.evaluate import scores
from hwnas.train.loop import train_supernet
from hwnas.train.phases import PhaseConfig, TrainConfig

__all__ = ["PhaseConfig", "TrainConfig", "load_supernet", "save_supernet", "scores", "train_supernet"]
