"""Update rules, one file each: how policy and critic improve on a batch of experience.

The learner around a rule computes what the acting weights know, undoes an update that goes bad, and
reports what it did to the policy; see `rule.UpdateRule` for what a rule gets and returns.
"""
