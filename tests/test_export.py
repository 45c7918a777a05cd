"""What `minillava export` writes: for transformers, for llama.cpp and for PEFT; and what comes back from there."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration, pipeline
from transformers.trainer_utils import align_special_tokens

from minillava import scales
from minillava.chat import Chat
from minillava.cli import main
from minillava.data import IGNORE
from minillava.data.samples import encode_segments
from minillava.data.template import CHAT, CHAT_V1, PLAIN, VICUNA_V1
from minillava.data.tokenizer import load_tokenizer
from minillava.files import write_checked
from minillava.model import CheckpointError, load_language, load_llava
from minillava.model.formats import gguf_write
from minillava.model.formats.chat_template import TemplateError, ending_tokenizer, jinja
from minillava.model.formats.gguf import import_gguf, read_gguf
from minillava.model.formats.preparation import read_preparation
from minillava.model.rope import Rope
from minillava.training import lora

torch.set_num_threads(1)

SHIPPED = scales.WEIGHTS / "llava"
TALK = [("What is odd?", "Nothing is odd."), ("Why?", "It is all in its place.")]


def export(capsys, *args):
    status = main(["export", *map(str, args)])
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """The LLaVA that ships, for transformers."""
    folder = tmp_path_factory.mktemp("export") / "hf"
    assert main(["export", str(SHIPPED), "--to", "hf", "--out", str(folder)]) == 0
    return folder


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# transformers


def test_the_files_hold_nothing_that_only_one_version_of_transformers_knows(hf):
    settings = read(hf / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and settings["eos_token"] == "###"
    assert not {"is_local", "local_files_only", "backend"} & settings.keys()
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]  # 4.57 gives Llava token_type_ids without
    assert "architectures" not in read(hf / "config.json")["vision_config"]
    assert (hf / "preprocessor_config.json").exists() and not (hf / "chat_template.json").exists()
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(hf)("A cat.")


def test_the_pipeline_answers_as_chat_does_without_the_stop_and_the_next_turn_has_it_once(hf):
    picture = scales.WEIGHTS.parent / "pictures" / "train-000000.png"
    chat, pipe = Chat(SHIPPED), pipeline("image-text-to-text", model=str(hf), dtype=torch.float32)
    chat.look(picture)
    talk = []
    for question in ("What is odd in this picture?", "How many birds are there?"):
        parts = [{"type": "text", "text": question}]
        shown = [] if talk else [{"type": "image", "url": str(picture)}]
        talk.append({"role": "user", "content": shown + parts})
        talk = pipe(text=talk, max_new_tokens=60, do_sample=False)[0]["generated_text"]
        assert talk[-1]["content"] == chat.ask(question, max_new_tokens=60)
    text = pipe.processor.apply_chat_template(talk, add_generation_prompt=True)
    segments = CHAT.segments(
        [(f"<image>\n{chat.turns[0][0].removeprefix('<image>')[1:]}", chat.turns[0][1]), chat.turns[1]]
    )
    assert text == "<s>" + "".join(t for t, _ in segments) + "###\nAssistant: " and "######" not in text


def test_trainer_and_trl_have_no_token_to_align(hf):
    model = LlavaForConditionalGeneration.from_pretrained(hf)
    before = model.config.to_dict(), model.generation_config.to_dict()
    align_special_tokens(model, AutoProcessor.from_pretrained(hf))
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before
    assert load_llava(hf)[0].config.language.ends == load_llava(SHIPPED)[0].config.language.ends


@pytest.mark.parametrize("template", [CHAT, CHAT_V1, VICUNA_V1], ids=lambda t: t.name)
def test_the_chat_template_supervises_what_our_training_supervises(hf, template):
    tokenizer = load_tokenizer(SHIPPED)
    if template is VICUNA_V1:
        tokenizer.bos_token = None  # its system message would follow <s> without a break
    elif template is CHAT:
        tokenizer = AutoTokenizer.from_pretrained(hf)
    else:
        tokenizer = ending_tokenizer(tokenizer, template)
    ours, labels = encode_segments(template.segments(TALK), tokenizer)
    talk = [{"role": r, "content": text} for turn in TALK for r, text in zip(("user", "assistant"), turn)]
    made = tokenizer.apply_chat_template(
        talk, chat_template=jinja(template), return_dict=True, return_assistant_tokens_mask=True
    )
    learned = [i for i, mask in zip(made["input_ids"], made["assistant_masks"]) if mask]
    assert made["input_ids"] == ours and learned == [label for label in labels if label != IGNORE]


@pytest.mark.parametrize("template", [CHAT, VICUNA_V1], ids=lambda t: t.name)
def test_a_system_message_replaces_the_templates_own_and_other_roles_are_refused(hf, template):
    tokenizer = AutoTokenizer.from_pretrained(hf)

    def rendered(*messages):
        return tokenizer.apply_chat_template(
            [{"role": r, "content": c} for r, c in messages], chat_template=jinja(template), tokenize=False
        )

    parts = [{"type": "image"}, {"type": "text", "text": "Why?"}]
    plain = rendered(("user", parts))
    assert template.system in plain and "<image>\nWhy?" in plain
    for said in ("Be brief. ", [{"type": "text", "text": "Be brief. "}]):
        assert rendered(("system", said), ("user", parts)) == plain.replace(template.system, "Be brief. ")
    with pytest.raises(Exception, match="roles are"):
        rendered(("user", "Why?"), ("tool", "42"))
    template = replace(template, name="own")  # of others' weights: where its system message ends is not known
    with pytest.raises(Exception, match="is part of this template"):
        rendered(("system", "Be brief. "), ("user", "Why?"))


def test_a_template_without_questions_cannot_be_exported():
    with pytest.raises(TemplateError, match="plain has no questions"):
        jinja(PLAIN)


def test_a_folder_that_holds_something_is_refused_and_stays_as_it_was(weights, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chat_template.json").write_text('{"chat_template": "old"}')
    for kind in ("hf", "gguf", "peft"):
        status, _, err = export(capsys, weights / "llava", "--to", kind, "--out", tmp_path / "out")
        assert status == 2 and "out is not empty" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["chat_template.json"]


@pytest.mark.parametrize("kind", ["hf", "gguf", "peft"])
def test_an_empty_folder_that_is_there_is_filled_and_nothing_is_put_beside_it(
    kind, trained, tmp_path, capsys, monkeypatch
):
    """It may be the root of a disk, or a link to one."""
    disk, move = tmp_path / "disk", Path.replace

    def replace(path, target):
        assert disk in path.resolve().parents, "another disk"
        return move(path, target)

    disk.mkdir()
    monkeypatch.setattr(Path, "replace", replace)
    status, _, err = export(capsys, trained[0] / "model", "--to", kind, "--out", disk)
    assert status == 0, err
    assert any(disk.iterdir()) and not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


def test_the_model_card_has_every_score_beside_its_controls(hf, weights, tmp_path, capsys):
    text = (hf / "README.md").read_text()
    (figures,) = read(SHIPPED / "card.json")["figures"].values()
    assert "48000 picture-book scenes" in text and "| picture | blank | shuffled | picture after the question |" in text
    for kind, score in figures["picture"].items():
        scores = score, *(figures[look][kind] for look in ("blank", "shuffled", "picture after the question"))
        assert f"| {kind} | {' | '.join(map(str, scores))} |" in text
    assert export(capsys, hf, "--to", "hf", "--out", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "README.md").read_text() == text
    assert export(capsys, weights / "llava", "--to", "hf", "--out", tmp_path / "other")[0] == 0
    assert "None are known" in (tmp_path / "other" / "README.md").read_text()
    damaged = shutil.copytree(weights / "llava", tmp_path / "damaged")
    (damaged / "card.json").write_text('{"figures": {"exact match": 90}}')
    status, _, err = export(capsys, damaged, "--to", "hf", "--out", tmp_path / "more")
    assert status == 2 and "card.json" in err and not (tmp_path / "more").exists()


def test_a_projector_that_others_trained_comes_back_as_one_matrix(weights, tmp_path, capsys):
    assert export(capsys, weights / "llava", "--to", "hf", "--out", tmp_path / "hf")[0] == 0
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.model.multi_modal_projector.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    theirs.save_pretrained(tmp_path / "tuned")
    AutoProcessor.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "tuned")
    chat, seen = Chat(tmp_path / "tuned"), torch.randn(5, theirs.config.vision_config.hidden_size)
    assert chat.model.config.projector == "linear" and chat.template == CHAT
    torch.testing.assert_close(
        chat.model.projector(seen), theirs.model.multi_modal_projector(seen), atol=1e-5, rtol=1e-5
    )
    chat.look(Image.new("RGB", (96, 96)))
    chat.ask("Why?", max_new_tokens=2)


# llama.cpp


@pytest.fixture
def to_gguf(weights, tmp_path, capsys):
    pytest.importorskip("gguf")

    def written(*more, name="gguf", source=weights / "llava"):
        status, said, err = export(capsys, source, "--to", "gguf", "--out", tmp_path / name, *more)
        assert status == 0, err
        return tmp_path / name

    return written


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_language_model_and_its_tokenizer_are_read_back_bit_for_bit(to_gguf, weights, tmp_path, dtype):
    folder = to_gguf("--dtype", dtype)
    again, says = import_gguf(folder / "model.gguf", tmp_path / "again")
    ours = load_llava(weights / "llava")[0].language_model  # stored in float16, so float16 loses nothing
    assert again.state_dict().keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert says["general.file_type"] == (dtype == "float16") and "{% generation %}" in says["tokenizer.chat_template"]
    assert "bos_token" in says["tokenizer.chat_template"] and says["tokenizer.ggml.add_bos_token"]
    mine, theirs = load_tokenizer(weights / "llava"), load_tokenizer(tmp_path / "again")
    for text in ("Human: What's odd?###\nAssistant: ", " 12 345  cats,\n\n na\u00efve \U0001f642"):
        assert theirs.encode(text, add_special_tokens=False) == mine.encode(text, add_special_tokens=False)
    assert theirs.eos_token == CHAT.stop and again.config.ends[0] == theirs.eos_token_id


def test_the_file_of_the_eye_holds_the_vision_tower_and_w_as_llama_cpp_computes_it(to_gguf, weights):
    model, _ = load_llava(weights / "llava")
    values, tensors = read_gguf(to_gguf() / "mmproj.gguf")
    stored = {name: tensor.read() for name, tensor in tensors.items()}
    tower, vision = model.vision_tower, model.config.vision
    assert torch.equal(stored["v.position_embd.weight"], tower.embeddings.position_embedding.weight)
    assert torch.equal(stored["v.class_embd"], tower.embeddings.class_embedding)
    assert torch.equal(stored["v.blk.1.ffn_down.weight"], tower.layers[1].mlp.fc2.weight)
    assert torch.equal(stored["v.blk.0.attn_q.weight"], tower.layers[0].self_attn.q_proj.weight)  # not interleaved
    assert "v.post_ln.weight" not in stored and len(stored) == 2 + 1 + 2 + 16 * vision.num_layers + 4
    assert values["clip.vision.block_count"] == vision.num_layers and values["clip.projector_type"] == "mlp"
    assert values["clip.has_vision_encoder"] is True and values["clip.use_gelu"] is False
    seen = torch.randn(7, vision.hidden_size)
    for kind in ("none", "tanh"):  # llama.cpp's GELU is the tanh one
        inner = F.gelu(F.linear(seen, stored["mm.0.weight"], stored["mm.0.bias"]), approximate=kind)
        made = F.linear(inner, stored["mm.2.weight"], stored["mm.2.bias"])
        torch.testing.assert_close(made, model.projector(seen), atol=1e-6, rtol=1e-6)


def test_the_work_around_rolls_the_position_table_and_nothing_else(to_gguf):
    plain, rolled = (
        read_gguf(to_gguf(*more, name=f"g{len(more)}") / "mmproj.gguf")[1] for more in ((), ("--roll-positions",))
    )
    moved = {name for name in plain if not torch.equal(plain[name].read(), rolled[name].read())}
    assert moved == {"v.position_embd.weight"}
    table = rolled["v.position_embd.weight"].read()
    assert torch.equal(torch.cat([table[-1:], table[:-1]]), plain["v.position_embd.weight"].read())


def test_of_the_two_files_none_is_written_if_one_cannot_be(weights, tmp_path, capsys, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setattr(gguf_write, "vision_tensors", lambda *_: {"mm.0.weight": torch.full((2, 2), 1e6)})
    args = weights / "llava", "--to", "gguf", "--out", tmp_path / "out"
    status, _, err = export(capsys, *args, "--dtype", "float16")
    assert status == 2 and "take --dtype float32" in err and not any((tmp_path / "out").iterdir())
    assert export(capsys, *args)[0] == 0


def test_gguf_is_asked_for_by_name_where_it_is_missing(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    status, _, err = export(capsys, weights / "llava", "--to", "gguf", "--out", tmp_path / "out")
    assert status == 2 and "pip install" in err and "gguf" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "args, said",
    [(("gguf", "--dtype", "bfloat16"), "--dtype bfloat16"), (("hf", "--roll-positions"), "--roll-positions"),
     (("peft", "--dtype", "float16"), "--dtype float16"), (("peft", "--template", "chat"), "--template"), (("hf", "--template", "plain"), "plain")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(weights, tmp_path, capsys, args, said):
    status, _, err = export(capsys, weights / "llava", "--out", tmp_path / "out", "--to", *args)
    assert status == 2 and said in err and not (tmp_path / "out").exists()


def test_what_llama_cpp_cannot_compute_is_refused(weights):
    config, how = load_llava(weights / "llava")[0].config, read_preparation(weights / "vision_tower", 96)
    with pytest.raises(CheckpointError, match="layer -1"):
        gguf_write.vision_values(replace(config, select_layer=-1), how)
    with pytest.raises(CheckpointError, match="stretched"):
        gguf_write.vision_values(config, replace(how, stretched=True))
    assert gguf_write.vision_values(replace(config, select_layer=-3), how)["clip.vision.block_count"] == 1
    tokenizer = load_tokenizer(weights / "llava")
    with pytest.raises(CheckpointError, match="'linear'"):
        gguf_write.language_values(replace(config.language, rope=Rope("linear", 2.0, 1024)), tokenizer, CHAT)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(CheckpointError, match="in none of the ways"):
        gguf_write.tokenizer_values(tokenizer, config.language.vocab_size)


# PEFT


@pytest.fixture
def trained(weights, tmp_path):
    """A run as `minillava train --lora 3` leaves it."""
    model = load_llava(weights / "llava")[0]
    lora.add(model, 3)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in lora.adapters(model).values():
            tensor.normal_(std=0.1)
    out = tmp_path / "run"
    shutil.copytree(weights / "llava", out / "model")
    lora.save_adapters(model, out / "stage2" / "adapter.safetensors")
    write_checked(out / "stage2" / "done.json", {"base": {"language model": str(weights / "language_model")}})
    lora.merge(model)
    return out, model.language_model


def test_the_adapter_over_its_language_model_is_the_trained_one(trained, weights, tmp_path, capsys):
    out, merged = trained
    status, said, _ = export(capsys, out / "model", "--to", "peft", "--out", tmp_path / "peft")
    assert status == 0 and "--to hf" in said
    config, tensors = (
        read(tmp_path / "peft/adapter_config.json"),
        load_file(tmp_path / "peft/adapter_model.safetensors"),
    )
    assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == str(weights / "language_model")
    base = load_language(config["base_model_name_or_path"]).state_dict()
    changed = 0
    for name, tensor in merged.state_dict().items():
        matrix, key = name.removesuffix(".weight"), f"base_model.model.model.{name.removesuffix('.weight')}.lora_"
        added = 0.0
        if matrix.split(".")[-1] in config["target_modules"]:
            added = config["lora_alpha"] / config["r"] * tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]
            changed += 1
        torch.testing.assert_close(tensor, base[name] + added, atol=1e-6, rtol=1e-5)
    assert len(tensors) == 2 * changed == 2 * 2 * 7


def test_the_folder_that_one_is_in_has_its_adapter_too(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(trained[0] / "model")
    status, _, err = export(capsys, ".", "--to", "peft", "--out", tmp_path / "peft")
    assert status == 0, err


def test_the_folder_around_a_model_names_the_model(trained, tmp_path, capsys):
    status, _, err = export(capsys, trained[0], "--to", "hf", "--out", tmp_path / "hf")
    assert status == 2 and f"take {trained[0] / 'model'}" in err and "Errno" not in err


def test_a_model_without_lora_says_so_and_what_to_do(trained, weights, tmp_path, capsys):
    status, _, err = export(capsys, weights / "llava", "--to", "peft", "--out", tmp_path / "peft")
    assert status == 2 and "no LoRA was trained here" in err and "--lora" in err and "--to hf" in err
    out, _ = trained
    write_checked(out / "stage2" / "done.json", {"base": {"weights": "runs/first/model"}})
    status, _, err = export(capsys, out / "model", "--to", "peft", "--out", tmp_path / "peft")
    assert status == 2 and "began from runs/first/model" in err and "--to hf" in err
    assert not (tmp_path / "peft").exists()
