// The page: the scene on the canvas, the question, and two answers: with the picture, and with it blanked.

import { behind, draw, look } from "./scene.js"
import { say, thingName, where, word } from "./words.js"

const $ = id => document.getElementById(id), all = selector => [...document.querySelectorAll(selector)]

function make(kind, to, text = "", more = {}) {
  const made = Object.assign(document.createElement(kind), { textContent: text }, more)
  to.append(made)
  return made
}

function press(buttons, test) {
  for (const one of buttons) one.setAttribute("aria-pressed", test(one))
}

// ---- the model, in its own thread

const model = new Worker("worker.js", { type: "module" }), waiting = []
model.onmessage = ({ data: { number, text, done, problem } }) => {
  if (problem) waiting[number].wrong(new Error(problem))
  else if (done) waiting[number].done(done)
  else waiting[number].show(text)
}
model.onerror = event => problem(new Error(event.message ?? "worker.js cannot be loaded"))

const call = (message, show, transfer = []) => new Promise((done, wrong) => {
  model.postMessage({ number: waiting.push({ done, wrong, show }) - 1, ...message }, transfer)
})

// The answer to a question about a picture's bytes (RGBA): { text, ids, ms }. show: takes the text so far.
async function answer(bytes, question, place, show = () => {}) {
  await ready
  return call({ bytes, question, place }, show)
}

const problem = error => { $("problem").textContent = error.message }

// ---- the scene: { place, variant, things from back to front }, and `file` while it is a picture of Python's

let world, scene, chosen = -1

const column = ({ box: [x1, , x2] }) => Math.floor(((x1 + x2) / 2) * (world.sides.length / 1000))
const nameOf = thing => where(thingName(thing), world.sides[column(thing)])
const described = ({ place, things }) => [word(place), ...things.map(nameOf)].join("; ")

function put(thing, x, y) { // its top left corner, in thousandths of the picture
  const [x1, y1, x2, y2] = thing.box, [w, h] = [x2 - x1, y2 - y1]
  const [left, top] = [[x, w], [y, h]].map(([at, length]) => Math.round(Math.min(Math.max(at, 5), 995 - length)))
  thing.box = [left, top, left + w, top + h]
}

function add(side) { // a new thing: in the air, on a thing of this side that can carry it, or on the ground
  const kind = $("kind").value, doing = kind === "person" ? $("doing").value : "", [width, h] = world.kinds[kind].size
  const w = Math.floor((width * world.doings[doing].width) / 100)
  const thing = { kind, colour: $("colour").value, doing, box: [0, 0, w, h], flip: false }
  const under = scene.things.filter(one => world.kinds[one.kind].seat !== null && column(one) === side).pop()
  const foot = under ? under.box[1] + ((under.box[3] - under.box[1]) * world.kinds[under.kind].seat) / 1000 : 905
  put(thing, 167 + 333 * side - w / 2, $("air").checked ? 105 : foot - h)
  scene.things.push(thing)
  edited(scene.things.length - 1)
}

function edited(n = -1) { // the scene was changed, and thing n is chosen now (-1: none): from now on the page draws it
  scene = { ...scene, file: undefined }
  chosen = n
  return show(n >= 0)
}

// Draw the scene, list its things, and suggest questions. focus: on the chosen thing.
async function show(focus = false) {
  const shown = scene, image = await behind(shown)
  if (shown !== scene) return // another one was chosen meanwhile
  draw($("canvas"), scene, image, world)
  $("canvas").setAttribute("aria-label", described(scene))
  $("place").value = scene.place
  press(all("#examples button"), one => one.name === scene.file)
  $("things").replaceChildren(...scene.things.map(listed))
  press(all("#things .name"), one => one === $("things").children[chosen]?.firstChild)
  if (focus) $("things").children[chosen].firstChild.focus({ preventScroll: true })
  const kinds = [...new Set(scene.things.map(thing => thing.kind))]
  $("asked").replaceChildren()
  for (const text of [...world.asked[""], ...kinds.slice(0, 3).map((kind, n) => world.asked[kind][n])])
    make("button", $("asked"), text, { type: "button", lang: "en", className: "kept", onclick: () => ask(text) })
}

