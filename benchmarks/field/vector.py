"""Gymnasium's vector environments, for libraries that take them."""

import gymnasium


def make_vector(job, **kwargs):
    """Returns the environments, in the vector class that is chosen by trial."""
    mode = job.options["vector"]
    return gymnasium.make_vec(job.env, job.num_envs, mode, vector_kwargs=kwargs or None)
