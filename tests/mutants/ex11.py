"""Wrong answers to exercise 11: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("11.1", "up = max(1, round(0.03 * steps))", "up = 0", "no warm-up"),
    ("11.1", "(t + 1) / up", "t / up", "begins at 0"),
    ("11.1", "math.cos(math.pi * t / (steps - up))) for t in range(steps - up)", "math.cos(math.pi * t / steps)) for t in range(up, steps)", "over all steps"),
    ("11.1", "0.5 * (1 + math.cos(math.pi * t / (steps - up)))", "1 - t / (steps - up)", "in a line"),
    ("11.2", "model.requires_grad_(False)\n    model.projector.requires_grad_(True)\n    loss, _ = model.loss(batch)\n    loss.backward()\n    with torch.no_grad():\n        for p in model.projector.parameters():", "loss, _ = model.loss(batch)\n    loss.backward()\n    with torch.no_grad():\n        for p in (q for q in model.parameters() if q.grad is not None):", "moves too"),
    ("11.2", "p -= rate", "p += rate", "up the slope"),
    ("11.2", "for p in model.projector.parameters():", "for p in [model.projector.weight]:", "bias of W stays"),
    ("11.3", 'picture = "<image>" if "<image>" in question else ""', "picture = question", "question is kept"),
    ("11.3", 'picture = "<image>" if "<image>" in question else ""', 'picture = "<image>"', "even where the question had none"),
    ("11.3", '("\\n", True)]', '("\\n", False)]', "carries no loss"),
    ("11.3", ', ("\\n", True)]', "]", "stop is missing"),
    ("11.2a", "w - rate * slope", "w + rate * slope", "goes up"),
    ("11.2a", "rate * slope", "slope", "rate is left out"),
    ("11.2b", "torch.where(moves[:, None], w - slope, w)", "w - slope", "all rows move"),
    ("11.2b", "moves[:, None]", "moves", "columns move"),
    ("11.2b", "w - slope, w)", "w, w - slope)", "marked ones stay"),
]  # fmt: skip
