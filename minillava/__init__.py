"""minillava: "Visual Instruction Tuning" (LLaVA, arXiv 2304.08485) as a course that runs.

Rooms, in the order data flows: `paper`, `scales`, `scenes`, `asking`, `datagen`, `data`, `model`, `training`, `judging`; then what
people look at and type: `figures`, `chat`, `cli`. Shapes everywhere: B batch, P patches, T tokens, D width, H heads,
V vocabulary, L layers.
"""

__version__ = "0.1.0"
