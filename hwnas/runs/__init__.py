"""Recipe to run folder: every step once, then kept."""
