"""Update rules, one file each: how policy and critic improve on a batch of experience.

The learner around a rule computes what needs the weights that acted, undoes an update that goes
wrong, and measures the change of the policy; see `rule.UpdateRule` for what a rule gets and
returns.
"""
