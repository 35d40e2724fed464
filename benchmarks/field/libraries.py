"""The libraries of the speed table: what to install, and what to choose by trial."""

from typing import NamedTuple

GYMNASIUM = ("gymnasium[mujoco]==1.4.*", "mujoco<3.13")  # later ones warn of Gymnasium's models
GYMNASIUM_ANY = ("gymnasium[mujoco]", "mujoco<3.13")
TORCH = "torch==2.13.*"  # one version for all; a CPU build where pip finds one
# Elsewhere a step costs less than waking a process: not tried.
WORTH_A_PROCESS = ("Acrobot-v1", "HalfCheetah-v5")
HAVE_A_VECTOR_CLASS = ("CartPole-v1",)  # Gymnasium's own, that steps all environments at once


class Library(NamedTuple):
    """A library of the table.

    Attributes:
        adapter: module of the package `field`.
        packages: requirements of its virtual environment; none: this interpreter.
        bare: further requirements, without what they depend on and the Pythons they name.
        trial: {option: values}, tried one option after the other in each case, from the first
            value of each on.
        fixed: options that are not tried.
        notes: how it differs from the others, for the table.
    """

    adapter: str
    packages: tuple = ()
    bare: tuple = ()
    trial: dict = {}  # noqa: RUF012
    fixed: dict = {}  # noqa: RUF012
    notes: str = ""

    def trial_in(self, env):
        """Returns the options to try in an environment, and their values."""
        left_out = set() if env in WORTH_A_PROCESS else {"processes", "async"}
        if env not in HAVE_A_VECTOR_CLASS:
            left_out.add("vector_entry_point")
        return {
            option: [value for value in values if value not in left_out]
            for option, values in self.trial.items()
        }


THREADS = {"threads": (1, 2)}
OWN_VECTORS = {"vector": ("in turn", "processes")} | THREADS
GYMNASIUM_VECTORS = {"vector": ("sync", "vector_entry_point", "async")} | THREADS

LIBRARIES = {
    "ppo_tf": Library("ppo_tf", notes="as README installs it: without EnvPool"),
    "ppo_tf + envpool": Library("ppo_tf", fixed={"envpool": True}),
    "Stable-Baselines3": Library(
        "sb3", ("stable-baselines3==2.9.*", TORCH, *GYMNASIUM), trial=OWN_VECTORS
    ),
    "SBX": Library("sbx", ("sbx-rl==0.28.*", TORCH, *GYMNASIUM), trial=OWN_VECTORS),
    "CleanRL": Library(
        "cleanrl",
        (TORCH, *GYMNASIUM_ANY, "gym==0.23.*", "pygame", "numpy<2"),  # ppo.py is written for Gym
        bare=("cleanrl==1.2.0",),  # the scripts are in the package; it asks for Python < 3.11
        trial=THREADS,
        notes="makes its environments itself, in one process; normalises observations and "
        "rewards for continuous actions",
    ),
    "Tianshou": Library("tianshou", ("tianshou==2.0.*", TORCH, *GYMNASIUM), trial=OWN_VECTORS),
    "TorchRL": Library(
        "torchrl",
        ("torchrl==0.14.*", TORCH, *GYMNASIUM),
        trial={"vector": ("in turn", "sync", "processes", "async"), "compile": (False, True)}
        | THREADS,
        notes="vector: its own classes or Gymnasium's; compile: policy, advantage and update",
    ),
    "skrl": Library(
        "skrl",
        ("skrl[jax]==2.1.*", TORCH, *GYMNASIUM),
        trial={"framework": ("torch", "jax")} | GYMNASIUM_VECTORS,
    ),
    "rsl_rl": Library(
        "rsl_rl",
        ("rsl-rl-lib==5.5.*", TORCH, *GYMNASIUM),
        trial={"compile": (False, True), "vector": ("sync", "async")} | THREADS,
        notes="continuous actions only",
    ),
    "AgileRL": Library(
        "agilerl", ("agilerl==2.58.*", "peft==0.21.*", TORCH, *GYMNASIUM), trial=GYMNASIUM_VECTORS
    ),
    "RLlib": Library(
        "rllib",
        ("ray[rllib]==2.60.*", TORCH, *GYMNASIUM_ANY),  # it wants 1.2
        trial={"env_runners": (0, 1, 2)} | GYMNASIUM_VECTORS,
        notes="peak memory without its workers",
    ),
    "Rejax": Library(
        "rejax",
        ("rejax==0.1.*", "gymnax==0.0.9", "jax==0.10.*"),
        trial=THREADS,
        notes="its environments are compiled with the learner: gymnax 0.0.9 (Rejax does not run on "
        "1.0), which has no MuJoCo",
    ),
    "TF-Agents": Library(
        "tf_agents",
        ("tf-agents==0.19.*", "tensorflow==2.15.*", *GYMNASIUM_ANY),  # numpy 1 rules out 1.4
        trial=GYMNASIUM_VECTORS,
    ),
    "stepping alone": Library("random_actions", notes="ppo_tf's back end, random actions"),
}
