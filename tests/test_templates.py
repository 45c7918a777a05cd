"""The weights' own chat templates: the ids of `transformers`, what is supervised, and which template weights are for."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minillava import scales
from minillava.data import IGNORE, IMAGE
from minillava.data.samples import encode_segments, prompt_ids
from minillava.data.template import CHAT, CHAT_V1, VICUNA_V1
from minillava.errors import CheckpointError
from minillava.model.formats.chat_template import (
    TemplateError,
    choose_template,
    jinja,
    own_template,
    retrained,
    training_template,
)

ASKED = "What is in this picture?"
# A message is a text, between two special tokens: as Qwen2.5's.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# A message is a list of parts, and nothing ends an answer: as LLaVA-1.5's on the hub.
LLAVA = (
    "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in m['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# The begin of the sequence is in the template, an answer begins after a space: as Mistral's.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEXTS = ["USER: What is this? ASSISTANT: A cat.", VICUNA_V1.system, "Human: What is this?", "[INST] Why? [/INST]"] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def tokenizer_of(folder, kind, template=None, image=True):
    """A tiny tokenizer of one of three kinds that published weights have, saved and loaded again.

    bytes: of Qwen's kind. space before each text, space before the first: SentencePiece's, older and newer.
    """
    bpe = Tokenizer(models.BPE(byte_fallback=kind != "bytes", unk_token=None if kind == "bytes" else "<unk>"))
    if kind == "bytes":
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    elif kind == "space before each text":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else ["▁"]
    more = [] if kind == "bytes" else [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL + more, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    if kind != "bytes":
        strip = decoders.Strip(" ", 1, 0)
        bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    if image:
        bpe.add_special_tokens([AddedToken("<image>", normalized=False)])
    names = {"eos_token": "<|im_end|>"} if kind == "bytes" else {"bos_token": "<s>", "eos_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token=None if kind == "bytes" else "<unk>", **names)
    made.chat_template = template
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def theirs(tokenizer, parts):
    """The ids that `transformers` makes of a first question about a picture."""
    words = {"type": "text", "text": ASKED}
    content = [{"type": "image"}, words] if parts else f"<image>\n{ASKED}"
    message = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    bos = tokenizer.bos_token
    return tokenizer.encode(text, add_special_tokens=not (bos and text.startswith(bos)))


KINDS = ["bytes", "space before each text", "space before the first"]
CASES = [(kind, source) for source in (CHATML, LLAVA, INST) for kind in KINDS if (kind, source) != ("bytes", INST)]
CASES += [
    (KINDS[0], jinja(CHAT)),
    (KINDS[0], jinja(CHAT_V1)),
    (KINDS[0], jinja(VICUNA_V1)),
    (KINDS[1], jinja(VICUNA_V1)),
]


@pytest.mark.parametrize("kind, source", CASES)
def test_a_first_question_has_the_ids_of_transformers(tmp_path, kind, source):
    tokenizer = tokenizer_of(tmp_path, kind, source)
    expected = theirs(tokenizer, parts=source == LLAVA)
    template = own_template(tokenizer, tmp_path)
    image = tokenizer.convert_tokens_to_ids("<image>")
    ours = prompt_ids(f"<image>\n{ASKED}", template, tokenizer).tolist()
    assert IMAGE in ours and [image if i == IMAGE else i for i in ours] == expected
    names = {CHATML: "own", INST: "own", LLAVA: "vicuna_v1"} | {jinja(t): t.name for t in (CHAT, CHAT_V1, VICUNA_V1)}
    assert template.name == names[source]


@pytest.mark.parametrize("kind, source, stop", [("bytes", CHATML, "<|im_end|>"), (KINDS[1], INST, "</s>"), (KINDS[2], LLAVA, "</s>")])  # fmt: skip
def test_answers_and_the_stops_after_them_are_supervised_and_nothing_else(tmp_path, kind, source, stop):
    tokenizer = tokenizer_of(tmp_path, kind, source)
    template = own_template(tokenizer, tmp_path)
    talk = [(f"<image>\n{ASKED}", "A cat."), ("Why?", "It is so.")]
    ids, labels = encode_segments(template.segments(talk), tokenizer)
    kept = [label for label in labels if label != IGNORE]
    assert all(label in (IGNORE, i) for i, label in zip(ids, labels, strict=True))
    said = tokenizer.decode(kept, clean_up_tokenization_spaces=False).replace(" ", "")
    assert said == f"A cat.{stop}It is so.{stop}".replace(" ", "")
    assert kept.count(tokenizer.convert_tokens_to_ids(stop)) == 2
    if source != LLAVA:  # that one writes no stop
        messages = [{"role": role, "content": text} for turn in talk for role, text in zip(("user", "assistant"), turn)]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert "".join(text for text, _ in template.segments(talk)) == whole.removesuffix("\n")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages }}",
        "{{ raise_exception('no') }}",
        "{{ ().__class__.__base__.__subclasses__() }}" + CHATML,  # what could lead to running code
        "{% for m in messages %}{{ m.content + '|' }}{% endfor %}",  # nothing ends an answer
        CHATML.replace("m['content']", "m['content'] | upper"),
        CHATML.replace(
            "assistant\n' }}{% endif", "assistant\n<think>' }}{% endif"
        ),  # another beginning than in the past
    ],
)
def test_a_template_that_cannot_be_taken_apart_is_refused(tmp_path, source):
    tokenizer = tokenizer_of(tmp_path, "bytes", source)
    with pytest.raises(TemplateError, match="own chat template"):
        own_template(tokenizer, tmp_path)
    with pytest.raises(TemplateError, match=f"{tmp_path}: .*own chat template .*chat, chat_v1, plain, vicuna_v1"):
        choose_template(None, None, tokenizer, tmp_path)
    assert choose_template("chat", None, tokenizer, tmp_path) is CHAT


def test_a_template_whose_ids_would_differ_is_refused(tmp_path):
    """The template speaks of a begin of the sequence, but writes none; we do."""
    tokenizer = tokenizer_of(tmp_path, "bytes", CHATML + "{% if false %}{{ bos_token }}{% endif %}")
    tokenizer.bos_token = "<s>"
    with pytest.raises(TemplateError):
        own_template(tokenizer)


def test_a_begin_of_the_sequence_that_is_named_but_never_written_is_not_put_first(tmp_path):
    """SmolLM2's: the tokenizer names <|im_start|>, which neither it nor the template puts before a text."""
    tokenizer = tokenizer_of(tmp_path / "theirs", "bytes", CHATML)
    tokenizer.bos_token = "<s>"
    assert prompt_ids(f"<image>\n{ASKED}", own_template(tokenizer), tokenizer)[0] != tokenizer.bos_token_id
    first = prompt_ids(f"<image>\n{ASKED}", CHAT_V1, tokenizer)
    assert first[0] != tokenizer.bos_token_id
    retrained(tokenizer).save_pretrained(tmp_path / "ours")  # the chat template, which told so, is not kept
    ours = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert not ours.chat_template and not (tmp_path / "ours/chat_template.jinja").exists()
    assert torch.equal(prompt_ids(f"<image>\n{ASKED}", CHAT_V1, ours), first)


