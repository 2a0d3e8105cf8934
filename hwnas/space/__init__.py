"""What can be chosen: choices, search spaces and archs (NumPy only, no torch)."""

from hwnas.space.arch import Arch, check_key
from hwnas.space.choice import Choice, Option
from hwnas.space.space import SearchSpace

__all__ = ["Arch", "Choice", "Option", "SearchSpace", "check_key"]
