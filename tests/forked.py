"""Starts Python programs in processes that have imported TensorFlow already.

Importing takes 6 s of computing time, which is most of what a short command costs. A server,
started when it is first needed, imports the libraries and runs nothing; each program is a fork.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time

POSSIBLE = sys.platform == "linux"  # elsewhere, forks of large programs are not safe


def run(*arguments, cwd):
    """Runs `python *arguments`; returns its exit code, standard output and standard error."""
    process = start(arguments, cwd=cwd)
    out, err = process.communicate()
    return process.returncode, out, err


def start(arguments, *, cwd, paths=(), start_new_session=False, fork=POSSIBLE):
    """Starts `python *arguments`, without this process's TensorFlow variables.

    Args:
        arguments: a script, -m and a module or -c and code, and what follows. Options of Python
            itself need a new process.
        cwd: folder to start in.
        paths: folders to import from.
        start_new_session: see subprocess.Popen.
        fork: whether it is a fork; otherwise a new process, as users start it.

    Returns:
        A subprocess.Popen or `Process`, with pipes of text.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")}
    every = [*map(str, paths), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(path for path in every if path)
    if fork:
        return Process(arguments, cwd, env, start_new_session)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


class Process:
    """A program whose standard output and error are piped as text, as by subprocess.Popen."""

    def __init__(self, arguments, cwd, env, start_new_session):
        self.returncode = None
        self._connection, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd or os.getcwd()),
            "env": dict(env),
            "session": start_new_session,
            "interrupts": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
        }
        socket.send_fds(_server(), [b"."], [theirs.fileno(), out_end, err_end])
        for descriptor in (out_end, err_end):
            os.close(descriptor)
        theirs.close()
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())

    def poll(self):
        return self._wait(0)

    def wait(self, timeout=None):
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
        return self.returncode

    def communicate(self, timeout=None):
        """Returns (standard output, standard error) when the program has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        parts = {self.stdout: b"", self.stderr: b""}
        unread = set(parts)
        while unread:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready = select.select(list(unread), [], [], left)[0]
            if not ready:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            for file in ready:
                text = os.read(file.fileno(), 2**16)
                parts[file] += text
                if not text:
                    unread.remove(file)
                    file.close()
        self.wait(None if deadline is None else max(deadline - time.monotonic(), 0))
        return tuple(part.decode() for part in parts.values())

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server():
    """The connection to the server, which ends with this process."""
    ours, theirs = socket.socketpair()
    server = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")},
        start_new_session=True,
    )
    theirs.close()
    atexit.register(server.wait)
    atexit.register(ours.close)  # first
    return ours


# ---- in the server and its forks


def _serve(connection):
    """Imports the libraries, then forks; returns the request in a fork, None when all is done."""
    import ppo_tf.command.train  # before TensorFlow, which it keeps quiet

    for module in ("keras", "tensorflow.lite.python.lite", "tensorflow_probability"):
        importlib.import_module(module)
    ppo_tf.GAE, ppo_tf.mlp_policy  # noqa: B018  (what is loaded when it is first used)
    sys.modules["tensorflow_probability"].distributions.Normal  # noqa: B018
    sys.modules["tensorflow"].config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}  # as in conftest.py, whose numbers are to be the same
    )
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for watchers
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 1, 3)
        if not message:
            return None
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _watch(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(answers, out, err):
    """Forks a program, tells its process and its exit status; returns the request in the fork."""
    with socket.socket(fileno=answers) as client:
        request = json.loads(client.makefile("r").readline())
        if program := os.fork():
            client.sendall(f"{program}\n".encode())
            os.close(out)
            os.close(err)
            client.sendall(f"{os.waitpid(program, 0)[1]}\n".encode())
            os._exit(0)
    for descriptor, number in ((out, 1), (err, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return request


def _run(arguments, cwd, env, session, interrupts):
    """Runs a program as Python would."""
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler if interrupts else signal.SIG_IGN)
    os.chdir(cwd)
    quiet = {k: v for k, v in os.environ.items() if k.startswith("TF_CPP_")}  # ppo_tf's own
    os.environ.clear()
    os.environ.update({**env, **quiet})
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = arguments
    if arguments[0] == "-c":
        sys.path[:1] = ["", *paths]
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.path[:1] = [cwd, *paths]
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[:1] = [os.path.dirname(arguments[0]), *paths]
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _run(**request)
