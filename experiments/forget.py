"""Carries a deletion request out: `dalign-jax forget`, from a checkout.

python -m experiments.forget --checkpoint=MODEL --data=DATA --ids=request.csv --out=FOLDER
"""

from dalign_jax import console

if __name__ == '__main__':
  console.run('forget')
