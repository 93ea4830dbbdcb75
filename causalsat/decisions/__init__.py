"""From effects to decisions: whom to treat with a budget, how large a trial must be, where the next one belongs."""

from causalsat.decisions.policy_tree import PolicyTree

__all__ = ["PolicyTree"]
