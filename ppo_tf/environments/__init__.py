"""Vectors of environments by id, on every back end, with one stream of randomness each.

Who steps them and keeps the transitions is in `collecting`.
"""
