"""The chat template of published weights (Jinja, in their tokenizer's files) as a `Template`, and a `Template` as Jinja.

`transformers` renders it in a sandbox: it makes text and can do nothing else. It is rendered with questions and answers
whose words are known, so that the pieces around them are what the template adds. A template that cannot be taken apart
in this way, or whose ids would differ from those of `transformers`, is refused by name.

Try it: `own_template(load_tokenizer(folder)).segments([("What is this?", None)])`.
"""

import json
import re
import sys
from copy import deepcopy
from dataclasses import replace

from tokenizers import AddedToken

from minillava.data import IMAGE
from minillava.data.records import IMAGE_TOKEN
from minillava.data.samples import encode_segments, uses_bos
from minillava.data.template import CHAT, CHAT_V1, TEMPLATES, VICUNA_V1, Joined, Template
from minillava.errors import UserError
from minillava.model.formats.files import reading_config

OWN = "own"  # the name for the template that the weights' own chat template writes
ASKED = [("<image>\nWhich colour?", "Dark blue."), ("Why so?", "It rains."), ("Where?", None)]


class TemplateError(UserError):
    """A chat template that is not there or that cannot be followed."""


def choose_template(asked: str | None, named: str | None, tokenizer, folder) -> Template:
    """The format to talk in: the one asked for, else the one that the weights name, else their own chat template's.

    Says so where another one is asked for than the weights'. Raises TemplateError, naming the folder of the weights.
    """
    theirs, why = TEMPLATES.get(named), f"these weights are for the unknown template {named!r}"
    if OWN in (asked, named) or named is None:
        try:
            theirs = own_template(tokenizer, folder)
        except TemplateError as error:
            theirs, why = None, str(error)
    if asked in TEMPLATES:
        if theirs is not None and theirs.name != asked:
            print(f"{folder}: made for the template {theirs.name}, but {asked} is asked for", file=sys.stderr)
        return TEMPLATES[asked]
    if asked not in (None, OWN):
        theirs, why = None, f"{asked!r} is not a template"
    if theirs is None:
        raise TemplateError(f"{folder}: {why}; choose one of {', '.join((*TEMPLATES, OWN))} with --template")
    return theirs


def training_template(folder) -> Template:
    """The format to train a language model in: the one that its folder names, as all made here do, or CHAT_V1.

    folder: of a language model, or of a LLaVA that was trained here.
    """
    trained = folder / "llava.json"
    with reading_config(trained if trained.exists() else folder / "config.json") as written:
        return TEMPLATES[written.get("about", written).get("template", CHAT_V1.name)]


def retrained(tokenizer):
    """A copy for weights trained with one of `TEMPLATES`: without their makers' chat template and unused begin token."""
    made = deepcopy(tokenizer)
    made.chat_template, made.bos_token = None, tokenizer.bos_token if uses_bos(tokenizer) else None
    return made


def ending_tokenizer(tokenizer, template):
    """A copy whose end of an answer is the template's stop, where that is one token: special, so it is never shown, nor
    merged with the text before it, as in our sequences."""
    made = retrained(tokenizer)
    if len(made.encode(template.stop, add_special_tokens=False)) == 1:
        made.add_tokens([AddedToken(template.stop, normalized=False)], special_tokens=True)
        made.eos_token = template.stop
    return made


def own_template(tokenizer, folder=None) -> Template:
    """The template that the weights' own chat template writes; one of `TEMPLATES` where it is that one.

    LLaVA-1.5's on the hub has no system message, and no stop after an answer: it is `vicuna_v1` without the message.
    folder: has chat_template.json in files of some age, which the tokenizer does not read. Raises TemplateError.
    """
    source = None  # the tokenizer's, or of several the one called "default"
    if folder is not None and (folder / "chat_template.json").exists():
        with reading_config(folder / "chat_template.json") as written:
            source = written["chat_template"]
    if not (source or tokenizer.chat_template):
        raise TemplateError("the weights have no chat template")
    first = _rendered(tokenizer, source, [(ASKED[0][0], None)])
    for known in (CHAT, CHAT_V1, VICUNA_V1):
        for template in (known, replace(known, system="")):
            if _text(template, [(ASKED[0][0], None)]) == first.removeprefix(tokenizer.bos_token or ""):
                return template
    whole = _rendered(tokenizer, source, ASKED)
    (question, answer), (second, _), _ = ASKED
    begin, _, rest = whole.partition(question)
    middle, _, rest = rest.partition(answer)
    between, _, _ = rest.partition(second)
    asked = first.partition(question)[2]
    special = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    stop = max((token for token in special if between.startswith(token)), key=len, default="")
    lead, after = middle.removeprefix(asked), between.removeprefix(stop)
    own = Joined(OWN, begin, "", asked, stop, lead, after)
    if not stop or lead.strip() or _text(own, ASKED) != whole or not _same_ids(own, first, tokenizer):
        raise TemplateError("the weights' own chat template cannot be taken apart into questions, answers and a stop")
    return own


