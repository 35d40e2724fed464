"""From environments and a policy to trajectories and finished episodes.

What is learned from them is in `learning`.
"""
