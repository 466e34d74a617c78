"""The woven layers against their formula, written out in NumPy from the weights alone."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from weft.fusion import Connector, GatedCrossAttention, Resampler
from weft.memory import KeyValues

pytestmark = pytest.mark.usefixtures("on_device")

WIDTH, MEMORY, HEADS, HEAD_DIM = 24, 10, 4, 6
Arrays = dict[str, np.ndarray]


Layer = TypeVar("Layer", bound=nn.Module)


def opened(layer: Layer) -> Layer:
    """The layer as it might be after training: no parameter at its start, no gate at one."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return layer


def fusion_layer(
    *, kv_heads: int = 2, feed_forward: int = 16, qk_norm: bool = True, dropout: float = 0.0
) -> GatedCrossAttention:
    return GatedCrossAttention(
        WIDTH,
        MEMORY,
        heads=HEADS,
        kv_heads=kv_heads,
        head_dim=HEAD_DIM,
        feed_forward=feed_forward,
        qk_norm=qk_norm,
        dropout=dropout,
    )


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def weights_of(module: nn.Module) -> Arrays:
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def normalized(x: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return x if weight is None else x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def feed_forward(x: np.ndarray, w: Arrays, prefix: str = "feed_forward.") -> np.ndarray:
    gate = x @ w[f"{prefix}gate_proj.weight"].T
    return (gate / (1 + np.exp(-gate)) * (x @ w[f"{prefix}up_proj.weight"].T)) @ w[f"{prefix}down_proj.weight"].T


def softmax_over(similarities: np.ndarray, visible: np.ndarray) -> np.ndarray:
    weights = np.exp(similarities) * visible
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def fused(layer: GatedCrossAttention, hidden: Tensor, memory: Tensor, visible: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The formula of a fusion layer, head by head, and the weights with which it looks ``[G, heads, T, N]``."""
    w, h, x, seen = weights_of(layer), hidden.double().numpy(), memory.double().numpy(), visible.numpy()
    queries = normalized(h, w["hidden_norm.weight"]) @ w["q_proj.weight"].T
    x = normalized(x, w["memory_norm.weight"])
    keys, values = x @ w["k_proj.weight"].T, x @ w["v_proj.weight"].T
    group = HEADS * HEAD_DIM // keys.shape[-1]
    found, looked = [], []
    for head in range(HEADS):
        own = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        shared = slice(head // group * HEAD_DIM, (head // group + 1) * HEAD_DIM)
        query = normalized(queries[..., own], w.get("q_norm.weight"))
        key = normalized(keys[..., shared], w.get("k_norm.weight"))
        looked.append(softmax_over(query @ key.swapaxes(-1, -2) / math.sqrt(HEAD_DIM), seen))
        found.append(looked[-1] @ values[..., shared])
    result = h + w["attention_gate"] * (np.concatenate(found, -1) @ w["o_proj.weight"].T)
    if "feed_forward_gate" in w:
        result = result + w["feed_forward_gate"] * feed_forward(normalized(result, w["feed_forward_norm.weight"]), w)
    return np.where(seen.any(-1, keepdims=True), result, h), np.stack(looked, 1)


def assert_near(actual: Tensor, expected: np.ndarray) -> None:
    # Values are of size one, widths at most 24: float32 differs from float64 by some 1e-6.
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("feed_forward", [0, 16])
def test_new_layer_is_the_identity_bit_for_bit(feed_forward: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = fusion_layer(feed_forward=feed_forward).to(dtype)
    hidden = torch.randn(3, 5, WIDTH).to(dtype) * 100
    assert torch.equal(layer(hidden, layer.read(torch.randn(3, 7, MEMORY).to(dtype))), hidden)


@settings(deadline=None, max_examples=50)
@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    feed_forward=st.sampled_from([0, 16]),
    qk_norm=st.booleans(),
    masks=st.sampled_from(["none", "memory", "visible", "both"]),
    rows=st.integers(1, 3),
    texts=st.integers(1, 5),
    tokens=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_layer_is_its_formula_and_shows_the_weights_it_looks_with(
    kv_heads: int, feed_forward: int, qk_norm: bool, masks: str, rows: int, texts: int, tokens: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = opened(fusion_layer(kv_heads=kv_heads, feed_forward=feed_forward, qk_norm=qk_norm))
    hidden, memory = torch.randn(rows, texts, WIDTH), torch.randn(rows, tokens, MEMORY)
    real = torch.rand(rows, tokens) < 0.7 if masks in ("memory", "both") else None
    visible = torch.rand(rows, texts, tokens) < 0.6 if masks in ("visible", "both") else None
    both = torch.ones(rows, texts, tokens, dtype=torch.bool)
    for mask in (None if real is None else real[:, None], visible):
        both = both if mask is None else both & mask

    read = layer.read(memory, real)
    expected, expected_weights = fused(layer, hidden, memory, both)
    weights = layer.weights(hidden, read, visible)
    assert_near(layer(hidden, read, visible), expected)
    assert_near(weights, expected_weights)
    torch.testing.assert_close(weights.sum(-1), both.any(-1)[:, None].expand(-1, HEADS, -1).float())


def test_weights_are_those_that_forward_looks_with() -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer(feed_forward=0))
    hidden, read = torch.randn(2, 5, WIDTH), layer.read(torch.randn(2, 7, MEMORY))
    looked = layer.weights(hidden, read) @ read.values.repeat_interleave(2, 1)
    update = layer.attention_gate * layer.o_proj(looked.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(hidden, read), hidden + update, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", [0.3, -40.0, math.inf, math.nan])
def test_token_that_sees_nothing_is_unchanged_bit_for_bit_at_any_gate(gate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer())
    with torch.no_grad():
        layer.attention_gate.fill_(gate)
        layer.feed_forward_gate.fill_(gate)
    layer = layer.to(dtype)
    hidden, memory = torch.randn(3, 5, WIDTH).to(dtype), torch.randn(3, 7, MEMORY).to(dtype)
    visible = torch.rand(3, 5, 7) < 0.8
    visible[1], visible[2, :2] = False, False  # a row without memory; a text that begins before its memory
    fused = layer(hidden, layer.read(memory), visible)
    assert torch.equal(fused[1], hidden[1]) and torch.equal(fused[2, :2], hidden[2, :2])
    assert not torch.equal(fused[0], hidden[0])

    own_mask = torch.ones(3, 7, dtype=torch.bool)
    own_mask[1] = False
    assert torch.equal(layer(hidden, layer.read(memory, own_mask))[1], hidden[1])


def test_row_does_not_change_with_the_rows_beside_it() -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer())
    hidden, memory, visible = torch.randn(3, 5, WIDTH), torch.randn(3, 7, MEMORY), torch.rand(3, 5, 7) < 0.5
    together = layer(hidden, layer.read(memory), visible)
    alone = layer(hidden[1:2], layer.read(memory[1:2]), visible[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_memory_read_once_serves_every_text_and_is_projected_no_more() -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer())
    memory, hidden = torch.randn(1, 7, MEMORY), torch.randn(1, 5, WIDTH)
    read = layer.read(memory)
    assert read.keys.shape == read.values.shape == (1, 2, 7, HEAD_DIM)

    def refuse(*_: object) -> None:
        raise AssertionError("the memory was projected again")

    for name in ("k_proj", "v_proj", "memory_norm", "k_norm"):
        layer.get_submodule(name).register_forward_pre_hook(refuse)
    whole = layer(hidden, read)
    by_token = torch.cat([layer(hidden[:, t : t + 1], read) for t in range(5)], 1)
    torch.testing.assert_close(whole, by_token, rtol=0, atol=1e-5)
    beams = KeyValues(read.keys.expand(3, -1, -1, -1), read.values.expand(3, -1, -1, -1))
    torch.testing.assert_close(layer(hidden.expand(3, -1, -1), beams), whole.expand(3, -1, -1), rtol=0, atol=1e-5)


def test_masked_memory_tokens_make_no_difference() -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer())
    hidden, memory, real = torch.randn(2, 5, WIDTH), torch.randn(2, 7, MEMORY), torch.arange(7).expand(2, -1) < 4
    padded = layer(hidden, layer.read(torch.where(real[..., None], memory, 1000.0), real))
    torch.testing.assert_close(padded, layer(hidden, layer.read(memory[:, :4])), rtol=0, atol=1e-5)


def test_every_parameter_has_a_gradient_after_one_step_and_none_is_infinite() -> None:
    torch.manual_seed(0)
    layer = fusion_layer()
    hidden, memory, goal = torch.randn(3, 5, WIDTH), torch.randn(3, 7, MEMORY), torch.randn(3, 5, WIDTH)
    visible = torch.rand(3, 5, 7) < 0.5
    visible[0] = False
    losses = []
    for step in range(3):
        loss = (layer(hidden, layer.read(memory), visible) - goal).square().mean()
        losses.append(loss.item())
        parameters = dict(layer.named_parameters())
        for name, gradient in gradients(layer, loss).items():
            assert gradient.isfinite().all(), name
            assert step == 0 or gradient.any(), name
            parameters[name].data -= 0.1 * gradient
    assert losses[0] > losses[1] > losses[2]


def test_dropout_acts_while_training_only() -> None:
    torch.manual_seed(0)
    layer = opened(fusion_layer(dropout=0.5))
    hidden, read = torch.randn(1, 5, WIDTH), layer.read(torch.randn(1, 7, MEMORY))
    assert not torch.equal(layer(hidden, read), layer(hidden, read))
    assert torch.equal(layer.eval()(hidden, read), layer(hidden, read))


def test_heads_that_can_not_be_shared_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="4 query heads can't share 3 key/value heads"):
        fusion_layer(kv_heads=3)
    with pytest.raises(ValueError, match="width of 10 can't be split into 4 heads"):
        Connector(6, 10, layers=1, heads=4)


@pytest.mark.parametrize("tokens", [1, 4, 9])
@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("length", [1, 4, 50])
def test_resampler_hands_on_the_same_number_of_tokens_for_any_length(length: int, items: int, tokens: int) -> None:
    resampler = Resampler(MEMORY, tokens=tokens, heads=2)
    assert resampler(torch.randn(items, length, MEMORY)).shape == (items, tokens, MEMORY)


def test_resampler_does_not_see_padding_nor_the_items_beside() -> None:
    torch.manual_seed(0)
    resampler = Resampler(MEMORY, tokens=4, heads=2)
    short, long = torch.randn(1, 5, MEMORY), torch.randn(1, 8, MEMORY)
    padded = torch.cat([short, torch.full((1, 3, MEMORY), 1000.0)], 1)
    real = torch.arange(8) < torch.tensor([[5], [8]])
    both = resampler(torch.cat([padded, long]), real)
    torch.testing.assert_close(both[:1], resampler(short), rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1:], resampler(long), rtol=0, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_resampler_of_an_item_without_tokens_is_finite_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    resampler = Resampler(MEMORY, tokens=4, heads=2)
    real = torch.tensor([[True] * 6, [False] * 6])
    result = resampler(torch.randn(2, 6, MEMORY), real)
    torch.testing.assert_close(result[1], resampler.norm(resampler.queries))
    for name, gradient in gradients(resampler, (result * torch.randn_like(result)).sum()).items():
        assert gradient.isfinite().all() and gradient.any(), name


def test_connector_is_its_formula() -> None:
    torch.manual_seed(0)
    connector = opened(Connector(MEMORY, WIDTH, tokens=7, layers=1, heads=HEADS, feed_forward=16))
    features, real = torch.randn(3, 7, MEMORY), torch.rand(3, 7) < 0.7
    real[2] = False
    w = weights_of(connector)
    x = normalized(features.double().numpy(), w["norm.weight"]) @ w["proj.weight"].T + w["positions"]
    width = WIDTH // HEADS
    query, key, value = np.split(normalized(x, w["layers.0.norm.weight"]) @ w["layers.0.qkv_proj.weight"].T, 3, -1)
    found = []
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        similarities = query[..., own] @ key[..., own].swapaxes(-1, -2) / math.sqrt(width)
        found.append(softmax_over(similarities, real[:, None].numpy()) @ value[..., own])
    x = x + np.concatenate(found, -1) @ w["layers.0.o_proj.weight"].T
    x = x + feed_forward(normalized(x, w["layers.0.feed_forward_norm.weight"]), w, "layers.0.feed_forward.")
    assert_near(connector(features, real), x)


def test_connector_without_positions_takes_items_of_any_length_and_ignores_padding() -> None:
    torch.manual_seed(0)
    connector = Connector(MEMORY, WIDTH, layers=2, heads=HEADS)
    features = torch.randn(2, 9, MEMORY)
    real = torch.arange(9).expand(2, -1) < 6
    padded = connector(torch.where(real[..., None], features, 1000.0), real)
    torch.testing.assert_close(padded[:, :6], connector(features[:, :6]), rtol=0, atol=1e-5)


def test_connector_tells_tokens_their_place() -> None:
    torch.manual_seed(0)
    alike = torch.ones(1, 7, MEMORY)
    placed = Connector(MEMORY, WIDTH, tokens=7)(alike)
    assert not torch.allclose(placed[:, 0], placed[:, 1], atol=1e-4)
    nowhere = Connector(MEMORY, WIDTH)(alike)
    torch.testing.assert_close(nowhere[:, 0], nowhere[:, 1])


def test_connector_refuses_items_of_another_length_than_its_positions() -> None:
    with pytest.raises(ValueError, match="knows 7 positions and was given items of 9 tokens"):
        Connector(MEMORY, WIDTH, tokens=7)(torch.randn(1, 9, MEMORY))


def test_connector_learns_through_every_parameter() -> None:
    torch.manual_seed(0)
    connector = Connector(MEMORY, WIDTH, tokens=7, layers=2, heads=HEADS)
    result = connector(torch.randn(2, 7, MEMORY), torch.tensor([[True] * 7, [False] * 7]))
    for name, gradient in gradients(connector, (result * torch.randn_like(result)).sum()).items():
        assert gradient.isfinite().all() and gradient.any(), name
