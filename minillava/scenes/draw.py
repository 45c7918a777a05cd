"""Draw a scene with Pillow, at any size from 64 pixels, in two styles, to the same bits on every machine.

Notable: all arithmetic is in integers. Shapes are painted at four times the size and averaged down, and nothing is
random. `book` is the style of the training pictures. `sticker` is the style of the benchmark "in the wild" (section
5.1: LLaVA-Bench (In-the-Wild) tests generalisation to a novel domain).

    draw(compose("train", 0), 256).save("scene.png")
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from minillava.files import atomic_write
from minillava.scenes.sprites import DOING_SHAPES, PERSON, SPRITES
from minillava.scenes.world import COLOURS, DOING_WIDTH, KINDS, PLACES, Scene

SMALLEST_SIZE = 64  # pixels per side
OVERSAMPLING = 4  # shapes are painted this many times larger
FIXED_COLOURS = {
    "ink": (48, 46, 54), "white": (252, 252, 250), "skin": (240, 196, 160), "hair": (112, 72, 44), "glass": (190, 226, 244),
    "wood": (164, 112, 66), "trunk": (132, 92, 58), "grey": (170, 174, 182), "leaf": (70, 160, 76), "roof": (150, 78, 60),
    "pink": (244, 158, 168), "beak": (246, 160, 40), "cream": (248, 234, 208), "red": (222, 52, 48), "blue": (60, 120, 220),
    "yellow": (252, 216, 70), "spot": (64, 60, 66),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a scene is painted: the rim around every object, its shadow, and the colours of the places."""

    rim: tuple[int, int, int]  # RGB
    rim_width: int  # thousandths of the picture
    shadow: bool
    places: dict  # place -> (sky top, sky bottom, ground top, ground bottom)


STYLES = {
    "book": Style((70, 62, 66), 7, False, {
        "park": ((150, 208, 250), (214, 238, 252), (166, 218, 120), (128, 196, 98)),
        "street": ((168, 206, 236), (226, 236, 244), (158, 158, 168), (138, 138, 150)),
        "lake": ((150, 210, 246), (216, 240, 250), (104, 176, 224), (72, 142, 206)),
        "room": ((250, 232, 206), (252, 240, 222), (208, 164, 122), (186, 140, 100)),
        "beach": ((142, 214, 240), (218, 244, 246), (248, 228, 172), (238, 210, 148)),
    }),
    "sticker": Style((255, 255, 255), 14, True, {
        "park": ((250, 214, 184), (252, 236, 208), (142, 186, 140), (110, 160, 120)),
        "street": ((222, 206, 230), (240, 228, 236), (126, 130, 148), (106, 110, 130)),
        "lake": ((246, 206, 196), (250, 230, 214), (92, 158, 178), (64, 128, 158)),
        "room": ((214, 228, 218), (228, 238, 228), (176, 142, 132), (156, 122, 114)),
        "beach": ((248, 200, 170), (252, 226, 196), (228, 200, 160), (214, 182, 142)),
    }),
}  # fmt: skip