@pytest.mark.parametrize("kind, source", [(KINDS[1], CHATML), (KINDS[1], None), ("bytes", INST)])
def test_a_begin_of_the_sequence_that_is_written_stays_first(tmp_path, kind, source):
    tokenizer = tokenizer_of(tmp_path, kind, source)
    tokenizer.bos_token = "<s>"
    for words in (tokenizer, retrained(tokenizer)):
        assert prompt_ids(f"<image>\n{ASKED}", CHAT_V1, words)[:2].tolist().count(tokenizer.bos_token_id) == 1


def test_in_the_later_form_of_chat_the_blank_before_an_answer_is_learned_with_its_first_word(tmp_path):
    tokenizer, pairs = tokenizer_of(tmp_path, "bytes"), [("What is this?", "A cat."), ("Why?", "A cat.")]
    assert "".join(t for t, _ in CHAT_V1.segments(pairs)) == "".join(t for t, _ in CHAT.segments(pairs))
    for template, first in ((CHAT, "A"), (CHAT_V1, "\u0120A")):
        ids, labels = encode_segments(template.segments(pairs), tokenizer)
        begins = [i for i, (before, label) in enumerate(zip([IGNORE, *labels], labels)) if before == IGNORE != label]
        assert [tokenizer.convert_ids_to_tokens(ids[i]) for i in begins] == [first, first]
        asked = prompt_ids("Why?", template, tokenizer, pairs[:1]).tolist()
        assert asked == ids[: begins[1]]  # what is asked is what was learned


