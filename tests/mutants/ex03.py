"""Wrong answers to exercise 03: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("03.1", '"Zv": (P, Dv), "Hv": (P, D)}\n    return seen | {"Hq": (T - 1, D), "read": (T - 1 + P, D)}', '"Zv": (P + 1, Dv), "Hv": (P + 1, D)}\n    return seen | {"Hq": (T - 1, D), "read": (T + P, D)}', "class token is kept"),
    ("03.1", '"Zv": (P, Dv), "Hv": (P, D)}\n    return seen | {"Hq": (T - 1, D), "read": (T - 1 + P, D)}', '"Zv": (2 * P, Dv), "Hv": (2 * P, D)}\n    return seen | {"Hq": (T - 1, D), "read": (T - 1 + 2 * P, D)}', "512 rows"),
    ("03.1", '"read": (T - 1 + P, D)', '"read": (T + P, D)', "keeps a row of its own"),
    ("03.1", '"Hq": (T - 1, D), "read": (T - 1 + P, D)', '"Hq": (T, D), "read": (T + P, D)', "embedded as a word"),
    ("03.1", "(size // patch) ** 2", "size // patch", "one side of the grid"),
    ("03.1", "(L + 1, P + 1, Dv)", "(L, P + 1, Dv)", "as many as the blocks"),
    ("03.1", "if size % patch:", "if False:", "pixels at the edge"),
    ("03.2", "states[model.config.select_layer]", "states[-1]", "last layer is read"),
    ("03.2", "[0, 1:]", "[0]", "class token goes along"),
    ("03.2", "[embed(ids[:at]), Hv, ", "[Hv, embed(ids[:at]), ", "in front of all words"),
    ("03.2", "return model.language_model.head(hidden)", "return hidden", "hidden states come out"),
    ("03.2", "model.projector(Zv)", "model.projector(model.vision_tower.post_layernorm(Zv))", "last norm is applied"),
    ("03.3", "T - 1 + vision.num_patches", "T", "counts as one token"),
    ("03.3", "W += D * D + D", "W += Dv * Dv + Dv", "as wide as the eye"),
    ("03.3", 'W = Dv * D + D\n    if config.projector == "mlp2x_gelu":\n        W += D * D + D', 'W = Dv * D\n    if config.projector == "mlp2x_gelu":\n        W += D * D', "biases are forgotten"),
    ("03.3", "rows * 2 * L * D * 2", "rows * L * D * 2", "keys are kept without values"),
    ("03.3", "blocks = 2 * rows", "blocks = rows", "count as one operation"),
    ("03.3", '"flops": blocks + attention', '"flops": blocks', "attention itself is left out"),
]  # fmt: skip
