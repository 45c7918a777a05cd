"""Replies are read in every form that models give them; a bad reply is refused with its reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillava.datagen.messages import TYPES
from minillava.datagen.replies import (
    DUPLICATE,
    EMPTY,
    FORMAT,
    MENTIONS_SOURCE,
    REFUSED,
    TRUNCATED,
    ReplyError,
    check_pairs,
    checked_pairs,
    read_pairs,
)
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import scenes
from minillava.standins.teacher import teacher_reply

TWO = [("What is red?", "The car is red."), ("Where is it?", "On the left.")]


@pytest.mark.parametrize(
    "text",
    [
        "Question:\nWhat is red?\n===\nAnswer:\nThe car is red.\n===\nQuestion:\nWhere is it?\n===\nAnswer:\nOn the left.",
        "Question:\nWhat is red?\n===\nAnswer:\nThe car is red.\n===\nQuestion:\nWhere is it?\n===\nAnswer:\nOn the left.\n===\n",
        "===\nQuestion:\r\nWhat is red?\r\n===\r\nAnswer:\r\nThe car is red.\n ===== \nQuestion:\nWhere is it?\n===\nAnswer:\nOn the left.",
        "Question: What is red?\n===\nAnswer: The car is red.\n===\nQuestion: Where is it?\n===\nAnswer: On the left.",
        "Question: What is red?\nAnswer: The car is red.\n===\nQuestion: Where is it?\nAnswer: On the left.",
        "Question:\nWhat is red?\n\nAnswer:\nThe car is red.\n\nQuestion:\nWhere is it?\n\nAnswer:\nOn the left.",
        "**Question:** What is red?\n**Answer:** The car is red.\n\n**Question:** Where is it?\n**Answer:** On the left.",
        "**Question**: What is red?\n**Answer**: The car is red.\n---\n**Question**: Where is it?\n**Answer**: On the left.",
        "### Question 1\nWhat is red?\n### Answer 1\nThe car is red.\n\n***\n\n### Question 2\nWhere is it?\n### Answer 2\nOn the left.",
        "Question 1: What is red?\nAnswer 1: The car is red.\nQuestion 2: Where is it?\nAnswer 2: On the left.",
        "1. Question: What is red?\n   Answer: The car is red.\n2. Question: Where is it?\n   Answer: On the left.",
        "1) **Question:** What is red?\n- **Answer:** The car is red.\n2) **Question:** Where is it?\n- **Answer:** On the left.",
        "Here is a conversation about the picture:\n\nQuestion:\nWhat is red?\n===\nAnswer:\nThe car is red.\n===\nQuestion:\nWhere is it?\n===\nAnswer:\nOn the left.",
        "```\nQuestion:\nWhat is red?\n===\nAnswer:\nThe car is red.\n===\nQuestion:\nWhere is it?\n===\nAnswer:\nOn the left.\n```",
        "```text\nQuestion: What is red?\nAnswer: The car is red.\nQuestion: Where is it?\nAnswer: On the left.\n```",
        "Q: What is red?\nA: The car is red.\nQ: Where is it?\nA: On the left.",
        "Q1. What is red?\nA1. The car is red.\nQ2. Where is it?\nA2. On the left.",
        "Human: What is red?\nAssistant: The car is red.\nHuman: Where is it?\nAssistant: On the left.",
        "User:\nWhat is red?\nGPT:\nThe car is red.\nUser:\nWhere is it?\nGPT:\nOn the left.",
        "QUESTION:\nWhat is red?\n===\nANSWER:\nThe car is red.\n===\nQUESTION:\nWhere is it?\n===\nANSWER:\nOn the left.",
        "[Question]\nWhat is red?\n[Answer]\nThe car is red.\n[Question]\nWhere is it?\n[Answer]\nOn the left.",
        "Question:\n**What is red?**\n===\nAnswer:\nThe car is red.\n===\nQuestion:\n**Where is it?**\n===\nAnswer:\nOn the left.",
    ],
)  # fmt: skip
def test_a_reply_is_read_in_the_forms_that_models_give_it(text):
    assert read_pairs("conversation", text) == TWO


def test_answers_of_several_paragraphs_with_lists_and_rules_stay_whole():
    answer = "There are two reasons:\n\n1. A: it is red.\n2. Answer this: why not?\n\n---\n\nSo it stops.\nQ: is no question here."
    assert read_pairs("complex", f"Question:\nWhy?\n===\nAnswer:\n{answer}") == [("Why?", answer)]


@pytest.mark.parametrize(
    "kind, text, reason",
    [
        ("conversation", "The car is red.", FORMAT),
        ("conversation", "Question: a?\nQuestion: b?\nAnswer: c", FORMAT),
        ("conversation", "Answer: c\nQuestion: a?", FORMAT),
        ("conversation", "Question: a?\nAnswer: b\nQuestion: c?", FORMAT),
        ("conversation", "Question:\n\n===\nAnswer:\nb", EMPTY),
        ("conversation", "Question:\na?\n===\nAnswer:\n \n===\nQuestion:\nc?\n===\nAnswer:\nd", EMPTY),
        ("conversation", "", EMPTY),
        ("detail", "  \n", EMPTY),
        ("detail", "```\n\n```", EMPTY),
        ("complex", "Question:\na?\n===\nAnswer:\nb\n===\nQuestion:\nc?\n===\nAnswer:\nd", FORMAT),
        ("detail", "Question:\na?\n===\nAnswer:\nb\n===\nQuestion:\nc?\n===\nAnswer:\nd", FORMAT),
        ("detail", "A car.\n===\nA dog.", FORMAT),
        ("conversation", "Question: What?\nAnswer: As an AI language model, I cannot tell.", REFUSED),
        ("conversation", "I'm sorry, but I can't assist with that.", REFUSED),
        ("detail", "I’m sorry, I can’t describe this picture.", REFUSED),
        ("detail", "I cannot see the image.", REFUSED),
        ("detail", "Unfortunately, I am not able to do this.", REFUSED),
        ("complex", "Question: Why?\nAnswer: I'm unable to view the image.", REFUSED),
        ("conversation", "Question: What is red?\nAnswer: According to the caption it is the car.", MENTIONS_SOURCE),
        ("conversation", "Question: What do the captions say?\nAnswer: A car.", MENTIONS_SOURCE),
        ("detail", "The bounding box of the car is large.", MENTIONS_SOURCE),
        ("detail", "A car is at [0.12, 0.3, 0.4, 0.5].", MENTIONS_SOURCE),
        ("detail", "A car is at (0.12, 0.3).", MENTIONS_SOURCE),
        ("detail", "From its coordinates, the car is on the left.", MENTIONS_SOURCE),
        ("detail", "Based on the provided descriptions, there is a car.", MENTIONS_SOURCE),
        ("detail", "The sentences speak of a car.", MENTIONS_SOURCE),
        ("complex", "Question: Why?\nAnswer: The information given says so.", MENTIONS_SOURCE),
        ("conversation", "Question: What is red?\nAnswer: a\nQuestion: Where?\nAnswer: b\nQuestion: what is RED\nAnswer: c", DUPLICATE),
    ],
)  # fmt: skip
def test_a_bad_reply_is_refused_with_its_reason(kind, text, reason):
    with pytest.raises(ReplyError) as error:
        checked_pairs(kind, text)
    assert error.value.reason == reason, error.value


@pytest.mark.parametrize(
    "answer",
    [
        "No, I cannot see a dog here; there is only a cat.", "The text on the sign says STOP.", "A box is on the table.",
        "The list on the fridge is too small to read.", "It is 2.5 metres long, about (8 feet).", "The person is sorry to leave.",
        "Two boxes stand in the middle.", "A description of the way hangs on the wall.", "The person can't help laughing.",
        "I see a bird, and it provides shade.", "Somebody has given a text to the teacher.",
    ],
)  # fmt: skip
def test_answers_that_only_resemble_a_refusal_or_a_source_pass(answer):
    check_pairs([("What is there?", answer)])


def test_truncated_and_filtered_replies_are_refused_even_if_they_can_be_read():
    whole = "Question:\nWhat?\n===\nAnswer:\nA car."
    for more, reason in (
        ({"finish": "length"}, TRUNCATED),
        ({"finish": "content_filter"}, REFUSED),
        ({"refusal": "No."}, REFUSED),
    ):
        with pytest.raises(ReplyError) as error:
            checked_pairs("conversation", whole, **more)
        assert error.value.reason == reason
    assert checked_pairs("conversation", whole) == [("What?", "A car.")]


@pytest.mark.parametrize(
    "text", ["A car.\n\nA dog.", "Description: A car.\n\nA dog.", "**Detailed description:**\nA car.\n\nA dog.", "Answer:\nA car.\n\nA dog.",
             "Question:\nDescribe it.\n===\nAnswer:\nA car.\n\nA dog."],
)  # fmt: skip
def test_a_description_is_the_text_without_its_headings(text):
    assert read_pairs("detail", text) == [("", "A car.\n\nA dog.")]


def test_every_reply_of_the_offline_teacher_passes():
    for scene in scenes("train", 300):
        for kind in TYPES:
            reply = teacher_reply(kind, captions(scene), boxes(scene))
            assert checked_pairs(kind, reply) == read_pairs(kind, reply)


def test_the_authors_own_replies_and_gpt4s_answers_pass(real):
    for kind, folder, turns in (("conversation", "conversation", 4), ("detail", "detail_description", 1)):
        for path in sorted(real(f"prompts/{folder}").glob("*_conv.txt")):
            assert len(checked_pairs(kind, path.read_text())) == turns
    rows = [json.loads(line) for line in real("llava_bench_coco/qa90_gpt4_answer.jsonl").read_text().splitlines()]
    for row in rows:
        check_pairs([("", row["text"])])
    assert len(rows) == 90


WORDS = st.text("abcdefgh ,.?", min_size=1, max_size=40).map(str.strip).filter(lambda t: any(c.isalpha() for c in t))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_pairs_written_in_the_expected_form_are_read_back(pairs):
    text = "\n===\n".join(f"Question:\n{q}\n===\nAnswer:\n{a}" for q, a in pairs)
    assert read_pairs("conversation", text) == pairs


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text):
    for kind in TYPES:
        try:
            assert all(a.strip() for _, a in checked_pairs(kind, text))
        except ReplyError as error:
            assert error.reason
