"""Teachers behind one small interface (`asking.Teacher`): any OpenAI-compatible model, or recorded replies.

`standins.teacher.OfflineTeacher` has the same interface. It is given the same messages as GPT-4 and never sees a scene.
`minillava serve-teacher` puts it behind the real API.

    python -c "from minillava.datagen.teachers import *; print(RecordedTeacher('data_samples/replies.jsonl').endpoint)"
"""

from pathlib import Path

from minillava.asking import AskingError, ChatClient, Rejected, read_replies, request_key
from minillava.asking.server import completion

OPENAI_MODEL = "gpt-4o"  # unless --model names another; the paper's GPT-4 is no longer offered
OFFLINE_MODEL = "offline-teacher"  # the model name of the offline teacher


class RecordedTeacher:
    """Replies from a recorded `replies.jsonl`; any other request is rejected. Raises AskingError naming the file."""

    def __init__(self, path: Path, model: str = OFFLINE_MODEL):
        self.replies, self.model, self.endpoint = read_replies(path), model, f"recorded replies ({Path(path).name})"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        reply = self.replies.get(request_key(body))
        if reply is None:
            raise Rejected("not among the recorded replies; use the model, prompts and settings of the recording")
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        return completion(body, reply.text, reply.finish, reply.refusal) | {"usage": usage, "model": reply.model}

    async def close(self) -> None:
        pass


def openai_teacher(model: str, base_url: str | None = None, timeout: float = 120.0) -> ChatClient:
    """The paper's teacher: a model behind an OpenAI-compatible API. Raises AskingError without the client or a key."""
    try:
        from minillava.asking.client import Client
    except ModuleNotFoundError as error:
        raise AskingError(f"the client is not installed ({error}); pip install openai aiohttp") from error
    return Client(model, base_url, timeout)
