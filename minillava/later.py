"""What came after the paper, as data: what LLaVA-1.5 changed, each change with its source.

It holds only what a source confirms. "code" is the authors' repository at c121f04, "hub" a page of the hub, "arXiv"
their paper on LLaVA-1.5, and "issue" an issue of the authors' repository unless it names another one. The paper's own
values come from `paper.py`.

    python -c "from minillava.later import LLAVA_15; print(LLAVA_15['projector'])"
"""

from typing import NamedTuple

from minillava.paper import ARCHITECTURE, DATA, RECIPES, Named


class Change(NamedTuple):
    """paper, later: the value in the paper and in LLaVA-1.5. meaning: what the value is. source: of the later one."""

    paper: object
    later: object
    meaning: str
    source: str


_ONE, _TWO = RECIPES["stage 1"], RECIPES["stage 2"]
LLAVA_15 = Named(
    projector=Change("linear", "mlp2x_gelu", "between vision tower and language model", "hub, llava-1.5-7b-hf; code, multimodal_projector/builder.py"),
    image_size=Change(ARCHITECTURE["image_size"].value, 336, "pixels per side", "hub, openai/clip-vit-large-patch14-336"),
    patch_tokens=Change(ARCHITECTURE["patch_tokens"].value, 576, "patches per picture", "hub, llava-1.5-7b-hf"),
    picture=Change("cropped to its middle", "padded to a square", "a picture that is not square", "code, mm_utils.py"),
    template=Change("### Human, ### Assistant", "ASSISTANT:, </s>", "roles, and the stop", "code, train.py: preprocess_v1"),
    stage1_prompt=Change("a brief request", "none", "stage 1: what stands before the caption", "code, train.py: preprocess_plain; issue #385"),
    stage1_pairs=Change(DATA["pairs"].value, 558_000, "stage 1: pairs", "hub, LLaVA-Pretrain: LCS-558K"),
    stage1_batch=Change(_ONE.global_batch, 256, "stage 1: batch", "code, README"),
    stage1_lr=Change(_ONE.learning_rate, 1e-3, "stage 1: learning rate", "code, README"),
    stage2_records=Change(DATA["instruct"].value, 665_000, "stage 2: records", "hub, LLaVA-Instruct-150K: llava_v1_5_mix665k.json"),
    stage2_kinds=Change("with a picture", "with one, and text alone", "stage 2: which records", "code, LengthGroupedSampler; issue #579"),
    stage2_answers=Change("free text", "also short ones, on request", "stage 2: academic VQA, prompts for the form", "arXiv 2310.03744, abstract"),
    stage2_batch=Change(_TWO.global_batch, 128, "stage 2: batch", "code, README"),
    stage2_lr=Change(_TWO.learning_rate, 2e-5, "stage 2: learning rate", "code, README"),
)  # fmt: skip
