"""One measurement of benchmarks/speed.py, in a separate process: prints a line of JSON."""

import importlib
import json
import os
import resource
import sys

from field.job import Clock, Job


def peak_mb():
    """Returns the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Runs the job given as JSON."""
    settings = json.loads(sys.argv[1])
    adapter = settings.pop("adapter")
    job, clock = Job(**settings), Clock()
    if "threads" in job.options:
        os.environ["OMP_NUM_THREADS"] = str(job.options["threads"])  # PyTorch
        if job.options["threads"] == 1:  # JAX
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    found = importlib.import_module(f"field.{adapter}").train(job, clock) or {}
    print(json.dumps({"steps_per_second": clock.rate(job), "peak_mb": peak_mb()} | found))


if __name__ == "__main__":
    main()
