"""Words about a picture from a cold process: what ``model.caption`` says, without importing transformers.

Importing transformers takes longer than captioning a photo. For woven models whose language model
:mod:`weft.decoder` knows, :class:`Quick` reads the same files, runs the same connector and fusion layers, and searches
as :mod:`weft.search` does for every model of that kind. :func:`quick` hands on None for every other model, which is
then loaded as usual; the tests hold the two to the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from weft.batch import arrange
from weft.decoder import Decoder, is_plain
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.images import picture_name
from weft.memory import Memory, Placement
from weft.namers import OWN, load_namer
from weft.names import speller, with_names
from weft.packed_part import packed_decoder
from weft.packed_weave import PackedWeave
from weft.packing import NATIVE
from weft.parts import ENCODERS, LANGUAGE_MODEL, WEIGHTS, resolve_named
from weft.pieces import whole
from weft.plain import changes_words
from weft.rendering import about_a_picture, arranged, render
from weft.rows import Weaves
from weft.search import Prompt, search
from weft.tasks import LONGEST, Caption
from weft.tensor_file import file_identity
from weft.weaving import Weave, WeaveConfig
from weft.whole_files import read_fields, read_tensors

Template = Callable[[list[dict[str, str]]], str]
"""What makes a text of messages."""


def quick(folder: Path) -> Quick | None:
    """A woven model for words about pictures; None where it may be more than this module knows: no plain decoder, set
    to generate in ways of its own, with several weaves, or with a chat template that asks for much.

    Args:
        folder: what ``save_pretrained`` wrote.

    Raises:
        PartError: a frozen part can't be found, or is not the right one; or a file is damaged.
    """
    files = [folder / name for name in ("config.json", "processor_config.json", WEIGHTS)]
    if not all(file.is_file() for file in files):
        return None
    config, processor = (read_fields(file, "copy the folder again.") for file in files[:2])
    text = config.get("text_config") or {}
    if not is_plain(text) or text["model_type"] != "llama":  # whose tokenizer transformers takes from its file as it is
        return None
    if len(config.get("weaves", {})) != 1 or config.get("adapters") or not isinstance(text["eos_token_id"], int):
        return None
    if next(iter(config["weaves"].values())).get("labels", {}).get("id", OWN) != OWN:
        return None
    part = resolve_named(folder / LANGUAGE_MODEL, config["language_model"], "language model", folder).path
    needed = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", WEIGHTS)
    if not all((part / name).is_file() for name in needed) or not _generates_plainly(part, text["eos_token_id"]):
        return None
    template = _template(part)
    if template is None:
        return None
    return Quick(folder, config, processor, part, template)


def _generates_plainly(part: Path, end: int) -> bool:
    """Whether a language model's own settings for generation leave the words as they are, and one token ends them."""
    file = part / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return not changes_words(settings) and settings.get("eos_token_id", end) == end


class Quick:
    """A woven model that captions and titles one picture at a time.

    Args:
        folder: what ``save_pretrained`` wrote.
        config: its ``config.json``.
        processor: its ``processor_config.json``.
        part: the folder of its language model.
        template: its chat template.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], processor: dict[str, Any], part: Path, template: Template
    ) -> None:
        from tokenizers import Tokenizer

        (name, fields), dtype = next(iter(config["weaves"].items())), getattr(torch, config["dtype"])
        if dtype == torch.bfloat16 and not NATIVE:
            dtype = torch.float32
        self.text = config["text_config"]
        identity = config["language_model"].get("sha256")
        file = part / WEIGHTS
        packed = packed_decoder(file, file_identity(file, identity), self.text) if identity else None
        self.decoder = packed or Decoder(self.text, {key: t.to(dtype) for key, t in load_file(file).items()})
        self.tokenizer = Tokenizer.from_file(str(part / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.template = template
        self.system_prompt = processor["system_prompt"]
        encoder = resolve_named(folder / ENCODERS / name, fields["encoder"], f"encoder of the weave {name!r}", folder)
        self.encoder: VisionEncoder = load_vision_encoder(encoder)
        self.weave = Weave(name, WeaveConfig(**fields))
        learned = read_tensors(folder / WEIGHTS, "copy the folder again.").items()
        own = {key.removeprefix(f"weaves.{name}."): tensor.to(dtype) for key, tensor in learned}
        self.weave.load_state_dict(own, assign=True)
        packs = self.decoder.quantize is not None
        self.weaves: Weaves = {name: PackedWeave(self.weave.eval()) if packs else self.weave.eval()}

    @torch.inference_mode()
    def say(self, picture: Any, instruction: str, *, beams: int = 3) -> Caption:
        """Follow an instruction about a picture, as :meth:`weft.tasks.Tasks.say` does.

        Raises:
            PictureError: the picture can't be read.
        """
        read = self.weave.read(self._encoded(picture))
        messages = arranged(about_a_picture(instruction), self.weave.config.placed)
        rendered = render(messages, self.template, self.system_prompt)
        encoded = self.tokenizer.encode(rendered.text, add_special_tokens=False)
        column = rendered.columns([begin for begin, _ in encoded.offsets])[0]
        placed = arrange(read, Placement.of([[(0, column)]]), self.weave.config.sees)
        assert placed is not None
        prompt, ends = Prompt(encoded.ids, (placed,)), {self.text["eos_token_id"]}
        (found,) = search(self.decoder, self.weaves, [prompt], beams=beams, longest=LONGEST, ends=ends)
        return Caption(whole(self.tokenizer.decode(list(found.tokens))).strip(), picture_name(picture), found.total)

    def _encoded(self, picture: Any) -> Memory:
        """A picture's memory, with the names of what it shows if the weave reads names."""
        memory = self.encoder.encode([picture])
        if not self.weave.config.labels:
            return memory
        found = load_namer(OWN, self.encoder).name(memory.features, (), ())
        spell = speller(lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids)
        return with_names(memory, found, spell, lambda ids: F.embedding(ids, self.decoder.embeddings))


def _template(part: Path) -> Template | None:
    """The chat template of a tokenizer, as a function of messages that ends where the assistant is to speak.

    None where it uses what is transformers' own.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    settings = json.loads((part / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {name: value for name, value in settings.items() if name.endswith("_token")}
    if not all(isinstance(value, (str, type(None))) for value in special.values()):
        return None
    special |= {"tools": None, "documents": None}

    def apply(messages: list[dict[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **special)

    try:
        template = environment.from_string((part / "chat_template.jinja").read_text(encoding="utf-8"))
        apply([{"role": "system", "content": ""}, {"role": "user", "content": "?"}])
    except TemplateError:
        return None
    return apply
