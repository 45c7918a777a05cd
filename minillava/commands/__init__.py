"""The verbs of the command line, one module each; a module also declares its verb's arguments."""

DEVICES = ("cpu", "cuda", "mps")
MOST_LISTED = 20  # problems that the terminal names; files and --json have all


def add_parts(add) -> None:
    """Declare the options that name one's own parts."""
    add("--vision-tower", help="a CLIP folder, hub id or id@revision (default: the scale's)")
    language = "a Llama, Mistral or Qwen2 folder (of a GGUF file: `minillava import`), hub id or id@revision"
    add("--language-model", help=f"{language} (default: the scale's)")


def add_device(add) -> None:
    """Declare the option that names the device."""
    asked = "mps is Apple's GPU, tested against the CPU first"
    add("--device", choices=DEVICES, help=f"(default: cuda if there is an NVIDIA GPU, else cpu); {asked}")
