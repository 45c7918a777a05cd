"""Wrong answers to exercise 04: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("04.1", "return [first, *questions[1:]]", 'return [f"<image>\\n{q}" if before else f"{q}\\n<image>" for q in questions]', "every question"),
    ("04.1", "return [first, *questions[1:]]", 'last = questions[-1]\n    return [*questions[:-1], f"<image>\\n{last}" if before else f"{last}\\n<image>"]', "last question"),
    ("04.1", "if before else", "if not before else", "exchanged"),
    ("04.1", 'f"<image>\\n{questions[0]}" if before else f"{questions[0]}\\n<image>"', 'f"<image> {questions[0]}" if before else f"{questions[0]} <image>"', "no newline"),
    ("04.2", "return ids, labels", 'whole = "".join(text for text, _ in segments)\n    return [*first, *(i for n, part in enumerate(whole.split("<image>")) for i in [IMAGE] * (n > 0) + tokenize(part))], labels', "tokenization mismatch"),
    ("04.2", "new if learned else [IGNORE] * len(new)", "new", "every token carries loss"),
    ("04.2", 'text.split("<image>")', "[text]", "written out in letters"),
    ("04.2", "return ids, labels", "return ids, labels[1:] + [IGNORE]", "shifted here already"),
    ("04.2", "list(first), [IGNORE] * len(first)", "[], []", "left out"),
    ("04.3", '("###", learn != "no stop")', '("###", every)', "stop carries no loss"),
    ("04.3", '("\\nAssistant: ", every)', '("\\nAssistant: ", True)', "is given, not said"),
    ("04.3", '("###", learn != "no stop"), ("\\n", every)', '("###", learn != "no stop"), ("\\n", learn != "no stop")', "newline behind the stop"),
    ("04.2a", "return joined", "return [*joined, IMAGE]", "behind the last part too"),
    ("04.2a", "[IMAGE, *part]", "part", "no image between"),
    ("04.2b", "else IGNORE", "else 0", "you write 0 where there is no loss"),
    ("04.2b", "i if on else IGNORE", "IGNORE if on else i", "the wrong way"),
]  # fmt: skip
