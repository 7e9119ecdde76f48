"""The error of the library for input that its caller can correct."""

from collections.abc import Iterator
import contextlib


class InputError(ValueError):
  """Invalid input: the message names the argument, its value and what would be right.

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


class BusyError(InputError):
  """Another process is at work where this one would write: the same command works later."""


class DivergedError(InputError):
  """A training did not stay finite: other settings, such as a lower learning rate, may do."""


@contextlib.contextmanager
def blame(argument: str) -> Iterator[None]:
  """Names the argument that an error inside the block comes from.

  An `InputError` that names none, and a file that cannot be read, become an `InputError` of that
  argument. Any other error is a bug, perhaps in code that the argument names: it stays as it is,
  with a note.

  Args:
    argument: its name.

  Raises:
    InputError: instead of one without an argument, or of an `OSError`.

  Example:
    >>> with blame('seed'):
    ...   raise InputError('must not be negative, got -1')
    Traceback (most recent call last):
    dalign_jax.errors.InputError: seed: must not be negative, got -1
  """
  try:
    yield
  except InputError as error:
    if error.argument or str(error).startswith('--'):
      raise
    raise InputError(str(error), argument=argument) from error
  except OSError as error:
    raise InputError(str(error), argument=argument) from error
  except Exception as error:
    error.add_note(f'This error was raised by what {argument!r} names.')
    raise
