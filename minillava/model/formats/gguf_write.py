"""A LLaVA as two GGUF files for llama.cpp: the language model, and its eye (`mmproj`), the vision tower with W.

    minillava export runs/mine/model --to gguf --out runs/mine/gguf
    llama-mtmd-cli -m runs/mine/gguf/model.gguf --mmproj runs/mine/gguf/mmproj.gguf --jinja --image PICTURE -p QUESTION

What llama.cpp does differently (seen with its build 11549):
- It always has a GELU between two layers. The paper's one matrix W is exact all the same, as [I, -I] GELU([W; -W] x),
  since gelu(x) - gelu(-x) = x.
- It stops one block before `block_count`, as LLaVA reads the layer before the last.
- Of a vision tower with a class token it loses the first patch, gives each patch the position of its neighbour, and
  reads the class token's output as the last patch (its issue 25814). With the position table rolled by one each patch
  has its own position; the first patch stays lost. A llama.cpp without this fault needs the table as it is.
- It pads an oblong picture where CLIP crops it: hand it squares.
- Its server hands the template one text in which a marker stands for each picture, without the line break after it: the
  template adds that.
"""

import json

import torch

from minillava.data.samples import uses_bos
from minillava.errors import CheckpointError
from minillava.files import atomic_write
from minillava.model.formats.chat_template import ending_tokenizer, jinja
from minillava.model.formats.files import is_finite
from minillava.model.formats.gguf import CONTROL, SIZES, SPLITS, USER_DEFINED, gguf_name, gguf_tokenizer
from minillava.model.formats.published import LANGUAGE_NAMES
from minillava.text import few

INSTALL = "writing GGUF needs the package gguf: pip install 'minillava[export]', or pip install gguf"
NORMAL, UNUSED = 1, 5  # types of tokens; CONTROL and USER_DEFINED besides
# The marker is <__media__>, or has a random part.
TEXT = "{{ message['content'] }}"
MARKED_TEXT = (
    "{{ message['content'] | replace('__>', '__>\\n') if '<__media' in message['content'] else message['content'] }}"
)
FILE_TYPES = {torch.float32: 0, torch.float16: 1}
# Our names of the vision tower's tensors, and GGUF's.
TOWER = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding": "v.patch_embd",
    "embeddings.position_embedding": "v.position_embd",
    "pre_layrnorm": "v.pre_ln",
}
TOWER_BLOCK = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
# Texts that the known splits cut differently. A tokenizer is written as the split that gives its ids of all of them.
PROBES = ("What is odd?###\nIt's 12 345  birds,\n\n\tand  THEY'LL don't ", " 1234567 1,000.50 a1b22", "na\u00efve e\u0301\u0302 "
          "\u65e5\u672c\u8a9e \U0001f642 \u0661\u0662", " \n \n x \r\n y!!\n", "(ab) _c_ d'e 'f")  # fmt: skip


def save_gguf(model, folder, tokenizer, template, preparation, name, dtype=torch.float32, rolled=False):
    """Write folder/model.gguf and folder/mmproj.gguf. name: what the files call the model.

    dtype: of the matrices, float32 or float16. rolled: with the position table rolled by one, see above.
    Raises CheckpointError for what GGUF cannot hold, or llama.cpp not compute.
    """
    text = language_values(model.config.language, tokenizer, template)
    eye = vision_values(model.config, preparation)
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise CheckpointError(f"{INSTALL} ({error})") from error
    with atomic_write(folder / "model.gguf") as first, atomic_write(folder / "mmproj.gguf") as second:  # both or none
        for path, kind, values, tensors in (
            (first, text["general.architecture"], text, language_tensors(model)),
            (second, "clip", eye, vision_tensors(model, eye["clip.vision.block_count"], rolled)),
        ):
            stored = {key: _stored(key, tensor.detach().cpu().float(), dtype) for key, tensor in tensors.items()}
            about = {"general.name": name, "general.file_type": FILE_TYPES[dtype]}
            write_gguf(GGUFWriter(path, kind), about | values, stored)


