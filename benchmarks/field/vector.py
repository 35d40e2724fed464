"""Gymnasium's vector environments, for libraries that take them."""

import gymnasium


def make_vector(job, **kwargs):
    """Returns the environments in this process or, by trial, in processes of their own."""
    mode = "async" if job.options["subprocesses"] else "sync"
    return gymnasium.make_vec(
        job.env, job.num_envs, vectorization_mode=mode, vector_kwargs=kwargs or None
    )
