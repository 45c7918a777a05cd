"""Answers, token by token: Eq. 3 read from left to right.

Notable
- Prompts of any length are read side by side, padded on the left so that the newest token is always last. The tokens
  are the same as one by one. A row that has said its stop leaves the batch and costs nothing more.
- Every key and value is computed once (cache.py). Prompts that begin with the same words and pictures share that
  beginning, so several questions about one picture read it once. A `Session` keeps it over the turns of a conversation.
- `stream` gives text as it is made, never half a character. Its pieces joined are what `generate_text` returns.
- An answer ends at the stops that are asked for, and at the weights' own end tokens (`LanguageConfig.ends`), which
  their generation_config.json names. Nothing else of that file is used: answers are greedy unless one asks otherwise.
- Special tokens are never part of a text.

Try it: `generate(model, [ids], [[features]], max_new_tokens=20, stop=[tokenizer.encode("###")])`.

B batch (rows that have not ended), P patches, T tokens, D width (Dv of the vision tower), V vocabulary; G row groups.
"""

import hashlib
import re

import torch

from minillava.data import IMAGE
from minillava.model.cache import Cache
from minillava.model.llava import SpliceError

LEAST_TEMPERATURE = 1e-6  # above 0; scores divided by less are infinite in float32


def generate(model, prompts, features, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0, tokenizer=None):
    """The new token ids of each prompt, without the stop: a list of lists.

    prompts: (T,) ids each, `IMAGE` where a picture goes. features: a list of (P, Dv) per prompt, in reading order.
    max_new_tokens: one number, or one per prompt. A row ends there, at a stop or at a full context.
    stop: sequences of token ids; strings too where a tokenizer is given. A string that begins inside a token takes the
        whole token along (`generate_text` cuts at the character).
    temperature, top_p: as in `choose`; row i draws with its own generator, seeded `seed + i`.
    Raises SpliceError, which names the sample, for a prompt that cannot be read; ValueError for impossible settings.
    """
    ends, answers = Stop(stop, tokenizer, model.config.language.ends), [[] for _ in prompts]
    for row, token in _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed):
        answers[row].append(token)
    return [ends.ids_before(answer) for answer in answers]


def generate_text(model, tokenizer, prompts, features, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0):
    """The answer to each prompt as text, without the stop. Arguments and errors as in `generate`."""
    ends, answers = Stop(stop, tokenizer, model.config.language.ends), [[] for _ in prompts]
    for row, token in _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed):
        answers[row].append(token)
    return [ends.text_before(answer) for answer in answers]


def stream(model, ids, features, tokenizer, max_new_tokens, stop=(), temperature=0.0, top_p=1.0, seed=0, session=None):
    """The answer to one prompt in pieces of text, as they come. Joined they are what `generate_text` returns.

    Text that could be the beginning of a stop, or ends in half a character, is held back until that is settled.
    session: a `Session`, which keeps what was read and said for the next prompt. Other arguments and errors as in
    `generate`; ValueError also for a tokenizer that changes text it gave before.
    """
    ends, answer, shown = Stop(stop, tokenizer, model.config.language.ends), [], ""
    for _, token in _tokens(model, [ids], [features], max_new_tokens, ends, temperature, top_p, seed, session):
        answer.append(token)
        if ends.reached(answer):
            break
        text = ends.settled(answer)
        if len(text) > len(shown):
            yield text_after(shown, text)
            shown = text
    rest = text_after(shown, ends.text_before(answer))
    if rest:
        yield rest


