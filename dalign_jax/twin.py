"""The twin problem: a forgetting whose gold is known, from which to learn what gold would know.

The original M_o is trained further on held-out data V as well: the twin M_t. Forgetting V from M_t
has a gold that is at hand, M_o itself. So every example of V has a free label, whether M_o is right
on it, from which a predictor learns to say the same of the forget set.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple
import warnings

import jax
import numpy as np

from dalign_jax import difficulty, errors, fresh, objectives, optim, parallel, training, types

PREDICTORS = ('logistic', 'mlp')
FEATURES = ('distance', 'curriculum', 'instability')  # the margin remembers the original's answers
_FOLDS = 5
_SAMPLE = 1000  # rows, at most, for a mean: of features in the reference, of answers at the stop
_LEAST = _FOLDS  # examples of either label that a predictor needs
_LEFT = 0.1  # of what the twin has to learn of V: the last images take most of the passes


class Prediction(NamedTuple):
  """Predicted answers of gold.

  Attributes:
    easy: bool `[N]`, whether gold is expected to be right on the forget example.
    chance: `[N]` the predicted probability of that.
    threshold: the chance above which an example is called easy.
    held_out_easy: bool `[V]`, whether the original is right on the held-out example.
    held_out_chance: `[V]` the prediction for it by a predictor that has not seen it.
    features: `[N, K]` of the forget set, in standard deviations from the mean of training examples.
    held_out_features: `[V, K]`, in standard deviations from their own mean.
    names: `[K]` of the features.
  """

  easy: np.ndarray
  chance: np.ndarray
  threshold: float
  held_out_easy: np.ndarray
  held_out_chance: np.ndarray
  features: np.ndarray
  held_out_features: np.ndarray
  names: np.ndarray


def predict(
  problem: types.Problem,
  key: jax.Array,
  *,
  predictor: str = 'logistic',
  features: Sequence[str] = FEATURES,
  twin_epochs: int = 20,
  twin_learning_rate: float | None = None,
  curriculum_epochs: int = 2,
) -> Prediction:
  """Predicts on which forget examples gold would be right.

  Args:
    problem: its validation set is V; it must not have been trained on.
    key: of the twin's and the curriculum network's training.
    predictor: 'logistic' regression or 'mlp' (32 and 16 hidden units, calibrated).
    features: of `difficulty.FEATURES`.
    twin_epochs: passes of the twin over V, at most, beside as many other training rows; it stops
      when it has learned nine tenths of what lacked, at the start, to the forget set's accuracy
      under the original (on 1,000 rows of each at most). No twin is made where no feature needs it.
    twin_learning_rate: of the twin's SGD; None for a fifth of the recipe's, at most .05, or .01
      where its optimizer is another.
    curriculum_epochs: of the network from scratch, in half the recipe's batches at half its rate,
      where the batch has halves: twice the steps make more of one or two passes.

  Returns:
    The prediction. Of the held-out examples of the forgotten classes it calls as many easy as the
    original gets right. An example of a class that no retain example has is never easy.

  Raises:
    ValueError: for an unknown predictor or feature.
    types.DataError: if the held-out data are empty, lack a class to forget, or have too few
      examples that the original gets right, or wrong, to learn from.

  References:
    Ji et al.: Towards Aligned Data Removal via Twin Machine Unlearning.
    https://arxiv.org/abs/2408.11433
    Niu et al.: Towards Aligned Data Forgetting via Twin Machine Unlearning.
    https://arxiv.org/abs/2501.08615

  Deviation: the paper fine-tunes on extra data; the rule by which the twin's training stops, margin
  and instability among the features, and the threshold are ours. One network from scratch has seen
  V and all training data and serves both sides: both are in the same position there. So is the
  standardisation ours: the
  twin knows V less deeply than the original knows what it was trained on from the start, so each
  side is measured against random examples in the same position, V itself and retain examples that
  are left out of the neighbours. V's statistics for both sides call far too much easy.

  The papers' features are distance, adversarial and curriculum. The twin starts from the original,
  whose answers on V are V's labels: its margin on V, and less so its distances, remember them, and
  the forget set has no such trace. `FEATURES` agree best with gold over two problems, of 45,000 and
  of 400 images (`experiments.benchmarks.difficulty_features`); on the first, curriculum and
  instability alone are better, on the second they fail.
  """
  check(predictor, features)
  held_out = problem.validation
  is_of_class = _of_forgotten_classes(problem)
  held_out_easy = objectives.original_logits(problem, held_out).argmax(axis=1) == held_out.labels
  _check_counts(held_out_easy)
  trained = types.concatenate(problem.retain, problem.forget)
  twin_key, curriculum_key, reference_key = training.split(key, 3)
  twin, curriculum = problem.original, None
  if difficulty.needs_model(features):
    twin = _twin(problem, trained, twin_key, twin_epochs, twin_learning_rate)
  if 'curriculum' in features:
    everything = types.concatenate(trained, held_out)
    curriculum = _curriculum(problem, everything, curriculum_key, curriculum_epochs)
  held_out_features, forget_features = _measure(problem, twin, curriculum, features, reference_key)
  chance, held_out_chance = learn(predictor, held_out_features, held_out_easy, forget_features)
  chance = np.where(np.isin(problem.forget.labels, problem.retain.labels), chance, 0.0)
  least = threshold(held_out_chance[is_of_class], held_out_easy[is_of_class])
  return Prediction(
    chance > least,
    chance,
    least,
    held_out_easy,
    held_out_chance,
    forget_features,
    held_out_features,
    np.array(features),
  )


def threshold(chance: np.ndarray, is_easy: np.ndarray) -> np.float64:
  """The chance above which as many examples lie as are easy.

  It is 0 where all are easy: images of a class that went away have chance 0 and stay hard.

  Example:
    >>> threshold(np.array([0.1, 0.5, 0.9]), np.array([True, False, False])) < 0.9
    np.True_
  """
  share = is_easy.mean()
  return np.quantile(chance, 1 - share) if share < 1 else np.float64(0)


def check(predictor: str, features: Sequence[str]) -> None:
  """Raises ValueError for an unknown predictor or feature."""
  if predictor not in PREDICTORS:
    raise errors.InputError(f'predictor must be one of {", ".join(PREDICTORS)}, got {predictor!r}')
  difficulty.check(features)


def _of_forgotten_classes(problem) -> np.ndarray:
  """Mask of the held-out examples of the classes to forget; raises if a class has none."""
  if not len(problem.validation):
    raise types.DataError('validation is empty: what gold would know is learned from held-out data')
  wanted = np.unique(problem.forget.labels)
  missing = np.setdiff1d(wanted, problem.validation.labels)
  if len(missing):
    raise types.DataError(
      f'validation must hold the classes to forget, it lacks {missing.tolist()}'
    )
  return np.isin(problem.validation.labels, wanted)


def _check_counts(is_easy):
  wrong, right = np.bincount(is_easy.astype(int), minlength=2)
  if min(wrong, right) < _LEAST:
    raise types.DataError(
      f'validation must hold at least {_LEAST} examples that the original gets right and {_LEAST} '
      f'that it gets wrong to learn from, got {right} and {wrong}; hold out more'
    )


def _twin(problem, trained, key, max_epochs, learning_rate) -> types.ModelState:
  """The original trained on with V, until it knows V as well as it knows the forget set.

  A batch holds as many rows of V as of all else: a pass over V need not be one over everything.
  """
  recipe, held_out = problem.recipe, problem.validation.spread(_SAMPLE)
  if learning_rate is None:
    learning_rate = min(recipe.learning_rate / 5, 0.05) if recipe.optimizer == 'sgd' else 0.01
  known = objectives.accuracy_on(problem, problem.original, problem.forget.spread(_SAMPLE))
  wanted = known - _LEFT * (known - objectives.accuracy_on(problem, problem.original, held_out))
  return training.minimize(
    dataclasses.replace(problem, monitor=types.StepsOnly(problem.monitor)),
    objectives.PooledLoss(problem.apply_fn, ('held_out', 'train'), recipe.augmentation),
    optim.sgd(learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay),
    {'held_out': problem.validation, 'train': trained},
    key,
    num_epochs=max_epochs,
    batch_size=recipe.batch_size // _batch_parts(problem),
    stop_fn=lambda model: objectives.accuracy_on(problem, model, held_out) >= wanted,
  )


def _batch_parts(problem) -> int:
  """2, or 1 where the recipe's batch has no halves: so short trainings make more steps of it."""
  return 2 if problem.recipe.batch_size % (2 * parallel.num_devices(problem.devices)) == 0 else 1