def mix(a, b, per_mille):
    """The colour that many thousandths of the way from a to b."""
    return tuple((x * (1000 - per_mille) + y * per_mille) // 1000 for x, y in zip(a, b))


def palette(colour: str) -> dict:
    """Role in `sprites.py` -> RGB, for an object of this colour."""
    main = COLOURS[colour]
    spot = FIXED_COLOURS["spot"] if sum(main) > 330 else FIXED_COLOURS["white"]  # a dark cow has light spots
    shades = {"dark": mix(main, (0, 0, 0), 240), "light": mix(main, (255, 255, 255), 380)}
    return FIXED_COLOURS | shades | {"main": main, "spot": spot}


def paint(draw: ImageDraw.ImageDraw, shapes: str, colours: dict, x: int, y: int, w: int, h: int) -> None:
    """Paint the shapes of one sprite into a box of w x h pixels at (x, y)."""
    for shape in shapes.replace("\n", ";").split(";"):
        if not shape.strip():
            continue
        name, role, *rest = shape.split()
        fill, numbers = colours[role], [int(n) for n in rest]
        if name in "la":
            width, numbers = max(1, numbers[0] * min(w, h) // 100), numbers[1:]
        angles, numbers = (numbers[4:], numbers[:4]) if name == "a" else ((), numbers)
        points = [(x + px * w // 100, y + py * h // 100) for px, py in zip(numbers[::2], numbers[1::2])]
        if name == "e":
            draw.ellipse(points, fill=fill)
        elif name == "r":
            draw.rectangle(points, fill=fill)
        elif name == "p":
            draw.polygon(points, fill=fill)
        elif name == "l":
            draw.line(points, fill=fill, width=width, joint="curve")
        else:
            draw.arc(points, *angles, fill=fill, width=width)


@lru_cache(maxsize=8192)
def sprite(kind: str, colour: str, doing: str | None, w: int, h: int, flip: bool, rim: int, style: str) -> Image.Image:
    """One object as RGBA, of w x h pixels and a margin of `rim` pixels on each side."""
    margin = rim * OVERSAMPLING
    canvas = Image.new("RGBA", (w * OVERSAMPLING + 2 * margin, h * OVERSAMPLING + 2 * margin), (*COLOURS[colour], 0))
    draw = ImageDraw.Draw(canvas)
    if kind == "person":
        body = w * OVERSAMPLING * 100 // DOING_WIDTH.get(doing, 100)
        shapes = PERSON + DOING_SHAPES[doing]
    else:
        body, shapes = w * OVERSAMPLING, SPRITES[kind]
    paint(draw, shapes, palette(colour), margin, margin, body, h * OVERSAMPLING)
    outline = Image.new("RGBA", canvas.size, (*STYLES[style].rim, 0))
    alpha = canvas.getchannel("A")
    outline.putalpha(alpha.filter(ImageFilter.MaxFilter(2 * (margin // 2) + 1)))
    outline.paste(canvas, (0, 0), alpha)
    small = outline.reduce(OVERSAMPLING)
    return small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else small


@lru_cache(maxsize=512)
def background(place: str, variant: int, size: int, style: str) -> Image.Image:
    """Sky or wall above, ground below, and what one recognises the place by."""
    top, low, near, far = STYLES[style].places[place]
    n = size * OVERSAMPLING
    horizon = n * (500 + 20 * (variant % 3)) // 1000
    image = Image.new("RGB", (n, n))
    draw = ImageDraw.Draw(image)
    for y in range(horizon):
        draw.line([(0, y), (n, y)], fill=mix(top, low, 1000 * y // horizon))

    def at(*per_mille):
        return [c * n // 1000 for c in per_mille]

    shift = (variant * 137) % 400
    if place == "park":
        hill = mix(near, low, 420)
        draw.pieslice(at(-200 + shift, 380, 500 + shift, 740), 180, 360, fill=hill)
        draw.pieslice(at(480 - shift, 410, 1240 - shift, 760), 180, 360, fill=mix(hill, near, 400))
    for y in range(horizon, n):  # the ground in front of the hills
        draw.line([(0, y), (n, y)], fill=mix(near, far, 1000 * (y - horizon) // (n - horizon)))
    if place in ("park", "street", "lake", "beach"):
        for x, y, w in ((80 + shift, 60, 150), (560 + shift // 2, 110, 190)):  # two clouds
            white = mix(low, (255, 255, 255), 600)
            draw.ellipse(at(x, y, x + w, y + 52), fill=white)
            draw.ellipse(at(x + w // 4, y - 24, x + w * 3 // 4, y + 40), fill=white)
    if place == "park":
        for k in range(14):  # tufts of grass
            x, y = (k * 173 + shift) % 1000, 560 + (k * 97 + shift) % 420
            draw.line(at(x, y, x + 8, y - 20, x + 16, y), fill=mix(far, (0, 60, 0), 250), width=max(1, n // 160))
    elif place == "street":
        draw.rectangle([0, horizon, n, horizon + n // 28], fill=mix(near, (255, 255, 255), 450))
        for k in range(-1, 5):
            x = k * 260 + shift // 2
            draw.rectangle(at(x, 740, x + 130, 764), fill=(246, 240, 214))
    elif place == "lake":
        foam = mix(near, (255, 255, 255), 420)
        for k in range(12):  # waves of two arcs
            x, y = (k * 311 + shift) % 1000, 560 + (k * 131) % 400
            for left in (x, x + 66):
                draw.arc(at(left, y, left + 70, y + 24), 180, 360, fill=foam, width=max(1, n // 120))
    elif place == "room":
        for k in range(9):  # wallpaper
            draw.rectangle([*at(k * 124 + 40, 0, k * 124 + 64), horizon], fill=mix(top, low, 650))
        draw.rectangle([0, horizon - n // 40, n, horizon], fill=mix(near, (255, 255, 255), 550))
        for k in range(7):  # floor boards
            foot = (k * 1500 - 750) * n // 6000
            draw.line([(k * n // 6, horizon), (foot, n)], fill=mix(far, (0, 0, 0), 140), width=max(1, n // 200))
    else:  # beach: a strip of sea, shells
        draw.rectangle([0, horizon - n // 8, n, horizon], fill=mix((84, 172, 214), low, 120))
        draw.line([(0, horizon), (n, horizon)], fill=(252, 252, 248), width=max(1, n // 60))
        for k in range(10):
            x, y = (k * 229 + shift) % 1000, 590 + (k * 113) % 390
            draw.ellipse(at(x, y, x + 14, y + 9), fill=mix(far, (120, 80, 40), 300))
    return image.reduce(OVERSAMPLING)


def paint_order(scene: Scene) -> list[int]:
    """Indices of the things as they are painted: from back to front, those that stand on another thing last."""
    return sorted(range(len(scene.things)), key=lambda i: (scene.things[i].on is not None, scene.things[i].box[3]))


def topmost_things(scene: Scene, grid: int) -> list[int]:
    """For each cell of grid x grid, row by row: the index of the thing at its centre, or -1 for the background."""
    middle, cells = [(2 * n + 1) * 500 // grid for n in range(grid)], [-1] * grid * grid
    for i in paint_order(scene):
        x1, y1, x2, y2 = scene.things[i].box
        for row, y in enumerate(middle):
            for column, x in enumerate(middle):
                if x1 <= x < x2 and y1 <= y < y2:
                    cells[row * grid + column] = i
    return cells


def draw(scene: Scene, size: int = 256) -> Image.Image:
    """The scene as an RGB picture of size x size pixels.

    Raises ValueError when size is below 64, or when the place, or a thing's kind, colour or box is unknown, as in a
    scene that was read from a text.
    """
    if size < SMALLEST_SIZE:
        raise ValueError(f"size {size}: the smallest picture is {SMALLEST_SIZE} pixels")
    known = (t.box is not None and t.colour in COLOURS and t.kind in KINDS for t in scene.things)
    if scene.place not in PLACES or not all(known):
        raise ValueError(f"scene {scene.id}: only a composed scene can be drawn, with places, colours and boxes known")
    style = STYLES[scene.style]
    rim = max(1, style.rim_width * size // 1000)
    image = background(scene.place, scene.variant, size, scene.style).copy()
    for thing in (scene.things[i] for i in paint_order(scene)):
        x1, y1, x2, y2 = (v * size // 1000 for v in thing.box)
        picture = sprite(thing.kind, thing.colour, thing.doing, x2 - x1, y2 - y1, thing.flip, rim, scene.style)
        corner = (x1 - rim, y1 - rim)
        if style.shadow:
            shade = picture.getchannel("A").point(lambda v: v * 60 // 255)
            image.paste((30, 26, 40), (corner[0] + rim, corner[1] + rim), shade)
        image.paste(picture, corner, picture)
    return image


def draw_file(scene: Scene, path: Path, size: int) -> None:
    """Draw a scene into a PNG file, whole or not at all, unless the file is there."""
    if not path.exists():
        with atomic_write(path, sync=False) as temporary:
            draw(scene, size).save(temporary, compress_level=1)
