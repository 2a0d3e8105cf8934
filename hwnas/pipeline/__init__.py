"""The whole chain: a recipe becomes a run folder with a Pareto archive of real models per device."""