def _curriculum(problem, dataset, key, num_epochs) -> types.ModelState:
  """A network from scratch that has seen the data for a short time: it knows the easy examples."""
  parts = _batch_parts(problem)
  recipe = dataclasses.replace(
    problem.recipe,
    num_epochs=num_epochs,
    warmup_epochs=0.0,
    batch_size=problem.recipe.batch_size // parts,
    learning_rate=problem.recipe.learning_rate / parts,
  )
  init_key, fit_key = training.split(key)
  model = fresh.model(problem.init_fn, init_key, dataset)
  return training.fit(problem.apply_fn, model, dataset, recipe, fit_key, devices=problem.devices)


def _measure(problem, twin, curriculum, names, key) -> tuple[np.ndarray, np.ndarray]:
  """Features of V under the twin and of the forget set under the original, each standardised."""
  measure = functools.partial(
    difficulty.measure, problem.apply_fn, names=names, devices=problem.devices
  )
  trained = types.concatenate(problem.retain, problem.forget)
  held_out = measure(twin, curriculum, problem.validation, trained)
  reference, kept = _draw(problem.retain, min(_SAMPLE, len(problem.validation)), key)
  both = measure(problem.original, curriculum, types.concatenate(problem.forget, reference), kept)
  forget, others = np.split(both, [len(problem.forget)])
  return _standardize(held_out, held_out), _standardize(forget, others)


