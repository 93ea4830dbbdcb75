"""Effect estimators under one contract; each in its own module."""
