"""The one error of the library for input that its caller can correct."""


class InputError(ValueError):
  """Input that does not fit: the message names the argument, its value and what would be right.

  Only this error is the caller's to correct. Every other exception is a bug, of the library or of
  code that was passed to it, and keeps its traceback: commands print an `InputError` as one line.

  Attributes:
    argument: the name of the argument, where the message does not begin with it; None otherwise.

  Example:
    >>> str(InputError('must be positive, got 0', argument='batch_size'))
    'batch_size: must be positive, got 0'
  """

  def __init__(self, message: str, *, argument: str | None = None):
    super().__init__(message)
    self.argument = argument

  def __str__(self) -> str:
    message = super().__str__()
    return f'{self.argument}: {message}' if self.argument else message