function listed(thing, n) { // its name, which the arrow keys move, and a button that takes it away
  const pair = Object.assign(document.createElement("span"), { className: "pair" })
  const name = make("button", pair, nameOf(thing), { type: "button", className: "name" })
  name.onclick = () => { chosen = n; show(true) }
  name.onkeydown = event => {
    const [x, y] = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, -20], ArrowDown: [0, 20] }[event.key] ?? []
    if (x === undefined) return
    event.preventDefault()
    put(thing, thing.box[0] + x, thing.box[1] + y)
    edited(n)
  }
  const away = make("button", pair, "×", { type: "button" })
  away.onclick = () => { scene.things.splice(n, 1); edited(Math.min(n, scene.things.length - 1)) }
  away.setAttribute("aria-label", say(`take away: ${nameOf(thing)}`, `拿走：${nameOf(thing)}`))
  return pair
}

// ---- dragging

let held = null // { thing, x, y }: where in the thing the pointer is, in thousandths

const at = event => { // the place of a pointer or touch, in thousandths of the picture
  const { left, top, width, height } = $("canvas").getBoundingClientRect()
  return [((event.clientX - left) / width) * 1000, ((event.clientY - top) / height) * 1000]
}
const hit = ([x, y]) => scene.things.findLast(({ box: [x1, y1, x2, y2] }) => x1 <= x && x < x2 && y1 <= y && y < y2)

$("canvas").onpointerdown = event => {
  const [x, y] = at(event), thing = hit([x, y])
  if (!thing) return
  $("canvas").setPointerCapture(event.pointerId)
  held = { thing, x: x - thing.box[0], y: y - thing.box[1] }
}
$("canvas").onpointermove = event => {
  if (!held) return
  const [x, y] = at(event)
  put(held.thing, x - held.x, y - held.y)
  scene.things = [...scene.things.filter(one => one !== held.thing), held.thing] // in front of the others
  edited(scene.things.length - 1)
}
$("canvas").onpointerup = $("canvas").onpointercancel = () => { held = null }
const still = event => hit(at(event.touches[0])) && event.preventDefault() // a finger on it does not scroll
$("canvas").addEventListener("touchstart", still, { passive: false })

// ---- the question

function card(to, english, chinese, picture) { // one of the two answers: what the model saw, and what it says
  const box = make("div", to, "", { className: "answer" }), text = make("div", box)
  const canvas = Object.assign(document.createElement("canvas"), { width: world.size, height: world.size })
  canvas.setAttribute("aria-hidden", true)
  canvas.getContext("2d").putImageData(picture, 0, 0)
  box.prepend(canvas)
  make("h3", text, english, { lang: "en" })
  make("h3", text, chinese, { lang: "zh" })
  return make("p", text, "…", { lang: "en", className: "kept" })
}

async function ask(question, follow = true) {
  $("question").value = question
  $("send").disabled = true
  $("problem").textContent = ""
  await show()
  const place = document.querySelector("[name=order]:checked").value, picture = look($("canvas"), world)
  const blank = new ImageData(Uint8ClampedArray.from(picture.data, (_, i) => [...world.blank, 255][i % 4]), world.size)
  const item = document.createElement("li"), two = document.createElement("div")
  item.setAttribute("aria-busy", true) // until both answers are there, nothing is read out
  $("answers").prepend(item)
  make("p", item, question, { lang: "en", className: "kept" })
  item.append(Object.assign(two, { className: "two" }))
  const seen = card(two, "with the picture", "看这张图片", picture)
  const texts = [seen, card(two, "with the picture blanked", "看空白图片", blank)]
  if (follow) item.scrollIntoView({ block: "nearest" })
  try {
    const times = []
    for (const [n, { data }] of [picture, blank].entries()) {
      const { text, ms } = await answer(data, question, place, soFar => { texts[n].textContent = soFar })
      texts[n].textContent = text || "(no text)"
      times.push(Math.round(ms))
      if (!$("first").childElementCount) opened(performance.now() / 1000)
    }
    item.removeAttribute("aria-busy")
    const order = all(`[value=${place}] ~ span`).map(one => one.textContent) // in English and in Chinese
    make("p", item, `${order[0]}; ${times.join(" and ")} ms`, { lang: "en", className: "time" })
    make("p", item, `${order[1]}；${times.join(" 和 ")} 毫秒`, { lang: "zh", className: "time" })
  } catch (error) {
    item.remove()
    problem(error)
  }
  $("send").disabled = false
}

