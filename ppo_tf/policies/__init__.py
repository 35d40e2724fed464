"""What acts: an actor with its distribution and action map, and the engines that run it quickly.

How it learns is in `learning`; how it leaves the process is in `artefacts`.
"""
