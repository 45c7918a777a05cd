// The picture book's pictures on a canvas, beside minillava/scenes/draw.py, with that module's shapes and colours
// (world.json) and its backgrounds (PNG files). The pixels are not Pillow's bit for bit, because a canvas paints edges
// in its own way. So the model sees what is read back from the canvas.

const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height })

const pictures = {} // those that were fetched, by name

// What is behind the things of a scene: its place; or a picture of Python's ({ file }), which shows the things too.
export async function behind({ file, place, variant }) {
  const name = file ?? `${place}-${variant}`, image = (pictures[name] ??= new Image())
  image.src ||= `pictures/${name}.png`
  await image.decode()
  return image
}

// Paint the shapes of one sprite into a box of w x h pixels at (x, y). Each is `shape role numbers...`, see sprites.py.
function paint(pen, shapes, colours, x, y, w, h) {
  for (const shape of shapes.split(/[;\n]/).filter(text => text.trim())) {
    const [name, role, ...rest] = shape.trim().split(/\s+/), numbers = rest.map(Number)
    const width = "la".includes(name) ? Math.max(1, Math.floor((numbers.shift() * Math.min(w, h)) / 100)) : 0
    const angles = name === "a" ? numbers.splice(4).map(degrees => (degrees * Math.PI) / 180) : [0, 2 * Math.PI]
    const points = numbers.map((n, i) => (i % 2 ? y + Math.floor((n * h) / 100) : x + Math.floor((n * w) / 100)))
    const [x1, y1, x2, y2] = points
    pen.fillStyle = pen.strokeStyle = `rgb(${colours[role]})`
    Object.assign(pen, { lineWidth: width, lineJoin: "round" })
    pen.beginPath()
    if (name === "r") pen.rect(x1, y1, x2 - x1 + 1, y2 - y1 + 1) // Pillow paints the last row and column too
    else if ("ea".includes(name)) {
      const [wide, high] = [x2 - x1 + 1, y2 - y1 + 1] // an arc's width lies inside its box
      const radii = [wide, high].map(length => Math.max(0, length - width) / 2)
      pen.ellipse(x1 + wide / 2, y1 + high / 2, ...radii, 0, ...angles)
    } else for (let i = 0; i < points.length; i += 2) pen.lineTo(points[i] + 0.5, points[i + 1] + 0.5)
    if (width) pen.stroke()
    else pen.fill()
  }
}

// One thing of w x h pixels with the rim around it, and a margin on each side.
function sprite({ kind, colour, doing, flip }, w, h, margin, world) {
  const doings = world.doings[doing ?? ""]
  const canvas = canvasOf(w + 2 * margin, h + 2 * margin), pen = canvas.getContext("2d")
  if (kind === "person") {
    const body = Math.floor((w * 100) / doings.width) // the rest is for what the person holds
    paint(pen, `${world.kinds.person.shapes};${doings.shapes}`, world.palettes[colour], margin, margin, body, h)
  } else paint(pen, world.kinds[kind].shapes, world.palettes[colour], margin, margin, w, h)
  const shadow = canvasOf(canvas.width, canvas.height), brush = shadow.getContext("2d") // the rim's colour
  const r = Math.floor(margin / 2)
  for (let x = -r; x <= r; x++) for (let y = -r; y <= r; y++) brush.drawImage(canvas, x, y)
  brush.globalCompositeOperation = "source-in"
  brush.fillStyle = `rgb(${world.rim})`
  brush.fillRect(0, 0, shadow.width, shadow.height)
  const made = canvasOf(canvas.width, canvas.height), out = made.getContext("2d")
  if (flip) out.setTransform(-1, 0, 0, 1, made.width, 0)
  out.drawImage(shadow, 0, 0)
  out.drawImage(canvas, 0, 0)
  return made
}

// Draw a scene on a canvas, `oversampling` times as large as the model's pictures. image: what `behind` returned.
export function draw(canvas, scene, image, world) {
  const pen = canvas.getContext("2d", { willReadFrequently: true })
  pen.imageSmoothingEnabled = false
  pen.drawImage(image, 0, 0, canvas.width, canvas.height)
  if (scene.file) return
  const rim = Math.max(1, Math.floor((world.rim_width * world.size) / 1000))
  for (const thing of scene.things) {
    const [x1, y1, x2, y2] = thing.box.map(v => Math.floor((v * world.size) / 1000) * world.oversampling)
    const margin = rim * world.oversampling
    pen.drawImage(sprite(thing, x2 - x1, y2 - y1, margin, world), x1 - margin, y1 - margin)
  }
}

// The model's picture: each pixel the mean of oversampling x oversampling pixels of the canvas, as ImageData.
export function look(canvas, { size, oversampling: n }) {
  const large = canvas.getContext("2d").getImageData(0, 0, size * n, size * n).data, small = new ImageData(size, size)
  for (let i = 0; i < small.data.length; i++) {
    const x = Math.floor(i / 4) % size, y = Math.floor(i / 4 / size)
    let sum = 0
    for (let row = y * n; row < y * n + n; row++)
      for (let column = x * n; column < x * n + n; column++) sum += large[(row * size * n + column) * 4 + (i % 4)]
    small.data[i] = Math.round(sum / n / n)
  }
  return small
}
