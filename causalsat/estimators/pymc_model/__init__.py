"""A user's own PyMC model as an effect estimator."""
