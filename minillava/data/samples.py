"""Records to samples to batches: ids and labels in one pass, and the samples of each step.

`encode` writes each id together with its label. It never tokenises joined text again to find where an answer begins, so
the authors' "tokenization mismatch" (facts E1) cannot happen. `plan_batches` fixes every batch of a run by its seed, so
that a run can resume from any step, and puts samples of similar length together, so that padding is small.
"""

import hashlib
import random
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from minillava.data import IGNORE, IMAGE
from minillava.data.records import IMAGE_TOKEN, RecordError, normalise, pictures_of
from minillava.data.scienceqa import LETTER_STEP
from minillava.data.template import Template


@dataclass(frozen=True)
class Sample:
    """One training sequence before the splice. ids, labels: (T,); `IMAGE` is a picture, `IGNORE` carries no loss."""

    id: str
    ids: torch.Tensor
    labels: torch.Tensor
    images: tuple[str, ...] = ()  # in the order of `IMAGE`


def encode_segments(segments: list[tuple[str, bool]], tokenizer) -> tuple[list[int], list[int]]:
    """Ids and labels of (text, supervised) segments, after a begin-of-sequence token if the tokenizer uses one.

    A first segment that begins with that token (a chat template's) has it already.
    """
    with_bos = uses_bos(tokenizer) and not segments[0][0].startswith(tokenizer.bos_token)
    ids = [tokenizer.bos_token_id] if with_bos else []
    labels = [IGNORE] * len(ids)
    for n, (text, supervised) in enumerate(segments):
        if n and text.startswith(" ") and _begins_with_a_space(tokenizer):
            text = text[1:]
        new = _text_ids(text, tokenizer)
        ids += new
        labels += [i if supervised and i != IMAGE else IGNORE for i in new]
    return ids, labels


def uses_bos(tokenizer) -> bool:
    """Whether texts begin with the begin-of-sequence token that the tokenizer names; SmolLM2's name one without it.

    A tokenizer with a chat template uses it if the template writes it, or if the tokenizer puts it first by itself.
    """
    bos, chat = tokenizer.bos_token, tokenizer.chat_template
    return bos is not None and (
        not chat or "bos_token" in str(chat) or tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    )


def _text_ids(text, tokenizer):
    """The ids of a text, `IMAGE` for each picture. Where the tokenizer has a token `<image>`, as in `transformers`."""

    def encode(part):
        return tokenizer.encode(part, add_special_tokens=False) if part else []

    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image not in (None, tokenizer.unk_token_id):
        return [IMAGE if i == image else i for i in encode(text)]
    first, *others = text.split(IMAGE_TOKEN)
    return encode(first) + [i for part in others for i in (IMAGE, *encode(part))]


def _begins_with_a_space(tokenizer):
    """Whether the tokenizer puts a space before every text (SentencePiece), so that " a" would begin with two."""
    return tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False))[0].startswith("\u2581")


def encode(record: dict, template: Template, tokenizer) -> Sample:
    """One record as a sample. Raises RecordError, naming it, when it breaks the format or no token would carry loss."""
    try:
        wrong = normalise(record)[1] and "not in the form of records here; `normalise` gives it that form"
    except RecordError as error:
        wrong = str(error)
    if wrong:
        raise RecordError(f"record {record.get('id') if isinstance(record, dict) else record}: {wrong}")
    values, pictures = [turn["value"] for turn in record["conversations"]], tuple(pictures_of(record))
    ids, labels = encode_segments(template.segments(list(zip(values[::2], values[1::2]))), tokenizer)
    if all(label == IGNORE for label in labels):
        raise RecordError(f"record {record['id']}: no token carries loss under the template {template.name!r}")
    if ids.count(IMAGE) != len(pictures):
        raise RecordError(f"record {record['id']}: the template {template.name!r} leaves out a picture")
    return Sample(record["id"], torch.tensor(ids), torch.tensor(labels), pictures)


