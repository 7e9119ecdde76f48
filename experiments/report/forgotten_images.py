"""A sample of the forgotten images with each model's answer, for `--show_images` alone."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from experiments.measure import rows as rows_lib
from experiments.problem import preparation
from experiments.report import looks

NUMBER = 16


def sample(job: preparation.Job, rows: rows_lib.Results) -> dict[str, Any] | None:
  """Names of the models, and of each image itself, its label and their answers, as texts.

  None where no model has predicted classes: with attributes, or measured by an earlier version.
  """
  answered = [row for row in rows if 'predicted_forget' in row.arrays]
  if not answered:
    return None
  of, listed = looks.of_rows(rows), answered[0].arrays['predicted_forget_rows']
  rng = np.random.default_rng(job.config.evaluation_seed)
  places = np.sort(rng.permutation(len(listed))[:NUMBER])
  chosen = job.sets['forget'].take(listed[places])
  lines = []
  for place, image, label in zip(places, np.asarray(chosen.images), chosen.labels, strict=True):
    answers = [job.class_names[row.arrays['predicted_forget'][place]] for row in answered]
    lines.append((_picture(image), job.class_names[label], answers))
  return {'models': [of[row.name].label for row in answered], 'lines': lines}


def _picture(image) -> str:
  out = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out, 'PNG')
  return 'data:image/png;base64,' + base64.b64encode(out.getvalue()).decode()
