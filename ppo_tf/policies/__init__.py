"""Policies: an actor with its distribution and action map, and the engines that run it quickly.

Learning is in `learning`, exporting in `artefacts`.
"""
