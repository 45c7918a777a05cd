"""Answers, token by token: Eq. 3 read from left to right.

Notable
- Batched: prompts of any length side by side, padded on the left so that the newest token is always last; the same
  tokens come out as one by one. A row that has said its stop leaves the batch and costs nothing more.
- Every key and value is computed once (`Cache`): prompts that begin with the same words and pictures share that
  beginning, so several questions about one picture read it once; a `Session` keeps it over the turns of a conversation.
- `stream` gives text as it is made and never half a character: its pieces joined are what `generate_text` returns.

Try it: `generate(model, [ids], [[features]], max_new_tokens=20, stop=[tokenizer.encode("###")])`.

B batch (the rows still alive), P patches, T tokens, D width, V vocabulary, S slots of the cache.
"""

import hashlib

import torch

from minillava.data import IMAGE
from minillava.model.cache import Cache
from minillava.model.llava import SpliceError


def generate(model, prompts, features, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0, tokenizer=None):
    """The new token ids of each prompt, without the stop.

    prompts: (T,) ids each, `IMAGE` where a picture goes. features: a list of (P, Dv) each. max_new_tokens: a number, or
    one for each prompt. stop: token id sequences, and strings where a tokenizer is given; a string that begins inside a
    token takes the token along (`generate_text` cuts at the character).
    temperature 0 takes the likeliest token; above 0 row i draws with its own generator, seeded `seed + i`, from the
    likeliest tokens that hold `top_p` of the probability. A row ends at a stop, at max_new_tokens or at a full context.
    Raises SpliceError, naming the sample, for a prompt that cannot be read; ValueError for settings without sense.
    """
    ends, answers = Stop(stop, tokenizer), [[] for _ in prompts]
    for row, token in _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed):
        answers[row].append(token)
    return [ends.ids_before(answer) for answer in answers]


def generate_text(model, tokenizer, prompts, features, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0):
    """The answer to each prompt as text, without the stop; the rest as in `generate`."""
    ends, answers = Stop(stop, tokenizer), [[] for _ in prompts]
    for row, token in _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed):
        answers[row].append(token)
    return [ends.text_before(answer) for answer in answers]


def stream(model, ids, features, tokenizer, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0, session=None):
    """The answer to one prompt in pieces of text, as they come; joined they are what `generate_text` gives.

    Held back until it is settled: what could be the beginning of a stop, and what ends in half a character.
    session: keeps what was read and said, so that the next prompt that goes on from there costs its own tokens only.
    """
    ends, answer, shown = Stop(stop, tokenizer), [], ""
    for _, token in _tokens(model, [ids], [features], max_new_tokens, ends, temperature, top_p, seed, session):
        answer.append(token)
        if ends.reached(answer):
            break
        text = ends.settled(answer)
        if len(text) > len(shown):
            yield _after(shown, text)
            shown = text
    rest = _after(shown, ends.text_before(answer))
    if rest:
        yield rest


class Stop:
    """Where answers end: at token id sequences, or at strings, wherever in the text these begin and end."""

    def __init__(self, stops, tokenizer=None):
        self.tokenizer, self.strings = tokenizer, [s for s in stops if isinstance(s, str)]
        self.sequences = [list(s) for s in stops if not isinstance(s, str)]
        if not all(self.strings + self.sequences):
            raise ValueError("an empty stop sequence would end every answer before it begins")
        if self.strings and tokenizer is None:
            raise ValueError(f"the stop {self.strings[0]!r} is a string: a tokenizer is needed to find it")
        self.tail = max((len(s.encode()) for s in self.strings), default=0) + 4  # a token is at least a byte

    def reached(self, answer):
        """Whether the last token of `answer` (a list of ids) completes a stop."""
        if any(answer[-len(s) :] == s for s in self.sequences):
            return True
        return bool(self.strings) and self._find(self.tokenizer.decode(answer[-self.tail :])) is not None

    def ids_before(self, answer):
        """The ids of a finished answer without its stop."""
        answer = answer[: len(answer) - max((len(s) for s in self.sequences if answer[-len(s) :] == s), default=0)]
        if self.strings:
            text = self.text_before(answer)
            while not text.startswith(self.tokenizer.decode(answer)):
                answer = answer[:-1]
        return answer

    def text_before(self, answer):
        """The text of a finished answer without its stop."""
        answer = answer[: len(answer) - max((len(s) for s in self.sequences if answer[-len(s) :] == s), default=0)]
        text = self.tokenizer.decode(answer)
        return text[: self._find(text)]

    def settled(self, answer):
        """The text so far that no later token can change or take back."""
        sizes = (n for s in self.sequences for n in range(1, len(s)) if answer[-n:] == s[:n])
        text = self.tokenizer.decode(answer[: len(answer) - max(sizes, default=0)])
        text = text.rstrip("\ufffd")  # what a decoder puts for half a character
        sizes = (n for s in self.strings for n in range(1, len(s)) if text.endswith(s[:n]))
        return text[: len(text) - max(sizes, default=0)]

    def _find(self, text):
        return min((at for s in self.strings if (at := text.find(s)) >= 0), default=None)


