"""Geometry of penultimate features: the forget set in the retain set's subspace."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dalign_jax import errors
from dalign_jax.metrics import _checks

CENTERINGS = ('none', 'retain_mean', 'own_mean')


class Alignment(NamedTuple):
  """Dimensional alignment `value` in [0, 1] and the `rank` k of the retain subspace."""

  value: float
  rank: int


class AlignmentCurve(NamedTuple):
  """Dimensional alignment `values [E]` and `ranks [E]`, one for each energy."""

  values: np.ndarray
  ranks: np.ndarray


def dimensional_alignment(
  forget_features: np.ndarray,
  retain_features: np.ndarray,
  *,
  energy: float = 0.9,
  centering: str = 'none',
) -> Alignment:
  r"""Share of the forget features' energy inside the retain features' leading subspace.

  .. math::
    DA = \frac{\|Z_f V_k\|_F^2}{\|Z_f\|_F^2}, \qquad
    \frac{1}{N_r} Z_r^\top Z_r = V \mathrm{diag}(w) V^\top

  with :math:`V_k` the fewest leading eigenvectors that hold `energy` of the trace. Samples that a
  model was not trained on lie closer to its retain manifold, so gold shows a higher value than the
  original. Compare it with gold's and the original's; it has no absolute meaning.

  Args:
    forget_features: `[Nf, D]` penultimate features.
    retain_features: `[Nr, D]` features under the same model.
    energy: share of the retain features' energy to keep, in (0, 1].
    centering: 'none'; 'retain_mean' subtracts the retain mean from both sets; 'own_mean' from
      each set its own. Centring by the retain mean can invert the order of original and gold.

  Returns:
    The value in [0, 1], unchanged by scaling or rotating all features, and the rank k.

  Raises:
    ValueError: for an empty, non-finite or wrongly shaped argument, features that are all zero
      (after centring), an energy outside (0, 1] or an unknown centring.

  Example:
    >>> retain = np.array([[2.0, 0.0], [0.0, 0.1]])
    >>> value, rank = dimensional_alignment(np.array([[3.0, 4.0]]), retain)
    >>> round(value, 2), rank
    (0.36, 1)

  References:
    Seonguk Seo, Dongwan Kim, Bohyung Han, "Revisiting Machine Unlearning with Dimensional
    Alignment", https://arxiv.org/abs/2407.17710.

  Deviation: the normalisation and the cut by energy are a reconstruction.
  """
  values, ranks = alignment_curve(forget_features, retain_features, [energy], centering=centering)
  return Alignment(float(values[0]), int(ranks[0]))


def alignment_curve(
  forget_features: np.ndarray,
  retain_features: np.ndarray,
  energies: Sequence[float],
  *,
  centering: str = 'none',
) -> AlignmentCurve:
  """Dimensional alignment at several energies, from one eigendecomposition.

  Args:
    forget_features: `[Nf, D]` penultimate features.
    retain_features: `[Nr, D]` features under the same model.
    energies: E shares of the retain features' energy, each in (0, 1].
    centering: as in `dimensional_alignment`.

  Returns:
    Values `[E]` and ranks `[E]`.

  Raises:
    ValueError: as `dimensional_alignment`.
  """
  forget, retain = _pair(forget_features, retain_features, centering)
  weights, vectors = _eigen_of_features(retain)
  ranks = _ranks(weights, energies)
  shares = np.sum((forget @ vectors) ** 2, axis=0) / np.sum(forget**2)
  return _curve(shares, ranks)


def dimensional_alignment_from_moments(
  forget_moment: np.ndarray, retain_moment: np.ndarray, *, energy: float = 0.9
) -> Alignment:
  r"""Dimensional alignment from second moments, which can be accumulated over batches.

  .. math:: DA = \mathrm{tr}(V_k V_k^\top S_f) / \mathrm{tr}(S_f)

  Args:
    forget_moment: `[D, D]`, :math:`Z_f^\top Z_f` up to a positive factor.
    retain_moment: `[D, D]`, :math:`Z_r^\top Z_r` up to a positive factor.
    energy: share of the retain trace to keep, in (0, 1].

  Returns:
    The value and rank, those of `dimensional_alignment` on the features.

  Raises:
    ValueError: for a non-finite, non-square or asymmetric moment, one without positive trace, or
      an energy outside (0, 1].

  Example:
    >>> dimensional_alignment_from_moments(np.eye(4), np.diag([9.0, 9.0, 0.1, 0.0]))
    Alignment(value=0.5, rank=2)
  """
  forget = _moment('forget_moment', forget_moment)
  retain = _moment('retain_moment', retain_moment)
  _checks.same_shape('forget_moment', forget, 'retain_moment', retain)
  weights, vectors = _eigen_of_moment(retain)
  shares = np.sum(vectors * (forget @ vectors), axis=0) / np.trace(forget)
  values, ranks = _curve(shares, _ranks(weights, [energy]))
  return Alignment(float(values[0]), int(ranks[0]))


def spectrum(features: np.ndarray) -> np.ndarray:
  """Eigenvalues of the features' second moment, as shares of its trace.

  Args:
    features: `[N, D]`.

  Returns:
    `[D]` shares, descending, of sum 1 (zeros beyond N).

  Raises:
    ValueError: for empty, non-finite, wrongly shaped or all-zero features.

  Example:
    >>> spectrum(np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).round(2)
    array([0.9, 0.1, 0. ])
  """
  features = _checks.as_array('features', features, ('N', 'D'))
  weights, _ = _eigen_of_features(_not_zero('features', features, features))
  weights = np.pad(weights, (0, features.shape[1] - len(weights)))
  return weights / weights.sum()


def subspace_overlap(
  forget_features: np.ndarray, retain_features: np.ndarray, *, energy: float = 0.9
) -> float:
  r"""Overlap of the leading forget and retain subspaces, both cut at the same energy.

  .. math:: \|U_f^\top V_r\|_F^2 / k_f

  Args:
    forget_features: `[Nf, D]` penultimate features.
    retain_features: `[Nr, D]` features under the same model.
    energy: share of each set's energy to keep, in (0, 1].

  Returns:
    The overlap, in [0, 1]; 1 if the forget subspace lies within the retain subspace.

  Raises:
    ValueError: for an empty, non-finite, wrongly shaped or all-zero argument, or an energy
      outside (0, 1].

  Example:
    >>> subspace_overlap(np.array([[1.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 5.0]]))
    1.0
  """
  bases = []
  for features in _pair(forget_features, retain_features, 'none'):
    weights, vectors = _eigen_of_features(features)
    bases.append(vectors[:, : _ranks(weights, [energy])[0]])
  return float(min(np.sum((bases[0].T @ bases[1]) ** 2) / bases[0].shape[1], 1.0))


def _pair(forget, retain, centering):
  """Both sets in float64, checked and centred."""
  forget = _checks.as_array('forget_features', forget, ('Nf', 'D'))
  retain = _checks.as_array('retain_features', retain, ('Nr', 'D'))
  _checks.same_columns('forget_features', forget, 'retain_features', retain)
  if centering not in CENTERINGS:
    raise errors.InputError(f'centering must be one of {", ".join(CENTERINGS)}, got {centering!r}')
  forget_mean = {'none': 0, 'retain_mean': retain.mean(0), 'own_mean': forget.mean(0)}[centering]
  retain_mean = 0 if centering == 'none' else retain.mean(0)
  return (
    _not_zero('forget_features', forget, forget - forget_mean),
    _not_zero('retain_features', retain, retain - retain_mean),
  )


def _not_zero(name, features, centred):
  if np.sum(centred**2) <= 1e-24 * np.sum(features**2):
    centring = '' if centred is features or not features.any() else ' after centring'
    raise errors.InputError(
      f'{name} must not be all zero{centring}, got {list(features.shape)} zeros'
    )
  return centred


def _moment(name, value):
  moment = _checks.as_array(name, value, ('D', 'D'))
  if moment.shape[0] != moment.shape[1]:
    raise errors.InputError(f'{name} must be square, got shape {list(moment.shape)}')
  if np.abs(moment - moment.T).max() > 1e-4 * np.abs(moment).max():
    raise errors.InputError(f'{name} must be symmetric, got differences across the diagonal')
  if np.trace(moment) <= 0:
    raise errors.InputError(f'{name} must have a positive trace, got {np.trace(moment)}')
  return (moment + moment.T) / 2


def _eigen_of_moment(moment):
  """Eigenvalues (descending, not negative) and eigenvectors `[D, D]`."""
  weights, vectors = np.linalg.eigh(moment)
  return np.maximum(weights[::-1], 0), vectors[:, ::-1]


def _eigen_of_features(features):
  """Eigenvalues (descending) and eigenvectors `[D, min(N, D)]` of the second moment."""
  if len(features) >= features.shape[1]:
    return _eigen_of_moment(features.T @ features / len(features))
  _, singular, vectors = np.linalg.svd(features, full_matrices=False)
  return singular**2 / len(features), vectors.T


def _ranks(weights, energies):
  """For each energy the fewest leading eigenvalues that hold it."""
  energies = [_checks.fraction('energy', energy, zero=False) for energy in energies]
  if not energies:
    raise errors.InputError('energies must not be empty')
  held = np.cumsum(weights) / np.sum(weights)
  return np.minimum(np.searchsorted(held, np.array(energies) - 1e-12) + 1, len(weights))


def _curve(shares, ranks):
  held = np.cumsum(shares)[ranks - 1]
  return AlignmentCurve(np.clip(held, 0, 1), ranks)
