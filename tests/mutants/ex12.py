"""Wrong answers to exercise 12: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("12.1", '2: ("projector", "language_model")', '2: ("projector", "language_model", "vision_tower")', "eye moves in stage 2"),
    ("12.1", '2: ("projector", "language_model")', '2: ("language_model",)', "W stands still"),
    ("12.1", '1: ("projector",)', '1: ("projector", "language_model")', "moves in stage 1"),
    ("12.1", "name.startswith(parts)", 'name.startswith(parts) and not (name.startswith("projector") and name.endswith("bias"))', "biases"),
    ("12.2", "alpha / len(A)", "alpha", "not divided"),
    ("12.2", "x @ W.T + scaled * (x @ A.T @ B.T), W + scaled * B @ A", "scaled * (x @ W.T + x @ A.T @ B.T), scaled * (W + B @ A)", "scaled too"),
    ("12.2", "W + scaled * B @ A", "W + B @ A", "lacks the scale"),
    ("12.2", "x @ W.T + scaled * (x @ A.T @ B.T), W + scaled * B @ A", "scaled * (x @ A.T @ B.T), scaled * B @ A", "left out"),
    ("12.3", "rank * (deep + wide)", "rank * deep * wide", "whole matrix"),
    ("12.3", "rank * (deep + wide)", "deep + wide", "rank is forgotten"),
    ("12.3", "rank * (deep + wide)", "rank * wide", "A alone"),
    ("12.3", "rank * (deep + wide)", "deep * wide + rank * (deep + wide)", "do not train"),
    ("12.2a", "b[:, None] * a", "a[:, None] * b", "exchanged"),
    ("12.2a", "b[:, None] * a", "b[:, None] + a", "are added"),
    ("12.2b", "B @ A", "B[:, :1] @ A[:1]", "only the first column"),
    ("12.2b", "B @ A", "A.T @ B.T", "lies on its side"),
]  # fmt: skip
