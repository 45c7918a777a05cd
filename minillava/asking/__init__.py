"""Asking a model behind an API: what data generation (section 3) and the judge (section 5.1) share.

A request is a plain dict. Its reply is kept in a folder's journal under the hash of the request, and `ask_all` asks
only what the journal does not answer. So the same call again costs nothing, and a killed run resumes.

    from minillava.asking import Budget, Journal, ask_all, chat_request, confirm, estimate_cost, price_of, request_key
    from minillava.asking.client import Client           # imports openai; offline, any other `ChatClient`

    bodies = [chat_request("gpt-4o", [{"role": "user", "content": text}], max_tokens=512) for text in texts]
    with Journal("out/replies") as journal:              # one process at a time
        missing = [body for body in bodies if request_key(body) not in journal.replies]
        client, price, budget = Client("gpt-4o", base_url=None), price_of("gpt-4o"), Budget(usd=5.0)
        confirm(estimate_cost(missing, price), budget, client.endpoint, yes=False)   # shows it, asks
        outcome = ask_all(bodies, client, journal, budget, price, concurrency=16)
    outcome.replies[request_key(bodies[0])].text         # Reply(text, finish, model, prompt_tokens, completion_tokens, refusal)
    outcome.failures                                     # key -> why it could not be answered; the next run asks it again
    outcome.stopped                                      # "" or why not all were asked (the budget, a long Retry-After)

`finish` is `stop` for a whole answer and `length` for one that was cut off: check it. AskingError is for the user: a
wrong key, a full disk, a second process, ten failures in a row. `ask_with_consent` does the steps above in one call.
`read_replies(path)` replays a recorded `replies.jsonl` without a lock. `write_batch` and `read_batch` handle the Batch
API's files. `server.serve(reply)` puts any function body -> completion behind the same API on this machine, for tests
and lessons.
"""

from minillava.asking.ask import ChatClient, Outcome, ask_all, ask_with_consent
from minillava.asking.batch import read_batch, write_batch
from minillava.asking.journal import Cost, Journal, read_replies
from minillava.asking.money import NO_LIMIT, PRICES, Budget, Estimate, Price, confirm, estimate_cost, price_of
from minillava.asking.request import (
    AskingError,
    BadReply,
    Lost,
    Rejected,
    Reply,
    Unbilled,
    chat_request,
    read_reply,
    request_key,
)

__all__ = [
    "NO_LIMIT", "PRICES", "AskingError", "BadReply", "Budget", "ChatClient", "Cost", "Estimate", "Journal", "Lost",
    "Outcome", "Price", "Rejected", "Reply", "Unbilled", "ask_all", "ask_with_consent", "chat_request", "confirm",
    "estimate_cost", "price_of", "read_batch", "read_replies", "read_reply", "request_key", "write_batch",
]  # fmt: skip
