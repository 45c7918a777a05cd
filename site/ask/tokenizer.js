// Byte-level BPE from a tokenizer.json: the same ids as `transformers`, for every text.
//
// A text is cut at the added tokens, then into pieces by regular expressions (the pre-tokenizer). The bytes of a piece
// are written as characters, and neighbours are merged, the pair that was learned first before all others.
// What this file does not write out is an error that names it.

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"; // ByteLevel's own
// What the regular expressions of `tokenizers` mean, where JavaScript means something else.
const SAME = { "\\s": "\\p{White_Space}", "\\S": "\\P{White_Space}", "\\d": "\\p{Nd}", "\\D": "\\P{Nd}" };
SAME["\\p{Han}"] = "\\p{Script=Han}";

// Byte -> the character that stands for it: its own if that can be seen, else the next one from 256 on.
let unseen = 256;
const CHARACTERS = Array.from({ length: 256 }, (_, byte) => {
  const seen = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return String.fromCodePoint(seen ? byte : unseen++);
});
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

function need(fits, what) {
  if (!fits) throw new Error(`tokenizer.json: tokenizer.js does not write out ${what}`);
}

function pattern(source) {
  need(!/\\[wWbBhHAzZGK]/.test(source), `the regular expression ${source}`);
  return new RegExp(source.replace(/\\[sSdD]|\\p\{Han\}/g, (name) => SAME[name]), "gu");
}

// A text in pieces: each match, and what stands between two of them.
function cut(text, matcher) {
  const pieces = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(matcher)) {
    pieces.push(text.slice(end, index), match);
    end = index + match.length;
  }
  return [...pieces, text.slice(end)].filter((piece) => piece);
}

export class Tokenizer {
  constructor({ added_tokens, normalizer, pre_tokenizer, model }) {
    const { vocab, merges, continuing_subword_prefix, end_of_word_suffix, byte_fallback, ignore_merges } = model;
    need(!normalizer && !continuing_subword_prefix && !end_of_word_suffix && !byte_fallback, "such a model");
    need(added_tokens.every((t) => !t.lstrip && !t.rstrip && !t.single_word), "added tokens that strip, or are words");
    this.vocab = new Map(Object.entries(vocab));
    this.ranks = new Map(merges.map((pair, rank) => [typeof pair === "string" ? pair : pair.join(" "), rank]));
    this.whole = ignore_merges;
    this.added = new Map(added_tokens.map((t) => [t.content, t.id]));
    this.special = new Set(added_tokens.filter((t) => t.special).map((t) => t.id));
    this.texts = new Map([...this.vocab, ...this.added].map(([text, id]) => [id, text]));
    const longest = [...this.added.keys()].sort((a, b) => b.length - a.length);
    this.cutAdded = new RegExp(longest.map((text) => text.replace(/[$()*+./?[\\\]^{|}]/g, "\\$&")).join("|") || "(?!)", "gu");
    this.steps = (pre_tokenizer.pretokenizers ?? [pre_tokenizer]).flatMap((step) => {
      if (step.type === "ByteLevel" && !step.add_prefix_space) return step.use_regex ? [pattern(GPT2)] : [];
      const source = step.pattern?.Regex;
      need(step.type === "Split" && source && step.behavior === "Isolated" && !step.invert, `the step ${step.type}`);
      return [pattern(source)];
    });
  }

  // The ids of a text, without special tokens around it.
  encode(text) {
    return cut(text, this.cutAdded).flatMap((part) => {
      if (this.added.has(part)) return [this.added.get(part)];
      const pieces = this.steps.reduce((list, step) => list.flatMap((piece) => cut(piece, step)), [part]);
      return pieces.flatMap((piece) => this.merge(piece));
    });
  }

  // The ids of one piece.
  merge(piece) {
    let parts = Array.from(new TextEncoder().encode(piece), (byte) => CHARACTERS[byte]);
    if (this.whole && this.vocab.has(parts.join(""))) parts = [parts.join("")];
    for (;;) {
      let first = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank < first) [first, at] = [rank, i];
      }
      if (at < 0) return parts.map((part) => this.vocab.get(part));
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  // The text of ids, without special tokens.
  decode(ids) {
    const texts = ids.filter((id) => !this.special.has(id)).map((id) => this.texts.get(id));
    const bytes = texts.flatMap((text) => {
      const known = Array.from(text, (character) => BYTES.get(character));
      return known.includes(undefined) ? [...new TextEncoder().encode(text)] : known;
    });
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
  }
}
