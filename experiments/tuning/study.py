"""The trials of one method, as an Optuna study: what is tried next, and what came out.

The study is kept in a journal (`journal.log`), to which several processes may add trials. A trial
has a position: 0 is the method's defaults. A process that dies leaves a trial that nobody holds; it
is tried again at its position, with the same values. What a position tries depends on the seed, the
position and the trials that have ended, so that a search in one process that was stopped goes on as
if it had not been.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import IO, Any
import zlib

import numpy as np
import optuna

from dalign_jax import errors
from dalign_jax.store import files
from experiments import config as config_lib
from experiments.tuning import ranges as ranges_lib
from experiments.tuning import score as score_lib

_RANDOM_TRIALS = 6  # before TPE has enough to go by
_HALVING = 2  # after each check, the better half goes on
_STATES = optuna.trial.TrialState
_IDENTITY = 'search'  # the study's attribute that says which search it is
_HALVING_RULE = 2  # of halving, to be raised when it changes

Row = dict[str, str]  # a line of the log


@dataclasses.dataclass
class Trial:
  """A trial that this process holds.

  Attributes:
    position: of the trial, from 0.
    values: hyper-parameters of the method.
  """

  position: int
  values: dict[str, Any]
  _study: optuna.Study
  _trial: optuna.Trial
  _lock: IO

  def falls_behind(self, score: float, networks: int) -> bool:
    """Whether successive halving stops the trial: others were better at this very point.

    The defaults are never stopped: they are among those that others are compared with. A trial that
    was never ended, since its process died, is not: it is tried again.

    Args:
      score: so far.
      networks: that the trial has been through; 0 for half of the epochs on the first.
    """
    step = networks + 1
    self._trial.report(score, step)
    scores = sorted(
      trial.intermediate_values[step]
      for trial in self._study.get_trials(deepcopy=False)
      if step in trial.intermediate_values
      and (trial.state == _STATES.RUNNING or 'row' in trial.user_attrs)
    )
    return self.position > 0 and score > scores[max(1, len(scores) // _HALVING) - 1]

  def end(self, row: Row, score: float | None, *, is_stopped: bool = False) -> None:
    """Writes what came out; `score` is None for a trial that failed."""
    held = pathlib.Path(self._lock.name)
    with files.lock(held.parent):  # whoever looks for a free position sees it held, or ended
      self._trial.set_user_attr('row', row)
      if score is None:
        self._study.tell(self._trial, state=_STATES.FAIL)
      elif is_stopped:
        self._study.tell(self._trial, state=_STATES.PRUNED)
      else:
        self._study.tell(self._trial, score)
      held.unlink(missing_ok=True)
      self._lock.close()


class Study:
  """The trials of a method.

  Args:
    folder: of the method's search.
    method: its name.
    values: hyper-parameters outside the search, and the first trial.
    fixed: names that are not searched, though they have a range.
    tuning: how many trials, and how.
    settings: others that the outcome of a trial depends on; what an older journal lacks is None.

  Raises:
    errors.InputError: if the journal is of another search.
    files.DamagedError: if it cannot be read.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    method: str,
    values: Mapping[str, Any],
    fixed: set[str],
    tuning: config_lib.Tuning,
    settings: Mapping[str, Any] | None = None,
  ):
    self._settings = dict(settings or {})
    self._folder, self._method, self._values, self._tuning = folder, method, dict(values), tuning
    self._space, self._defaults = {}, {}
    for name, values_of in ranges_lib.of(method).items():
      if name not in fixed:
        self._space[name], self._defaults[name] = values_of.including(self._values, name)
    self._count = tuning.num_trials if self._space else 1
    folder.mkdir(parents=True, exist_ok=True)
    with files.lock(folder):
      self._study = self._open()
      self._check()

  def next(self) -> Trial | None:
    """The next trial, which this process holds until it ends; None if all are begun."""
    with files.lock(self._folder):
      position, params = self._free()
      if position is None:
        return None
      self._study.sampler = self._sampler(position)
      if position == 0:
        params = self._defaults
      if params:
        self._study.enqueue_trial(params)
      trial = self._study.ask()
      trial.set_user_attr('position', position)
      found = {name: space.suggest(trial, name) for name, space in self._space.items()}
      held = files.try_lock(self._held(trial.number))
    assert held is not None, 'a new trial is held by another process'
    values = self._values if position == 0 else {**self._values, **found}
    return Trial(position, values, self._study, trial, held)

  def rows(self) -> list[Row]:
    """The lines of the log, by position."""
    ended = [t for t in self._trials() if 'row' in t.user_attrs]
    return [t.user_attrs['row'] for t in sorted(ended, key=lambda t: t.user_attrs['position'])]

  def _open(self):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = self._folder / 'journal.log'
    try:
      backend = optuna.storages.journal.JournalFileBackend(str(path))
      study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=self._method,
        load_if_exists=True,
        pruner=optuna.pruners.NopPruner(),  # see `Trial.falls_behind`
      )
      for trial in study.get_trials(deepcopy=False):
        if 'row' in trial.user_attrs:
          int(trial.user_attrs['position'])
    except Exception as error:  # whatever the library makes of a damaged journal
      raise files.DamagedError(path, error) from None
    return study

  def _check(self):
    now = {
      'rule': score_lib.RULE,
      'halving': _HALVING_RULE,
      'search': self._tuning.search,
      'search_seed': self._tuning.search_seed,
      'num_tuning_seeds': self._tuning.num_tuning_seeds,
      'defaults': {name: repr(value) for name, value in self._values.items()},
      'ranges': {name: repr(space) for name, space in self._space.items()},
      **self._settings,
    }
    if _IDENTITY not in self._study.user_attrs:
      self._study.set_user_attr(_IDENTITY, now)
      return
    there = {**dict.fromkeys(now), **self._study.user_attrs[_IDENTITY]}
    if there != now:
      changed = [f'{k}: {there.get(k)} there, {v} now' for k, v in now.items() if there.get(k) != v]
      raise errors.InputError(
        f'{self._folder} has the trials of another search ({"; ".join(changed)}); use another '
        '--problem, or delete it',
        argument='workdir',
      )

  def _trials(self):
    return self._study.get_trials(deepcopy=False)

  def _free(self) -> tuple[int | None, dict[str, Any]]:
    """The first position that nobody holds or has ended, and its values if it was begun."""
    taken, begun = set(), {}
    for trial in self._trials():
      position = trial.user_attrs.get('position')
      if trial.state == _STATES.RUNNING and not self._is_held(trial.number):
        self._study.tell(trial.number, state=_STATES.FAIL)  # its process died
      elif trial.state == _STATES.RUNNING or 'row' in trial.user_attrs:
        taken.add(position)
        continue
      if position is not None:
        begun[position] = trial.params
    free = [position for position in range(self._count) if position not in taken]
    return (free[0], begun.get(free[0], {})) if free else (None, {})

  def _held(self, number: int) -> pathlib.Path:
    return self._folder / f'.trial_{number}'

  def _is_held(self, number: int) -> bool:
    file = files.try_lock(self._held(number))
    if file is None:
      return True
    self._held(number).unlink()
    file.close()
    return False

  def _sampler(self, position: int):
    seed = [self._tuning.search_seed, zlib.crc32(self._method.encode()), position]
    seed = int(np.random.default_rng(seed).integers(2**31))
    if self._tuning.search == 'random':
      return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)