def _draw(dataset, size, key) -> tuple[types.Dataset, types.Dataset]:
  """Random examples, `size` or half of the set, and the others."""
  rows = training.epoch_rng(key, 0).permutation(len(dataset))
  size = min(size, len(dataset) // 2)
  return dataset.take(np.sort(rows[:size])), dataset.take(np.sort(rows[size:]))


def _standardize(features, reference) -> np.ndarray:
  """In standard deviations from the reference's mean; 0 for a feature that does not vary."""
  spread = reference.std(axis=0)
  return (features - reference.mean(axis=0)) / np.where(spread > 0, spread, np.inf)


def learn(
  predictor: str, features: np.ndarray, is_easy: np.ndarray, target_features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Learns from some examples what the chances of others are.

  Args:
    predictor: of `PREDICTORS`.
    features: `[V, K]`, standardised, of the examples learned from.
    is_easy: bool `[V]`, their labels.
    target_features: `[N, K]`, standardised by their own side.

  Returns:
    Chances `[N]` of the target, and out-of-fold chances `[V]` of the examples learned from.
  """
  from sklearn import exceptions, model_selection  # heavy: imported where it is used

  model = _classifier(predictor)
  folds = model_selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)  # the mlp's few steps are meant
    own = model_selection.cross_val_predict(
      model, features, is_easy, cv=folds, method='predict_proba'
    )
    return model.fit(features, is_easy).predict_proba(target_features)[:, 1], own[:, 1]


def _classifier(predictor):
  from sklearn import calibration, linear_model, neural_network  # heavy: imported where it is used

  if predictor == 'logistic':
    return linear_model.LogisticRegression(max_iter=10_000)
  network = neural_network.MLPClassifier(
    (32, 16), solver='lbfgs', alpha=3.0, max_iter=100, random_state=0
  )
  return calibration.CalibratedClassifierCV(network, method='sigmoid', cv=3)
