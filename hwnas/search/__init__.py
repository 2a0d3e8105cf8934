"""Who to try next: searchers, the loop that runs them, and the generic `minimize`."""
