"""From effects to decisions: whom to treat with a budget, how large a trial must be, where the next one belongs."""

from causalsat.decisions.policy_map import PolicyMap, map_policy
from causalsat.decisions.policy_tree import PolicyTree
from causalsat.decisions.target import TargetingPlan, target

__all__ = ["PolicyMap", "PolicyTree", "TargetingPlan", "map_policy", "target"]
