"""Teachers behind one small interface (`asking.Teacher`): any OpenAI-compatible model, the offline one, recorded replies.

Notable: the offline teacher is given the very messages that GPT-4 is given, and takes from them what a model would: the
form of the reply from the few-shot examples, what is in the picture from the last message. It never sees a scene. Served
by `minillava serve-teacher`, it stands behind the real API.

    python -c "from minillava.datagen.teachers import *; print(OfflineTeacher().endpoint)"
"""

from pathlib import Path

from minillava.asking import AskingError, Rejected, Teacher, key, read_replies
from minillava.asking.server import completion
from minillava.datagen.teacher import read_lines, teach

OFFLINE = "offline-teacher"  # the name of its model
NO_IDEA = "I am sorry, but I do not know any of the things in this picture."


def form(messages: list[dict]) -> str:
    """Which response type the messages ask for: the few-shot replies show it, else the system message names it.

    Raises Rejected when neither does.
    """
    shown = [m["content"] for m in messages if m["role"] == "assistant"]
    if shown:
        asked = max(text.count("Question:") for text in shown)
        return ("detail", "complex", "conversation")[min(asked, 2)]
    told = " ".join(m["content"].lower() for m in messages if m["role"] == "system")
    for words, kind in (
        ("conversation", "conversation"),
        ("reason", "complex"),
        ("detail", "detail"),
        ("descri", "detail"),
    ):
        if words in told:
            return kind
    raise Rejected(
        "no few-shot example and no system message says what to write: conversation, description or reasoning"
    )


def offline_reply(body: dict) -> dict:
    """The rule-based teacher's chat completion for a request. The same request gets the same reply.

    It declines, as an API does, where the captions name nothing of the picture book's world, and is cut off at the
    request's limit. Raises Rejected for messages that ask for nothing, or whose boxes cannot be read.
    """
    turns = [m for m in body["messages"] if m["role"] == "user"]
    kind = form(body["messages"])
    if not turns or not turns[-1]["content"].strip():
        raise Rejected("no user message with captions")
    context = turns[-1]["content"]
    try:
        captions, boxes = read_lines(context, "the last message")
    except ValueError as error:
        raise Rejected(str(error)) from None
    try:
        text = teach(kind, captions, boxes, f"{body.get('seed', 0)} {context}")
    except ValueError:
        return completion(body, "", refusal=NO_IDEA)
    most = 4 * (body.get("max_completion_tokens") or body.get("max_tokens") or len(text))
    return completion(body, text[:most], "stop" if len(text) <= most else "length")


class OfflineTeacher:
    """The rule-based teacher in this process: no key, no cost."""

    model, endpoint = OFFLINE, "the offline teacher"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        return offline_reply(body)

    async def close(self) -> None:
        pass


class Recorded:
    """Replies recorded before, from a `replies.jsonl`: what is not in it is refused. Raises AskingError naming the file."""

    def __init__(self, path: Path, model: str = OFFLINE):
        self.replies, self.model, self.endpoint = read_replies(path), model, f"recorded replies ({Path(path).name})"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        reply = self.replies.get(key(body))
        if reply is None:
            raise Rejected("not among the recorded replies; the model, the prompts or the settings differ")
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return completion(body, reply.text, reply.finish, reply.refusal) | {"usage": usage, "model": reply.model}

    async def close(self) -> None:
        pass


def openai_teacher(model: str, base_url: str | None = None, timeout: float = 120.0) -> Teacher:
    """The teacher of the paper: a model behind an OpenAI-compatible API. Raises AskingError without the client or a key."""
    try:
        from minillava.asking.client import Client
    except ModuleNotFoundError as error:
        raise AskingError(f"the client is not installed ({error}); pip install openai") from error
    return Client(model, base_url, timeout)
