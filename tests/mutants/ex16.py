"""Wrong answers to exercise 16: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("16.1", "range(blocks - 1)", "range(blocks)", "last layer is read"),
    ("16.1", "return x[:, 1:]", "return x", "class token is still in front"),
    ("16.1", "y * torch.sigmoid(1.702 * y)", "F.gelu(y)", "exact GELU"),
    ("16.1", ' + w["embeddings.position_embedding.weight"]', "", "positions are not added"),
    ("16.1", 'x = norm(x, "pre_layrnorm")', "", "pre_layrnorm"),
    ("16.2", ".masked_fill(later, -torch.inf)", "", "no causal mask"),
    ("16.2", "q, k = turn(q), turn(k)", "", "does not know its place"),
    ("16.2", "a, b = x.chunk(2, dim=-1)\n        return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()", "a, b, h = x[..., ::2], x[..., 1::2], angles[:, ::1][:, : d // 2]\n        return torch.stack([a * h.cos() - b * h.sin(), b * h.cos() + a * h.sin()], -1).flatten(-2)", "pairs neighbours"),
    ("16.2", "* base **", "* 10000.0 **", "always 10,000"),
    ("16.2", 'F.linear(norm(x, "norm")', "F.linear(x", "last norm"),
    ("16.2", "F.silu(gate) * up", "gate * F.silu(up)", "exchanged"),
    ("16.3", "F.cross_entropy(logits[:-1], spliced[1:]", "F.cross_entropy(logits, spliced", "nothing is shifted"),
    ("16.3", "spliced = torch.cat([labels[:at], labels.new_full((P,), IGNORE), labels[at + 1 :]])", "spliced = torch.cat([ids[:at], labels.new_full((P,), IGNORE), ids[at + 1 :]])", "every token carries loss"),
    ("16.3", "ignore_index=IGNORE)", 'ignore_index=IGNORE, reduction="sum")', "is summed"),
    ("16.3", "ignore_index=IGNORE)", 'ignore_index=IGNORE, reduction="sum") / (len(logits) - 1)', "over all rows"),
    ("16.4", "return said\n        said", "return [*said, token]\n        said", "given back with the answer"),
    ("16.4", "if token == stop:", "if False:", "not looked for"),
    ("16.4", "x = torch.cat([x, E[token][None]])", "pass", "behind the prompt alone"),
    ("16.4", "[0, -1].argmax()", "[0, 0].argmax()", "first row is asked"),
]  # fmt: skip
