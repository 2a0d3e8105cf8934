"""One value per arch and objective. Importing this package does not import torch; the files that need it do."""

from hwnas.objectives.objective import Objective, as_losses, as_values

__all__ = ["Objective", "as_losses", "as_values"]
