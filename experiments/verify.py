"""Checks the audit record of a deletion request: `dalign-jax verify`, from a checkout.

python -m experiments.verify FOLDER/record.json --keys=PRIVATE_FOLDER
"""

from dalign_jax import console

if __name__ == '__main__':
  console.run('verify')