function opened(seconds) {
  make("span", $("first"), `The first answer came ${seconds.toFixed(1)} s after this page was opened.`, { lang: "en" })
  make("span", $("first"), `打开网页 ${seconds.toFixed(1)} 秒后，出现了第一个回答。`, { lang: "zh" })
}

$("ask").onsubmit = event => {
  event.preventDefault()
  if ($("question").value.trim()) ask($("question").value.trim())
}

// ---- the words, in the language that was chosen

function choices(select, names) {
  const before = select.value
  select.replaceChildren(...names.map(name => new Option(word(name), name)))
  if (names.includes(before)) select.value = before
}

function speak(lang) {
  document.documentElement.lang = lang
  document.title = say("Ask the small LLaVA", "问问小 LLaVA")
  history.replaceState(null, "", `?lang=${lang}`)
  for (const one of all("[data-zh]")) one.setAttribute("aria-label", one.dataset[lang])
  press(all("[data-lang]"), one => one.dataset.lang === lang)
  choices($("kind"), Object.keys(world.kinds))
  choices($("colour"), Object.keys(world.palettes))
  choices($("doing"), Object.keys(world.doings))
  choices($("place"), world.places)
  $("sides").replaceChildren()
  world.sides.forEach((side, n) => make("button", $("sides"), word(side), { type: "button", onclick: () => add(n) }))
  for (const [n, image] of all("#examples img").entries()) image.alt = described(world.examples[n])
  return show()
}

// ---- what the page reads: first the picture book, which shows the scene, then the model

async function get(name, how = "json") {
  const reply = await fetch(name)
  if (!reply.ok) throw new Error(`${name}: ${reply.status} ${reply.statusText}`)
  return reply[how]()
}

async function load() {
  const names = ["llava.json", "preprocessor_config.json", "tokenizer.json"]
  const files = [get("model/model.safetensors", "arrayBuffer"), ...names.map(name => get(`model/${name}`))]
  const [weights, config, preparation, tokenizer] = await Promise.all(files)
  const millions = weights.byteLength / 2e6 // two bytes each
  counted("weights", `${millions.toFixed(1)} million`, `${Math.round(millions * 100)} 万`)
  return call({ config, weights, preparation, tokenizer, world: await book }, null, [weights])
}

function counted(name, english, chinese = english) {
  for (const one of all(`[data-count=${name}]`)) one.textContent = one.closest("[lang=zh]") ? chinese : english
}

const book = get("world.json"), ready = load()

async function begin() {
  world = await book
  counted("kinds", Object.keys(world.kinds).length)
  counted("colours", Object.keys(world.palettes).length)
  counted("places", world.places.length)
  counted("pixels", `${world.size} × ${world.size}`)
  $("canvas").width = $("canvas").height = world.size * world.oversampling
  for (const one of world.examples) {
    const button = make("button", $("examples"), "", { type: "button", name: one.file })
    button.onclick = () => { [scene, chosen] = [structuredClone(one), -1]; show() }
    make("img", button, "", { src: `pictures/${one.file}.png` })
  }
  scene = structuredClone(world.examples[0])
  const asked = new URLSearchParams(location.search).get("lang") ?? navigator.language
  await speak(asked.startsWith("zh") ? "zh" : "en")
  await ask(world.asked[""][0], false)
}

for (const one of all("[data-lang]")) one.onclick = () => speak(one.dataset.lang)
$("kind").onchange = () => { $("doing").hidden = $("kind").value !== "person" }
$("place").onchange = () => { scene.place = $("place").value; edited() }
$("clear").onclick = () => { scene.things = []; edited() }
begin().catch(problem)

// For the console and the tests: draw a scene and return the bytes that the model would see; and ask about bytes.
window.minillava = {
  answer,
  draw: async one => { scene = structuredClone(one); await show(); return [...look($("canvas"), world).data] },
}
