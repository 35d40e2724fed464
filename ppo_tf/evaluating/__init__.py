"""How good a policy is, and how it looks: evaluations and videos on fresh environments.

What evaluates or records while a policy trains is in `callbacks`.
"""
