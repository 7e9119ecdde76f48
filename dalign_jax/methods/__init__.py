"""Unlearning methods behind one interface: `METHODS[name].make(**hyper_parameters)(problem, key)`.

To add a method, write one file with a factory of keyword-only hyper-parameters and add one line to
the table; the contract test then covers it.
"""

from collections.abc import Callable, Mapping, Set
import functools
from typing import Any, NamedTuple

import numpy as np

from dalign_jax import errors, training, types
from dalign_jax.methods._amun import amun
from dalign_jax.methods._bad_teacher import bad_teacher
from dalign_jax.methods._boundary_shrink import boundary_shrink
from dalign_jax.methods._cmf import cmf
from dalign_jax.methods._convolution_transpose import ct
from dalign_jax.methods._delete import delete
from dalign_jax.methods._dlfd import dlfd
from dalign_jax.methods._duck import duck
from dalign_jax.methods._esc import esc
from dalign_jax.methods._esc_t import esc_t
from dalign_jax.methods._finetune import finetune
from dalign_jax.methods._fisher import fisher
from dalign_jax.methods._gradient_ascent import gradient_ascent
from dalign_jax.methods._head_only import head_only
from dalign_jax.methods._influence import influence
from dalign_jax.methods._just_in_time import jit
from dalign_jax.methods._l1_sparse import l1_sparse
from dalign_jax.methods._l2ul import l2ul
from dalign_jax.methods._last_layers import cf_k, eu_k
from dalign_jax.methods._lotus import lotus
from dalign_jax.methods._masked_small_gradients import msg
from dalign_jax.methods._matching import datamodel_matching, oracle_matching
from dalign_jax.methods._muda import muda
from dalign_jax.methods._neggrad_plus import neggrad_plus
from dalign_jax.methods._negmerge import negmerge
from dalign_jax.methods._noisy_finetune import noisy_finetune, promise
from dalign_jax.methods._pbu import pbu
from dalign_jax.methods._planted_leak import planted_leak
from dalign_jax.methods._pour_p import pour_p
from dalign_jax.methods._random_label import random_label
from dalign_jax.methods._retrain import retrain
from dalign_jax.methods._salun import salun
from dalign_jax.methods._scrub import scrub
from dalign_jax.methods._sfron import sfron
from dalign_jax.methods._ssd import ssd
from dalign_jax.methods._svd_projection import svd_projection
from dalign_jax.methods._task_vector import task_vector
from dalign_jax.methods._tmu import asks_gold, tmu
from dalign_jax.methods._unsir import unsir
from dalign_jax.methods._valid import VALID

SINGLE_IMAGES, WHOLE_CLASSES, PEOPLE = 'single images', 'whole classes', 'people'  # requests
_NEARLY_ALL = 0.9  # of the images of a request for people

# what a method may read of a problem, in the order in which tables say it
RETAIN, PART_OF_RETAIN = 'all retain', 'part of retain'
FORGET, FORGET_IMAGES = 'forget', 'forget images'
VALIDATION, UNSEEN, GOLD = 'validation', 'unseen people', 'gold: an oracle'
SUBSETS = 'models of subsets'
_ORDER = (RETAIN, FORGET, FORGET_IMAGES, PART_OF_RETAIN, VALIDATION, UNSEEN, SUBSETS, GOLD)


class Method(NamedTuple):
  """A method: its factory, the data it reads, and the problems it applies to.

  Attributes:
    make: the factory.
    sees: what it reads, whatever its hyper-parameters.
    sees_more: `hyper_parameters -> names`, what it reads beyond or in place of that; see `sees`.
    class_only: whether it forgets whole classes only.
    most_share: share of the training data that it forgets at most; see `check_range`.
    harmed_by: the kind of requests that it does not serve; see `check_range`.
    people_only: whether it forgets people only, behind a label that others share.
    multi_label: whether it also takes several binary attributes.
    guarantee: `hyper_parameters -> {'definition', 'covers', 'does_not_cover'}` of an (epsilon,
      delta) guarantee; None where there is none. `retrain` is exact.
  """

  make: Callable[..., types.UnlearnFn]
  sees: Set[str]
  sees_more: Callable[[Mapping[str, Any]], Set[str]] = lambda hparams: frozenset()
  class_only: bool = False
  most_share: float = 1.0
  harmed_by: str = ''
  people_only: bool = False
  multi_label: bool = False
  guarantee: Callable[[Mapping[str, Any]], dict[str, str]] | None = None


