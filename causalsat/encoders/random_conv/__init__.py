"""Random convolutional features."""
