"""Exercise 16, the capstone: vision tower, language model, LLaVA's loss and its answers, rebuilt from a blank file."""

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from minillava.data import IGNORE, IMAGE
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model import Batch, Llava, LlavaConfig, generate
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.vision import VisionConfig, VisionTower

HEADS = 2


@lru_cache
def _made(seed: int, tied: bool = False) -> Llava:
    """A small LLaVA whose weights all have an effect: no norm is 1, no bias is 0."""
    torch.manual_seed(100 + seed)
    vision = VisionConfig(8, 4, 12, 24, 3, HEADS)
    model = Llava(LlavaConfig(vision, LanguageConfig(40, 16, 24, 2, HEADS, tie_embeddings=tied)))
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.4
    return model.requires_grad_(False)


def _sizes(weights: dict, prefix: str) -> int:
    """The number of blocks in a state dict."""
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(prefix))


def _tower(weights, patch, change=lambda tower: None):
    D = len(weights["pre_layrnorm.weight"])
    side = int((len(weights["embeddings.position_embedding.weight"]) - 1) ** 0.5) * patch
    wide = len(weights["layers.0.mlp.fc1.bias"])
    tower = VisionTower(VisionConfig(side, patch, D, wide, _sizes(weights, "layers."), HEADS)).requires_grad_(False)
    tower.load_state_dict(weights)
    change(tower)
    return tower


def _vision_tower(weights, pixels, heads, patch, change=lambda tower: None, look=lambda tower, pixels: tower(pixels)):
    return look(_tower(weights, patch, change), pixels)


def _looks(seed):
    cases = []
    for n, count in enumerate((1, 3, 2)):
        draw = torch.Generator().manual_seed(10 * seed + n)
        cases.append(
            (_made(2 * seed + n % 2).vision_tower.state_dict(), torch.randn(count, 3, 8, 8, generator=draw), HEADS, 4)
        )
    return cases


def _exact(tower):
    for block in tower.layers:
        block.mlp.forward = lambda x, mlp=block.mlp: mlp.fc2(F.gelu(mlp.fc1(x)))


def _unplaced(tower):
    tower.embeddings.position_embedding.weight.zero_()


def _unnormed(tower):
    tower.pre_layrnorm = nn.Identity()


def _model(weights, base, change=lambda model: None):
    V, D = weights["embed_tokens.weight"].shape
    wide = len(weights["layers.0.mlp.gate_proj.weight"])
    config = LanguageConfig(
        V, D, wide, _sizes(weights, "layers."), HEADS, rope_theta=base, tie_embeddings="lm_head.weight" not in weights
    )
    model = LanguageModel(config).requires_grad_(False)
    model.load_state_dict(weights)
    change(model)
    return model


def _language_model(weights, embeds, heads, base, change=lambda model: None, fixed=None, **more):
    model = _model(weights, fixed or base, change)
    if more:  # all tokens at the same position
        more = {"positions": torch.zeros(embeds.shape[:2], dtype=torch.long)}
    return model.head(model(embeds, **more))


def _thoughts(seed):
    cases = []
    for n, (count, length) in enumerate(((1, 5), (2, 9), (3, 4))):
        draw = torch.Generator().manual_seed(20 * seed + n)
        weights = _made(2 * seed + n % 2, tied=n == 2).language_model.state_dict()
        cases.append((weights, torch.randn(count, length, 16, generator=draw), HEADS, (100.0, 10000.0, 1e6)[n]))
    return cases


def _interleaved(model):
    """Pairs (0, 1), (2, 3), ... instead of (0, d/2), (1, d/2 + 1), ...: the same as reordering the rows of q and k."""
    for block in model.layers:
        for matrix in (block.self_attn.q_proj, block.self_attn.k_proj):
            rows = matrix.weight.unflatten(0, (HEADS, -1, 2))
            matrix.weight.copy_(rows.transpose(1, 2).flatten(0, 2))


def _seeing_all(model):
    for block in model.layers:
        real = block.self_attn.forward

        def forward(x, cos, sin, allowed, cache, layer, real=real):
            return real(x, cos, sin, torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool), cache, layer)

        block.self_attn.forward = forward


def _bare(model):
    model.norm = nn.Identity()


def _exchanged(model):
    for block in model.layers:
        block.mlp.gate_proj, block.mlp.up_proj = block.mlp.up_proj, block.mlp.gate_proj


def _whole(weights, base):
    part = lambda name: {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}  # noqa: E731
    tower, model = _tower(part("vision_tower."), 4), _model(part("language_model."), base)
    llava = Llava(LlavaConfig(tower.config, model.config), tower, model).requires_grad_(False)
    llava.projector.load_state_dict(part("projector."))
    return llava


def _loss(weights, ids, labels, pixels, heads, patch, base):
    llava = _whole(weights, base)
    return llava.loss(Batch([ids], [labels], [[llava.features(pixels)[0]]]))[0]


