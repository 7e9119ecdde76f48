"""The settings of a deletion request. Each field is a flag of `experiments.forget`."""

import dataclasses

SHARED = (  # settings of experiments.run that a request has too
  *('data_dir', 'train_split', 'test_split', 'image_key', 'label_key', 'group_key', 'id_key'),
  *('image_size', 'model', 'norm', 'width_multiplier', 'stem'),
  *('num_epochs', 'batch_size', 'learning_rate', 'momentum', 'weight_decay', 'warmup_epochs'),
  *('augmentation', 'split_seed', 'gold_seed', 'unlearn_seed', 'evaluation_seed', 'da_energy'),
  *('num_devices', 'cpu_tuning', 'compilation_cache_dir', 'cache_dir'),
)


def _flag(default, help_text: str):
  return dataclasses.field(default=default, metadata={'help': help_text})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """The flags of `experiments.forget` beside those that it shares with `experiments.run`."""

  checkpoint: str = _flag(
    '',
    'Model to unlearn from: of experiments.run, the --out of an earlier request, or an Orbax '
    'checkpoint of your own.',
  )
  ids: str = _flag('', 'File of the ids to forget: one a line, or CSV with a column id.')
  out: str = _flag('', 'Folder for the new checkpoint and the record; must not exist.')
  data: str = _flag('', 'Training data, as --dataset of experiments.run; default: as before.')
  held_out: str = _flag(
    '', 'Data never trained on, in the same forms; not needed where a run held some out.'
  )
  method: str = _flag('muda', 'Method; see dalign_jax.methods.METHODS.')
  hparam: tuple[str, ...] = _flag((), 'A hyper-parameter, as muda.da_weight=5. May be repeated.')
  compare_gold: int = _flag(
    0, 'Retrain so many models (0, 1 or 2) without the forgotten data, to compare with.'
  )