def _all_retain(hparams):
  return {RETAIN} if hparams['retain_fraction'] == 1 else frozenset()


def _muda_sees(hparams):
  return _all_retain(hparams) | ({VALIDATION} if hparams['stop_at'] == 'validation' else set())


METHODS: dict[str, Method] = {
  'amun': Method(amun, sees={RETAIN, FORGET}),
  'bad_teacher': Method(bad_teacher, sees={FORGET_IMAGES, PART_OF_RETAIN}, sees_more=_all_retain),
  'boundary_shrink': Method(boundary_shrink, sees={FORGET}),
  'cf_k': Method(cf_k, sees={RETAIN}, multi_label=True),
  'cmf': Method(
    cmf,
    sees={RETAIN},
    sees_more=lambda hparams: {FORGET} if hparams['encoder_epochs'] else frozenset(),
    harmed_by=SINGLE_IMAGES,
  ),
  'ct': Method(ct, sees={RETAIN}),
  'datamodel_matching': Method(datamodel_matching, sees={RETAIN, FORGET, SUBSETS}),
  'delete': Method(delete, sees={FORGET}, most_share=0.25),
  'dlfd': Method(
    dlfd, sees={RETAIN, FORGET, VALIDATION, UNSEEN}, people_only=True, multi_label=True
  ),
  'duck': Method(duck, sees={RETAIN, FORGET, VALIDATION}),
  'esc': Method(esc, sees={FORGET_IMAGES}, class_only=True),
  'esc_t': Method(esc_t, sees={FORGET}, class_only=True),
  'eu_k': Method(eu_k, sees={RETAIN}, multi_label=True),
  'finetune': Method(finetune, sees={RETAIN}, multi_label=True),
  'fisher': Method(fisher, sees={RETAIN}),
  'gradient_ascent': Method(gradient_ascent, sees={FORGET}, multi_label=True),
  'head_only': Method(head_only, sees={FORGET}, class_only=True),
  'influence': Method(
    influence, sees={FORGET, PART_OF_RETAIN}, sees_more=_all_retain, most_share=0.15
  ),
  'jit': Method(jit, sees={FORGET_IMAGES}),
  'l1_sparse': Method(l1_sparse, sees={RETAIN}, multi_label=True),
  'l2ul': Method(l2ul, sees={FORGET}),
  'lotus': Method(lotus, sees={FORGET, PART_OF_RETAIN, VALIDATION}, sees_more=_all_retain),
  'msg': Method(msg, sees={RETAIN, FORGET}),
  'muda': Method(muda, sees={FORGET, PART_OF_RETAIN}, sees_more=_muda_sees),
  'neggrad_plus': Method(neggrad_plus, sees={RETAIN, FORGET}, multi_label=True),
  'negmerge': Method(negmerge, sees={FORGET, VALIDATION}),
  'noisy_finetune': Method(noisy_finetune, sees={RETAIN}, guarantee=promise),
  'oracle_matching': Method(oracle_matching, sees={RETAIN, FORGET, GOLD}),
  'pbu': Method(pbu, sees={FORGET}, class_only=True),
  'planted_leak': Method(planted_leak, sees={RETAIN, FORGET}, multi_label=True),
  'pour_p': Method(pour_p, sees=frozenset(), class_only=True),
  'random_label': Method(random_label, sees={RETAIN, FORGET}, most_share=0.25),
  'retrain': Method(retrain, sees={RETAIN}, multi_label=True),
  'salun': Method(salun, sees={RETAIN, FORGET}, most_share=0.25),
  'scrub': Method(
    scrub,
    sees={RETAIN, FORGET},
    sees_more=lambda hparams: {VALIDATION} if hparams['rewind'] else frozenset(),
  ),
  'sfron': Method(sfron, sees={RETAIN, FORGET}),
  'ssd': Method(ssd, sees={RETAIN, FORGET}),
  'svd_projection': Method(
    svd_projection,
    sees={FORGET_IMAGES, PART_OF_RETAIN},
    sees_more=_all_retain,
    class_only=True,
  ),
  'task_vector': Method(
    task_vector,
    sees={FORGET, VALIDATION},
    sees_more=lambda hparams: {RETAIN} if hparams['adds_retain'] else frozenset(),
  ),
  'tmu': Method(
    tmu,
    sees={RETAIN, FORGET, VALIDATION},
    sees_more=lambda hparams: {GOLD} if asks_gold(hparams) else frozenset(),
    harmed_by=WHOLE_CLASSES,
  ),
  'unsir': Method(unsir, sees={PART_OF_RETAIN}, sees_more=_all_retain, class_only=True),
}