class Stop:
    """Where answers end: at sequences of token ids, or at strings, wherever in the text these begin and end.

    ends: the weights' own end tokens, each an id. Raises ValueError for an empty stop, and for a string without a
    tokenizer to find it.
    """

    def __init__(self, stops, tokenizer=None, ends=()):
        self.tokenizer, self.strings = tokenizer, [s for s in stops if isinstance(s, str)]
        self.sequences = [list(s) for s in stops if not isinstance(s, str)] + [[end] for end in ends]
        if not all(self.strings + self.sequences):
            raise ValueError("an empty stop sequence would end every answer before it begins")
        if self.strings and tokenizer is None:
            raise ValueError(f"the stop {self.strings[0]!r} is a string: a tokenizer is needed to find it")
        for s in [*self.strings]:
            ids = tokenizer.encode(s, add_special_tokens=False)
            if not self._text(ids):  # a special token, which no text shows
                self.strings.remove(s)
                self.sequences.append(ids)
        self.tail = max((len(s.encode()) for s in self.strings), default=0) + 4  # a token is at least a byte

    def reached(self, answer):
        """Whether the last token of `answer` (a list of ids) completes a stop."""
        if any(answer[-len(s) :] == s for s in self.sequences):
            return True
        return bool(self.strings) and self._find(self._text(answer[-self.tail :])) is not None

    def ids_before(self, answer):
        """The ids of a finished answer without its stop."""
        answer = self._cut(answer)
        if self.strings:
            text = self.text_before(answer)
            while not text.startswith(self._text(answer)):
                answer = answer[:-1]
        return answer

    def text_before(self, answer):
        """The text of a finished answer without its stop."""
        text = self._text(self._cut(answer))
        return text[: self._find(text)]

    def settled(self, answer):
        """The text so far that no later token can change or take back."""
        answer = self._before_bytes(answer)
        sizes = (n for s in self.sequences for n in range(1, len(s)) if answer[-n:] == s[:n])
        text = self._text(answer[: len(answer) - max(sizes, default=0)])
        text = text.rstrip("\ufffd")  # what a decoder puts for half a character
        sizes = (n for s in self.strings for n in range(1, len(s)) if text.endswith(s[:n]))
        return text[: len(text) - max(sizes, default=0)]

    def _cut(self, answer):
        """The answer without the longest sequence of ids that ends it, if it is a stop."""
        return answer[: len(answer) - max((len(s) for s in self.sequences if answer[-len(s) :] == s), default=0)]

    def _text(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _find(self, text):
        return min((at for s in self.strings if (at := text.find(s)) >= 0), default=None)

    def _before_bytes(self, answer):
        """The answer up to a run of byte tokens at its end: Llama's <0x0A> is a new line, but not in an invalid run."""
        count = len(answer)
        while count and self._continues(answer[count - 1]):
            count -= 1
        return answer[:count]

    def _continues(self, token):
        """Whether it is a byte token, or one without text, which does not end a run of them."""
        if not self._text([token]):
            return True
        return bool(re.fullmatch("<0x[0-9A-F]{2}>", self.tokenizer.convert_ids_to_tokens(token)))


class Session:
    """One conversation's keys and values. A prompt that begins like the last one is read only from where it differs."""

    def __init__(self):
        self.cache, self.ids, self.pictures = None, [], []

    def read(self, model, prompts, features, room):
        """The last hidden state of one prompt (1, D), and the cache that holds it. Each list has one entry."""
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
            # doubled, so that a conversation is copied only a few times
            larger = Cache(config, 1, min(config.max_position, 2 * needed), embeds.device, embeds.dtype)
            if self.cache is not None:
                larger.copy_of(self.cache)
            self.cache = larger
        hidden = model.language_model(embeds, cache=self.cache)[:, -1]  # (1, D)
        self.ids, self.pictures = ids, list(pictures)
        return hidden, self.cache


@torch.inference_mode()
def _tokens(model, prompts, features, max_new_tokens, ends, temperature, top_p, seed, session=None):
    """(row, token) pairs in the order in which they are made, the stop included."""
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != len(prompts) or min(limits, default=1) < 1 or not 0 < top_p <= 1:
        raise ValueError("needs max_new_tokens >= 1 (one, or one per prompt) and 0 < top_p <= 1")
    if not (temperature == 0 or temperature >= LEAST_TEMPERATURE):
        raise ValueError(f"temperature {temperature}: 0, or {LEAST_TEMPERATURE:g} or above")
    if not prompts:
        return
    context, language = model.config.language.max_position, model.language_model
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
        tokens = choose(language.head(hidden), temperature, top_p, [draws[row] for row in alive])  # (B,)
        for row, token in zip(alive, tokens.tolist(), strict=True):
            answers[row].append(token)
            yield row, token
        going = [i for i, row in enumerate(alive) if len(answers[row]) < room[row] and not ends.reached(answers[row])]
        if not going:
            return
        if len(going) < len(alive):
            going = cache.keep(going)
            tokens, alive = tokens[going], [alive[i] for i in going]
        hidden = language(language.embed(tokens[:, None]), cache=cache)[:, -1]  # (B, D)
        if session:
            session.ids.append(answers[0][-1])


def _read(model, prompts, features, room):
    """The last hidden state of each prompt (B, D), and a cache that holds the prompts and has room for the answers."""
    config, language = model.config.language, model.language_model
    groups, common = _shared(prompts, features)
    begin = None
    if len(common) < len(prompts) and 0 not in common:  # each beginning is read once, then what follows it in each row
        first = [groups.index(group) for group in range(len(common))]  # (G,) a row of each group
        begins = [prompts[row][:n] for row, n in zip(first, common, strict=True)]
        shown = [int((ids == IMAGE).sum()) for ids in begins]  # (G,) pictures in each beginning
        embeds, _, mask = model.splice_batch(begins, [features[row][:n] for row, n in zip(first, shown)], pad="left")
        begin = Cache(config, len(begins), embeds.shape[1], embeds.device, embeds.dtype)
        language(embeds, mask=mask, cache=begin, wanted=torch.empty(0, dtype=torch.long, device=embeds.device))
        prompts = [ids[common[group] :] for ids, group in zip(prompts, groups, strict=True)]
        features = [pictures[shown[group] :] for pictures, group in zip(features, groups, strict=True)]
    embeds, _, mask = model.splice_batch(prompts, features, pad="left")  # (B, T, D), (B, T)
    slots = embeds.shape[1] + max(room)
    cache = Cache(config, len(prompts), slots, embeds.device, embeds.dtype, begin, groups)
    newest = torch.arange(1, len(prompts) + 1, device=embeds.device) * embeds.shape[1] - 1  # (B,) in (B, T) flattened
    return language(embeds, mask=mask, cache=cache, wanted=newest), cache


def _shared(prompts, features):
    """The group of each row, and of each group how many ids its rows have in common at the beginning.

    Rows are of one group when they show the same first picture after the same words.
    """
    numbers, marked, rows_of = {}, [], {}  # a picture's digest -> its number, which no id has
    for row, (ids, pictures) in enumerate(zip(prompts, features, strict=True)):
        shown = [numbers.setdefault(digest(picture), -1 - len(numbers)) for picture in pictures]
        places = (ids == IMAGE).nonzero().flatten()
        marked.append(ids.index_put((places,), torch.tensor(shown, dtype=ids.dtype)))
        first = tuple(marked[row][: places[0] + 1].tolist()) if shown else row
        rows_of.setdefault(first, []).append(row)
    groups, common = [None] * len(prompts), []
    for group, rows in enumerate(rows_of.values()):
        shortest = min(len(prompts[row]) for row in rows) - 1  # each row keeps at least one id of its own
        same = torch.stack([marked[row][:shortest] == marked[rows[0]][:shortest] for row in rows]).all(0)
        common.append(int(same.int().cumprod(0).sum()))
        for row in rows:
            groups[row] = group
    return groups, common


def digest(picture):
    """What two pictures' features (P, Dv) have in common only when they are the same numbers."""
    return hashlib.sha256(picture.detach().cpu().contiguous().view(torch.uint8).numpy()).digest()


def choose(logits, temperature, top_p, draws):
    """Logits (B, V) to one token per row, (B,).

    temperature 0: the likeliest token. Above 0: drawn from the likeliest tokens that together hold `top_p` of the
    probability (nucleus sampling, arXiv 1904.09751). draws: a torch.Generator per row.
    """
    if temperature == 0:
        return logits.argmax(-1)
    chance, order = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)  # (B, V) both
    before = chance.cumsum(-1) - chance
    upto = chance.masked_fill(before >= top_p, 0).cumsum(-1)  # (B, V); the token that crosses top_p is still in
    u = torch.stack([torch.rand(1, generator=draw) for draw in draws]).to(logits.device)  # (B, 1), one draw per row
    picked = torch.searchsorted(upto, u * upto[:, -1:], right=True)
    last = (before < top_p).sum(-1, keepdim=True) - 1  # rounding may take a u just under 1 to the very end
    return order.gather(-1, picked.minimum(last)).squeeze(-1)


def text_after(shown, text):
    if not text.startswith(shown):
        raise ValueError("the tokenizer rewrites text it gave before; decode with clean_up_tokenization_spaces=False")
    return text[len(shown) :]