def write_gguf(writer, values, tensors):
    """Write one file with gguf's writer. values: {key: number, text, or list}. tensors: {name: tensor}."""
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
           list: writer.add_array}  # fmt: skip
    for key, value in values.items():
        if key != "general.architecture":  # which the writer adds itself
            add[type(value)](key, value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(name, tensor, dtype):
    """Matrices in `dtype`; vectors and positions, which are small, in float32."""
    made = tensor.to(dtype if tensor.dim() > 1 and name != "v.position_embd.weight" else torch.float32).contiguous()
    if not is_finite(made):
        raise CheckpointError(f"{name} has values that are not finite in {made.dtype}; take --dtype float32")
    return made


def language_values(config, tokenizer, template):
    """The metadata of the language model: sizes, tokenizer, chat template."""
    kind = "qwen2" if config.attention_bias else "llama"
    if config.rope:
        raise CheckpointError(f"rope type {config.rope.kind!r} cannot be written as GGUF here, only the default")
    ours = {published: name for name, (published, _) in LANGUAGE_NAMES.items()} | {"rope_theta": "rope_theta"}
    sizes = {key: getattr(config, ours[published]) for key, published in SIZES.items()}
    sizes |= {"attention.value_length": config.head_dim, "rope.dimension_count": config.head_dim}
    values = {"general.architecture": kind, "general.type": "model"}
    values |= {f"{kind}.{key}": value for key, value in (sizes | {"vocab_size": config.vocab_size}).items()}
    values |= tokenizer_values(ending_tokenizer(tokenizer, template), config.vocab_size)
    return values | {"tokenizer.chat_template": jinja(template).replace(TEXT, MARKED_TEXT)}


def tokenizer_values(tokenizer, vocab_size):
    """The tokenizer as GGUF's gpt2. Raises CheckpointError for one that is not byte-level BPE of a split in SPLITS."""
    bpe, ids, added = json.loads(tokenizer.backend_tokenizer.to_str())["model"], tokenizer.get_vocab(), {}
    if bpe["type"] != "BPE" or bpe.get("byte_fallback") or len(ids) > vocab_size:
        raise CheckpointError("only byte-level BPE tokenizers of at most the model's vocabulary can be written as GGUF")
    for i, token in tokenizer.added_tokens_decoder.items():
        added[i] = CONTROL if token.special else USER_DEFINED
    tokens = {i: token for token, i in ids.items()}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    values = {
        "model": "gpt2",
        "tokens": [tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)],
        "token_type": [added.get(i, NORMAL) if i in tokens else UNUSED for i in range(vocab_size)],
        "merges": merges,
        "add_bos_token": uses_bos(tokenizer),
    }
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if (i := getattr(tokenizer, f"{name}_token_id")) is not None:
            values[f"{key}_token_id"] = i
    wanted = [tokenizer.encode(text, add_special_tokens=False) for text in PROBES]
    for pre in SPLITS:
        made = {f"tokenizer.ggml.{key}": value for key, value in (values | {"pre": pre}).items()}
        read = gguf_tokenizer(made)
        if [read.encode(text, add_special_tokens=False) for text in PROBES] == wanted:
            return made
    raise CheckpointError(f"the tokenizer cuts texts in none of the ways that can be written as GGUF: {few(SPLITS)}")


def language_tensors(model):
    """GGUF's names and tensors. llama.cpp rotates neighbours, so of llama's q and k a head's rows are interleaved."""
    language, found = model.language_model, {}
    heads = {"q_proj": language.config.num_heads, "k_proj": language.config.num_kv_heads}
    for name, tensor in language.state_dict().items():
        count = heads.get(name.split(".")[-2])
        if count and not language.config.attention_bias:
            tensor = tensor.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)
        found[gguf_name(name)] = tensor
    return found


def vision_values(config, preparation):
    """The metadata of the vision tower."""
    vision, run = config.vision, config.select_layer % (config.vision.num_layers + 1)
    if run == vision.num_layers or preparation.stretched:
        what = f"features of layer {config.select_layer}" if run == vision.num_layers else "pictures that are stretched"
        raise CheckpointError(f"llama.cpp's LLaVA cannot compute {what}, so they cannot be written as GGUF")
    return {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,  # and no use_silu: CLIP's quick GELU
        "clip.vision.image_size": vision.image_size,
        "clip.vision.patch_size": vision.patch_size,
        "clip.vision.embedding_length": vision.hidden_size,
        "clip.vision.feed_forward_length": vision.intermediate_size,
        "clip.vision.projection_dim": config.language.hidden_size,
        "clip.vision.block_count": run + 1,
        "clip.vision.attention.head_count": vision.num_heads,
        "clip.vision.attention.layer_norm_epsilon": vision.layer_norm_eps,
        "clip.vision.image_mean": [m / (255 * preparation.rescale) for m in preparation.mean],  # of values up to 1
        "clip.vision.image_std": [s / (255 * preparation.rescale) for s in preparation.std],
    }


def vision_tensors(model, blocks, rolled):
    """GGUF's names and tensors of the vision tower's first blocks and of the projector."""
    found = {}
    for name, tensor in model.vision_tower.state_dict().items():
        part, _, end = name.rpartition(".")
        if name == "embeddings.class_embedding":
            found[TOWER[name]] = tensor
        elif part in TOWER:
            table = rolled and part == "embeddings.position_embedding"
            found[f"{TOWER[part]}.{end}"] = tensor.roll(-1, 0) if table else tensor
        elif part.startswith("layers.") and int(part.split(".")[1]) < blocks:
            _, layer, rest = part.split(".", 2)
            found[f"v.blk.{layer}.{TOWER_BLOCK[rest]}.{end}"] = tensor
    made = model.projector.state_dict()
    if model.config.projector == "linear":
        W, b, eye = made["weight"], made["bias"], torch.eye(model.config.language.hidden_size)
        made = {"0.weight": torch.cat([W, -W]), "0.bias": torch.cat([b, -b])}
        made |= {"2.weight": torch.cat([eye, -eye], 1), "2.bias": torch.zeros(len(eye))}
    return found | {f"mm.{name}": tensor for name, tensor in made.items()}
