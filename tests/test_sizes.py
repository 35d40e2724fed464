"""Sizes beyond memory end in one line, before anything of that size is made."""

import environments
import pytest
import tensorflow as tf
from train_command import TINY

import ppo_tf
from ppo_tf.command import evaluate, parsing, running, sizes
from ppo_tf.command.settings import DEFAULTS
from ppo_tf.support import memory

environments.register()
ENV = f"--env={environments.COUNTING}"
GB = 10**9


@pytest.mark.parametrize(
    ("given", "names", "least"),
    [
        ({"hidden_sizes": (60_000, 60_000)}, "hidden_sizes", "172.8"),
        ({"cell": "lstm", "cell_units": 16_000}, "cell_units, hidden_sizes", "49.3"),
        ({"horizon": 10**12}, "horizon, num_envs, reuse", "256,000.0"),
        ({"epochs": 10**9}, "epochs, horizon, num_envs", "16,384.0"),
        ({"continuous": "gsde", "sde_period": 2**53}, "sde_period, num_envs", "288,230,376.2"),
        (
            {"network": "residual", "residual_width": 2**14, "residual_blocks": 100},
            "residual_width, residual_blocks",
            "5,154.0",
        ),
        ({"backend": "async", "num_envs": 65_536}, "num_envs, backend", "262.1"),
    ],
)
def test_sizes_beyond_memory_are_refused_by_name(given, names, least):
    values = {**DEFAULTS, **given}
    with pytest.raises(ValueError) as caught:
        sizes.check_sizes(values, 16 * GB)
    received = ", ".join(f"{name}={values[name]}" for name in names.split(", "))
    assert str(caught.value) == (
        f"{names} must fit into 16.0 GB of memory, but take at least {least} GB. "
        f"Received: {received}"
    )
    sizes.check_sizes(values, 10**30)


def test_the_defaults_and_a_large_run_fit_into_a_gigabyte():
    sizes.check_sizes(DEFAULTS, GB)
    large = {"hidden_sizes": (1024, 1024), "cell": "lstm", "num_envs": 64, "horizon": 4096}
    sizes.check_sizes({**DEFAULTS, **large}, GB)


def test_the_memory_is_that_of_the_machine_or_less_if_a_container_has_less(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    machine = memory.total_bytes()
    assert machine > GB
    for text, expected in ("5000\n", 5000), ("max\n", machine), (str(2**63 - 1), machine):
        (tmp_path / "memory.max").write_text(text)
        assert memory.total_bytes() == expected


def test_the_command_refuses_them_before_tensorflow_is_asked(run, capfd, tmp_path):
    assert run(ENV, "--hidden_sizes=65536,65536,65536,65536,65536") == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: hidden_sizes must fit into ")
    assert list(tmp_path.iterdir()) == []


FAILURES = {
    "Python": MemoryError(),
    "NumPy": MemoryError("Unable to allocate 7 PiB"),
    "TensorFlow": tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating"),
    "C++": OverflowError("Python int too large to convert to C int"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_memory_that_runs_out_is_one_line(name, run, capfd, monkeypatch):
    def fail(*arguments, **options):
        raise FAILURES[name]

    told = " ".join((str(getattr(FAILURES[name], "message", FAILURES[name])) or "Mem").split("\n"))
    monkeypatch.setattr(running, "learner_from_settings", fail)
    for flags in (TINY, [*TINY, "--dry_run"]):
        assert run(ENV, *flags) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith(f"error: too large for this machine's memory: {told}")
        assert err.count("\n") == 1


def test_memory_that_runs_out_in_training_keeps_the_policy(run, capfd, monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise FAILURES["TensorFlow"]

    monkeypatch.setattr(running, "fit", fail)
    assert run(ENV, *TINY, "--logdir=run") == 1
    out, err = capfd.readouterr()
    assert err.endswith(
        "error: too large for this machine's memory: OOM when allocating\n"
        "to resume: ppo-tf train --resume=run\n"
    )
    assert out.splitlines()[-1] == "policy: run/policy"
    assert (tmp_path / "run" / "policy" / "saved_model.pb").exists()


def test_other_commands_end_in_one_line_too(capsys):
    def command(words):
        raise FAILURES["NumPy"]

    assert parsing.run(command, evaluate.FLAGS, [], description=None) == 2
    told = "error: too large for this machine's memory: Unable to allocate 7 PiB\n"
    assert capsys.readouterr().err == told


def test_the_longest_schedule_is_a_number():
    options = {"total_steps": 2**53, "horizon": 1, "num_envs": 1, "epochs": 2**31 - 1}
    schedule = ppo_tf.linear_schedule(1e-3, minibatch_size=1, **options)
    assert float(schedule(0)) == pytest.approx(1e-3)
    assert float(schedule(2**40)) == pytest.approx(1e-3)
