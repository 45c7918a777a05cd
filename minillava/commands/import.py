"""`minillava import`: a language model in a GGUF file becomes a folder that `minillava train` and `transformers` load.

minillava import SmolLM2-135M-Instruct.Q4_1.gguf --out runs/smollm2
minillava train DATA --language-model runs/smollm2
"""

from pathlib import Path

from minillava.model.formats.gguf import import_gguf


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", type=Path, help="a GGUF file of a Llama or Qwen2 (Q4_0, Q4_1, Q8_0, F16 or F32)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")


def run(options) -> None:
    """Import the file, then say what it is."""
    model, says = import_gguf(options.file, options.out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {says.get('general.name', options.file.name)}, {count:,} parameters in float32")
    print(f"licence: {says.get('general.license', 'the file names none')}")