class Session:
    """One conversation's keys and values. A prompt that begins like what is in here is read from where it differs."""

    def __init__(self):
        self.cache, self.ids, self.pictures = None, [], []

    def read(self, model, prompts, features, room):
        """As `_read`, for one prompt."""
        (ids,), (pictures,), config = [prompts[0].tolist()], features, model.config.language
        same = slots = seen = 0  # ids, slots and pictures of the common beginning
        while same < min(len(ids) - 1, len(self.ids)) and ids[same] == self.ids[same]:
            if ids[same] == IMAGE:
                if not torch.equal(pictures[seen], self.pictures[seen]):
                    break
                slots, seen = slots + len(pictures[seen]), seen + 1
            else:
                slots += 1
            same += 1
        embeds, _, _ = model.splice_batch([prompts[0][same:]], [pictures[seen:]])  # (1, T, D)
        needed = slots + embeds.shape[1] + room[0]
        self.ids = self.ids[:same]
        if self.cache is not None:
            self.cache.back_to(slots)
        if self.cache is None or self.cache.seen.shape[1] < needed:
            # doubled, so that a conversation is copied a few times only
            larger = Cache(config, 1, min(config.max_position, 2 * needed), embeds.device, embeds.dtype)
            if self.cache is not None:
                larger.copy_of(self.cache)
            self.cache = larger
        hidden = _last(model.language_model, embeds, None, self.cache)
        self.ids, self.pictures = ids, list(pictures)
        return hidden, self.cache


@torch.inference_mode()
def _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed, session=None):
    """(row, token) pairs in the order in which they are made, the stop included."""
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != len(prompts) or min(limits, default=1) < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError("needs max_new_tokens >= 1 (one, or one a prompt), temperature >= 0 and 0 < top_p <= 1")
    if not prompts:
        return
    context = model.config.language.max_position
    lengths = [model.check(*sample, name=i) for i, sample in enumerate(zip(prompts, features, strict=True))]
    room = [min(limit, context - length) for limit, length in zip(limits, lengths, strict=True)]
    if 0 in room:
        raise SpliceError(
            f"sample {room.index(0)}: the prompt fills the context of {context}, no room to answer; "
            "ask a shorter question, or begin a new conversation"
        )
    hidden, cache = (session.read if session else _read)(model, prompts, features, room)  # (B, D)
    draws = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
    alive, answers = list(range(len(prompts))), [[] for _ in prompts]
    while True:
        tokens = _choose(model.language_model.head(hidden), temperature, top_p, [draws[row] for row in alive])  # (B,)
        for row, token in zip(alive, tokens.tolist(), strict=True):
            answers[row].append(token)
            yield row, token
        going = [i for i, row in enumerate(alive) if len(answers[row]) < room[row] and not ends.reached(answers[row])]
        if not going:
            return
        if len(going) < len(alive):
            going = cache.keep(going)
            tokens, alive = tokens[going], [alive[i] for i in going]
        hidden = model.language_model(model.language_model.embed(tokens[:, None]), cache=cache)[:, -1]  # (B, D)
        if session:
            session.ids.append(answers[0][-1])


