"""What a run has found, in the files of other tools: made from the archive, at any time, also while the run goes on."""
