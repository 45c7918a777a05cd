"""Wrong answers to exercise 15: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("15.1", "found = re.findall", 'found = re.findall(r"[A-E]", text)[:1]\n    _ = re.findall', "first capital letter"),
    ("15.1", ' or ord(found[0]) - ord("A") >= choices', "", "does not have is accepted"),
    ("15.1", 'raise ValueError(f"no answer in {text!r}")', "return 0", "a guess stands"),
    ("15.1", "if len(found) != 1 or", "found = found[-1:]\n    if len(found) != 1 or", "the last one counts"),
    ("15.1", "if not found and bare:", "if False:", "bare letter is not read"),
    ("15.2", "complement = llava | expert", "complement = expert | llava", "prefers LLaVA"),
    ("15.2", "again.get(q, llava[q])", "again.get(q, expert[q])", "leaves the expert's first one"),
    ("15.2", "judge = complement | {", "judge = llava | {", "forgets what only the expert"),
    ("15.2", '{"complement": complement,', '{"complement": expert,', "leaves out"),
    ("15.3", 'f"{reasons} {said}".strip()', 'f"{said} {reasons}".strip()', "in LEA the answer stands first"),
    ("15.3", '"###", f"ANSWER', 'f"ANSWER', "### before ANSWER is missing"),
    ("15.3", "{said} BECAUSE: {reasons}", "{said} {reasons}", "BECAUSE is missing"),
    ("15.3", '[f"LECTURE: {lecture}"] * bool(lecture) + [f"SOLUTION: {solution}"] * bool(solution)', '[f"LECTURE: {lecture}", f"SOLUTION: {solution}"]', "leaves its heading"),
    ("15.2a", "llava | expert", "expert | llava", "LLaVA's answer wins"),
    ("15.2a", "llava | expert", "{q: i for q, i in expert.items()}", "stays open"),
    ("15.2b", "q in expert and llava[q] != expert[q]", "llava[q] != expert.get(q)", "left open counts"),
    ("15.2b", "llava[q] != expert[q]", "llava[q] == expert[q]", "both agree"),
]  # fmt: skip
