"""Wrong answers to exercise 08: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("08.1", "Zv @ W.T + b", "Zv @ W.T", "bias is left out"),
    ("08.1", "Zv @ W.T + b", "Zv @ W + b", "W is not turned"),
    ("08.1", "Zv @ W.T + b", "(Zv @ W.T + b).relu()", "non-linearity"),
    ("08.2", "next(patches) if i == IMAGE", "torch.cat([E[i][None], next(patches)]) if i == IMAGE", "keeps a row of its own"),
    ("08.2", "return torch.cat([", "return torch.cat([*patches, E[ids[ids != IMAGE]]])\n    return torch.cat([", "in front of all words"),
    ("08.2", "translate(picture, W, b)", "translate(picture[1:], W, b)", "first patch is dropped"),
    ("08.2", "if words.count(IMAGE) != len(pictures):", "if False:", "not counted"),
    ("08.3", "Zv.unflatten(0, (side // k, k, side // k, k)).mean((1, 3)).flatten(0, 1)", "Zv.unflatten(0, (-1, k * k)).mean(1)", "follow each other"),
    ("08.3", ".mean((1, 3))", ".amax((1, 3))", "largest number"),
    ("08.3", ".mean((1, 3)).flatten(0, 1)", ".mean((1, 3)).transpose(0, 1).flatten(0, 1)", "column by column"),
    ("08.2a", "rows[at:]", "rows[at + 1 :]", "is lost"),
    ("08.2a", "[rows[:at], new, rows[at:]]", "[new, rows]", "in front of all others"),
    ("08.2b", "return ids.repeat_interleave(torch.where(ids == IMAGE, P, 1))", "at = ids.tolist().index(IMAGE)\n    return torch.cat([ids[:at], torch.full((P,), IMAGE), ids[at + 1 :]])", "only the first image token"),
    ("08.2b", "IMAGE, P, 1", "IMAGE, P + 1, 1", "beside its P places"),
    ("08.2b", "torch.where(ids == IMAGE, P, 1)", "P", "every id stands there"),
    ("08.2", "return torch.cat([next(patches) if i == IMAGE else E[i][None] for i in words])", "at = words.index(IMAGE)\n    return torch.cat([E[ids[:at]], next(patches), E[ids[at + 1 :]]])", "only the first picture is handled"),
    ("08.2", "next(patches) if i == IMAGE", "translate(pictures[0], W, b) if i == IMAGE", "only the first picture is handled"),
]  # fmt: skip
