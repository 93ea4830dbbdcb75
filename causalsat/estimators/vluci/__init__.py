"""Variational learning of unobserved confounders."""
