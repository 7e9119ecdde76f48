"""Settings as dataclasses: what a run and a deletion request share, and the request itself.

Each field is a flag of the commands, with its help.
"""

import dataclasses
import os
from typing import Any


def _flag(default, help_text, group):
  return dataclasses.field(default=default, metadata={'help': help_text, 'group': group})


def problem_setting(default: Any, help_text: str) -> Any:
  """A setting that original and gold depend on: it must not change inside a problem folder."""
  return _flag(default, help_text, 'problem')


def run_setting(default: Any, help_text: str) -> Any:
  """A setting of this run alone."""
  return _flag(default, help_text, 'run')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """Data, network, recipe, seeds and platform: what every command needs to know."""

  dataset: str = problem_setting(
    'mnist5k',
    'mnist5k or digits (embedded), npz:PATH, folder:PATH, mufac:PATH, mucac:PATH, celeba:PATH, '
    'lfw:PATH, or a TFDS name.',
  )
  data_dir: str = run_setting('', 'Where TFDS keeps its data; default: TFDS decides.')
  train_split: str = problem_setting('train', 'TFDS split to train on.')
  test_split: str = problem_setting(
    '', 'TFDS split to test on; default: a part of the train split.'
  )
  image_key: str = problem_setting('image', 'TFDS feature that holds the image.')
  label_key: str = problem_setting(
    'label', 'TFDS feature to classify; attributes of mucac: and celeba:, gender of lfw:.'
  )
  group_key: str = problem_setting('', 'TFDS feature that says who is in the image.')
  id_key: str = problem_setting('', 'TFDS feature that identifies an example; default: its number.')
  image_size: int = problem_setting(0, 'Resize images of folder: to this side; 0: as they are.')
  split_seed: int = problem_setting(0, 'Seed of subset, splits and random forget sets.')
  model: str = problem_setting('cnn', 'Network; see dalign_jax.models.MODELS; or MODULE:FUNCTION.')
  norm: str = problem_setting('batch', 'Normalisation: batch, group or none.')
  width_multiplier: float = problem_setting(1.0, 'Multiplies the number of channels.')
  stem: str = problem_setting('cifar', 'First layers of a ResNet: cifar or imagenet.')
  num_epochs: int = problem_setting(10, 'Epochs of original and gold.')
  batch_size: int = problem_setting(128, 'Global batch of original and gold, over all devices.')
  learning_rate: float = problem_setting(0.1, 'Peak learning rate of original and gold.')
  momentum: float = problem_setting(0.9, 'Momentum of original and gold.')
  weight_decay: float = problem_setting(5e-4, 'Weight decay of original and gold.')
  warmup_epochs: float = problem_setting(1.0, 'Length of the linear warm-up, in epochs.')
  augmentation: str = problem_setting('none', 'Augmentation of training: none, crop or crop_flip.')
  gold_seed: int = problem_setting(
    100, 'Seed of the first gold model; the others count on from it.'
  )
  unlearn_seed: int = run_setting(0, 'Seed of the unlearning methods.')
  evaluation_seed: int = run_setting(0, 'Seed of attacks, probes and clusterings.')
  da_energy: float = run_setting(0.9, 'Share of the spectrum that the DA metric keeps.')
  num_devices: int = run_setting(0, 'Devices to use; 0: all.')
  cpu_tuning: bool = run_setting(True, 'Faster compiler settings on the CPU; they change bits.')
  compilation_cache_dir: str = run_setting(
    os.path.join('~', '.cache', 'dalign_jax', 'compiled'),
    'Where compiled programs are kept; empty: nowhere.',
  )
  cache_dir: str = run_setting(
    os.path.join('~', '.cache', 'dalign_jax', 'data'),
    'Where decoded data are kept; empty: nowhere.',
  )

  def problem_settings(self) -> dict[str, Any]:
    """The settings that may not change inside a problem folder."""
    fields = dataclasses.fields(self)
    return {f.name: getattr(self, f.name) for f in fields if f.metadata['group'] == 'problem'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A deletion request, beside `Settings`."""

  checkpoint: str = run_setting(
    '',
    'Model to unlearn from: of experiments.run, the --out of an earlier request, or an Orbax '
    'checkpoint of your own.',
  )
  ids: str = run_setting('', 'File of the ids to forget: one a line, or CSV with a column id.')
  out: str = run_setting('', 'Folder for the new checkpoint and the record; must not exist.')
  data: str = run_setting('', 'Training data, as --dataset of experiments.run; default: as before.')
  held_out: str = run_setting(
    '', 'Data never trained on, in the same forms; not needed where a run held some out.'
  )
  method: str = run_setting('muda', 'Method; see dalign_jax.methods.METHODS.')
  hparam: tuple[str, ...] = run_setting(
    (), 'A hyper-parameter, as muda.da_weight=5. May be repeated.'
  )
  compare_gold: int = run_setting(
    0, 'Retrain so many models (0, 1 or 2) without the forgotten data, to compare with.'
  )
