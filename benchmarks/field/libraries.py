"""The libraries of the speed table: what to install, and what to choose by trial."""

from typing import NamedTuple

GYMNASIUM = ("gymnasium[mujoco]==1.4.*", "mujoco<3.13")  # later ones warn of Gymnasium's models
TORCH = "torch==2.13.*"  # one version for all; a CPU build where pip finds one
# Where a step costs less than waking a process, nobody is slowed down by leaving that out.
WORTH_A_PROCESS = ("Acrobot-v1", "HalfCheetah-v5")


class Library(NamedTuple):
    """A library of the table.

    Attributes:
        adapter: module of the package `field`.
        packages: requirements of its virtual environment; none: this interpreter.
        bare: further requirements, without what they depend on and the Pythons they name.
        trial: {option: values}, tried one option after the other in each case, from the first
            value of each on. `subprocesses` is tried only where a step is worth a process.
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
        values = dict(self.trial)
        if "subprocesses" in values and env not in WORTH_A_PROCESS:
            values["subprocesses"] = (False,)
        return values


THREADS = {"threads": (1, 2)}
VECTORS = {"subprocesses": (False, True)} | THREADS

LIBRARIES = {
    "ppo_tf": Library("ppo_tf", notes="as README installs it: without EnvPool"),
    "ppo_tf + envpool": Library("ppo_tf", fixed={"envpool": True}),
    "Stable-Baselines3": Library(
        "sb3", ("stable-baselines3==2.9.*", TORCH, *GYMNASIUM), trial=VECTORS
    ),
    "SBX": Library("sbx", ("sbx-rl==0.28.*", TORCH, *GYMNASIUM), trial=VECTORS),
    "CleanRL": Library(
        "cleanrl",
        (TORCH, *GYMNASIUM),
        bare=("cleanrl==1.2.0",),  # the scripts are in the package; it asks for Python < 3.11
        trial=THREADS,
        notes="makes its environments itself, in one process; normalises observations and "
        "rewards for continuous actions",
    ),
    "Tianshou": Library("tianshou", ("tianshou==2.0.*", TORCH, *GYMNASIUM), trial=VECTORS),
    "TorchRL": Library(
        "torchrl",
        ("torchrl==0.14.*", TORCH, *GYMNASIUM),
        trial={"vector": ("torchrl", "gymnasium"), "compile": (False, True)} | VECTORS,
        notes="vector: its own vector class or Gymnasium's; compile: policy, advantage and update",
    ),
    "skrl": Library(
        "skrl",
        ("skrl[jax]==2.1.*", TORCH, *GYMNASIUM),
        trial={"framework": ("torch", "jax")} | VECTORS,
    ),
    "rsl_rl": Library(
        "rsl_rl",
        ("rsl-rl-lib==5.5.*", TORCH, *GYMNASIUM),
        trial={"compile": (False, True)} | VECTORS,
        notes="continuous actions only",
    ),
    "AgileRL": Library("agilerl", ("agilerl==2.58.*", TORCH, *GYMNASIUM), trial=VECTORS),
    "RLlib": Library(
        "rllib",
        ("ray[rllib]==2.60.*", TORCH, *GYMNASIUM),
        trial={"env_runners": (0, 1, 2)} | THREADS,
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
        ("tf-agents==0.19.*", "tensorflow==2.15.*", "gymnasium[mujoco]", "mujoco<3.13"),
        trial=VECTORS,
    ),
    "stepping alone": Library("random_actions", notes="ppo_tf's back end, random actions"),
}