def _lossy(loss):
    """A wrong version. loss: from logits (T', V), the labels of all rows, and their ids."""

    def wrong(weights, ids, labels, pixels, heads, patch, base):
        llava = _whole(weights, base)
        rows, source = llava.splice(ids, [llava.features(pixels)[0]])
        logits = llava.language_model.head(llava.language_model(rows[None]))[0]
        of = lambda values: torch.where(source >= 0, values[source], IGNORE)  # noqa: E731
        return loss(logits, of(labels), of(ids))

    return wrong


def _samples(seed):
    cases = []
    for n, (place, length) in enumerate(((0, 7), (3, 8), (5, 6))):
        draw = torch.Generator().manual_seed(30 * seed + n)
        ids = torch.randint(1, 40, (length,), generator=draw)
        labels = ids.clone()
        labels[: 2 + n] = IGNORE
        ids[place], labels[place] = IMAGE, IGNORE
        cases.append(
            (
                _made(2 * seed + n % 2).state_dict(),
                ids,
                labels,
                torch.randn(1, 3, 8, 8, generator=draw),
                HEADS,
                4,
                100.0,
            )
        )
    return cases


def _spoken(weights, x, heads, base, most, stop):
    """By the package's `generate`: x is given as the features of a picture, and W is the identity."""
    model = _model(weights, base)
    D = x.shape[1]
    llava = Llava(LlavaConfig(VisionConfig(8, 4, D, D, 1, 1), model.config), language_model=model).requires_grad_(False)
    llava.projector.weight.copy_(torch.eye(D))
    llava.projector.bias.zero_()
    return generate(llava, [torch.tensor([IMAGE])], [[x]], most, stop=[[stop]])[0]


def _loop(ends=True, told=False, last=-1, forgets=False):
    """A wrong answer: each option is one mistake."""

    def speak(weights, x, heads, base, most, stop):
        said, model = [], _model(weights, base)
        while len(said) < most:
            rows = x if forgets else torch.cat([x, model.embed(torch.tensor(said, dtype=torch.long))])
            token = int(model.head(model(rows[None]))[0, last].argmax())
            if ends and token == stop:
                return said + [token] * told
            said.append(token)
        return said

    return speak


def _read(seed):
    """(weights, rows, heads, base, most, stop): an answer of `most` tokens, two that stop earlier, and an empty one.

    In all of them the best token leads clearly at every step, and six different tokens come.
    """
    cases, number, weights = [], 1000 * seed, _made(2 * seed).language_model.state_dict()
    model = _model(weights, 100.0)
    while len(cases) < 4:
        number += 1
        x = torch.randn(4 + len(cases), 16, generator=torch.Generator().manual_seed(number))
        said, leads, rows = [], [], x
        for _ in range(6):
            best = model.head(model(rows[None]))[0, -1].topk(2)
            said, leads = [*said, int(best.indices[0])], [*leads, float(best.values[0] - best.values[1])]
            rows = torch.cat([rows, model.embed(best.indices[:1])])
        if len(set(said)) == 6 and min(leads) > 0.05:
            stop = (next(n for n in range(40) if n not in said), said[3], said[5], said[0])[len(cases)]
            cases.append((weights, x, HEADS, 100.0, 6 - len(cases) % 2, stop))
    return cases


