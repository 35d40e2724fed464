"""Training speed, side by side with other libraries: the tables of benchmarks/README.md.

    python benchmarks/speed.py                # ppo_tf against eleven other libraries
    python benchmarks/speed.py --cases "CartPole-v1 8 x 128" --libraries SBX skrl
    python benchmarks/speed.py --report       # only prints the tables of the CSV file
    python benchmarks/speed.py --scaling      # how ppo_tf grows with environments, steps, networks

Every measurement is a separate process: it makes the environments, trains until everything is
compiled, then times whole iterations. Libraries take turns, so that a slow moment of the machine
hits them all. Each library runs in a virtual environment that this script makes (--peers says
where), with the options of benchmarks/field/libraries.py that are fastest for it in each case. What
can't be installed or run is in the table with its error.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from field.libraries import LIBRARIES
from field.table import print_case
from peers import make_environment

HERE = Path(__file__).resolve().parent
WORKER = HERE / "speed_worker.py"
RESULTS = HERE / "results" / "speed.csv"
TIMEOUT = 1200  # seconds for a measurement

# name: environment, number of environments, horizon, epochs, minibatch size, timed iterations
CASES = {
    "CartPole-v1 8 x 128": ("CartPole-v1", 8, 128, 4, 256, 30),
    "CartPole-v1 64 x 128": ("CartPole-v1", 64, 128, 4, 1024, 12),
    "Pendulum-v1 1 x 2048": ("Pendulum-v1", 1, 2048, 10, 64, 5),
    "Pendulum-v1 4 x 1024": ("Pendulum-v1", 4, 1024, 10, 64, 4),
    "Acrobot-v1 8 x 256": ("Acrobot-v1", 8, 256, 4, 256, 12),
    "HalfCheetah-v5 16 x 128": ("HalfCheetah-v5", 16, 128, 10, 64, 8),
}
FIELD = ("CartPole-v1 8 x 128", "Pendulum-v1 4 x 1024", "Acrobot-v1 8 x 256",
         "HalfCheetah-v5 16 x 128")  # fmt: skip
COLUMNS = ["case", "library", "repeat", "steps_per_second", "peak_mb", "first_update_s"]
COLUMNS += ["environment", "acting", "bookkeeping", "update", "options", "error"]


def measure(python, adapter, env, num_envs, horizon, epochs, minibatch, iterations, options):
    """Measures in a process.

    Returns:
        What the worker found (steps_per_second, peak_mb, ...), or {"error": its last line}.
    """
    job = {
        "adapter": adapter,
        "library": adapter,
        "env": env,
        "num_envs": num_envs,
        "horizon": horizon,
        "epochs": epochs,
        "minibatch": minibatch,
        "iterations": iterations,
        "started": time.time(),
        "options": options,
    }
    command = [python, WORKER, json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT} s"}
    if done.returncode:
        return {"error": last_line(done.stderr) or f"ended with code {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def last_line(text):
    """Returns the last line that says an error, or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]]
    return (errors or lines or [""])[-1][:300]


def interpreter(name, folder):
    """Returns the interpreter of a library's virtual environment, and an error or None."""
    library = LIBRARIES[name]
    if not library.packages:
        return sys.executable, None
    try:
        return make_environment(folder / library.adapter, library.packages, library.bare), None
    except subprocess.CalledProcessError as error:
        return None, last_line(error.stderr)


