"""Image sequences."""
