// Byte-level BPE from a tokenizer.json: the same ids as `transformers`, for every text.
//
// A text is cut at the added tokens, then into pieces by regular expressions (the pre-tokenizer). The bytes of a piece
// are written as characters, and neighbours are merged: of all pairs there are, the one that was learned first.
// A setting that is not written out here is an error that names it.

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" // ByteLevel's own
// What stands in a regular expression of `tokenizers`, where JavaScript writes it differently.
const SAME = { "\\s": "\\p{White_Space}", "\\S": "\\P{White_Space}", "\\d": "\\p{Nd}", "\\D": "\\P{Nd}" }
SAME["\\p{Han}"] = "\\p{Script=Han}"

// Byte -> the character that stands for it: its own if that can be seen, else the next one from 256 on.
const CHARACTERS = []
for (let byte = 0, unseen = 256; byte < 256; byte++) {
  const seen = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  CHARACTERS.push(String.fromCharCode(seen ? byte : unseen++))
}
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]))

function need(fits, what) {
  if (!fits) throw new Error(`tokenizer.json: tokenizer.js does not write out ${what}`)
}

function pattern(source) {
  need(!/\\[wWbBhHAzZG]/.test(source), `the regular expression ${source}`)
  return new RegExp(source.replace(/\\[sSdD]|\\p\{Han\}/g, name => SAME[name]), "gu")
}

function cut(text, matcher) { // each match, and what stands between two of them
  const pieces = []
  let end = 0
  for (const match of text.matchAll(matcher)) {
    pieces.push(text.slice(end, match.index), match[0])
    end = match.index + match[0].length
  }
  return [...pieces, text.slice(end)].filter(piece => piece)
}

function splitter(step) { // the regular expression of one step of the pre-tokenizer; none: the text stays whole
  if (step.type === "ByteLevel" && !step.add_prefix_space) return step.use_regex ? [pattern(GPT2)] : []
  const fits = step.type === "Split" && step.behavior === "Isolated" && !step.invert && step.pattern.Regex
  need(fits, `the step ${JSON.stringify(step)}`)
  return [pattern(step.pattern.Regex)]
}

export class Tokenizer {
  constructor({ added_tokens, normalizer, pre_tokenizer, model }) {
    need(!normalizer && !model.continuing_subword_prefix && !model.end_of_word_suffix, "such a model")
    need(!added_tokens.some(one => one.lstrip || one.rstrip || one.single_word), "added tokens that strip or are words")
    this.vocab = new Map(Object.entries(model.vocab))
    this.ranks = new Map(model.merges.map((pair, rank) => [[pair].flat().join(" "), rank]))
    this.whole = model.ignore_merges // a piece that is a token stays whole
    this.added = new Map(added_tokens.map(one => [one.content, one.id]))
    this.special = new Set(added_tokens.filter(one => one.special).map(one => one.id))
    this.texts = new Map([...this.vocab, ...this.added].map(([text, id]) => [id, text]))
    const escaped = [...this.added.keys()].map(text => text.replace(/[$()*+./?[\\\]^{|}]/g, "\\$&"))
    this.atAdded = new RegExp(escaped.sort((a, b) => b.length - a.length).join("|") || "(?!)", "gu") // longest first
    this.splitters = (pre_tokenizer.pretokenizers ?? [pre_tokenizer]).flatMap(splitter)
  }

  encode(text) { // the ids, without special tokens around them
    return cut(text, this.atAdded).flatMap(part => {
      if (this.added.has(part)) return this.added.get(part)
      const pieces = this.splitters.reduce((some, one) => some.flatMap(piece => cut(piece, one)), [part])
      return pieces.flatMap(piece => this.merged(piece))
    })
  }

  merged(piece) {
    const parts = Array.from(new TextEncoder().encode(piece), byte => CHARACTERS[byte])
    if (this.whole && this.vocab.has(parts.join(""))) return this.vocab.get(parts.join(""))
    for (;;) {
      let first = Infinity, at
      for (let n = 0; n + 1 < parts.length; n++) {
        const rank = this.ranks.get(`${parts[n]} ${parts[n + 1]}`)
        if (rank < first) [first, at] = [rank, n]
      }
      if (first === Infinity) return parts.map(part => this.vocab.get(part))
      parts.splice(at, 2, parts[at] + parts[at + 1])
    }
  }

  decode(ids) { // the text, without special tokens
    const bytes = ids.filter(id => !this.special.has(id)).flatMap(id => {
      const text = this.texts.get(id), known = Array.from(text, character => BYTES.get(character))
      return known.includes(undefined) ? [...new TextEncoder().encode(text)] : known
    })
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes))
  }
}
