"""Meta-learners and stacks of estimators."""
