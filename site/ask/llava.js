// LLaVA's forward pass in plain JavaScript, to be read beside minillava/model/{vision,rope,language,llava,generate}.py.
//
//     Zv = g(Xv)       vision_tower      section 4.1 of the paper (arXiv 2304.08485), Fig. 1
//     Hv = W Zv        projector         Eq. 1
//     Xa = f(Hv, Hq)   language_model
//
// Functions and weights have the names that they have in Python. There is one sample, so no B: an array of shape (T, D)
// is a Float32Array of T times D numbers, row after row. Sums are in double precision, what is stored in single.
//
// P patches, T tokens, D width (Dv of the vision tower), H heads (H_kv of keys and values), V vocabulary, L layers;
// d size of a head, S tokens to look at (those in the cache and the new ones).

export const IMAGE = -200 // among ids: the place of the picture

// ---- what both towers use

// x: (T, in), weight: (out, in), bias: (out,) or none. Returns (T, out). Four columns at a time take half the time.
function linear(x, { weight, bias }) {
  const [out, wide] = weight.shape, T = x.length / wide, y = new Float32Array(T * out)
  for (let first = 0; first < out; first += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map(n => Math.min(first + n, out - 1))
    for (let t = 0; t < T; t++) {
      let p = 0, q = 0, r = 0, s = 0
      for (let i = 0; i < wide; i++) {
        const value = x[t * wide + i]
        p += value * weight[a * wide + i]
        q += value * weight[b * wide + i]
        r += value * weight[c * wide + i]
        s += value * weight[d * wide + i]
      }
      y[t * out + a] = p
      y[t * out + b] = q
      y[t * out + c] = r
      y[t * out + d] = s
    }
  }
  return bias ? y.map((value, n) => value + bias[n % out]) : y
}

const add = (x, y) => x.map((value, n) => value + y[n])
const sigmoid = value => 1 / (1 + Math.exp(-value))

function dot(a, i, b, j, n) { // of n numbers of a from place i on, and n of b from place j on
  let sum = 0
  for (let k = 0; k < n; k++) sum += a[i + k] * b[j + k]
  return sum
}

// softmax(q k' / sqrt(d)) v. q: (T, H d). k, v: (S, H_kv d), where H / H_kv query heads share one key head.
// causal: each row sees itself and what came before it. Returns (T, H d).
function attend(q, k, v, { H, H_kv, d }, causal) {
  const T = q.length / (H * d), S = k.length / (H_kv * d), y = new Float32Array(q.length), scores = new Float32Array(S)
  for (let h = 0; h < H; h++) {
    const head = Math.floor((h * H_kv) / H) * d // where this head's keys and values begin in a row
    for (let t = 0; t < T; t++) {
      const seen = causal ? S - T + t + 1 : S, row = (t * H + h) * d
      let most = -Infinity, sum = 0
      for (let s = 0; s < seen; s++) {
        scores[s] = dot(q, row, k, s * H_kv * d + head, d) / Math.sqrt(d)
        most = Math.max(most, scores[s])
      }
      for (let s = 0; s < seen; s++) sum += scores[s] = Math.exp(scores[s] - most)
      for (let s = 0; s < seen; s++)
        for (let i = 0; i < d; i++) y[row + i] += (scores[s] / sum) * v[s * H_kv * d + head + i]
    }
  }
  return y
}

// ---- vision.py: g of Eq. 1

function layerNorm(x, { weight, bias }, eps) { // (T, D)
  const D = weight.length, y = new Float32Array(x.length)
  for (let row = 0; row < x.length; row += D) {
    let mean = 0, square = 0
    for (let i = 0; i < D; i++) mean += x[row + i] / D
    for (let i = 0; i < D; i++) square += (x[row + i] - mean) ** 2 / D
    for (let i = 0; i < D; i++) y[row + i] = ((x[row + i] - mean) / Math.sqrt(square + eps)) * weight[i] + bias[i]
  }
  return y
}

// A canvas's bytes (red, green, blue and alpha of each pixel), normalised: (3, image_size, image_size).
export function pixels(bytes, { image_mean, image_std }) {
  const size = bytes.length / 4, y = new Float32Array(3 * size)
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < size; i++) y[c * size + i] = (bytes[4 * i + c] / 255 - image_mean[c]) / image_std[c]
  return y
}

