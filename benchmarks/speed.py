"""Training speed, side by side with other libraries: the tables of benchmarks/README.md.

    python benchmarks/speed.py                # ppo_tf against Stable-Baselines3, SBX and CleanRL
    python benchmarks/speed.py --scaling      # how ppo_tf grows with environments, steps, networks

Every measurement is a separate process: it makes the environments, trains until everything is
compiled, then times whole iterations. Libraries take turns, so that a slow moment of the machine
hits them all. Peers run in a virtual environment that this script creates (--peers says where),
with the thread count and vector class that are fastest for them in each case.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from peers import make_environment

HERE = Path(__file__).resolve().parent
WORKER = HERE / "speed_worker.py"
PEER_PACKAGES = ["stable-baselines3==2.9.*", "sbx-rl==0.28.*", "gymnasium[mujoco]", "mujoco<3.13"]
PEER_PACKAGES += ["tyro"]  # CleanRL's command line
# CleanRL is single files to copy, not a library: its repository, at the commit that was measured.
CLEANRL = "https://raw.githubusercontent.com/vwxyzjn/cleanrl/fe8d8a03/cleanrl/"
CLEANRL_FILES = ("ppo.py", "ppo_continuous_action.py")

# name: environment, number of environments, horizon, epochs, minibatch size, timed iterations
CASES = {
    "CartPole-v1 8 x 128": ("CartPole-v1", 8, 128, 4, 256, 30),
    "CartPole-v1 64 x 128": ("CartPole-v1", 64, 128, 4, 1024, 12),
    "Pendulum-v1 1 x 2048": ("Pendulum-v1", 1, 2048, 10, 64, 5),
    "Pendulum-v1 4 x 1024": ("Pendulum-v1", 4, 1024, 10, 64, 4),
    "HalfCheetah-v5 16 x 128": ("HalfCheetah-v5", 16, 128, 10, 64, 8),
}
PEERS = ("sb3", "sbx", "cleanrl")
LIBRARIES = ("ppo_tf", *PEERS, "random")  # random: only stepping, with ppo_tf's back end
COLUMNS = ["case", "library", "repeat", "steps_per_second", "peak_mb", "first_update_s"]
COLUMNS += ["environment", "acting", "bookkeeping", "update", "options"]


def measure(python, library, env, num_envs, horizon, epochs, minibatch, iterations, **options):
    """Measures in a process; returns steps/s, memory, time to the first update and shares."""
    job = {
        "library": library,
        "env": env,
        "num_envs": num_envs,
        "horizon": horizon,
        "epochs": epochs,
        "minibatch": minibatch,
        "iterations": iterations,
        "started": time.time(),
        **options,
    }
    done = subprocess.run(
        [python, WORKER, json.dumps(job)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{library} on {env} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_peers(folder):
    """Creates a virtual environment with the peers; returns its interpreter."""
    python = make_environment(folder, PEER_PACKAGES)
    for name in CLEANRL_FILES:
        path = folder / "cleanrl" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            urllib.request.urlretrieve(CLEANRL + name, path)
    return python


def best_options(python, library, case):
    """Returns the peer's fastest options in this case, by one shorter run of each."""
    env, *sizes, iterations = case
    choices = [{"threads": 1, "subprocesses": False}, {"threads": 2, "subprocesses": False}]
    if (
        env.startswith("HalfCheetah") and library != "cleanrl"
    ):  # elsewhere a step costs less than waking a process
        choices += [{"threads": 1, "subprocesses": True}, {"threads": 2, "subprocesses": True}]
    rates = []
    for options in choices:
        result = measure(python, library, env, *sizes, max(iterations // 2, 2), **options)
        rates.append(result["steps_per_second"])
    return choices[rates.index(max(rates))]


def compare(args):
    """Runs all cases with all libraries in turn, writes the CSV and prints the table."""
    peers = make_peers(args.peers)
    rows = []
    for name in args.cases or CASES:
        case = CASES[name]
        options = {lib: best_options(peers, lib, case) for lib in PEERS}
        for repeat in range(args.repeats):
            for library in LIBRARIES:
                python = peers if library in options else sys.executable
                result = measure(python, library, *case, **options.get(library, {}))
                chosen = json.dumps(options.get(library, result.get("engines", {})))
                row = {"case": name, "library": library, "repeat": repeat, "options": chosen}
                rows.append(row | {k: v for k, v in result.items() if k in COLUMNS})
        show([row for row in rows if row["case"] == name])
    write(args.out or HERE / "results" / "speed.csv", COLUMNS, rows)


def show(rows):
    """Prints one case: medians, and ratios of ppo_tf to the others, repeat by repeat."""
    groups = {lib: [r for r in rows if r["library"] == lib] for lib in LIBRARIES}
    ours = [r["steps_per_second"] for r in groups["ppo_tf"]]
    print(f"\n{rows[0]['case']}")
    for library, group in groups.items():
        rates = [r["steps_per_second"] for r in group]
        ratios = [a / b for a, b in zip(ours, rates, strict=True)]
        print(
            f"  {library:7} {statistics.median(rates):9,.0f} steps/s "
            f"({min(rates):,.0f} to {max(rates):,.0f})  ppo_tf is {statistics.median(ratios):.2f} "
            f"times as fast ({min(ratios):.2f} to {max(ratios):.2f})  "
            f"{statistics.median(r['peak_mb'] for r in group):.0f} MB  {group[0]['options']}"
        )
    parts = ("environment", "acting", "bookkeeping", "update")
    shares = {p: statistics.median(r[p] for r in groups["ppo_tf"]) for p in parts}
    first = statistics.median(r["first_update_s"] for r in groups["ppo_tf"])
    print("  ppo_tf: " + ", ".join(f"{p} {share:.0%}" for p, share in shares.items()), end="")
    print(f"; first update done {first:.1f} s after process start", flush=True)


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
        result = measure(sys.executable, "ppo_tf", *case, **options)
        row = {"grows": what, "value": value, "env": case[0]}
        row["us_per_step"] = round(1e6 / result["steps_per_second"], 2)
        row["peak_mb"] = round(result["peak_mb"])
        row["update_gflop_per_s"] = round(result["update_flops"] / 1e9, 1)
        row["matmul_gflop_per_s"] = round(result["matmul_flops"] / 1e9, 1)
        print(row, flush=True)
        rows.append(row)
    write(args.out or HERE / "results" / "scaling.csv", list(rows[0]), rows)


def write(path, columns, rows):
    """Writes a CSV file and says where."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def main():
    """Parses the arguments and runs the comparison or the scaling."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scaling", action="store_true", help="ppo_tf over sizes")
    parser.add_argument("--cases", nargs="*", choices=CASES, help="some cases only (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="of each case (default: 5)")
    default = HERE / ".peers"
    parser.add_argument("--peers", type=Path, default=default, help=f"folder (default: {default})")
    parser.add_argument("--out", type=Path, help="CSV file (default: in benchmarks/results)")
    args = parser.parse_args()
    run = scaling if args.scaling else compare
    run(args)


if __name__ == "__main__":
    main()