def _checked(make):
  """A factory whose methods compare the problem with its network before any work."""

  @functools.wraps(make)
  def made(*args, **hparams):
    unlearn = make(*args, **hparams)

    @functools.wraps(unlearn)
    def run(problem, key):
      training.check_problem(problem)
      return unlearn(problem, key)

    return run

  return made


METHODS = {name: method._replace(make=_checked(method.make)) for name, method in METHODS.items()}
globals().update({name: method.make for name, method in METHODS.items()})  # those of `__all__` too

# methods whose steps are their own -> why `Problem.optimizer` and `schedule` are not for them
OWN_STEPS: dict[str, str] = {
  **dict.fromkeys(
    ('esc', 'esc_t', 'fisher', 'head_only', 'influence', 'pour_p', 'ssd', 'svd_projection'),
    'takes no steps of an optimizer',
  ),
  **dict.fromkeys(
    ('noisy_finetune', 'planted_leak', 'retrain'), 'trains as the original was (--optimizer)'
  ),
  'bad_teacher': 'uses Adam, as its paper does',
  'cmf': 'replaces the head by class means; the steps of its encoder are plain SGD',
  'lotus': 'uses AdamW, as its paper does',
  'msg': 'scales the gradients of the weights it keeps, which is a learning rate with SGD alone',
  'negmerge': 'scales its losses, which is a learning rate with SGD alone',
  'sfron': 'shares one momentum between masked ascent and descent, which is SGD by design',
}


# methods that work on the weights themselves -> why low-rank adapters are not for them
WHOLE_WEIGHTS: dict[str, str] = {
  **dict.fromkeys(('cmf', 'esc', 'esc_t', 'head_only', 'pour_p'), 'replaces the whole head'),
  **dict.fromkeys(('cf_k', 'eu_k'), 'counts layers, and an adapter belongs to one'),
  'ct': 'transposes whole kernels',
  'msg': 'draws weights anew, and adapters keep the original below them',
  **dict.fromkeys(('negmerge', 'task_vector'), 'negates weights, and a product of adapters not'),
  'ssd': 'dampens weights that are there, and an adapter is 0 at first',
  'svd_projection': 'projects whole kernels',
}


def forgets_people(forget: types.Dataset, retain: types.Dataset) -> bool | None:
  """Whether nearly all images are of people who go whole; None where no groups say whose they are.

  Nearly: the forget set of MUFAC is the first 1,500 rows of a list, wherever its last person ends.
  """
  if forget.group is None or retain.group is None:
    return None
  return bool(np.mean(~np.isin(forget.group, retain.group)) >= _NEARLY_ALL)