def without_stop(record: dict, stop: str) -> dict:
    """The record with a stop inside a text one character shorter, as it would end the answer there (FastChat#392).

    With `###` a Markdown heading becomes one of the second level. A record without such a text is returned itself.
    ScienceQA's `LETTER_STEP` stays: there the reasons are to end, and the letter is asked for in a second step.
    """
    texts = [turn["value"] for turn in record["conversations"]]
    steps = [(LETTER_STEP.search(text) or [""])[0] for text in texts]
    texts = [text.removesuffix(step) for text, step in zip(texts, steps)]
    if not stop.strip() or not any(stop in text for text in texts):
        return record
    while any(stop in text for text in texts):  # ##### becomes ##
        texts = [text.replace(stop, stop[:-1]) for text in texts]
    turns = [turn | {"value": text + step} for turn, text, step in zip(record["conversations"], texts, steps)]
    return record | {"conversations": turns}


def prompt_ids(question: str, template: Template, tokenizer, before: list[tuple[str, str]] = ()) -> torch.Tensor:
    """(T,) ids up to the start of the answer. before: earlier turns. The first question of all holds `<image>`."""
    return torch.tensor(encode_segments(template.segments([*before, (question, None)]), tokenizer)[0])


def digest(samples: Iterable[Sample]) -> str:
    """A hash of the samples' names, pictures, ids and labels, in order: it tells one set of samples from another."""
    found = hashlib.sha256()
    for sample in samples:
        shown = sample.images if len(sample.images) > 1 else next(iter(sample.images), None)
        found.update(repr((sample.id, shown, len(sample.ids))).encode())
        found.update(sample.ids.numpy().tobytes() + sample.labels.numpy().tobytes())
    return found.hexdigest()[:16]


def plan_batches(lengths: list[int], batch_size: int, steps: int, seed: int, uneven: bool = False) -> list[list[int]]:
    """The samples in the batch of each of `steps` steps; no sample is used twice in one epoch.

    Samples are shuffled, then sorted by length within windows of 16 batches; then the batches of a window are shuffled.
    uneven: the samples left at the end of an epoch form a smaller batch; otherwise that epoch leaves them out.
    Raises ValueError when there are fewer samples than a batch needs.
    """
    if not lengths or (len(lengths) < batch_size and not uneven):
        raise ValueError(
            f"{len(lengths)} samples cannot fill a batch of {batch_size}; give more records or a smaller batch"
        )
    rng, batches = random.Random(f"plan {seed}"), []
    while len(batches) < steps:
        order = rng.sample(range(len(lengths)), len(lengths))
        order = order if uneven else order[: len(order) // batch_size * batch_size]
        for start in range(0, len(order), 16 * batch_size):
            window = sorted(order[start : start + 16 * batch_size], key=lambda i: lengths[i])
            parts = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
            batches += rng.sample(parts, len(parts))
    return batches[:steps]


def micro_batches(lengths: list[int], chosen: list[int], tokens: int, ranks: int = 1) -> list[list[int]]:
    """A step's samples in micro-batches of at most `tokens` tokens, padding included, longest first.

    A longer sample is alone in one. tokens 0: no limit.
    ranks: the number of processes; micro-batch i is for process i % ranks. Each process gets equally many, so that none
    waits for another; some are empty when there are few samples. All are of similar size, which needs least memory.
    """
    tokens = tokens or sum(lengths[i] for i in chosen) * len(chosen)
    order = sorted(chosen, key=lambda i: (-lengths[i], i))

    def fill(limit):  # micro-batches of at most `limit` tokens
        parts = []
        for i in order:
            if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= limit:
                parts[-1].append(i)
            else:
                parts.append([i])
        return parts

    most = -(-len(fill(tokens)) // ranks) * ranks
    # the lowest limit with the same number per process makes their sizes similar
    parts = fill(bisect_left(range(tokens), True, key=lambda limit: len(fill(limit)) <= most))
    return parts + [[]] * (-len(parts) % ranks)


def fill_rate(lengths: list[int], parts: list[list[int]]) -> float:
    """The share of computed positions that hold a token rather than padding, over these micro-batches."""
    real = sum(lengths[i] for part in parts for i in part)
    return real / sum(max(lengths[i] for i in part) * len(part) for part in parts if part)
