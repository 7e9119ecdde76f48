"""Errors that are the user's to mend: printed in one line, exit code 2."""

from collections.abc import Iterator
import contextlib


class UserError(Exception):
  """Bad input. The message names the flag, the value and what would be right."""


@contextlib.contextmanager
def blame(flag: str) -> Iterator[None]:
  """Turns a library error inside the block into a `UserError` that names the flag."""
  try:
    yield
  except (ValueError, TypeError, OSError, ImportError) as error:
    message = str(error)
    prefix = '' if message.startswith('--') else f'--{flag}: '
    raise UserError(f'{prefix}{message}') from error