def check_range(
  name: str, forget: np.ndarray, retain: np.ndarray, *, of_people: bool | None = None
) -> None:
  """Refuses a request outside the range in which a method's defaults do no harm.

  The shares are of methods that lost more than ten points of test accuracy against gold by their
  defaults, mean of three originals: on half of the digits, and `influence` also on a fifth (one
  original). They lie below that, and above the requests of a tenth that these methods are made for.
  The kinds are of methods that lost more than two points there: `cmf` on images of classes that
  stay, whose means hardly move; `tmu` where all goes whole, so that gold gets none right and
  nothing is left to predict. docs/methods.md has the numbers. `dlfd` is made for people: it has no
  reason to lose a class.

  Args:
    name: of the method.
    forget: labels of the examples to forget.
    retain: labels of those that stay.
    of_people: whether the request is of people (`forgets_people`), None if that is not known.

  Raises:
    errors.InputError: if it is.
  """
  method, share = METHODS[name], len(forget) / (len(forget) + len(retain))
  if share > method.most_share:
    raise errors.InputError(
      f'{name} destroys a network that is to forget much: at most {100 * method.most_share:.0f} % '
      f'of the training data, and these are {100 * share:.0f} %; see docs/methods.md'
    )
  stays = np.isin(forget, retain) if forget.ndim == 1 else np.ones(1, bool)
  if method.people_only and (of_people is False or not stays.any()):
    raise errors.InputError(
      f'{name} forgets people, whose label others share: it keeps the labels that it finds. The '
      'request must be of all images of some people, and the data must name them (group_key); see '
      'docs/methods.md'
    )
  harms = {SINGLE_IMAGES: stays.any(), WHOLE_CLASSES: not stays.any()}
  if harms.get(method.harmed_by):
    raise errors.InputError(
      f'{name} is not for requests of {method.harmed_by}: by its defaults it loses more than two '
      'points of test accuracy; see docs/methods.md'
    )


def sees(name: str, hparams: Mapping[str, Any], *, has_unseen: bool) -> frozenset[str]:
  """Names of the data that a method reads with these hyper-parameters.

  Args:
    name: of the method.
    hparams: all of its hyper-parameters.
    has_unseen: whether the problem has unseen people.
  """
  found = {*METHODS[name].sees, *METHODS[name].sees_more(hparams)}
  if RETAIN in found:
    found.discard(PART_OF_RETAIN)
  if not has_unseen:
    found.discard(UNSEEN)
  return frozenset(found)


def in_words(seen: Set[str]) -> str:
  """The data that a method reads, in words, for tables and records.

  Example:
    >>> in_words({VALIDATION, FORGET, PART_OF_RETAIN})
    'forget, part of retain, validation'
  """
  return ', '.join(name for name in _ORDER if name in seen) or 'nothing'


__all__ = [
  'GOLD',
  'METHODS',
  'OWN_STEPS',
  'PEOPLE',
  'SINGLE_IMAGES',
  'SUBSETS',
  'VALID',
  'WHOLE_CLASSES',
  'Method',
  'amun',
  'bad_teacher',
  'boundary_shrink',
  'cf_k',
  'check_range',
  'cmf',
  'ct',
  'datamodel_matching',
  'delete',
  'dlfd',
  'duck',
  'esc',
  'esc_t',
  'eu_k',
  'finetune',
  'fisher',
  'forgets_people',
  'gradient_ascent',
  'head_only',
  'in_words',
  'influence',
  'jit',
  'l1_sparse',
  'l2ul',
  'lotus',
  'msg',
  'muda',
  'neggrad_plus',
  'negmerge',
  'noisy_finetune',
  'oracle_matching',
  'pbu',
  'planted_leak',
  'pour_p',
  'random_label',
  'retrain',
  'salun',
  'scrub',
  'sees',
  'sfron',
  'ssd',
  'svd_projection',
  'task_vector',
  'tmu',
  'unsir',
]
