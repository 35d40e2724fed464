"""Keras callbacks for `fit`: log files, trackers, progress, advice, evaluation and videos.

The loop that calls them is in `training`.
"""
