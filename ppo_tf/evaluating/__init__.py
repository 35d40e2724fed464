"""Evaluations and videos of a policy on fresh environments.

Callbacks that evaluate or record during training are in `callbacks`.
"""
