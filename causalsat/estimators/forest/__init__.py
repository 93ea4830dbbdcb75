"""Bayesian causal forest."""
