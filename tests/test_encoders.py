"""Vision encoders: features of real classes of transformers, and where in a picture each came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    Siglip2ImageProcessorPil,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from weft.encoders import EfficientNetLite2, encoder_from_model, load_vision_encoder
from weft.errors import PartError
from weft.parts import locate

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {**SMALL, "image_size": 48, "patch_size": 8}
SQUARE, SHORT = {"height": 48, "width": 48}, {"shortest_edge": 48}
DINO = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
CROPPED = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}

FAMILIES = {
    "vit": (lambda: ViTModel(ViTConfig(**PATCHES)), lambda: ViTImageProcessorPil(size=SQUARE), (6, 6)),
    "clip": (
        lambda: CLIPModel(CLIPConfig(vision_config=PATCHES, text_config=SMALL)),
        lambda: CLIPImageProcessorPil(size=SHORT, crop_size=SQUARE),
        (6, 6),
    ),
    "siglip": (
        lambda: SiglipVisionModel(SiglipVisionConfig(**PATCHES)),
        lambda: SiglipImageProcessorPil(size=SQUARE),
        (6, 6),
    ),
    "siglip2": (
        lambda: Siglip2VisionModel(Siglip2VisionConfig(**SMALL, num_patches=36, patch_size=8)),
        lambda: Siglip2ImageProcessorPil(patch_size=8, max_num_patches=36),
        (6, 6),
    ),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**DINO)), lambda: BitImageProcessorPil(**CROPPED), (4, 4)),
    "dinov2_registers": (
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINO)),
        lambda: BitImageProcessorPil(**CROPPED),
        (4, 4),
    ),
    "swin": (
        lambda: SwinModel(
            SwinConfig(embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=64, patch_size=4)
        ),
        lambda: ViTImageProcessorPil(size={"height": 64, "width": 64}),
        (8, 8),
    ),
    "convnext": (
        lambda: ConvNextModel(ConvNextConfig(depths=[1, 1], hidden_sizes=[16, 32], num_stages=2)),
        lambda: ConvNextImageProcessorPil(size={"shortest_edge": 64}),
        (8, 8),
    ),
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])),
        lambda: ConvNextImageProcessorPil(size={"shortest_edge": 64}),
        (8, 8),
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    model, processor, grid = FAMILIES[request.param]
    torch.manual_seed(0)
    return encoder_from_model(model().eval(), processor()), grid


def test_each_picture_gives_one_feature_a_patch(family):
    encoder, grid = family
    noise = Image.effect_noise((90, 60), 60)
    memory = encoder.encode([noise, Image.new("RGB", (30, 70))])
    assert encoder.grid == grid
    assert memory.features.shape == (2, grid[0] * grid[1], encoder.width)
    assert torch.isfinite(memory.features).all()
    assert [source.size for source in memory.sources] == [(90, 60), (30, 70)]
    assert not memory.features.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (300, 200)])
def test_rectangles_are_where_the_patches_pixels_came_from(family, size):
    """A white square moves over a black picture; the prepared pixels that light up must lie in its patches."""
    encoder, (rows, columns) = family
    rectangles = encoder.rectangles(size)
    side = min(size) // 5
    for left, top in ((size[0] // 2 - side, size[1] // 2 - side), (size[0] // 2, size[1] // 2 - side // 2)):
        picture = Image.new("RGB", size)
        dark = encoder.pixels(picture)
        picture.paste("white", (left, top, left + side, top + side))
        lit = (encoder.pixels(picture) - dark).abs()
        if lit.ndim == 2:  # patches cut already
            lit = lit.mean(1)
        else:
            lit = lit.mean(0).unfold(0, lit.shape[1] // rows, lit.shape[1] // rows)
            lit = lit.unfold(1, lit.shape[1] // columns, lit.shape[1] // columns).mean((2, 3)).flatten()
        lit = lit.numpy() / lit.max().item()
        covered = np.array(
            [
                max(0, min(r, left + side) - max(x, left))
                * max(0, min(b, top + side) - max(y, top))
                / ((r - x) * (b - y))
                for x, y, r, b in rectangles
            ]
        )
        assert np.abs(lit - covered / covered.max()).max() < 0.25
        assert np.corrcoef(lit, covered)[0, 1] > 0.97


def test_same_picture_has_the_same_key_and_another_has_another(family):
    encoder, _ = family
    picture = Image.effect_noise((50, 50), 60)
    assert encoder.encode([picture]).key == encoder.encode([picture.copy()]).key
    assert encoder.encode([picture]).key != encoder.encode([Image.new("RGB", (50, 50))]).key


def test_saved_encoder_comes_back_the_same(family, tmp_path):
    encoder, _ = family
    encoder.save_pretrained(tmp_path)
    again = load_vision_encoder(tmp_path)
    picture = Image.effect_noise((80, 50), 60)
    torch.testing.assert_close(again.encode([picture]).features, encoder.encode([picture]).features)
    assert len(again.sha256) == 64


def test_model_without_patches_is_refused():
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**SMALL, vocab_size=50))
    with pytest.raises(PartError, match="does not take pictures"):
        encoder_from_model(model, ViTImageProcessorPil(size=SQUARE))


def test_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(PartError, match=r"config\.json is missing"):
        load_vision_encoder(tmp_path)


@pytest.fixture(scope="module")
def efficientnet():
    if locate("efficientnet-lite2") is None:
        pytest.skip("the encoder is not here; run `weft pull`")
    return load_vision_encoder("efficientnet-lite2")


def test_efficientnet_gives_eighty_one_patches_of_the_whole_picture(efficientnet):
    memory = efficientnet.encode([Image.effect_noise((90, 60), 60)])
    assert isinstance(efficientnet, EfficientNetLite2)
    assert memory.features.shape == (1, 81, 1280)
    rectangles = memory.sources[0].rectangles
    np.testing.assert_allclose(rectangles[0], [0, 0, 10, 60 / 9])
    np.testing.assert_allclose(rectangles[-1], [80, 60 - 60 / 9, 90, 60])


def test_efficientnet_agrees_with_its_own_package(efficientnet):
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite2").eval()
    reference.load_state_dict(efficientnet.model.state_dict())
    pixels = efficientnet.pixels(Image.effect_noise((90, 60), 60).convert("RGB"))[None]
    with torch.no_grad():
        expected = reference.extract_features(pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(efficientnet(pixels), expected, rtol=1e-3, atol=1e-3)
