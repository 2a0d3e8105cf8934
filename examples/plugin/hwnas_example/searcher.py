"""A searcher: archs that differ in one choice from the best ones found so far."""

import numpy as np

from hwnas import Memory, SearchError, survivors


class Climb:
    """Climbs from the best archs; `Memory` knows what was asked for and told."""

    def __init__(self, problem, evaluations: int, seed: int, neighbours: int = 4) -> None:
        if neighbours < 1:
            raise SearchError(f"neighbours is {neighbours}; give at least 1")
        self.memory = Memory(problem)
        self.neighbours = neighbours
        self._rng = np.random.default_rng(seed)

    def ask(self):
        """Return new neighbours of the best archs, random ones where there are none; nothing when all was asked."""
        memory, space = self.memory, self.memory.problem.space
        genomes = np.zeros((0, len(space)), dtype=np.int64)
        if memory.complete.any():
            problem, losses = memory.problem, memory.losses
            best = survivors(losses[:, : problem.n_objectives], problem.violation(losses), self.neighbours)
            near = np.repeat(memory.genomes[best], 4, axis=0)
            column = self._rng.integers(0, len(space), len(near))
            near[np.arange(len(near)), column] = self._rng.integers(0, space.n_options[column])
            near = space.canonical(near)
            genomes = near[memory.is_new(near)][: self.neighbours]
        memory.mark_asked(genomes)
        more = memory.draw_new(self._rng, self.neighbours - len(genomes))
        memory.mark_asked(more)
        return space.decode_many(np.concatenate([genomes, more]))

    def tell(self, archs, losses) -> None:
        """Remember what the archs reached."""
        self.memory.add(archs, losses)
