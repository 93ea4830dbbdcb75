"""Transformer estimator for treatments of any kind."""
