"""Wrong answers to exercise 07: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("07.1", "a, b = x.chunk(2, dim=-1)\n    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)", "a, b = x[..., ::2], x[..., 1::2]\n    return torch.stack([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1).flatten(-2)", "neighbours are paired"),
    ("07.1", "torch.arange(T)[:, None]", "torch.arange(1, T + 1)[:, None]", "begin at 1"),
    ("07.1", "a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()", "a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin()", "the other way"),
    ("07.1", "torch.arange(0, d, 2) / d", "torch.arange(d // 2) / d", "rates are those of d numbers"),
    ("07.2", ".tril(S)", ".tril()", "cache's first token"),
    ("07.2", ".tril(S)", "", "come after them"),
    ("07.2", " / q.shape[-1] ** 0.5", "", "root of d"),
    ("07.3", "chance[before < top_p].cumsum(-1)", "chance[: max(1, int((chance.cumsum(-1) <= top_p).sum()))].cumsum(-1)", "crosses top_p is dropped"),
    ("07.3", "chance[before < top_p]", "chance", "not used"),
    ("07.3", "logits / temperature", "logits * temperature", "multiplied"),
    ("07.3", "u * kept[-1]", "u", "add up to 1"),
    ("07.3", "int(order[min(place, len(kept) - 1)])", "min(place, len(kept) - 1)", "place among the sorted"),
    ("07.3", "if temperature == 0:", "if False:", "divides by 0"),
    ("07.2a", "<=", "<", "diagonal is missing"),
    ("07.2a", "<=", ">=", "points the wrong way"),
    ("07.2b", " + S\n", "\n", "begins at the first old token"),
    ("07.2b", "return torch.arange(S + T)", "return torch.zeros(S + T)", "sees all others"),
]  # fmt: skip
