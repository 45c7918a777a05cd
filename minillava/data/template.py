"""The conversation as a sequence: Table 2's template, and the plain one. Only this module decides what carries loss.

A template yields (text, supervised) segments, from which `samples.py` makes ids and labels in one pass, so they cannot
disagree. <STOP> is a segment of its own, so its ids are always the same. `True` marks what is green in Table 2: every
answer and the <STOP> after it. The chat template of published weights becomes such a template too
(model/formats/chat_template.py).

    python -c "from minillava.data.template import *; print(CHAT.segments([('What is this?', 'A cat.')]))"
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Template:
    """Roles, system message and <STOP> of Table 2 (Vicuna v0: `###`). The wording of `system` is this project's own.

    lead: what stands before an answer and is learned with it.
    """

    name: str
    system: str
    human: str = "Human: "
    assistant: str = "Assistant: "
    stop: str = "###"
    lead: str = ""

    def segments(self, pairs: list[tuple[str, str | None]]) -> list[tuple[str, bool]]:
        """The conversation in pieces. pairs: (X_instruct, X_a) per turn; an answer None is still to be generated."""
        out = [(self.system, False), (self.stop, False), ("\n", False)] if self.system else []
        for question, answer in pairs:
            out += [(self.human + question, False), (self.stop, False), ("\n" + self.assistant, False)]
            if answer is not None:
                out += [(self.lead + answer, True), (self.stop, True), ("\n", False)]
        return out


@dataclass(frozen=True)
class Plain(Template):
    """Image and caption without the question, as in stage 1 of the authors' later code (facts D3)."""

    def segments(self, pairs):
        (question, answer), *_ = pairs
        image = "<image>" if "<image>" in question else ""
        return [(image, False)] + ([(answer, True), (self.stop, True)] if answer is not None else [])


@dataclass(frozen=True)
class Joined(Template):
    """A later format. What the model reads up to an answer is one text, tokenized as one, as in `transformers`.

    after: what stands between a stop and the next question.
    """

    after: str = ""

    def segments(self, pairs):
        out, before = [], self.system
        for question, answer in pairs:
            out.append((before + self.human + question + self.assistant, False))
            if answer is not None:
                out += [(self.lead + answer, True), (self.stop, True)]
            before = self.after
        return out


CHAT = Template("chat", "A curious person talks with an assistant that looks closely and answers truthfully.")
# The same text. A vocabulary of sub-words has " There" as one token, so the blank must not end what is read: the answer
# would begin with "There", which the language model has seen only within words. The weights that ship learned CHAT.
CHAT_V1 = replace(CHAT, name="chat_v1", assistant="Assistant:", lead=" ")
PLAIN = Plain("plain", "", stop="\n")
# LLaVA-1.5's and Vicuna v1's, word for word as in the authors' conversation.py.
VICUNA_V1 = Joined(
    "vicuna_v1",
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. ",
    human="USER: ", assistant=" ASSISTANT:", stop="</s>", lead=" ",
)  # fmt: skip
TEMPLATES = {t.name: t for t in (CHAT, CHAT_V1, PLAIN, VICUNA_V1)}