def test_a_language_model_is_trained_in_the_format_that_it_knows(tmp_path):
    assert training_template(scales.WEIGHTS / "language_model") is CHAT
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert training_template(tmp_path) is CHAT_V1
    (tmp_path / "config.json").write_text('{"template": "none such"}')
    with pytest.raises(CheckpointError, match="config.json"):
        training_template(tmp_path)


def test_the_template_asked_for_or_named_or_written_is_used_and_another_one_is_said(tmp_path, capsys):
    tokenizer = tokenizer_of(tmp_path, "bytes", CHATML)
    assert choose_template(None, "chat", tokenizer, tmp_path) is CHAT
    assert choose_template("chat", "chat", tokenizer, tmp_path) is CHAT
    assert choose_template(None, None, tokenizer, tmp_path).name == "own"
    assert choose_template("own", "chat", tokenizer, tmp_path).name == "own"
    assert not capsys.readouterr().err
    assert choose_template("vicuna_v1", "chat", tokenizer, tmp_path) is VICUNA_V1
    assert capsys.readouterr().err == f"{tmp_path}: made for the template chat, but vicuna_v1 is asked for\n"
    assert choose_template("chat", None, tokenizer, tmp_path) is CHAT
    assert capsys.readouterr().err == f"{tmp_path}: made for the template own, but chat is asked for\n"
    for asked, named, said in ((None, "mine", "unknown template 'mine'"), ("mine", None, "'mine' is not a template")):
        with pytest.raises(
            TemplateError,
            match=f"{tmp_path}: .*{said}; choose one of chat, chat_v1, plain, vicuna_v1, own with --template",
        ):
            choose_template(asked, named, tokenizer, tmp_path)
    with pytest.raises(TemplateError, match="no chat template; choose one of"):
        choose_template(None, None, tokenizer_of(tmp_path / "none", "bytes"), tmp_path / "none")


def test_the_processors_own_file_comes_before_the_tokenizers(tmp_path):
    tokenizer = tokenizer_of(tmp_path, KINDS[1], CHATML)
    tokenizer.chat_template = {"default": LLAVA, "tool_use": "{{ messages }}"}
    assert own_template(tokenizer, tmp_path).name == "vicuna_v1"
    tokenizer.chat_template = CHATML
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA}))
    assert own_template(tokenizer, tmp_path).name == "vicuna_v1"


def test_the_authors_prompt_is_written_word_for_word(tmp_path):
    tokenizer = tokenizer_of(tmp_path, KINDS[1], image=False)
    pairs = [("<image>\nWhat is this?", "A cat."), ("Why?", None)]
    assert "".join(text for text, _ in VICUNA_V1.segments(pairs)) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nWhat is this? ASSISTANT: A cat.</s>"
        "USER: Why? ASSISTANT:"
    )
    before, after = (tokenizer.encode(part, add_special_tokens=False) for part in (
        VICUNA_V1.system + "USER: ", "\nWhat is this? ASSISTANT:"))  # fmt: skip
    ids = prompt_ids(pairs[0][0], VICUNA_V1, tokenizer).tolist()
    assert ids == [tokenizer.bos_token_id, *before, IMAGE, *after]  # as the authors' tokenizer_image_token


@pytest.fixture(scope="module", params=[("bytes", CHATML), (KINDS[1], INST)], ids=["chatml", "inst"])
def tokenizer(request, tmp_path_factory):
    return tokenizer_of(tmp_path_factory.mktemp("words"), *request.param)


TURN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: "<" not in text)


@given(talk=st.lists(st.tuples(TURN, TURN), min_size=1, max_size=4), open_question=st.booleans())
def test_segments_are_the_chat_template_s_text_for_any_conversation(tokenizer, talk, open_question):
    template = own_template(tokenizer)
    talk = [
        (question, None if open_question and n == len(talk) else answer) for n, (question, answer) in enumerate(talk, 1)
    ]
    messages = [
        {"role": role, "content": text}
        for turn in talk for role, text in zip(("user", "assistant"), turn) if text is not None
    ]  # fmt: skip
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_question)
    segments = template.segments(talk)
    text = "".join(text for text, _ in segments)
    assert whole in (text, text + template.after.partition("<")[0])  # nothing is said after the last stop
    said = [answer for _, answer in talk if answer is not None]
    kept = "".join(text for text, supervised in segments if supervised)
    assert kept == "".join(template.lead + answer + template.stop for answer in said)
