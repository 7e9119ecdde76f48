"""The deletion request of the docs' own network, from an installed wheel: python own_model.py DOCS.

Makes the network of docs/deletion_own.md, a checkpoint and data of one's own in the current
folder, then runs `dalign-jax forget` and `dalign-jax verify` as a user would.
"""

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from sklearn import datasets

from dalign_jax import training, types

sys.path.insert(0, '')
MODEL = 'networks:make'
FLAGS = (
  *(f'--model={MODEL}', '--method=finetune', '--hparam=finetune.num_epochs=1'),
  '--nonear_copies',  # the base install has no ImageHash
  '--accept=no_effect,worse,destroyed,incomplete',
)


def main(docs: str) -> None:
  """Runs the request; raises where a command fails."""
  text = pathlib.Path(docs, 'deletion_own.md').read_text(encoding='utf-8')
  code = re.search(r'```python\n(.*?)```', text, flags=re.DOTALL)[1]
  pathlib.Path('networks.py').write_text(code, encoding='utf-8')
  import networks

  images, labels = datasets.load_digits(return_X_y=True)
  images = (images.reshape(-1, 8, 8, 1) * 15.9375).astype(np.uint8)
  ids = np.array([f'digit_{row}' for row in range(len(images))])
  for name, rows in (('train', slice(0, 400)), ('held_out', slice(400, 700))):
    np.savez(f'{name}.npz', images=images[rows], labels=labels[rows], ids=ids[rows])
  apply_fn, init_fn = networks.make(10, (8, 8, 1))
  known = types.Dataset(images[:400], labels[:400].astype(np.int32), ids[:400])
  recipe = types.Recipe(num_epochs=8, batch_size=20)
  state = training.fit(apply_fn, init_fn(jax.random.key(0)), known, recipe, jax.random.key(1))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(pathlib.Path('params').absolute(), state.params)
  pathlib.Path('request.csv').write_text('id\n' + '\n'.join(ids[:5]) + '\n', encoding='utf-8')

  program = str(pathlib.Path(sys.executable).with_name('dalign-jax'))
  where = ('--data=npz:train.npz', '--held_out=npz:held_out.npz')
  files = ('--checkpoint=params', '--ids=request.csv', '--out=forgotten')
  subprocess.run([program, 'forget', *files, *where, *FLAGS], check=True)
  named = ('--keys=record_keys', f'--model={MODEL}')
  subprocess.run([program, 'verify', 'forgotten', *named], check=True)


if __name__ == '__main__':
  main(sys.argv[1])
