"""Tries faults of environments with the training command, and counts what comes of them.

    python tests/fault_table.py

Each case is a process forked from one that has imported TensorFlow, in a session of its own. The
exit code is 1 if anything went wrong.
"""

import argparse
import importlib
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import faulty
import train_command

SECONDS = 50  # after which a case hangs
FLAGS = [*train_command.TINY, "--checkpoint_every=32", "--seed=11"]  # environment 1 is bad, always
LIMIT = "--max_seconds_per_step=3"
ENDLESS = ("hang", "spin", "stop")
LETHAL = ("crash", "kill", "stop")  # to the process of the environment
DIFFERENT = (*LETHAL, "hang", "raise", "exit", "interrupt", "unpicklable", "thread")
DIFFERENT = (*DIFFERENT, "none", "lock", "shape", "array")  # where environments have processes


class Case(NamedTuple):
    """A fault, where it happens, and how environments are stepped."""

    fault: str
    place: str | int
    backend: str


class Result(NamedTuple):
    """What came of a case.

    Attributes:
        code: exit code; None: it did not end.
        err: standard error.
        left: processes that were still there.
        policy: whether there is a policy.
        resumed: whether the run could be resumed, once the cause was removed; None: not tried.
    """

    code: int | None
    err: str
    left: int
    policy: bool
    resumed: bool | None


def cases():
    """All cases. Without what ends the process or does no harm in turn, and what is alike there."""
    raised = [fault for fault in faulty.RAISED.split() if fault != "stuck"]
    for fault in [*raised, *faulty.SEEN.split(), *faulty.PAID.split(), *faulty.DEAD.split()]:
        backends = ["sync"] * (fault not in (*LETHAL, "lock")) + ["async"] * (fault in DIFFERENT)
        for backend in backends:
            yield from (Case(fault, place, backend) for place in places(fault))


def places(fault):
    """Where a fault is tried."""
    yield faulty.AT
    if fault in faulty.PAID.split() or fault == "spin":
        return
    yield "reset"
    if fault in faulty.RAISED.split():
        yield "make"
    if fault in ("crash", "kill"):
        yield "make3"
    if fault in ("raise", "exit", "hang"):
        yield "close"


def command(case, limit):
    """The command's flags."""
    env = f"--env=faulty:Faulty-{case.fault}-{case.place}-v0"
    limited = [LIMIT] if limit and case.fault in ENDLESS else []
    return [env, *FLAGS, f"--backend={case.backend}", "--logdir=run", *limited]


def run(folder, arguments, name, prepare=lambda: None, when=lambda pid: True):
    """Runs the command in a fork.

    Args:
        folder: where.
        arguments: its flags.
        name: of the files that get what it prints.
        prepare: called in the fork, before the command.
        when: called with the process's id, again and again until it returns True.

    Returns:
        (exit code or None, number of processes left behind).
    """
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(folder)
        for stream, ending in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}.{ending}", os.O_CREAT | os.O_WRONLY), stream)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup and in the background of a
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shell they would be ignored
        prepare()
        sys.argv = [str(train_command.SCRIPT), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit(0)
    deadline, code, done = time.monotonic() + SECONDS, None, False
    while code is None and time.monotonic() < deadline:
        done = done or when(pid)
        ended, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.05)
    left = session(pid)
    for each in left:
        os.kill(each, signal.SIGKILL)
    if code is None:
        os.waitpid(pid, 0)
    return code, len(left)


def session(number):
    """Processes of a session that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(its) == number and state != "Z":
            found.append(int(path.parent.name))
    return found


def attempt(case, limit):
    """Tries a case."""
    folder = tempfile.mkdtemp()  # no context manager: forks leave through here
    code, left = run(folder, command(case, limit), "first")
    err = Path(folder, "first.err").read_text()
    policy = Path(folder, "run", "policy", "saved_model.pb").exists()
    resumed = None
    if code is not None and case.place == faulty.AT and case.fault in ("raise", "kill"):
        os.environ["FAULT"] = "no"
        resumed = run(folder, ["--resume=run"], "second")[0] == 0
        del os.environ["FAULT"]
    shutil.rmtree(folder)
    return Result(code, err, left, policy, resumed)


def problems(case, result):
    """What is wrong with a result."""
    before = case.place in ("make", "make3", "reset") and case.fault != "nan"
    interrupted = case.fault == "interrupt" and (case.backend == "sync" or case.place == "make")
    good = {
        "ends": result.code is not None,
        "leaves no process": result.left == 0,
        "no traceback of ours": not re.search(r"Traceback|site-packages/gymnasium", result.err),
        "exports the policy": result.policy or before,
        "can be resumed": result.resumed is not False,
        "exit code": result.code == 130
        if interrupted
        else result.code in ((2,) if before else (1,)),
    }
    if case.place == "close" and not interrupted:
        good["exit code"] = result.code == 0
        good["one line"] = "close" in result.err
    elif not interrupted:
        lines = [x for x in result.err.splitlines() if x.startswith("error: ")]
        good["one line"] = len(lines) == 1 and "environment" in lines[0]
        own = case.fault in faulty.RAISED.split()
        good["the environment's own frames"] = not own or f'File "{faulty.__file__}"' in result.err
    return [name for name, holds in good.items() if not holds]


def preload():
    """Imports what takes long; nothing may be computed, or forks would hang."""
    import ppo_tf

    for name in ("fit", "Learner", "VectorCollector", "export_policy", "evaluate", "mlp_policy"):
        getattr(ppo_tf, name)
    if Path(ppo_tf.__file__).with_name("command").exists():
        importlib.import_module("ppo_tf.command.running")


def try_all(chosen=None, limit=True, say=print):
    """Tries all cases, or those that contain a text; returns {problem: cases}."""
    preload()
    found, count, start = {}, 0, time.monotonic()
    for case in cases():
        if chosen and chosen not in " ".join(map(str, case)):
            continue
        result = attempt(case, limit)
        wrong = problems(case, result)
        count += 1
        said = next((x for x in result.err.splitlines() if "environment" in x), result.err[-90:])
        say(f"{' '.join(map(str, case)):32} exit {result.code!s:5} {', '.join(wrong) or 'good'}")
        say(f"    {said}")
        for problem in wrong:
            found.setdefault(problem, []).append(case)
        if wrong:
            found.setdefault("any", []).append(case)
    say(f"{count} cases in {time.monotonic() - start:.0f} s")
    for problem, where in found.items():
        say(f"  not so: {problem:32} {len(where)}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="text that a case contains")
    parser.add_argument("--nolimit", action="store_true", help="for commands without time limits")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(bool(try_all(arguments.only, not arguments.nolimit)))
