"""Folds, nuisances, scores, chains: statistics on arrays that several estimators share."""
