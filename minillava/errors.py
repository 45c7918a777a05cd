"""One base class for a user's mistakes, so that the command line prints one line instead of a traceback.

try: ...
except UserError as error: print(error)
"""


class UserError(ValueError):
    """Input that cannot be used; the message names the file, record or argument and says what to do."""


class CheckpointError(UserError):
    """A folder whose files do not fit together, or that cannot be read or written; the message names it."""
