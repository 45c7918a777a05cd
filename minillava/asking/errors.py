"""How asking can fail, and whether the attempt can have been billed.

from minillava.asking.errors import AskingError
"""

from minillava.errors import UserError


class AskingError(UserError):
    """Asking cannot start or continue; the message says what to do. Replies so far are kept."""


class BadReply(ValueError):
    """The endpoint's answer is not a chat completion with a reply in it. tokens: its own count, if it gives one."""

    def __init__(self, reason: str, tokens: tuple[int, int] | None = None):
        super().__init__(reason)
        self.tokens = tokens


class Unbilled(Exception):
    """The endpoint did not do the work (5xx, no connection). wait: the seconds it asks to wait, if any.
    everyone: all requests should wait, not only this one."""

    def __init__(self, reason: str, wait: float | None = None, everyone: bool = False):
        super().__init__(reason)
        self.wait, self.everyone = wait, everyone


class RateLimited(Unbilled):
    """The endpoint takes no more requests for now (429). That is no failure: it is asked more slowly."""


class Lost(Exception):
    """The request was sent but no answer came (a time-out, a reset), so it may have been billed."""


class Rejected(Exception):
    """The endpoint refuses this request (400, 413, 422); asking again would not help."""
