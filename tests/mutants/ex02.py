"""Wrong answers to exercise 02: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("02.1", 'things if kind != "conversation" else []', "things", "conversation is given boxes"),
    ("02.1", "(x + w) / width, (y + h) / height", "w / width, h / height", "keeps its width and height"),
    ("02.1", "y / height, (x + w) / width, (y + h) / height", "y / width, (x + w) / width, (y + h) / width", "shares of the width"),
    ("02.1", "f'{v:.3f}'", "f'{round(v, 3)}'", "decimals differ"),
    ("02.1", '("\\n\\n" + "\\n".join(lines) if lines else "")', '"".join(f"\\n{line}" for line in lines)', "no empty line"),
    ("02.2", "sum(images) != expected or images[0] != expected", "sum(images) != expected", "in any turn"),
    ("02.2", "elif sum(images) != expected or images[0] != expected:", "elif expected and (sum(images) != expected or images[0] != expected):", "without a picture"),
    ("02.2", 't["from"] != ("human", "gpt")[k % 2] or ', "", "take turns"),
    ("02.2", 't["value"].strip()', 't["value"]', "turn of blanks"),
    ("02.2", 't["value"].replace("<image>", "").lower()', 't["value"].lower()', "a part of its question"),
    ("02.2", 're.findall(r"\\w+", t["value"].replace("<image>", "").lower())', 't["value"].replace("<image>", "").strip()', "letter by letter"),
    ("02.3", "sum((Counter(there) & Counter(read)).values())", "sum(thing in read for thing in there)", "stands for several"),
    ("02.3", "sum((Counter(there) & Counter(read)).values())", "len(set(there) & set(read))", "count once"),
    ("02.3", "total = sum(len(there) for there, _ in pictures)", "total = sum(len(read) for _, read in pictures)", "divided by what was read"),
    ("02.3", '100 * kinds / total, "colours": 100 * colours / total', 'kinds / total, "colours": colours / total', "not per cent"),
    ("02.2a", 'who != ("human", "gpt")[n % 2] for', "n > 0 and who == speakers[n - 1] for", "the one before it"),
    ("02.2a", '("human", "gpt")[n % 2]', '("gpt", "human")[n % 2]', "gpt is expected to begin"),
    ("02.2b", "q in questions[:n]", "questions.count(q) > 1", "first of two counts"),
    ("02.2b", "q in questions[:n]", "n > 0 and q == questions[n - 1]", "directly in front"),
]  # fmt: skip
