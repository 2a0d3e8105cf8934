"""One offline HTML file and static plots, from what a run has found. Computes nothing itself."""
