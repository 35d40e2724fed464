"""A2C and DQN of Stable-Baselines3, the foils of the story's table.

    python benchmarks/foils.py --jobs=2

Each run is a process of a virtual environment that this script makes (--peers says where), with the
hyperparameters of rl-baselines3-zoo and the steps of the story. Rows and curves are appended to
those of `python benchmarks/learning.py story`; runs that have a row are skipped.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from learning import ROW, record, rows_by_cell
from peers import make_environment
from tables import TABLES

HERE = Path(__file__).resolve().parent
PACKAGES = ["stable-baselines3==2.9.*"]
STEPS = 100_000  # as in the presets
# rl-baselines3-zoo, hyperparams/a2c.yml and dqn.yml. DQN has no Box actions.
FOILS = {
    ("CartPole-v1", "A2C (SB3)"): {"algorithm": "A2C", "num_envs": 8},
    ("CartPole-v1", "DQN (SB3)"): {
        "algorithm": "DQN",
        "num_envs": 1,
        "options": {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    },
    ("Pendulum-v1", "A2C (SB3)"): {
        "algorithm": "A2C",
        "num_envs": 8,
        "normalize": True,
        "options": {
            "n_steps": 8,
            "gae_lambda": 0.9,
            "gamma": 0.9,
            "vf_coef": 0.4,
            "learning_rate": "linear 7e-4",
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -2, "ortho_init": False},
        },
    },
}


def run(python, env, label, seed):
    """Trains once and appends its row and curve."""
    job = {"env": env, "seed": seed, "steps": STEPS, **FOILS[env, label]}
    command = [python, HERE / "foils_worker.py", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {label} on {env}, seed {seed}, failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    steps, values = np.array(found["episodes"]).T
    means = [values[max(0, end - 100) : end].mean() for end in range(1, len(values) + 1)]
    means = np.stack([steps, means], axis=1)
    returns = np.array(found["returns"])
    facts = (returns.mean(), returns.std(), returns.min(), returns.max())
    row = dict(zip(ROW[4:8], (round(float(fact), 3) for fact in facts), strict=True)) | {
        "env": env,
        "label": label,
        "seed": seed,
        "steps": STEPS,
        "episodes": len(returns),
        "sampled_mean_return": "",
        "training_return": round(means[-1, 1], 3),
        "seconds": round(found["seconds"], 2),
        "steps_per_second": round(STEPS / found["seconds"], 1),
        "settings": json.dumps(FOILS[env, label]),
    }
    record("story", row, means, STEPS)
    print(time.strftime("%H:%M"), env, label, seed, row["mean_return"], flush=True)


def main():
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".peers" / "foils")
    args = parser.parse_args()
    python = make_environment(args.peers, PACKAGES)
    done = rows_by_cell("story")
    cells = [(*cell, seed) for seed in range(TABLES["story"].seeds) for cell in FOILS]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda cell: run(python, *cell), [c for c in cells if c not in done]))


if __name__ == "__main__":
    main()
