"""Teachers behind one small interface (`asking.Teacher`): any OpenAI-compatible model, the offline one, recorded replies.

Notable: the offline teacher is given the very messages that GPT-4 is given, and takes from them what a model would: the
form of the reply from the few-shot examples, what is in the picture from the last message. It never sees a scene. Served
by `minillava serve-teacher`, it stands behind the real API.

    python -c "from minillava.datagen.teachers import *; print(OfflineTeacher().endpoint)"
"""

from pathlib import Path

from minillava.asking import AskingError, ChatClient, Rejected, read_replies, request_key
from minillava.asking.server import completion

MODEL = "gpt-4o"  # of the openai teacher, unless --model names another; the paper's GPT-4 is gone


OFFLINE = "offline-teacher"  # the name of its model


class Recorded:
    """Replies recorded before, from a `replies.jsonl`: what is not in it is refused. Raises AskingError naming the file."""

    def __init__(self, path: Path, model: str = OFFLINE):
        self.replies, self.model, self.endpoint = read_replies(path), model, f"recorded replies ({Path(path).name})"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        reply = self.replies.get(request_key(body))
        if reply is None:
            raise Rejected("not among the recorded replies; the model, the prompts or the settings differ")
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return completion(body, reply.text, reply.finish, reply.refusal) | {"usage": usage, "model": reply.model}

    async def close(self) -> None:
        pass


def openai_teacher(model: str, base_url: str | None = None, timeout: float = 120.0) -> ChatClient:
    """The teacher of the paper: a model behind an OpenAI-compatible API. Raises AskingError without the client or a key."""
    try:
        from minillava.asking.client import Client
    except ModuleNotFoundError as error:
        raise AskingError(f"the client is not installed ({error}); pip install openai") from error
    return Client(model, base_url, timeout)
