"""Gaussian process effects and dose-response surfaces."""
