"""How others write archs: once-for-all, NAS-Bench-201."""