// Pixels to P patch vectors behind the class token, plus learned positions: (P+1, Dv).
function embeddings(pixels, { class_embedding, patch_embedding, position_embedding }, { image_size, patch_size }) {
  const [Dv, ...patch] = patch_embedding.weight.shape, side = image_size / patch_size, patches = []
  for (let p = 0; p < side * side; p++) // the pixels patch by patch: (P, 3 patch_size patch_size)
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < patch_size; y++) {
        const row = c * image_size + Math.floor(p / side) * patch_size + y
        const start = row * image_size + (p % side) * patch_size
        patches.push(...pixels.subarray(start, start + patch_size))
      }
  const weight = Object.assign(patch_embedding.weight.slice(), { shape: [Dv, patch.reduce((a, b) => a * b)] })
  return add(position_embedding.weight, [...class_embedding, ...linear(Float32Array.from(patches), { weight })])
}

function visionBlock(x, { layer_norm1, self_attn, layer_norm2, mlp }, config) { // (P+1, Dv)
  const H = config.num_heads, heads = { H, H_kv: H, d: config.hidden_size / H }
  const seen = layerNorm(x, layer_norm1, config.layer_norm_eps)
  const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(name => linear(seen, self_attn[name])) // (P+1, H d) each
  x = add(x, linear(attend(q, k, v, heads, false), self_attn.out_proj))
  const inner = linear(layerNorm(x, layer_norm2, config.layer_norm_eps), mlp.fc1)
  return add(x, linear(inner.map(value => value * sigmoid(1.702 * value)), mlp.fc2)) // quick-GELU
}

function visionTower(pixels, tower, config, layer) { // (3, image_size, image_size) -> Zv (P, Dv)
  let x = layerNorm(embeddings(pixels, tower.embeddings, config), tower.pre_layrnorm, config.layer_norm_eps)
  const count = config.num_layers + 1, upto = (layer + count) % count // -2: all blocks but the last (Table 8)
  for (let n = 0; n < upto; n++) x = visionBlock(x, tower.layers[n], config)
  return x.subarray(config.hidden_size) // without the class token
}

// ---- rope.py and language.py: f of section 4.1

// Turn each pair (x_i, x_{i+d/2}) of a head by position * theta^(-2i/d), in place. x: (T, H d), from position `start`.
function rotate(x, H, d, start, theta) {
  for (let t = 0; t < x.length / (H * d); t++)
    for (let i = 0; i < d / 2; i++) {
      const angle = Math.fround((start + t) * Math.fround(theta ** ((-2 * i) / d))) // in single precision, as there
      const cos = Math.cos(angle), sin = Math.sin(angle)
      for (let h = 0; h < H; h++) {
        const one = (t * H + h) * d + i, other = one + d / 2, a = x[one], b = x[other]
        x[one] = a * cos - b * sin
        x[other] = b * cos + a * sin
      }
    }
  return x
}

function RMSNorm(x, { weight }, eps) { // (T, D)
  const D = weight.length, y = new Float32Array(x.length)
  for (let row = 0; row < x.length; row += D) {
    const scale = 1 / Math.sqrt(dot(x, row, x, row, D) / D + eps)
    for (let i = 0; i < D; i++) y[row + i] = x[row + i] * scale * weight[i]
  }
  return y
}

// One conversation: the ids read so far, and their keys and values, two arrays (max_position, H_kv d) per layer.
export class Session {
  constructor({ num_layers, num_kv_heads, head_dim, max_position }) {
    const made = () => new Float32Array(max_position * num_kv_heads * head_dim)
    Object.assign(this, { ids: [], length: 0, layers: Array.from({ length: num_layers }, () => [made(), made()]) })
  }
}

function languageBlock(x, block, config, start, cached) { // (T, D); cached: of this layer, with `start` tokens before
  const { input_layernorm, self_attn, post_attention_layernorm, mlp } = block
  const { num_heads: H, num_kv_heads: H_kv, head_dim: d, rms_norm_eps: eps, rope_theta: theta } = config
  const seen = RMSNorm(x, input_layernorm, eps)
  const q = rotate(linear(seen, self_attn.q_proj), H, d, start, theta) // (T, H d)
  const k = rotate(linear(seen, self_attn.k_proj), H_kv, d, start, theta) // (T, H_kv d)
  const [keys, values] = [k, linear(seen, self_attn.v_proj)].map((rows, n) => {
    cached[n].set(rows, start * H_kv * d)
    return cached[n].subarray(0, start * H_kv * d + rows.length) // (S, H_kv d)
  })
  x = add(x, linear(attend(q, keys, values, { H, H_kv, d }, true), self_attn.o_proj))
  const inner = RMSNorm(x, post_attention_layernorm, eps), up = linear(inner, mlp.up_proj)
  const gated = linear(inner, mlp.gate_proj).map((gate, n) => gate * sigmoid(gate) * up[n]) // SwiGLU
  return add(x, linear(gated, mlp.down_proj))
}

