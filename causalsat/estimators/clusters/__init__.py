"""Latent clusters of images with similar effects."""