TASKS = (
    Task(
        "16.1a", 0, "Heads apart", lambda seed: [(digits(seed + n, T, D), heads) for n, (T, D, heads) in enumerate(((3, 4, 2), (2, 6, 3), (4, 6, 2)))],
        lambda x, heads: x.unflatten(-1, (heads, -1)).transpose(0, 1),
        (
            (lambda x, heads: x.reshape(heads, len(x), -1), "the numbers are only laid out anew, so a head gets whole tokens. Each head gets a piece of every token."),
            (lambda x, heads: x.unflatten(-1, (-1, heads)).permute(2, 0, 1), "heads take numbers in turn. A head's numbers stand side by side."),
        ),
        ("x.unflatten(-1, (heads, -1)) is (T, H, d); transpose exchanges two axes.",),
    ),
    Task(
        "16.1b", 0, "Heads together", lambda seed: [(digits(seed + n, *shape),) for n, shape in enumerate(((2, 3, 2), (3, 2, 2), (2, 4, 3)))],
        lambda x: x.transpose(0, 1).flatten(1),
        (
            (lambda x: x.reshape(x.shape[1], -1), "the numbers are only laid out anew, so tokens are mixed. First bring the tokens to the front."),
            (lambda x: x.permute(1, 2, 0).flatten(1), "the heads' numbers come in turn. Head 0 comes first, then head 1."),
        ),
        ("Exchange the first two axes; then .flatten(1) makes one row of each token.",),
    ),
    Task(
        "16.1", 2, "The eye", _looks, _vision_tower,
        (
            (partial(_vision_tower, look=lambda t, x: t(x, layer=-1)), "the last layer is read. Section 4.1 and Table 8 take the one before it: the last block never runs."),
            (partial(_vision_tower, look=lambda t, x: t.hidden_states(x)[-2]), "the class token is still in front. LLaVA takes the patches alone."),
            (partial(_vision_tower, change=_exact), "the activation is the exact GELU. CLIP was trained with x * sigmoid(1.702 x)."),
            (partial(_vision_tower, change=_unplaced), "positions are not added: the eye could not tell left from right."),
            (partial(_vision_tower, change=_unnormed), "the norm before the first block (pre_layrnorm) is skipped."),
        ),
        ("Notebook 06 has every step. Patches first: unfold the picture, or F.conv2d with stride = patch and no bias.",
         "Class token, patches, positions; pre_layrnorm; then blocks: x + attention(norm1(x)), x + mlp(norm2(x)).",
         "Run all blocks but the last, and drop row 0."),
        draw=lambda got, wanted: both_maps(got[0], wanted[0]),
        tolerance=1e-3,
    ),
    Task(
        "16.2a", 0, "Half a turn", lambda seed: [(1 + digits(seed + n, T, d),) for n, (T, d) in enumerate(((2, 4), (3, 6), (1, 8)))],
        lambda x: torch.cat([-x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], -1),
        (
            (lambda x: torch.cat([x[:, x.shape[1] // 2 :], -x[:, : x.shape[1] // 2]], -1), "it turns backwards: the minus belongs to the second half, which comes to the front."),
            (lambda x: torch.stack([-x[:, 1::2], x[:, ::2]], -1).flatten(1), "neighbours are pairs. Entry i belongs with entry i + d/2."),
        ),
        ("a, b = x.chunk(2, dim=-1); (a, b) becomes (-b, a).",),
    ),
    Task(
        "16.2b", 0, "The root of the mean square", lambda seed: [(1.0 + digits(seed + n, T, D),) for n, (T, D) in enumerate(((2, 3), (3, 4), (1, 2)))],
        lambda x: x / x.pow(2).mean(-1, keepdim=True).sqrt(),
        (
            (lambda x: x / x.norm(dim=-1, keepdim=True), "the sum of squares is taken, not their mean: every row gets length 1."),
            (lambda x: F.layer_norm(x, x.shape[-1:]), "the mean is taken off first, as LayerNorm does."),
            (lambda x: x / x.pow(2).mean().sqrt(), "all rows share one root. Each has its own."),
        ),
        ("x.pow(2), then .mean(-1, keepdim=True), then .sqrt(); divide by that.",),
    ),
    Task(
        "16.2", 2, "The brain", _thoughts, _language_model,
        (
            (partial(_language_model, change=_seeing_all), "tokens see what comes after them: no causal mask."),
            (partial(_language_model, still=True), "nothing is turned by RoPE: a token does not know its place."),
            (partial(_language_model, change=_interleaved), "RoPE pairs neighbours (0, 1), (2, 3). Llama's published weights pair the halves: i with i + d/2."),
            (partial(_language_model, fixed=10000.0), "the base of RoPE is always 10,000. Later models, and the shipped one, take a larger base: it is an argument."),
            (partial(_language_model, change=_bare), "the last norm is left out before the head."),
            (partial(_language_model, change=_exchanged), "gate and up are exchanged: silu belongs to gate_proj."),
        ),
        ("Notebook 07 has every step. RMSNorm divides by the root of the mean square, in float32, with eps 1e-6; no mean is taken off.",
         "RoPE: angles t * base ** (-2 i / d) for i below d / 2; q and k of every head are turned, v is not.",
         "The head is lm_head.weight, and where there is none, the embedding table itself."),
        draw=lambda got, wanted: both_maps(got[0], wanted[0]),
        tolerance=1e-3,
    ),
    Task(
        "16.3", 3, "LLaVA's loss", _samples, _loss,
        (
            (_lossy(lambda logits, labels, ids: F.cross_entropy(logits, labels, ignore_index=IGNORE)), "nothing is shifted: row t says what comes at t + 1, so it is compared with the label of t + 1."),
            (_lossy(lambda logits, labels, ids: F.cross_entropy(logits[:-1], ids[1:], ignore_index=IGNORE)), "every token carries loss. Eq. 3 takes the answers alone: labels that are IGNORE do not count."),
            (_lossy(lambda logits, labels, ids: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")), "the loss is summed; Eq. 3's is the mean over supervised tokens."),
            (_lossy(lambda logits, labels, ids: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum") / (len(logits) - 1)), "the mean is taken over all rows, also those without a label."),
        ),
        ("Three parts: eye, then W with its bias, then the rows in the order of the ids with the patches in the image token's place.",
         "Labels need a splice of their own: a patch has the label IGNORE.",
         "Then shift by one, and F.cross_entropy with ignore_index."),
        tolerance=1e-3,
    ),
    Task(
        "16.4", 3, "It answers", _read, _spoken,
        (
            (_loop(told=True), "the stop is given back with the answer. It ends the answer and is no part of it."),
            (_loop(ends=False), "the stop is not looked for: the answer goes on behind it."),
            (_loop(forgets=True), "every token is asked for behind the prompt alone. What has been said is read too: its embedding is one more row."),
            (_loop(last=0), "the first row is asked. What comes next is said by the last one."),
        ),
        ("brain(w, x[None], heads, base)[0, -1] scores the token behind all rows: argmax takes the likeliest.",
         "A token that was chosen is one more row of x: w['embed_tokens.weight'][token].",
         "Look whether it is the stop before you keep it; and no more than `most`."),
    ),
)  # fmt: skip
