"""The runs of a search with Optuna."""

from __future__ import annotations

import collections
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ppo_tf.command.sweeping.grid import Run, folder_name
from ppo_tf.command.sweeping.space import Space, describe
from ppo_tf.support.extras import needs

LOOKS = 10  # per run, one after each tenth of its steps


class Search:
    """Optuna's trials: a TPE sampler chooses settings, a median pruner stops poor trials.

    A trial runs its seeds one after another. Its value is the mean of their final deterministic
    evaluations. The pruner compares training returns of the same seed at the same tenth of the
    steps. The study is stored in study.journal in the sweep's folder. See `processes.Source` for
    the methods.

    Sources: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"; Golovin et al.
    2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.2.

    Args:
        folder: folder of the sweep.
        space: values or ranges by setting.
        seeds: number of runs per trial.
        trials: number of trials.
        prune: whether to stop trials below the median.

    Raises:
        ImportError: Optuna is not installed.
    """

    def __init__(self, folder: Path, space: Space, seeds: int, trials: int, prune: bool):
        self._optuna = import_optuna()
        self._folder, self._seeds, self._trials = folder, seeds, trials
        distributions = self._optuna.distributions
        self._space: dict[str, Any] = {}
        for name, values in space.items():
            if isinstance(values, list):
                self._space[name] = distributions.CategoricalDistribution(values)
            elif isinstance(values["low"], int):
                self._space[name] = distributions.IntDistribution(**values)
            else:
                self._space[name] = distributions.FloatDistribution(**values)
        storages, pruners = self._optuna.storages, self._optuna.pruners
        journal = storages.journal.JournalFileBackend(str(folder / "study.journal"))
        self._study = self._optuna.create_study(
            study_name="sweep",
            storage=storages.JournalStorage(journal),
            direction="maximize",
            # Not before a fifth of the first seed: the first returns say little.
            pruner=pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=LOOKS // 5)
            if prune
            else pruners.NopPruner(),
            load_if_exists=True,
        )
        self._open: dict[int | None, Any] = {}  # {number: Optuna trial without a result}
        self._runs: list[Run] = []
        self._waiting: collections.deque[Run] = collections.deque()
        for trial in self._study.get_trials():
            if trial.state.is_finished():
                self._restore(trial)
            else:
                self._begin(self._optuna.trial.Trial(self._study, trial._trial_id))

    def _restore(self, trial: Any) -> None:
        """Restores the runs of a trial that ended in an earlier session."""
        for seed in range(self._seeds):
            run = self._run(trial, seed)
            if run.status != "finished":
                pruned = trial.state == self._optuna.trial.TrialState.PRUNED
                run.status = "pruned" if pruned else "failed"
                run.error = "" if pruned else run.last_error()
                break

    def _begin(self, trial: Any) -> None:
        self._open[trial.number] = trial
        self._waiting.append(self._run(trial, 0))

    def _run(self, trial: Any, seed: int) -> Run:
        settings = {name: _round(value) for name, value in trial.params.items()}
        name = folder_name(settings, prefix=[f"trial{trial.number:03}"])
        label = f"trial {trial.number} {describe(settings | {'seed': seed})}"
        folder = self._folder / f"{name}-seed{seed}"
        run = Run(label, name, settings, seed, folder, trial.number)
        self._runs.append(run)
        return run

    def next(self) -> Run | None:
        """Returns the next seed of a trial or the first of a new one; None if there is none now."""
        while True:
            if not self._waiting and len(self._study.trials) < self._trials:
                self._begin(self._ask())
            if not self._waiting:
                return None
            run = self._waiting.popleft()
            if run.status != "finished":
                return run
            self.end(run)  # it finished in an earlier session

    def _ask(self) -> Any:
        # A new sampler per trial, so that a resumed search draws what it would have drawn.
        seed = np.random.SeedSequence(len(self._study.trials)).generate_state(1)[0]
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=min(10, self._trials // 2), seed=int(seed)
        )
        return self._study.ask(self._space)

    def prune(self, run: Run) -> bool:
        """Reports a run's new metrics to the pruner; returns whether to stop the trial."""
        total_steps = run.total_steps()
        if total_steps is None:
            return False
        trial = self._open[run.trial]
        reported = self._study.get_trials(deepcopy=False)[run.trial].intermediate_values
        rows = run.metrics("rollout/steps", "rollout/episode_return")
        points = [(steps, value) for steps, value in rows if not math.isnan(value)]
        for look in range(1, LOOKS):
            share, step = look / LOOKS, run.seed * LOOKS + look
            value = next((v for steps, v in points if steps >= share * total_steps), None)
            if value is None:
                return False
            if step not in reported:
                trial.report(value, step)
                if trial.should_prune():
                    run.error = f"return {value:.4g} after {share:.0%} of its steps"
                    return True
        return False

    def end(self, run: Run) -> None:
        """Queues the trial's next seed, or tells Optuna the result of the trial."""
        if run.status == "interrupted":
            return  # the trial remains open for the next session
        trial = self._open[run.trial]
        if run.status == "finished":
            pruned = self.prune(run)
            if run.seed + 1 < self._seeds:
                run = self._run(trial, run.seed + 1)
                if not pruned:
                    self._waiting.append(run)
                    return
                run.status = "pruned"
        del self._open[run.trial]
        if run.status == "finished":
            returns = [r.evaluation[0] for r in self._runs if r.trial == run.trial]
            self._study.tell(trial, statistics.fmean(returns))
        else:
            states = self._optuna.trial.TrialState
            self._study.tell(trial, state=states.PRUNED if run.status == "pruned" else states.FAIL)

    def runs(self) -> list[Run]:
        """Returns the runs of all trials so far."""
        return sorted(self._runs, key=lambda run: (run.trial or 0, run.seed))


def import_optuna() -> Any:
    """Imports Optuna and silences its log; the error names the extra if it is not installed."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise ImportError(needs("--search", "sweep")) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _round(value: Any) -> Any:
    """Rounds to six significant digits, so that settings are short; the sampler doesn't mind."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
