"""Virtual environments with other libraries, for the benchmarks that compare with them."""

import os
import subprocess
import venv


def make_environment(folder, packages, bare=()):
    """Creates a virtual environment with the packages, once; returns its interpreter.

    Args:
        folder: path of the environment; what an earlier call did not complete is installed.
        packages: requirements.
        bare: further requirements, installed without what they depend on and whatever Python they
            ask for.

    Raises:
        subprocess.CalledProcessError: if something can't be installed, with pip's `stderr`.
    """
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    complete = folder / "installed.txt"
    wanted = "\n".join([*packages, *bare]) + "\n"
    if python.exists() and complete.exists() and complete.read_text() == wanted:
        return python
    print(f"installing {', '.join([*packages, *bare])} into {folder}", flush=True)
    if not python.exists():
        venv.create(folder, with_pip=True)
    for names, options in ((packages, []), (bare, ["--no-deps", "--ignore-requires-python"])):
        if names:
            command = [python, "-m", "pip", "install", "--quiet", *options, *names]
            subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    complete.write_text(wanted)
    return python
