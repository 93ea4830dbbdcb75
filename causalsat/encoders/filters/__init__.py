"""Filters found by regression."""
