"""Answers, token by token: Eq. 3 read from left to right.

Notable
- Batched: prompts of any length side by side, padded on the left so that the newest token is always last; the same
  tokens come out as one by one.
- Every key and value is computed once (`Cache`); a row that has said its stop leaves the batch and costs nothing more.
- `stream` gives text as it is made and never half a character: its pieces joined are what `generate` would decode to.

Try it: `generate(model, [ids], [[features]], max_new_tokens=20, stop=[tokenizer.encode("###")])`.

B batch (the rows still alive), P patches, T tokens, D width, V vocabulary.
"""

import torch

from minillava.model.language import Cache
from minillava.model.llava import SpliceError


def generate(model, prompts, features, max_new_tokens, stop, temperature=0.0, top_p=1.0, seed=0):
    """The new token ids of each prompt, without the stop.

    prompts: (T,) ids each, `IMAGE` where a picture goes. features: a list of (P, Dv) each. stop: token id sequences.
    temperature 0 takes the likeliest token; above 0 row i draws with its own generator, seeded `seed + i`, from the
    likeliest tokens that hold `top_p` of the probability. A row ends at a stop, at max_new_tokens or at a full context.
    """
    answers = [[] for _ in prompts]
    for row, token in _tokens(model, prompts, features, max_new_tokens, stop, temperature, top_p, seed):
        answers[row].append(token)
    return [answer[: len(answer) - _stopped(answer, stop)] for answer in answers]


def stream(model, ids, features, tokenizer, max_new_tokens, stop, temperature=0.0, top_p=1.0, seed=0):
    """The answer to one prompt in pieces of text, as they come; joined they are what `generate` gives, decoded.

    Held back until it is settled: what could be the beginning of a stop, and what ends in half a character.
    """
    answer, shown = [], ""
    for _, token in _tokens(model, [ids], [features], max_new_tokens, stop, temperature, top_p, seed):
        answer.append(token)
        if _stopped(answer, stop):
            break
        text = tokenizer.decode(answer[: len(answer) - _maybe_stopping(answer, stop)])
        if len(text) > len(shown) and not text.endswith("\ufffd"):  # what a decoder puts for half a character
            yield _after(shown, text)
            shown = text
    rest = _after(shown, tokenizer.decode(answer[: len(answer) - _stopped(answer, stop)]))
    if rest:
        yield rest


@torch.inference_mode()
def _tokens(model, prompts, features, max_new_tokens, stop, temperature, top_p, seed):
    """(row, token) pairs in the order in which they are made, the stop included."""
    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1 or not all(stop):
        raise ValueError("needs max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1 and no empty stop sequence")
    if not prompts:
        return
    context = model.config.language.max_position
    embeds, _, mask = model.splice_batch(prompts, features, pad="left")  # (B, T, D), (B, T)
    room = [min(max_new_tokens, context - length) for length in mask.sum(1).tolist()]
    if 0 in room:
        raise SpliceError(f"sample {room.index(0)}: the prompt fills the context of {context}, no room to answer")
    cache = Cache(model.config.language, len(prompts), embeds.shape[1] + max(room), embeds.device, embeds.dtype)
    hidden = model.language_model(embeds, mask=mask, cache=cache)[:, -1]  # (B, D)
    draws = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
    alive, answers = list(range(len(prompts))), [[] for _ in prompts]
    while True:
        tokens = _choose(model.language_model.head(hidden), temperature, top_p, [draws[row] for row in alive])  # (B,)
        for row, token in zip(alive, tokens.tolist(), strict=True):
            answers[row].append(token)
            yield row, token
        going = [i for i, row in enumerate(alive) if len(answers[row]) < room[row] and not _stopped(answers[row], stop)]
        if not going:
            return
        if len(going) < len(alive):
            cache.keep(going)
            tokens, alive = tokens[going], [alive[i] for i in going]
        hidden = model.language_model(model.language_model.embed(tokens[:, None]), cache=cache)[:, -1]  # (B, D)


def _choose(logits, temperature, top_p, draws):
    """(B, V) scores to (B,) tokens."""
    if temperature == 0:
        return logits.argmax(-1)
    chance, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)  # (B, V) both
    before = chance.cumsum(-1) - chance
    upto = chance.masked_fill(before >= top_p, 0).cumsum(-1)  # (B, V); the token that crosses top_p is still in
    u = torch.stack([torch.rand(1, generator=draw) for draw in draws]).to(logits.device)  # (B, 1), one draw a row
    picked = torch.searchsorted(upto, u * upto[:, -1:], right=True)
    last = (before < top_p).sum(-1, keepdim=True) - 1  # u just under 1 may round to the very end
    return order.gather(-1, picked.minimum(last)).squeeze(-1)


def _stopped(answer, stop):
    """How many tokens at the end of `answer` are a stop; 0 when it goes on."""
    return max((len(s) for s in stop if answer[-len(s) :] == list(s)), default=0)


def _maybe_stopping(answer, stop):
    """How many tokens at the end of `answer` could be the beginning of a stop."""
    sizes = (n for s in stop for n in range(1, len(s)) if answer[-n:] == list(s[:n]))
    return max(sizes, default=0)


def _after(shown, text):
    if not text.startswith(shown):
        raise ValueError("the tokenizer rewrites text it gave before; decode with clean_up_tokenization_spaces=False")
    return text[len(shown) :]