def _read(model, prompts, features, room):
    """The prompts' last hidden states (B, D), and a cache that holds them and has room for the answers."""
    config, language = model.config.language, model.language_model
    rows_of, common = _shared(prompts, features)
    if len(rows_of) == len(prompts) or 0 in common:
        embeds, _, mask = model.splice_batch(prompts, features, pad="left")  # (B, T, D), (B, T)
        cache = Cache(config, len(prompts), embeds.shape[1] + max(room), embeds.device, embeds.dtype)
        return _last(language, embeds, mask, cache), cache
    begins, rest, groups = (
        [],
        [None] * len(prompts),
        [None] * len(prompts),
    )  # (ids, pictures) of each group, of each row
    for group, (rows, n) in enumerate(zip(rows_of, common, strict=True)):
        shown = int((prompts[rows[0]][:n] == IMAGE).sum())
        begins.append((prompts[rows[0]][:n], features[rows[0]][:shown]))
        for row in rows:
            rest[row], groups[row] = (prompts[row][n:], features[row][shown:]), group
    embeds, _, mask = model.splice_batch(*zip(*begins, strict=True), pad="left")
    begin = Cache(config, len(begins), embeds.shape[1], embeds.device, embeds.dtype)
    language(embeds, mask=mask, cache=begin, wanted=torch.zeros_like(mask))  # for its keys and values alone
    embeds, _, mask = model.splice_batch(*zip(*rest, strict=True), pad="left")
    slots = embeds.shape[1] + max(room)
    cache = Cache(config, len(prompts), slots, embeds.device, embeds.dtype, begin, groups)
    return _last(language, embeds, mask, cache), cache


def _last(language, embeds, mask, cache):
    """(B, D): the state of each row's last token; behind the last attention no other is computed."""
    wanted = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    wanted[:, -1] = True
    return language(embeds, mask=mask, cache=cache, wanted=wanted)


def _shared(prompts, features):
    """Groups of rows that show the same pictures after the same words, and how many ids each group has in common."""
    groups = {}
    for row, (ids, pictures) in enumerate(zip(prompts, features, strict=True)):
        upto = max((ids == IMAGE).nonzero().flatten().tolist(), default=-1) + 1
        groups.setdefault((row if upto == 0 else (*ids[:upto].tolist(), *map(_digest, pictures))), []).append(row)
    rows_of, common = list(groups.values()), []
    for rows in rows_of:
        shortest = min(len(prompts[row]) for row in rows) - 1  # at least one id of its own, to go on from
        same = torch.stack([prompts[row][:shortest] == prompts[rows[0]][:shortest] for row in rows]).all(0)
        common.append(int(same.int().cumprod(0).sum()))
    return rows_of, common


def _digest(picture):
    return hashlib.sha256(picture.detach().cpu().contiguous().view(torch.uint8).numpy()).digest()


def _choose(logits, temperature, top_p, draws):
    """(B, V) scores to (B,) tokens."""
    if temperature == 0:
        return logits.max(-1).indices  # as argmax, which in bfloat16 takes five times as long on a CPU
    chance, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)  # (B, V) both
    before = chance.cumsum(-1) - chance
    upto = chance.masked_fill(before >= top_p, 0).cumsum(-1)  # (B, V); the token that crosses top_p is still in
    u = torch.stack([torch.rand(1, generator=draw) for draw in draws]).to(logits.device)  # (B, 1), one draw a row
    picked = torch.searchsorted(upto, u * upto[:, -1:], right=True)
    last = (before < top_p).sum(-1, keepdim=True) - 1  # u just under 1 may round to the very end
    return order.gather(-1, picked.minimum(last)).squeeze(-1)


def _after(shown, text):
    if not text.startswith(shown):
        raise ValueError("the tokenizer rewrites text it gave before; decode with clean_up_tokenization_spaces=False")
    return text[len(shown) :]
