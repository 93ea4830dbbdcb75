"""Risk where outcomes are observed only for the tested."""
