"""Define a search space, look at its size, and walk in it."""

import numpy as np

import hwnas


def main(n_archs: int = 3, seed: int = 0) -> list[hwnas.Arch]:
    """Print the size of a supernet's space and a few archs of it."""
    recipe = hwnas.load_recipe("digits-mbv3")
    supernet = hwnas.build_supernet(recipe.supernet)
    space = supernet.space
    print(f"{space.size:,} archs in {len(space)} choices")

    rng = np.random.default_rng(seed)
    archs = space.sample(rng, n_archs)
    for arch in archs:
        text = hwnas.format_ofa(arch, space)  # the notation of once-for-all
        print(arch.key, text)
        assert hwnas.parse_ofa(text, space) == arch

    small = space.where(kernel_size=[3], depth=[1])
    print(f"{small.size:,} of them have one block a stage and 3x3 kernels")
    return archs


if __name__ == "__main__":
    main()
