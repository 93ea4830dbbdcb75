"""From effects to decisions: whom to treat with a budget, how large a trial must be, where the next one belongs."""

from causalsat.decisions.assignment import Assignment, assign
from causalsat.decisions.policy_map import PolicyMap, map_policy
from causalsat.decisions.policy_tree import PolicyTree
from causalsat.decisions.sites import SitePlan, next_sites
from causalsat.decisions.target import TargetingPlan, target
from causalsat.decisions.trial_power import PowerResult, power

__all__ = [
    "Assignment",
    "PolicyMap",
    "PolicyTree",
    "PowerResult",
    "SitePlan",
    "TargetingPlan",
    "assign",
    "map_policy",
    "next_sites",
    "power",
    "target",
]
