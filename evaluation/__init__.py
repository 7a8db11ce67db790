"""Score files, AUC and pAUC, comparison, ranking, figures, report."""
