// The model, in a thread of its own, so that the page stays awake while it computes.

import { IMAGE, Llava, pixels, readWeights } from "./llava.js"
import { Tokenizer } from "./tokenizer.js"

const MOST = 120 // new tokens of an answer
let model, tokenizer, preparation, world
const seen = [] // the last pictures and their Zv: the vision tower sees each of them once

function features(bytes) {
  let found = seen.find(one => one.bytes.every((byte, i) => byte === bytes[i]))
  if (!found) seen.unshift((found = { bytes, Zv: model.features(pixels(bytes, preparation)) }))
  seen.splice(4)
  return found.Zv
}

// The ids of a prompt. Each of its pieces is tokenized by itself, as in training (minillava/data/samples.py).
function promptIds(question, place) {
  if (question.includes("<image>")) throw new Error("<image> stands for the picture; a question cannot hold it.")
  const pieces = world.prompts[place].map(text => text.replace("{question}", () => question).split("<image>"))
  return [...world.begin, ...pieces.flatMap(([text, ...after]) => [text, ...after].flatMap((part, n) => [...(n ? [IMAGE] : []), ...tokenizer.encode(part)]))]
}

function answer({ number, bytes, question, place }) {
  const begun = performance.now(), ids = [], ends = model.config.language.ends ?? [], { stop } = world
  let text = ""
  for (const id of model.generate(promptIds(question, place), features(bytes), MOST)) {
    if (ends.includes(id)) break
    ids.push(id)
    text = tokenizer.decode(ids)
    if (text.includes(stop)) break
    const held = [...stop].findIndex((_, n) => text.endsWith(stop.slice(0, stop.length - n))) // may be the stop's beginning
    postMessage({ number, text: (held < 0 ? text : text.slice(0, held - stop.length)).trim() })
  }
  text = text.split(stop)[0]
  while (!text.startsWith(tokenizer.decode(ids))) ids.pop() // without the stop
  postMessage({ number, text: text.trim(), ids, ms: performance.now() - begun })
}

onmessage = ({ data }) => {
  try {
    if (data.question !== undefined) return answer(data)
    model = new Llava(data.config, readWeights(data.weights))
    ;({ preparation, world } = data)
    tokenizer = new Tokenizer(data.tokenizer)
  } catch (error) {
    postMessage({ number: data.number, problem: error.message })
  }
}
