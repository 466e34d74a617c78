"""Where patches are: a dot in a picture moves the patch under it most, whatever model and image processor are given."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
import transformers as T
from PIL import Image

from weft.encoders import encoder_from_model, load_vision_encoder
from weft.errors import PartError

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {**SMALL, "image_size": 48, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 99}
SQUARE, SHORT = {"height": 48, "width": 48}, {"shortest_edge": 48}
CROPPED = {"size": SHORT, "crop_size": SQUARE}
MAP = {"size": {"height": 128, "width": 128}}
BLOCKS = {"embed_dim": 8, "image_size": [64, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}


def auto(kind, **fields):
    return T.AutoModel.from_config(T.AutoConfig.for_model(kind, **fields))


def two(kind):
    return lambda: auto(kind, vision_config=PATCHES, text_config=TEXT)


def idefics3():
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

    return Idefics3VisionTransformer(T.AutoConfig.for_model("idefics3_vision", **PATCHES))


def sam():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8}
    return auto("sam_vision_model", **sizes, output_channels=16, mlp_dim=64, global_attn_indexes=[1], window_size=4)


FAMILIES = {
    "vit": (lambda: auto("vit", **PATCHES), lambda: T.ViTImageProcessorPil(size=SQUARE)),
    "vit of a rectangle": (
        lambda: auto("vit", **{**PATCHES, "image_size": [48, 64]}),
        lambda: T.ViTImageProcessorPil(size={"height": 48, "width": 64}),
    ),
    "internvit": (
        lambda: auto("internvl_vision", **{**PATCHES, "image_size": [48, 48], "patch_size": [8, 8]}),
        lambda: T.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True),
    ),
    "yolos": (
        lambda: auto("yolos", **{**PATCHES, "image_size": [48, 48]}, num_detection_tokens=10),
        lambda: T.ViTImageProcessorPil(size=SQUARE),
    ),
    "siglip2": (
        lambda: auto("siglip2", vision_config={**SMALL, "num_patches": 64, "patch_size": 8}, text_config=TEXT),
        lambda: T.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=40),
    ),
    "pixtral": (
        lambda: auto("pixtral", **PATCHES),
        lambda: T.PixtralImageProcessorPil(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8}),
    ),
    "idefics3": (
        idefics3,
        lambda: T.Idefics3ImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": 48}),
    ),
    "metaclip_2": (two("metaclip_2"), lambda: T.CLIPImageProcessorPil(**CROPPED)),
    "altclip": (two("altclip"), lambda: T.CLIPImageProcessorPil(**CROPPED)),
    "blip": (two("blip"), lambda: T.BlipImageProcessorPil(size=SQUARE)),
    "sam": (sam, lambda: T.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})),
    "hiera": (
        lambda: auto("hiera", **BLOCKS),
        lambda: T.BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
    ),
    "resnet, normalized twice": (
        lambda: auto("resnet", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1]),
        lambda: T.EfficientNetImageProcessorPil(size={"height": 64, "width": 64}, include_top=True),
    ),
    "resnet, blue first": (
        lambda: auto("resnet", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1]),
        lambda: T.MobileViTImageProcessorPil(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
    ),
    "pvt_v2": (
        lambda: auto("pvt_v2", hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]),
        lambda: T.PvtImageProcessorPil(**MAP),
    ),
}
SIZES = [(96, 64), (64, 96), (48, 48), (300, 120)]


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request):
    model, processor = FAMILIES[request.param]
    torch.manual_seed(0)
    return encoder_from_model(model().eval(), processor())


def noise(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(60, 196, (size[1], size[0], 3)).astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
def test_a_dot_moves_the_patch_under_it_most(encoder, size):
    """In the corners and near the middle; a patch that is somewhere else moves another."""
    picture, rectangles = noise(size), encoder.rectangles(size)
    plain = encoder.encode([picture]).features[0]
    rows, columns = encoder.grid
    for row, column in {(0, columns - 1), (rows - 1, 0), (rows // 2, columns // 3)}:
        place = row * columns + column
        dotted = picture.copy()
        left, top, right, bottom = rectangles[place]
        dotted.paste((255, 255, 255), (round(left + 1), round(top + 1), round(right - 1), round(bottom - 1)))
        moved = int((encoder.encode([dotted]).features[0] - plain).norm(dim=-1).argmax())
        if encoder.layout.kind == "tokens":
            assert moved == place
        else:  # random convolutions may favour a neighbour
            assert abs(moved // columns - row) <= 1 and abs(moved % columns - column) <= 1


@pytest.mark.parametrize("size", SIZES)
def test_rectangles_lie_in_the_picture_and_cover_its_middle(encoder, size):
    rectangles = encoder.rectangles(size)
    assert (rectangles[:, :2] >= -0.01).all()
    assert (rectangles[:, 2:] <= np.array(size) + 0.01).all()
    middle = np.array(size) / 2
    assert ((rectangles[:, :2] <= middle + 0.01) & (rectangles[:, 2:] >= middle - 0.01)).all(1).any()


def test_pictures_are_encoded_together_as_they_are_alone(encoder):
    pictures = [noise((90, 60)), noise((40, 70), 1), noise((50, 50), 2)]
    together = encoder.encode(pictures).features
    assert together.shape == (3, encoder.tokens, encoder.width)
    alone = torch.cat([encoder.encode([one]).features for one in pictures])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_saved_encoder_comes_back_the_same(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again, picture = load_vision_encoder(tmp_path), noise((80, 50))
    torch.testing.assert_close(again.encode([picture]).features, encoder.encode([picture]).features)
    np.testing.assert_allclose(again.rectangles((80, 50)), encoder.rectangles((80, 50)))


@pytest.mark.parametrize("name", ["DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast"])
def test_a_processor_that_needs_torchvision_is_made_from_its_settings(name, tmp_path):
    torch.manual_seed(0)
    auto("dinov3_vit", **PATCHES, num_register_tokens=4).save_pretrained(tmp_path)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    settings = {"image_processor_type": name, "size": SQUARE, "do_resize": True, "resample": 2, "do_rescale": True}
    settings |= {"do_normalize": True, "image_mean": mean, "image_std": std, "do_center_crop": None, "crop_size": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    made = load_vision_encoder(tmp_path)
    assert made.grid == (6, 6) and made.prefix == 5
    white = made.pixels(Image.new("RGB", (50, 60), "white"))
    torch.testing.assert_close(white[:, 3, 3], torch.tensor([(1 - m) / s for m, s in zip(mean, std, strict=True)]))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "do_something_else": True}))
    with pytest.raises(PartError, match=name):
        load_vision_encoder(tmp_path)


def test_a_model_in_memory_gets_a_processor_from_its_configuration():
    with pytest.warns(UserWarning, match="48 by 48 pixels"):
        made = load_vision_encoder(auto("clip_vision_model", **PATCHES))
    usual = T.CLIPImageProcessorPil()
    assert list(made.processor.image_mean) == list(usual.image_mean) and made.grid == (6, 6)
    np.testing.assert_allclose(made.rectangles((96, 60))[-1], [80, 50, 96, 60])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flexible = load_vision_encoder(auto("siglip2_vision_model", **SMALL, num_patches=36, patch_size=8))
    assert flexible.grid == (6, 6)


def test_a_model_whose_size_of_pictures_is_not_known_needs_a_processor():
    with pytest.raises(PartError, match="ResNetModel comes without an image processor"):
        load_vision_encoder(auto("resnet", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1]))


def test_models_that_hide_patches_are_refused():
    with pytest.raises(PartError, match=r"ViTMAEModel gives other patches of a picture each time"):
        encoder_from_model(auto("vit_mae", **PATCHES).eval(), T.ViTImageProcessorPil(size=SQUARE))


class Shuffled(torch.nn.Module):
    """A model that hands on its patches in an order of its own."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype

    def forward(self, pixel_values):
        output = self.model(pixel_values=pixel_values)
        output.last_hidden_state = output.last_hidden_state[:, torch.randperm(37, generator=torch.manual_seed(3))]
        return output


def test_patches_out_of_order_are_refused():
    torch.manual_seed(0)
    with pytest.raises(PartError, match="do not answer to what lies in their places"):
        encoder_from_model(Shuffled(auto("vit", **PATCHES).eval()), T.ViTImageProcessorPil(size=SQUARE))


class Mirroring(T.ViTImageProcessorPil):
    """A processor that mirrors every picture."""

    def __call__(self, images, **options):
        return super().__call__(images=images.transpose(Image.Transpose.FLIP_LEFT_RIGHT), **options)


def test_a_processor_that_turns_pictures_is_refused():
    with pytest.raises(PartError, match="turns or bends pictures"):
        encoder_from_model(auto("vit", **PATCHES).eval(), Mirroring(size=SQUARE))
