"""Wrong answers to exercise 09: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("09.1", "enumerate(labels[1:].tolist())", "enumerate(labels.tolist())", "its own token"),
    ("09.1", "enumerate(labels[1:].tolist())", "enumerate(labels[:-1].tolist(), 1)", "the other way"),
    ("09.1", " if token != IGNORE", "", "without loss, too"),
    ("09.2", "rows = logits[:-1][keep]", "wanted = labels\n    keep = labels != IGNORE\n    rows = logits[keep]", "nothing is shifted"),
    ("09.2", ".mean()", ".sum()", "the sum is taken"),
    ("09.2", ".mean()", ".sum() / len(wanted)", "over all rows"),
    ("09.2", ".log_softmax(-1)", ".softmax(-1).log2()", "base 2"),
    ("09.2", "if not keep.any():", "if False:", "gives nan"),
    ("09.3", "sum(mean * tokens for mean, tokens, _ in parts) / sum(tokens for _, tokens, _ in parts)", "sum(mean for mean, _, _ in parts) / len(parts)", "mean of the parts' means"),
    ("09.3", "sum(mean * tokens for mean, tokens, _ in parts) / sum(tokens for _, tokens, _ in parts)", "sum(mean for mean, _, _ in parts)", "summed"),
    ("09.3", "tokens, _ in parts) / sum(tokens for _, tokens, _ in parts)", "_, tokens in parts) / sum(tokens for _, _, tokens in parts)", "by their samples"),
    ("09.2a", "torch.cat([ids[1:], torch.tensor([IGNORE])])", "ids.roll(-1)", "behind the last one"),
    ("09.2a", "[ids[1:], torch.tensor([IGNORE])]", "[torch.tensor([IGNORE]), ids[:-1]]", "the id before it"),
    ("09.2b", "scores[torch.arange(len(wanted)), wanted]", "scores.amax(-1)", "largest of each row"),
    ("09.2b", "torch.arange(len(wanted))", ":", "all wanted columns"),
]  # fmt: skip
