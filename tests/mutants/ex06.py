"""Wrong answers to exercise 06: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("06.1", "cut = pixels.unfold(2, p, p).unfold(3, p, p)", "return pixels.reshape(len(pixels), -1, 3 * p * p) @ W.flatten(1).T\n    cut = pixels.unfold(2, p, p).unfold(3, p, p)", "as they lie in memory"),
    ("06.1", "permute(0, 2, 3, 1, 4, 5)", "permute(0, 3, 2, 1, 4, 5)", "column by column"),
    ("06.1", "permute(0, 2, 3, 1, 4, 5)", "permute(0, 2, 3, 4, 5, 1)", "colours of a pixel stand together"),
    ("06.1", "permute(0, 2, 3, 1, 4, 5)", "permute(0, 2, 3, 1, 5, 4)", "within a patch are exchanged"),
    ("06.1", "if S % p:", "if False:", "cut off in silence"),
    ("06.2", "F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2", "F.cross_entropy(scores, right))", "only pictures look for captions"),
    ("06.2", "V / V.norm(dim=-1, keepdim=True), C / C.norm(dim=-1, keepdim=True)", "V, C", "not brought to length 1"),
    ("06.2", "t.exp().clamp(max=100) *", "t *", "t itself"),
    ("06.2", "scores = t.exp().clamp(max=100) * V @ C.T", "scores = V @ C.T / t.exp()", "divided by exp(t)"),
    ("06.2", ".clamp(max=100)", "", "not held at 100"),
    ("06.2", "scores.T, right)) / 2", "scores.T, right))", "added up"),
    ("06.3", "positions[1:].T.reshape(1, D, old, old)", "positions[1:].reshape(1, D, old, old)", "numbers of different places are mixed"),
    ("06.3", "    plane = positions[1:]", "    return F.interpolate(positions.T[None], size=1 + side * side, mode=\"linear\")[0].T\n    plane = positions[1:]", "the list is stretched"),
    ("06.3", "torch.cat([positions[:1], plane[0].flatten(1).T])", "plane[0].flatten(1).T", "class token's row is lost"),
    ("06.3", "flatten(1).T", "transpose(1, 2).flatten(1).T", "rows and columns are exchanged"),
    ("06.3", 'mode="bicubic", align_corners=False', 'mode="nearest"', "nearest old one"),
    ("06.3", "align_corners=False", "align_corners=True", "corner patches"),
]  # fmt: skip