function languageModel(x, model, config, session) { // embeddings (T, D) -> hidden states (T, D) after the last norm
  const start = session.length
  for (let n = 0; n < config.num_layers; n++) x = languageBlock(x, model.layers[n], config, start, session.layers[n])
  session.length += x.length / config.hidden_size
  return RMSNorm(x, model.norm, config.rms_norm_eps)
}

// ---- llava.py and generate.py

export class Llava {
  constructor(config, weights) { // llava.json, and what `readWeights` returns
    const written = config.projector.type === "linear" && !config.language.rope
    if (!written) throw new Error("llava.js writes out a linear W and plain rotations only")
    Object.assign(this, { config, weights })
  }

  // Zv of Eq. 1: normalised pixels (3, image_size, image_size) to (P, Dv).
  features(pixels) {
    return visionTower(pixels, this.weights.vision_tower, this.config.vision, this.config.select_layer)
  }

  // The embeddings (T', D) of T ids: the projected patches stand where the image token stood (Fig. 1: Hv beside Hq).
  splice(ids, features) {
    const D = this.config.language.hidden_size, table = this.weights.language_model.embed_tokens.weight // (V, D)
    const word = id => table.subarray(id * D, (id + 1) * D) // (D,)
    const rows = ids.map(id => (id === IMAGE ? linear(features, this.weights.projector) : word(id))) // Hv = W Zv
    const x = new Float32Array(rows.reduce((sum, row) => sum + row.length, 0))
    rows.reduce((end, row) => (x.set(row, end), end + row.length), 0)
    return x
  }

  head(hidden) { // (T, D) -> logits (T, V)
    const { embed_tokens, lm_head } = this.weights.language_model
    return linear(hidden, this.config.language.tie_embeddings ? embed_tokens : lm_head)
  }

  // The new ids, one by one, always the likeliest one: at most `most`, or until the context is full.
  // session: of the same picture. A prompt that begins like the last one is read only from where it differs.
  *generate(ids, features, most, session) {
    const { vision, language } = this.config, D = language.hidden_size, P = features.length / vision.hidden_size
    let same = 0
    while (same < ids.length - 1 && ids[same] === session.ids[same]) same++
    session.length = same + (ids.indexOf(IMAGE) < same ? P - 1 : 0)
    let x = this.splice(ids.slice(same), features) // (T, D)
    const room = Math.min(most, language.max_position - session.length - x.length / D)
    if (room < 1) throw new Error(`The question is too long: the language model reads ${language.max_position} tokens. 问题太长：语言模型最多读 ${language.max_position} 个词元。`)
    session.ids = ids
    for (let n = 0; n < room; n++) {
      const hidden = languageModel(x, this.weights.language_model, language, session) // (T, D)
      const logits = this.head(hidden.subarray(-D)) // (V,)
      const token = logits.indexOf(Math.max(...logits))
      yield token
      x = this.splice([token])
    }
  }
}

// ---- model.safetensors: the length of the header in 8 bytes, the header in JSON, then the numbers

// float16 -> float32, for all there are: a sign, 5 bits of exponent and 10 of fraction.
const HALF = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024, sign = bits >> 15 ? -1 : 1
  return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14)
})

// All weights by their names: language_model.layers[0].mlp.up_proj.weight is a Float32Array with a `shape`.
export function readWeights(file) {
  const length = Number(new DataView(file).getBigUint64(0, true)), tree = {}
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)))
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (dtype !== "F16") throw new Error(`${name} is ${dtype}, but llava.js reads F16`)
    const halves = new Uint16Array(file.slice(8 + length + begin, 8 + length + end))
    const numbers = new Float32Array(halves.length), path = name.split("."), last = path.pop()
    for (let n = 0; n < halves.length; n++) numbers[n] = HALF[halves[n]]
    path.reduce((branch, key) => (branch[key] ??= {}), tree)[last] = Object.assign(numbers, { shape })
  }
  return tree
}
