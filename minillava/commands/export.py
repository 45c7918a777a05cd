"""`minillava export`: a trained LLaVA as the files that other tools read.

minillava export runs/mine/model --to hf --out runs/mine/hf       # transformers, versions 4 and 5, and what reads its files
minillava export runs/mine/model --to gguf --out runs/mine/gguf   # llama.cpp: model.gguf and mmproj.gguf
minillava export runs/mine/model --to peft --out runs/mine/peft   # the LoRA of stage 2 over its language model, for PEFT

What comes back from `transformers`, PEFT, Trainer or TRL, merged and saved, is loaded by `minillava chat --weights`.
"""

from pathlib import Path

import torch

from minillava.chat import Chat
from minillava.errors import CheckpointError
from minillava.files import read_checked
from minillava.model import save_pretrained
from minillava.model.formats.files import origin
from minillava.model.formats.gguf_write import save_gguf
from minillava.text import few
from minillava.training.lora import save_peft

DTYPES = {("hf", "float32"), ("hf", "bfloat16"), ("hf", "float16"), ("gguf", "float32"), ("gguf", "float16")}


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("model", help="a trained LLaVA: a folder, or for hf and gguf a hub id or id@revision")
    add("--to", choices=("hf", "gguf", "peft"), required=True, help="transformers, llama.cpp or PEFT")
    add("--out", type=Path, required=True, help="the folder to write: a new or an empty one")
    add("--template", help="the conversation's format: chat, chat_v1, vicuna_v1 or own (default: the weights')")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: float32, which answers as `chat` does on a CPU; gguf: also float16)",
    )
    add(
        "--roll-positions",
        action="store_true",
        help="gguf: roll the position table by one, a work-around for llama.cpp's issue 25814, which gives each patch "
        "its neighbour's position. The first patch is lost with it and without it",
    )


def run(options) -> None:
    """Write the folder, then say what it is. Raises CheckpointError for what cannot be written."""
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        held = few(p.name for p in options.out.iterdir()) if options.out.is_dir() else "it is a file"
        raise CheckpointError(
            f"--out {options.out} is not empty ({held}): name a new folder, so that no older file stays there"
        )
    unfit = {
        "--roll-positions": options.roll_positions and options.to != "gguf",
        f"--dtype {options.dtype}": options.dtype and (options.to, options.dtype) not in DTYPES,
        "--template": options.template and options.to == "peft",
    }
    if wrong := [name for name, unfits in unfit.items() if unfits]:
        raise CheckpointError(f"--to {options.to} cannot have {' and '.join(wrong)}; see minillava export --help")
    if options.to == "peft":
        return export_peft(Path(options.model), options.out)
    chat, dtype = Chat(options.model, options.template), getattr(torch, options.dtype or "float32")
    name = str(dtype).removeprefix("torch.")
    if options.to == "hf":
        about = {"trained on": f"not known here: the weights of {origin(options.model)}"} | chat.about
        about["template"] = chat.template.name
        save_pretrained(chat.model, options.out, chat.tokenizer, options.model, chat.template, about, dtype)
        print(f"{options.out}: for transformers, in {name}")
    else:
        save_gguf(chat.model, options.out, chat.tokenizer, chat.template, chat.preparation, origin(options.model), dtype,
                  options.roll_positions)  # fmt: skip
        print(f"{options.out}: model.gguf and mmproj.gguf for llama.cpp, in {name}\nllama.cpp loses the first "
              "patch of every picture (its issue 25814), so some answers differ; hand it square pictures")  # fmt: skip
    stop = chat.template.stop
    if len(chat.tokenizer.encode(stop, add_special_tokens=False)) > 1:
        print(f"{stop!r} is several tokens of this vocabulary, so other tools may show it at the end of an answer")


def export_peft(model: Path, out: Path) -> None:
    """Write a trained model's LoRA. Raises CheckpointError if it has none, or one that PEFT cannot use."""
    adapter, done = (model.resolve().parent / "stage2" / name for name in ("adapter.safetensors", "done.json"))
    if not adapter.is_file() or not done.is_file():
        raise CheckpointError(
            f"{model}: no LoRA was trained here ({adapter} is missing); train with --lora RANK, or take --to hf"
        )
    base = read_checked(done).get("base", {})
    if "language model" not in base:
        raise CheckpointError(
            f"{model}: its LoRA began from {base.get('weights', 'what is not known')}, not from a language model that "
            "PEFT could load; take --to hf"
        )
    save_peft(adapter, out, base["language model"])
    print(f"{out}: for PEFT, over the language model {base['language model']}. W is not in it; --to hf has both")
