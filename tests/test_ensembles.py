"""The ensembles of section 5.2 do what the paper says, the expert sees no picture, and the quiz is fair."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from minillava.data.scienceqa import LETTERS, Problem, ScienceError, read_problems, write_problems
from minillava.judging.ensembles import disagreements, ensembles, expert_messages, final_messages
from minillava.judging.scienceqa import read_predictions, score
from minillava.standins.expert import UNSEEN, answer_from_text, expert_answer, second_answer
from minillava.standins.quiz import SKILLS, TEXT_BUCKETS, draw_quiz, problem, quiz

SAY = "The answer is {}."


def problems_of(answers):
    return {str(n): Problem(str(n), f"Question {n}?", ("a", "b", "c"), answer) for n, answer in enumerate(answers)}


def said(letters):
    return {str(n): SAY.format(letter) if letter else "I do not know." for n, letter in enumerate(letters)}


# the ensembles


def test_complement_and_judge_on_every_case():
    # both right, expert right, LLaVA right, none, expert silent, LLaVA silent, both silent, agree on a wrong one
    problems = problems_of([0, 0, 0, 0, 0, 0, 0, 0])
    expert_texts, llava = said(["A", "A", "B", "C", "", "A", "", "B"]), said(["A", "B", "A", "B", "A", "", "", "B"])
    # The expert is asked again only where both answer and differ.
    assert disagreements(problems, expert_texts, llava) == ["1", "2", "3"]
    out = ensembles(problems, expert_texts, llava, {"1": SAY.format("A"), "2": "hm", "3": SAY.format("A")})
    right = {name: row["Avg"]["right"] for name, row in out["rows"].items()}
    # complement: LLaVA's answer for 4. judge: second answers for 1 and 3; LLaVA's for 2, as the second is unreadable.
    assert right == {"LLaVA": 3, "expert": 3, "complement": 4, "judge": 6}
    assert [b["right"] for b in out["bounds"].values()] == [5, 1]
    assert out["counts"] == {
        "questions": 8, "differ": 3, "agree": 2, "expert without an answer": 2, "LLaVA without an answer": 2,
        "second answers that cannot be read": 1, "second answers as LLaVA": 0,
    }  # fmt: skip


def test_an_ensemble_never_beats_the_oracle_where_the_second_answer_is_one_of_the_two():
    problems = {p.id: p for p in quiz("test", 150)}
    texts = {n: SAY.format(LETTERS[i % len(p.choices)]) for i, (n, p) in enumerate(problems.items())}
    own = {n: expert_answer(p) for n, p in problems.items()}
    final = {n: second_answer(problems[n], own[n], texts[n]) for n in disagreements(problems, own, texts)}
    out = ensembles(problems, own, texts, final)
    most, least = (b["right"] for b in out["bounds"].values())
    assert all(least <= row["Avg"]["right"] <= most for row in out["rows"].values())


def test_answers_that_do_not_match_the_problems_are_named():
    problems, one = problems_of([0, 0]), said(["A", "A"])
    with pytest.raises(ScienceError, match=r"the expert has no answer to problem 1 \(1 missing in all\)"):
        ensembles(problems, {"0": "A"}, one)
    with pytest.raises(ScienceError, match="LLaVA has no answer to problem 0"):
        ensembles(problems, one, {})
    for second in ({}, {"0": "A", "1": "A"}):
        with pytest.raises(ScienceError, match="the 1 disagreements, no more and no fewer; see problem"):
            ensembles(problems, said(["A", "B"]), one, second)
    assert "judge" not in ensembles(problems, one, one)["rows"]


def test_the_experts_messages_contain_the_question_and_never_its_answer():
    made = quiz("train", 3)
    told = expert_messages(made[2], made[:2])
    assert [m["role"] for m in told] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert told[2]["content"].endswith(f"The answer is {made[0].letter}.") and made[2].solution not in str(told)
    second = final_messages(made[2], "mine", "its")[1]["content"]
    assert second.index("[Assistant 1]\nmine") < second.index("[Assistant 2]\nits") and made[2].solution not in second


# the expert


def test_the_expert_reads_nothing_but_question_hint_and_choices():
    for made in quiz("test", 150):
        hidden = replace(made, answer=(made.answer + 1) % len(made.choices), image=None)
        hidden = replace(hidden, lecture="", solution="", subject="", skill="")
        assert expert_answer(hidden) == expert_answer(made)


def test_the_expert_is_good_with_text_and_guesses_about_pictures():
    problems = {p.id: p for p in quiz("test", 600)}
    found, failed = read_predictions(problems, {n: expert_answer(p) for n, p in problems.items()})
    got = {name: v["accuracy"] for name, v in score(problems, found).items()}
    assert got["NO"] == 100 and got["TXT"] > 80 and got["IMG"] < 50 < got["Avg"] < 85
    hits = defaultdict(list)
    for name, made in problems.items():
        hits[made.skill, made.image is None].append(found.get(name) == made.answer)
    assert all(all(h) for (_, text_only), h in hits.items() if text_only)
    assert all(hits["identify what flies", False])  # they have a picture but do not need it
    assert failed and all(UNSEEN in expert_answer(problems[name]) for name in failed)


def test_the_expert_keeps_what_it_knows_and_trusts_llava_where_it_had_guessed():
    known = next(p for p in quiz("test", 30) if answer_from_text(p))
    other = f"A reason with {known.choices[0]} and {known.choices[1]}. The answer is {LETTERS[1 - known.answer % 2]}."
    assert second_answer(known, expert_answer(known), other) == expert_answer(known)
    guessed = Problem("1", "Which animal is in the picture?", ("dog", "cow"), 1)
    own = expert_answer(guessed)
    assert answer_from_text(guessed) is None and UNSEEN in own and own.endswith("The answer is A.")
    final = second_answer(guessed, own, "The picture shows a cow. The answer is B.")
    assert final.endswith("The answer is B.")
    for not_fitting in ("The picture shows a dog. The answer is B.", "The picture shows a cow.", "The answer is D."):
        assert second_answer(guessed, own, not_fitting) == own


# the quiz


def test_the_quiz_is_the_same_each_time_and_its_files_have_scienceqas_format(tmp_path):
    made = quiz("train", 45) + quiz("val", 15) + quiz("test", 15)
    assert made[:45] == quiz("train", 45) and len({p.id for p in made}) == 75
    write_problems(made, tmp_path)
    assert list(read_problems(tmp_path, "test").values()) == made[60:]
    assert read_problems(tmp_path)["train-00003"] == made[3]


def test_every_question_has_one_right_choice_in_a_random_place_and_reasons_for_it():
    made = quiz("train", 1500)
    place = Counter((len(p.choices), p.answer) for p in made)
    for count in (2, 3, 4):
        of = [place[count, n] for n in range(count)]
        assert sum(of) > 60 and max(of) < 1.7 * min(of), (count, of)
    for p in made:
        assert len(set(p.choices)) == len(p.choices) >= 2 and p.lecture and p.grade.startswith("grade")
        core = p.choices[p.answer].rstrip(".").lower().removeprefix("a ").removeprefix("an ")
        assert p.solution.lower().rstrip(".").endswith(core), (p.solution, p.choices)
    assert {p.subject for p in made} == {"natural science", "social science", "language science"}
    assert {bool(p.image) for p in made if p.hint} == {True, False} == {bool(p.image) for p in made if not p.hint}
    assert Counter(p.skill for p in made) == dict.fromkeys((s.name for s in SKILLS), 100)
    grades = [int(p.grade.removeprefix("grade")) for p in made]
    assert 0.3 < sum(g > 6 for g in grades) / len(grades) < 0.6


def test_only_the_right_choice_is_true_of_the_scene():
    for number in range(300):
        made, scene = problem("test", number)
        if scene is None:
            continue
        right, kinds = made.choices[made.answer], {t.kind for t in scene.things}
        wrong = [c for n, c in enumerate(made.choices) if n != made.answer]
        if made.skill == "identify living things":
            assert right in kinds and not kinds & set(wrong)
        elif made.skill == "link uses and properties":
            assert {t.colour for t in scene.things if f"The {t.kind} is" in made.solution} == {right}
        elif made.skill == "draw conclusions":
            colour = made.hint.rstrip(".").split()[-1]
            assert [t.kind for t in scene.things if t.colour == colour and t.kind in made.choices] == [right]
        elif made.skill == "read a map":
            side = "left" if "west" in made.question else "right"
            assert {t.side for t in scene.things if t.kind == right} == {side}
            assert side not in {t.side for t in scene.things if t.kind in wrong}
        elif made.skill == "identify places":
            assert scene.place in right and not any(scene.place in c for c in wrong)


def test_no_question_is_in_two_splits():
    def key(p):
        return p.question, p.hint, tuple(sorted(p.choices))

    split = {s: {key(p) for p in quiz(s, 600) if not p.image} for s in TEXT_BUCKETS}
    assert not split["train"] & split["test"] and not split["train"] & split["val"] and not split["val"] & split["test"]
    drawn = {s: {problem(s, n)[1].key() for n in range(60) if problem(s, n)[1]} for s in TEXT_BUCKETS}
    assert not drawn["train"] & drawn["test"] and not drawn["train"] & drawn["val"]


def test_pictures_are_drawn_where_the_problems_say(tmp_path):
    made = draw_quiz("val", 15, tmp_path, size=64)
    assert made == quiz("val", 15)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")}
    assert files == {p.image for p in made if p.image}
    with pytest.raises(KeyError, match="dev"):
        draw_quiz("dev", 1, tmp_path)