def best_options(python, name, case):
    """Tries options in shorter runs, one after the other, and keeps what is faster.

    Returns:
        The options, and the error if no run succeeded, else None.
    """
    library, (env, *sizes, iterations) = LIBRARIES[name], case
    trial = library.trial_in(env)
    options = {option: values[0] for option, values in trial.items()} | library.fixed

    def attempt(options):
        found = measure(python, library.adapter, env, *sizes, max(iterations // 2, 2), options)
        print(f"  trial: {name} {json.dumps(options)}: {outcome(found)}", flush=True)
        return found

    best = attempt(options) if trial else {}
    if best.get("error", "").startswith("NotImplementedError"):
        trial = {}  # no option helps
    for option, values in trial.items():
        for value in values[1:]:
            found = attempt(options | {option: value})
            if found.get("steps_per_second", 0.0) > best.get("steps_per_second", 0.0):
                options, best = options | {option: value}, found
    return options, best.get("error")


def outcome(found):
    """Returns the text of a measurement: its rate or its error."""
    return found.get("error") or f"{found['steps_per_second']:,.0f} steps/s"


def compare(args):
    """Runs the cases with all libraries in turn, writes the CSV and prints the tables.

    Rows of other cases that the CSV file has already stay.
    """
    out = args.out or RESULTS
    kept = [row for row in read(out) if row["case"] not in args.cases] if out.exists() else []
    rows = []
    pythons = {name: interpreter(name, args.peers) for name in args.libraries}
    for case in args.cases:
        print(f"\n{case}", flush=True)
        ready = {}
        for name, (python, error) in pythons.items():
            options, error = ({}, error) if error else best_options(python, name, CASES[case])
            if error:
                rows.append({"case": case, "library": name, "repeat": 0, "error": error})
                print(f"  {name}: {error}", flush=True)
            else:
                ready[name] = options
        for repeat in range(args.repeats):
            for name, options in ready.items():
                adapter = LIBRARIES[name].adapter
                found = measure(pythons[name][0], adapter, *CASES[case], options)
                chosen = json.dumps(options | found.pop("engines", {}))
                row = {"case": case, "library": name, "repeat": repeat, "options": chosen}
                rows.append(row | {k: v for k, v in found.items() if k in COLUMNS})
                print(f"  {name} {repeat}: {outcome(found)}", flush=True)
                write(out, COLUMNS, kept + rows)
        print_case([row for row in rows if row["case"] == case])
    write(out, COLUMNS, kept + rows)
    print(f"wrote {out}")


def report(args):
    """Prints the tables of a CSV file."""
    rows = read(args.out or RESULTS)
    for case in dict.fromkeys(row["case"] for row in rows):
        print_case([row for row in rows if row["case"] == case])


def scaling(args):
    """Measures how time per step and memory of ppo_tf grow."""
    cases = [("environments", n, ("CartPole-v1", n, 128, 4, n * 32, 10), {}) for n in
             (1, 4, 16, 64, 256)]  # fmt: skip
    cases += [("steps", 1024 * its, ("CartPole-v1", 8, 128, 4, 256, its), {}) for its in
              (10, 98, 977)]  # fmt: skip
    cases += [
        ("hidden units", size, ("Pendulum-v1", 8, 256, 10, 128, 5 if size < 512 else 2),
         {"hidden_sizes": [size, size]})
        for size in (64, 128, 256, 512, 1024)
    ]  # fmt: skip
    rows = []
    for what, value, case, options in cases:
        result = measure(sys.executable, "ppo_tf", *case, options | {"envpool": True})
        if "error" in result:
            sys.exit(f"error: {what} {value}: {result['error']}")
        row = {"grows": what, "value": value, "env": case[0]}
        row["us_per_step"] = round(1e6 / result["steps_per_second"], 2)
        row["peak_mb"] = round(result["peak_mb"])
        row["update_gflop_per_s"] = round(result["update_flops"] / 1e9, 1)
        row["matmul_gflop_per_s"] = round(result["matmul_flops"] / 1e9, 1)
        print(row, flush=True)
        rows.append(row)
    write(args.out or HERE / "results" / "scaling.csv", list(rows[0]), rows)


def read(path):
    """Returns the rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path, columns, rows):
    """Writes a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    """Parses the arguments and runs the comparison, its report or the scaling."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scaling", action="store_true", help="ppo_tf over sizes")
    parser.add_argument("--report", action="store_true", help="only print the CSV file's tables")
    text = f"some cases only (default: {', '.join(FIELD)})"
    parser.add_argument("--cases", nargs="+", choices=CASES, default=FIELD, help=text)
    text = "some libraries only (default: all)"
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES, help=text)
    parser.add_argument("--repeats", type=int, default=5, help="of each case (default: 5)")
    default = HERE / ".peers"
    parser.add_argument("--peers", type=Path, default=default, help=f"folder (default: {default})")
    parser.add_argument("--out", type=Path, help="CSV file (default: in benchmarks/results)")
    args = parser.parse_args()
    run = scaling if args.scaling else report if args.report else compare
    run(args)


if __name__ == "__main__":
    main()
