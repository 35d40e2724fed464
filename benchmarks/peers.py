"""Virtual environments with other libraries, for the benchmarks that compare with them."""

import os
import subprocess
import venv


def make_environment(folder, packages):
    """Creates a virtual environment with the packages, once; returns its interpreter."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        print(f"installing {', '.join(packages)} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python
