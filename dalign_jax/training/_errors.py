"""Errors of training."""


class NonFiniteLossError(FloatingPointError):
  """A loss or an update became NaN or infinite; says in which epoch, phase and step."""
