// The model, in a thread of its own, so that the page stays awake while it computes.

import { IMAGE, Llava, Session, pixels, readWeights } from "./llava.js"
import { Tokenizer } from "./tokenizer.js"

const MOST = 120 // new tokens of an answer
const seen = [] // the last pictures, each with its Zv and a session, so that another question about it is read alone
let model, tokenizer, preparation, world, ends

function read(files) {
  model = new Llava(files.config, readWeights(files.weights))
  tokenizer = new Tokenizer(files.tokenizer)
  ;({ preparation, world } = files)
  const stop = tokenizer.encode(world.stop) // a special token is not part of any text, so it is found by its id
  ends = [...(files.config.language.ends ?? []), ...(tokenizer.decode(stop) ? [] : stop)]
  return {}
}

function remember(bytes) {
  let found = seen.find(one => one.bytes.every((byte, n) => byte === bytes[n]))
  if (!found) {
    found = { bytes, features: model.features(pixels(bytes, preparation)), session: new Session(model.config.language) }
    seen.unshift(found)
    seen.splice(4)
  }
  return found
}

// The ids of a prompt. Each of its pieces is tokenized by itself, as in training (minillava/data/samples.py).
function promptIds(question, place) {
  if (question.includes("<image>")) throw new Error("<image> stands for the picture; a question cannot hold it. <image> 代表图片，问题里不能有它。")
  const pieces = world.prompts[place].map(piece => piece.replace("{question}", () => question))
  const parts = pieces.flatMap(piece => piece.split(/(<image>)/))
  return [...world.begin, ...parts.flatMap(part => (part === "<image>" ? IMAGE : tokenizer.encode(part)))]
}

function answer({ bytes, question, place }, say) {
  const begun = performance.now(), ids = [], { stop } = world
  const prompt = promptIds(question, place), { features, session } = remember(bytes)
  let text = ""
  for (const id of model.generate(prompt, features, MOST, session)) {
    if (ends.includes(id)) break
    ids.push(id)
    text = tokenizer.decode(ids)
    if (text.includes(stop)) break
    let held = stop.length - 1 // characters at the end that may be the stop's beginning
    while (!text.endsWith(stop.slice(0, held))) held--
    say(text.slice(0, text.length - held).trim())
  }
  text = text.split(stop)[0]
  while (!text.startsWith(tokenizer.decode(ids))) ids.pop() // without the stop
  return { text: text.trim(), ids, ms: performance.now() - begun }
}

onmessage = ({ data: { number, ...asked } }) => {
  try {
    const say = text => postMessage({ number, text })
    postMessage({ number, done: "question" in asked ? answer(asked, say) : read(asked) })
  } catch (error) {
    postMessage({ number, problem: error.message })
  }
}
