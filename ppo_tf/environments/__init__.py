"""Vector environments by id, on every back end, with a random stream for each environment.

The code that steps them and keeps the transitions is in `collecting`.
"""
