"""Bayesian linear effects."""
