"""Machine unlearning of image classifiers in JAX, judged against the retrained model."""

__version__ = '0.2.0'
