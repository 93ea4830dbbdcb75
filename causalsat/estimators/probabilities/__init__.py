"""Calibrated probabilities and rare outcomes."""