def _same_ids(own, first, tokenizer):
    """Whether our ids of the first question are those that `transformers` makes of the rendered text."""
    image, bos = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tokenizer.bos_token
    theirs = tokenizer.encode(first, add_special_tokens=not (bos and first.startswith(bos)))
    ours = encode_segments(own.segments([(ASKED[0][0], None)]), tokenizer)[0]
    if image in (None, tokenizer.unk_token_id):  # it has no token for a picture: only what stands before is the same
        return ours[: ours.index(IMAGE)][:-1] == theirs[: ours.index(IMAGE)][:-1]
    return [image if i == IMAGE else i for i in ours] == theirs


def _text(template, pairs):
    return "".join(text for text, _ in template.segments(pairs))


def _rendered(tokenizer, source, pairs):
    """What a chat template makes of a conversation. Raises TemplateError with the template's own last error."""
    why = ""
    for multimodal in (False, True):  # a message's content is a text, or a list of an image and a text
        messages = []
        for question, answer in pairs:
            for role, text in (("user", question), ("assistant", answer)):
                if text is not None:
                    words = {"type": "text", "text": text.removeprefix("<image>\n")}
                    parts = [{"type": "image"}, words] if text.startswith("<image>") else [words]
                    messages.append({"role": role, "content": parts if multimodal else text})
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=source, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template raises errors of its own, of any kind
            why = f" ({type(error).__name__}: {str(error)[:100]})"
            continue
        if all(turn in text for pair in pairs for turn in pair if turn):
            return text
    raise TemplateError(f"the weights' own chat template does not write a question about a picture as it is asked{why}")


def jinja(template):
    """The template as a processor's chat template. A message's content is text, or parts of type "image" and "text".

    A system message replaces the template's own. What carries loss here stands between `generation` tags, from which
    `transformers` and TRL make labels. Raises TemplateError for the plain template, which has no questions.
    """
    whole, human = _text(template, [("\0", "\1"), ("\0", None)]), template.human
    if "\0" not in whole:
        raise TemplateError(f"the template {template.name} has no questions, so no conversation can be written in it")
    (begin, answered, asked), answer_end = whole.split("\0"), _text(template, [("\0", "\1")]).partition("\1")[2]
    lead, between = answered.removeprefix(asked).split("\1")
    separator = _text(replace(template, system="\2"), [("\0", None)])[1:].partition("\0")[0].removesuffix(human)
    begin, between = begin.removesuffix(human), between.removeprefix(template.stop).removesuffix(human)
    end = answer_end.removeprefix(template.stop)
    texts = {"HUMAN": human, "BEGIN": begin, "SEPARATOR": separator, "ASKED": asked, "LEAD": lead,
             "STOP": template.stop, "BETWEEN": between, "END": end}  # fmt: skip
    source = JINJA if template.name != OWN else JINJA.replace("said(message) + SEPARATOR", FIXED_SYSTEM)
    return re.sub("|".join(texts), lambda name: json.dumps(texts[name[0]], ensure_ascii=False), source)


FIXED_SYSTEM = "raise_exception('the system message is part of this template')"
JINJA = (
    "{% macro said(message) %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ ('' if loop.first else '\\n') + ('<image>' if part['type'] == 'image' else part['text']) }}"
    "{% endfor %}{% endif %}{% endmacro %}"
    "{{ bos_token or '' }}{% if messages[0]['role'] != 'system' %}{{ BEGIN }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ said(message) + SEPARATOR }}"
    "{% elif message['role'] == 'user' %}{{ HUMAN + said(message) }}"
    "{% elif message['role'] == 'assistant' %}{{ ASKED }}"
    "{% generation %}{{ LEAD + said(message) + STOP }}{% endgeneration %}{{ END if loop.last else BETWEEN }}"
    "{% else %}{{ raise_exception('the roles are system, user and assistant') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ASKED }}{% endif %}"
)
