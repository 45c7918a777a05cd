"""What the page "ask the small LLaVA" is given: the shipped weights, Python's pictures, and the prompt's pieces.

The page itself is tested in Chromium: tests_browser/test_ask.py.
"""

import json

from PIL import Image

from minillava.chat import Chat
from minillava.course.ask import LLAVA, copy_ask
from minillava.data import IMAGE
from minillava.data.samples import prompt_ids
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw


def test_the_page_is_given_weights_pictures_and_the_prompt_in_pieces(tmp_path):
    copy_ask(tmp_path)
    folder, chat = tmp_path / "ask", Chat(LLAVA)
    for path in (folder / "model").iterdir():
        assert path.read_bytes() == (LLAVA / path.name).read_bytes()
    world = json.loads((folder / "world.json").read_text())
    for shown, scene in zip(world["examples"], scenes("bench", 12), strict=True):
        with Image.open(folder / "pictures" / f"{shown['file']}.png") as picture:
            assert picture.convert("RGB").tobytes() == draw(scene, world["size"]).tobytes()
        assert (folder / "pictures" / f"{shown['place']}-{shown['variant']}.png").exists()

    assert set(world["asked"]) == {"", *world["kinds"]}
    for place, form in (("first", "<image>\n{}"), ("last", "{}\n<image>")):
        for question in world["asked"]["cat"]:
            ids = [*world["begin"]]
            for piece in world["prompts"][place]:
                first, *others = piece.replace("{question}", question).split("<image>")
                ids += chat.tokenizer.encode(first, add_special_tokens=False)
                for part in others:
                    ids += [IMAGE, *chat.tokenizer.encode(part, add_special_tokens=False)]
            assert ids == prompt_ids(form.format(question), chat.template, chat.tokenizer).tolist()
