"""Unlearning methods behind one interface: `METHODS[name].make(**hyper_parameters)(problem, key)`.

To add a method, write one file with a factory of keyword-only hyper-parameters and add one line to
the table; the contract test then covers it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from dalign_jax import types
from dalign_jax.methods._bad_teacher import bad_teacher
from dalign_jax.methods._boundary_shrink import boundary_shrink
from dalign_jax.methods._delete import delete
from dalign_jax.methods._dlfd import dlfd
from dalign_jax.methods._finetune import finetune
from dalign_jax.methods._fisher import fisher
from dalign_jax.methods._gradient_ascent import gradient_ascent
from dalign_jax.methods._head_only import head_only
from dalign_jax.methods._influence import influence
from dalign_jax.methods._just_in_time import jit
from dalign_jax.methods._l1_sparse import l1_sparse
from dalign_jax.methods._l2ul import l2ul
from dalign_jax.methods._last_layers import cf_k, eu_k
from dalign_jax.methods._muda import muda
from dalign_jax.methods._neggrad_plus import neggrad_plus
from dalign_jax.methods._pbu import pbu
from dalign_jax.methods._planted_leak import planted_leak
from dalign_jax.methods._random_label import random_label
from dalign_jax.methods._retrain import retrain
from dalign_jax.methods._salun import salun
from dalign_jax.methods._scrub import scrub
from dalign_jax.methods._ssd import ssd
from dalign_jax.methods._tmu import tmu
from dalign_jax.methods._unsir import unsir


class Method(NamedTuple):
  """A method's factory, what a table says of it, and to which labels it applies."""

  make: Callable[..., types.UnlearnFn]
  sees: str
  class_only: bool = False
  multi_label: bool = False


METHODS: dict[str, Method] = {
  'bad_teacher': Method(bad_teacher, sees='forget images, part of retain'),
  'boundary_shrink': Method(boundary_shrink, sees='forget'),
  'cf_k': Method(cf_k, sees='all retain', multi_label=True),
  'delete': Method(delete, sees='forget'),
  'dlfd': Method(dlfd, sees='all retain, forget, validation, unseen people', multi_label=True),
  'eu_k': Method(eu_k, sees='all retain', multi_label=True),
  'finetune': Method(finetune, sees='all retain', multi_label=True),
  'fisher': Method(fisher, sees='all retain'),
  'gradient_ascent': Method(gradient_ascent, sees='forget', multi_label=True),
  'head_only': Method(head_only, sees='forget', class_only=True),
  'influence': Method(influence, sees='forget, part of retain'),
  'jit': Method(jit, sees='forget images'),
  'l1_sparse': Method(l1_sparse, sees='all retain', multi_label=True),
  'l2ul': Method(l2ul, sees='forget'),
  'muda': Method(muda, sees='forget, part of retain'),
  'neggrad_plus': Method(neggrad_plus, sees='all retain, forget', multi_label=True),
  'pbu': Method(pbu, sees='forget', class_only=True),
  'planted_leak': Method(planted_leak, sees='all retain, forget', multi_label=True),
  'random_label': Method(random_label, sees='all retain, forget'),
  'retrain': Method(retrain, sees='all retain', multi_label=True),
  'salun': Method(salun, sees='all retain, forget'),
  'scrub': Method(scrub, sees='all retain, forget'),
  'ssd': Method(ssd, sees='all retain, forget'),
  'tmu': Method(tmu, sees='all retain, forget, validation'),
  'unsir': Method(unsir, sees='part of retain', class_only=True),
}


def sees(name: str, hparams: Mapping[str, object], *, has_unseen: bool) -> str:
  """What data a method reads with these hyper-parameters, for tables and records.

  Args:
    name: of the method.
    hparams: all of its hyper-parameters.
    has_unseen: whether the problem has unseen people.
  """
  found = METHODS[name].sees
  if hparams.get('retain_fraction') == 1:
    found = found.replace('part of retain', 'all retain')
  if hparams.get('rewind'):
    found = f'{found}, validation'
  return found if has_unseen else found.replace(', unseen people', '')


__all__ = [
  'METHODS',
  'Method',
  'bad_teacher',
  'boundary_shrink',
  'cf_k',
  'delete',
  'dlfd',
  'eu_k',
  'finetune',
  'fisher',
  'gradient_ascent',
  'head_only',
  'influence',
  'jit',
  'l1_sparse',
  'l2ul',
  'muda',
  'neggrad_plus',
  'pbu',
  'planted_leak',
  'random_label',
  'retrain',
  'salun',
  'scrub',
  'ssd',
  'tmu',
  'unsir',
]
