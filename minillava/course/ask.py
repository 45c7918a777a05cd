"""What the page "ask the small LLaVA" (site/ask) reads: the weights, the picture book as data, and a dozen examples.

The page computes and draws by itself, in JavaScript. Its words, shapes, colours, prompt and questions come from here:
nothing is typed twice.

    copy_ask(Path("build/site"))   # into build/site/ask, beside a copy of site/ask
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from minillava.data.samples import uses_bos
from minillava.data.tokenizer import load_tokenizer
from minillava.files import read_json, write_text
from minillava.judging.answers import blank_picture
from minillava.model.formats.chat_template import choose_template
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import OVERSAMPLING, STYLES, background, draw, paint_order, palette
from minillava.scenes.questions import questions
from minillava.scenes.sprites import DOING_SHAPES, PERSON, SPRITES
from minillava.scenes.world import COLOURS, DOING_WIDTH, KINDS, PLACES, SIDES, Scene, Thing
from minillava.standins.teacher import DETAIL_QUESTIONS

LLAVA = WEIGHTS / "llava"
MODEL_FILES = ("llava.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
EXAMPLES = 12  # of the split that trained nothing and chose nothing
VARIANTS = 6  # backgrounds of each place
QUESTION = "{question}"  # the page puts the question here


def copy_ask(site: Path) -> None:
    """Write what the page reads into `site`/ask: model/, pictures/ and world.json."""
    pictures, model, config = site / "ask" / "pictures", site / "ask" / "model", read_json(LLAVA / "llava.json")
    pictures.mkdir(parents=True, exist_ok=True)
    model.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        shutil.copyfile(LLAVA / name, model / name)
    size = config["vision"]["image_size"]
    for place in PLACES:
        for variant in range(VARIANTS):
            large = background(place, variant, size * OVERSAMPLING, "book")
            large.save(pictures / f"{place}-{variant}.png", optimize=True)
    examples = scenes("bench", EXAMPLES)
    for scene in examples:
        draw(scene, size).save(pictures / f"{scene.id}.png", optimize=True)
    book = world(size) | prompts(config) | {"examples": list(map(example, examples))}
    write_text(site / "ask" / "world.json", json.dumps(book))


def world(size: int) -> dict:
    """The picture book as the page draws it, for a model that sees pictures of `size` x `size` pixels."""
    shapes = SPRITES | {"person": PERSON}
    kinds = {name: {"size": kind.size, "seat": kind.seat, "shapes": shapes[name]} for name, kind in KINDS.items()}
    doings = {doing or "": {"shapes": s, "width": DOING_WIDTH.get(doing, 100)} for doing, s in DOING_SHAPES.items()}
    style = STYLES["book"]
    drawing = {"size": size, "oversampling": OVERSAMPLING, "rim": style.rim, "rim_width": style.rim_width}
    colours = {"palettes": {colour: palette(colour) for colour in COLOURS}, "blank": blank_picture(1).getpixel((0, 0))}
    words = {"sides": SIDES, "places": list(PLACES), "kinds": kinds, "doings": doings, "asked": asked()}
    return drawing | colours | words


def asked() -> dict[str, list[str]]:
    """Questions to suggest: some about each kind of thing, and under "" some that fit any picture."""
    found = {"": [_shortest(questions(Scene("", "park")), kind) for kind in ("odd", "place", "doors")]}
    found[""].append(DETAIL_QUESTIONS[0])
    for kind in KINDS:
        about = [q for q in questions(Scene("", "park", (Thing(kind, "red", "left"),))) if q.key != "0"]
        found[kind] = [_shortest(about, what) for what in ("colour", "side", "count")]
    return found


def _shortest(about, kind: str) -> str:
    return min((q.text for q in about if q.kind == kind), key=len)


def prompts(config: dict) -> dict:
    """The prompt in pieces that are tokenized apart, for both places of the picture in Eq. 2; and where answers end."""
    tokenizer = load_tokenizer(LLAVA)
    template = choose_template(None, config["about"]["template"], tokenizer, LLAVA)
    forms = {"first": f"<image>\n{QUESTION}", "last": f"{QUESTION}\n<image>"}
    pieces = {place: [text for text, _ in template.segments([(form, None)])] for place, form in forms.items()}
    return {"prompts": pieces, "stop": template.stop, "begin": [tokenizer.bos_token_id] if uses_bos(tokenizer) else []}


def example(scene: Scene) -> dict:
    """A scene as the page keeps it, its things from back to front."""
    things = [asdict(scene.things[i]) for i in paint_order(scene)]
    return {"file": scene.id, "place": scene.place, "variant": scene.variant, "things": things}
