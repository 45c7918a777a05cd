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
    outcome.replies[request_key(bodies[0])].text         # a `Reply`; its `finish` is "length" if the limit cut it
    outcome.failures                                     # key -> why it was not answered; the next run asks it again
    outcome.stopped                                      # "" or why not all were asked (the budget, a long Retry-After)

`ask_with_consent` does all this in one call. AskingError is for the user: a wrong key, a full disk, a second process,
ten failures in a row. `read_replies(path)` replays a recorded `replies.jsonl` without a lock. `server.serve(reply)`
puts any function body -> completion behind the same API on this machine, for tests and lessons.
"""

from minillava.asking.ask import ChatClient, Outcome, ask_all, ask_with_consent
from minillava.asking.batch import read_batch, write_batch
from minillava.asking.errors import AskingError, BadReply, Rejected
from minillava.asking.journal import Journal, read_replies
from minillava.asking.money import NO_LIMIT, Budget, Estimate, Price, confirm, estimate_cost, price_of
from minillava.asking.reading import final_text, read_reply
from minillava.asking.request import Reply, chat_request, request_key

__all__ = [
    "NO_LIMIT", "AskingError", "BadReply", "Budget", "ChatClient", "Estimate", "Journal", "Outcome", "Price",
    "Rejected", "Reply", "ask_all", "ask_with_consent", "chat_request", "confirm", "estimate_cost", "final_text",
    "price_of", "read_batch", "read_replies", "read_reply", "request_key", "write_batch",
]  # fmt: skip
