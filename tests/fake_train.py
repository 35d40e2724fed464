"""Replaces the training command in tests of sweeps: writes its files without its work.

The return is a parabola over the logarithm of the learning rate, best at 1e-3. Additional flags:
--together=N waits until N runs have started; --hang=NAME makes runs whose folder's name starts with
NAME bad and never-ending. A learning rate of 7e-7 fails.
"""

import csv
import json
import math
import os
import sys
import time
from pathlib import Path

given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = Path(given["logdir"])
folder.mkdir(exist_ok=given["resume"] == "auto")
with open("starts.txt", "a") as starts:
    print(folder.name, os.getpid(), file=starts)
rate, seed = float(given.get("learning_rate", 1e-3)), int(given["seed"])
print("before", flush=True)
if rate == 7e-7:
    print("error: this rate is wrong", file=sys.stderr)
    print("policy: none")
    sys.exit(1)
deadline = time.monotonic() + 30
while len(Path("starts.txt").read_text().splitlines()) < int(given.get("together", 0)):
    assert time.monotonic() < deadline, "the others did not start"
    time.sleep(0.01)
hang = folder.name.startswith(given.get("hang", "none"))
best = -10.0 * (math.log10(rate) + 3.0) ** 2 + seed - (1000.0 if hang else 0.0)
threads = {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}
config = {"flags": given, "settings": {"total_steps": {"value": 1000}}, "threads": threads}
(folder / "config.json").write_text(json.dumps(config))
with open(folder / "metrics.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["iteration", "rollout/steps", "rollout/episode_return", "time/seconds"])
    for i in range(20):
        writer.writerow([i, 50 * (i + 1), "" if i == 0 else best - 20 + i, 1 + 0.1 * i])
        file.flush()
        if hang and i == 12:
            time.sleep(200)
evaluation = {"mean_return": best, "std_return": 1.5}
(folder / "evaluation.json").write_text(json.dumps({"deterministic": evaluation}))
