"""Attention against its formula in NumPy and against PyTorch's own kernel.

Inputs are at most 3 in size and 16 wide, which bounds the errors, and tolerances are absolute, so that neither side is
favoured. In float32 a similarity is at most 36 and off by 36 · 2⁻²³, so a result of size 3 is off by about 1e-5. In
bfloat16 the kernel rounds scores and results to 2⁻⁸ of their size, 3 · 2⁻⁸ each, together 3 · 2⁻⁷.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from devices import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from weft.attention import Attention, CoAttention, CrossAttention, attention, scores, similarities, weighted_values

pytestmark = pytest.mark.usefixtures("on_device")

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3 * 2**-7}
quickly = settings(deadline=None, max_examples=60)


@dataclass
class Case:
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None


@st.composite
def cases(draw: Any, dtype: torch.dtype = torch.float32) -> Case:
    """Queries, keys and values with up to two leading dimensions, and a mask that broadcasts to the scores' shape."""
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    d_k, d_v = draw(st.integers(1, 16)), draw(st.integers(1, 16))
    generator = torch.Generator(DEVICE).manual_seed(draw(st.integers(0, 2**32)))

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).clamp(-3, 3).to(dtype)

    mask = None
    if draw(st.booleans()):
        shape = [draw(st.sampled_from([1, size])) for size in (*lead, rows, columns)]
        shape = shape[draw(st.integers(0, len(shape) - 1)) :]
        mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return Case(some(*lead, rows, d_k), some(*lead, columns, d_k), some(*lead, columns, d_v), mask)


def formula(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """``softmax(Q Kᵀ / √d_k) V`` and the softmax, in float64, with zeros for a row that may look at nothing."""
    q, k, v = (x.double().numpy() for x in (query, key, value))
    weights = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    if mask is not None:
        weights = weights * mask.numpy()
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return weights @ v, weights


def assert_near(actual: Tensor, expected: Tensor | np.ndarray, tolerance: float) -> None:
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance)


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


@pytest.mark.parametrize("dtype", TOLERANCE)
@quickly
@given(data=st.data())
def test_attention_is_its_formula(dtype: torch.dtype, data: Any) -> None:
    case = data.draw(cases(dtype))
    found = attention(case.query, case.key, case.value, case.mask)
    assert found.dtype == dtype
    assert_near(found, formula(case.query, case.key, case.value, case.mask)[0], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@quickly
@given(data=st.data())
def test_attention_is_pytorchs_where_every_query_sees_something(dtype: torch.dtype, data: Any) -> None:
    case = data.draw(cases(dtype))
    query, key, value, mask = case.query, case.key, case.value, case.mask
    full = None
    if mask is not None:
        mask[..., 0] = True
        full = mask.broadcast_to(*query.shape[:-1], key.shape[-2])
    expected = F.scaled_dot_product_attention(query, key, value, full)
    assert_near(attention(query, key, value, mask), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@quickly
@given(data=st.data())
def test_path_with_weights_equals_the_fused_path_and_its_weights_the_formula(dtype: torch.dtype, data: Any) -> None:
    case = data.draw(cases(dtype))
    found, weights = attention(case.query, case.key, case.value, case.mask, need_weights=True)
    assert found.dtype == dtype and weights.dtype == torch.float32
    assert_near(found, attention(case.query, case.key, case.value, case.mask), TOLERANCE[dtype])
    assert_near(weights, formula(case.query, case.key, case.value, case.mask)[1], TOLERANCE[torch.float32])


@quickly
@given(case=cases())
def test_three_steps_are_the_attention(case: Case) -> None:
    found = weighted_values(scores(similarities(case.query, case.key), case.mask), case.value)
    assert_near(found, attention(case.query, case.key, case.value, case.mask), TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("need_weights", [False, True])
@quickly
@given(data=st.data())
def test_query_that_sees_nothing_finds_exactly_zeros_and_gets_zero_gradients(
    need_weights: bool, dtype: torch.dtype, data: Any
) -> None:
    case = data.draw(cases(dtype).filter(lambda case: case.mask is not None))
    leaves = query, key, value = [tensor.requires_grad_() for tensor in (case.query, case.key, case.value)]
    with torch.autograd.set_detect_anomaly(True):  # no step on the way back may be NaN either
        found = attention(query, key, value, case.mask)
        result = attention(query, key, value, case.mask, need_weights=True) if need_weights else (found,)
        torch.stack([part.float().square().sum() for part in result]).sum().backward()
    blind = ~case.mask.any(-1).broadcast_to(query.shape[:-1])
    for part in result:
        assert not part[blind].any()
    gradients = [gradient_of(leaf) for leaf in leaves]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][blind].any()


@pytest.mark.parametrize("need_weights", [False, True])
def test_gradients_are_those_of_finite_differences_blind_rows_included(need_weights: bool) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(2, rows, 3, dtype=torch.double, requires_grad=True) for rows in (3, 4, 4)]
    mask = torch.rand(2, 3, 4) < 0.5
    mask[0, 1] = False

    def found(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if need_weights:
            return attention(query, key, value, mask, need_weights=True)[0]
        return attention(query, key, value, mask)

    assert torch.autograd.gradcheck(found, leaves)


@pytest.mark.parametrize("need_weights", [False, True])
def test_memory_without_tokens_is_seen_as_nothing(need_weights: bool) -> None:
    query, key, value = torch.randn(2, 3, 4), torch.randn(2, 0, 4), torch.randn(2, 0, 5)
    for mask in (None, torch.ones(2, 3, 0, dtype=torch.bool)):
        shown, _ = attention(query, key, value, mask, need_weights=True)
        found = shown if need_weights else attention(query, key, value, mask)
        assert torch.equal(found, torch.zeros(2, 3, 5))


@quickly
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    batch=st.sampled_from([(), (2,), (1, 2)]),
    masked=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 2**32),
)
def test_neighbouring_query_heads_share_a_key_value_head(
    kv_heads: int, group: int, batch: tuple[int, ...], masked: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    heads = kv_heads * group
    query, key, value = (
        torch.randn(*batch, *shape, generator=generator).clamp(-3, 3).to(dtype)
        for shape in ((heads, 4, 8), (kv_heads, 5, 8), (kv_heads, 5, 6))
    )
    mask = torch.rand(*batch, heads, 4, 5, generator=generator) < 0.5 if masked else None
    found = attention(query, key, value, mask)
    explicit, weights = attention(query, key, value, mask, need_weights=True)
    assert weights.shape == (*batch, heads, 4, 5)
    for head in range(heads):
        shared = head // group
        alone = None if mask is None else mask[..., head, :, :]
        expected, _ = formula(query[..., head, :, :], key[..., shared, :, :], value[..., shared, :, :], alone)
        assert_near(found[..., head, :, :], expected, TOLERANCE[dtype])
        assert_near(explicit[..., head, :, :], expected, TOLERANCE[dtype])


def test_compiled_for_keys_of_any_number_under_a_mask_of_one_width() -> None:
    """Compiled again for other numbers of keys, the number is a symbol while the mask's width is still a number."""
    torch.compiler.reset()
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    query = torch.randn(2, 4, 7, 8)
    for tokens in (5, 6):
        compiled(query, *[torch.randn(2, 4, tokens, 8)] * 2)
    key, mask = torch.randn(2, 4, 9, 8), torch.rand(2, 1, 7, 9) > 0.5
    torch.testing.assert_close(compiled(query, key, key, mask), attention(query, key, key, mask))


def test_leading_dimensions_broadcast() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(4, 1, 3, 8), torch.randn(5, 6, 8), torch.randn(6, 7)
    expected, _ = formula(query, key, value, None)
    assert expected.shape == (4, 5, 3, 7)
    assert_near(attention(query, key, value), expected, TOLERANCE[torch.float32])
    assert_near(attention(query, key, value, need_weights=True)[0], expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_drops_scores_and_keeps_their_mean(need_weights: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4).expand(20_000, 4), torch.randn(5, 4), torch.randn(5, 2)
    if need_weights:
        dropped, weights = attention(query, key, value, dropout=0.5, need_weights=True)
        torch.testing.assert_close(weights.sum(-1), torch.ones(20_000))  # what is shown is what it was before dropout
    else:
        dropped = attention(query, key, value, dropout=0.5)
    kept = attention(query, key, value)
    assert dropped.std(0).min() > 0.1
    # The mean of 20,000 draws with a deviation of at most 3 is off by 0.02 on average; five times that is never seen.
    assert_near(dropped.mean(0), kept[0], 0.1)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 4), (6, 3), (6, 2)), r"same width.*query \(5, 4\), key \(6, 3\), value \(6, 2\)"),
        (((5, 4), (6, 4), (7, 2)), r"one value for each key.*key \(6, 4\), value \(7, 2\)"),
        (((4,), (6, 4), (6, 2)), r"needs \[..., T, d_k\].*query \(4,\)"),
        (((3, 5, 4), (2, 6, 4), (2, 6, 2)), r"leading dimensions of query \(3, 5, 4\), key \(2, 6, 4\)"),
        (((4, 5, 4), (2, 6, 4), (4, 6, 2)), r"leading dimensions of query \(4, 5, 4\), key \(2, 6, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 6), (3, 5, 6), (4, 6)])
def test_mask_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    query, key, layer = torch.zeros(2, 5, 4), torch.zeros(2, 6, 4), Attention(4, 4, 4, heads=2)
    mask = torch.ones(shape, dtype=torch.bool)
    message = rf"mask of shape {shape} doesn't broadcast to \[..., T, N\] = \(2, 5, 6\)"
    message = message.replace(str(shape), "\\" + str(shape)[:-1] + r"\)")
    with pytest.raises(ValueError, match=message):
        attention(query, key, key, mask)
    with pytest.raises(ValueError, match=message):
        layer(query, key, key, mask)


def test_mask_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(5, 6\) is torch.float32; give booleans"):
        attention(torch.zeros(5, 4), torch.zeros(6, 4), torch.zeros(6, 4), torch.zeros(5, 6))


def projected(layer: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Multi-head attention head by head from the layer's weights, and the scores ``[..., heads, T, N]``."""
    parts = []
    for rows in zip(*(p.weight.chunk(layer.heads) for p in (layer.query, layer.key, layer.value)), strict=True):
        query, key, value = (x.double() @ weight.double().mT for x, weight in zip((q, k, v), rows, strict=True))
        parts.append(formula(query, key, value, mask))
    joined = np.concatenate([found for found, _ in parts], -1)
    return joined @ layer.output.weight.double().numpy().T, np.stack([weights for _, weights in parts], -3)


@quickly
@given(
    heads=st.sampled_from([1, 2, 4]),
    batch=st.sampled_from([(), (3,), (2, 3)]),
    mask_dimensions=st.integers(-1, 4),
    seed=st.integers(0, 2**32),
)
def test_attention_layer_is_multi_head_attention(
    heads: int, batch: tuple[int, ...], mask_dimensions: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = Attention(d_q=8, d_k=5, d_v=6, heads=heads, d_model=12, d_out=7)
    q, k, v = torch.randn(*batch, 3, 8), torch.randn(*batch, 4, 5), torch.randn(*batch, 4, 6)
    shape = (*batch, 3, 4)
    mask = torch.rand(shape[max(0, len(shape) - mask_dimensions) :]) < 0.5 if mask_dimensions > 0 else None
    with torch.no_grad():
        expected, expected_weights = projected(layer, q, k, v, mask)
        found, weights = layer(q, k, v, mask, need_weights=True)
        assert_near(layer(q, k, v, mask), expected, 1e-5)
    assert_near(found, expected, 1e-5)
    assert_near(weights, expected_weights, 1e-5)


def test_attention_layer_drops_while_training_only() -> None:
    torch.manual_seed(0)
    layer = Attention(8, 8, 8, heads=2, dropout=0.5)
    rows = torch.randn(2, 6, 8)
    assert not torch.equal(layer(rows, rows, rows), layer(rows, rows, rows))
    layer.eval()
    assert torch.equal(layer(rows, rows, rows), layer(rows, rows, rows))


def test_attention_layer_names_the_width_it_was_made_for() -> None:
    layer = Attention(8, 5, 6)
    with pytest.raises(ValueError, match=r"k has shape \(4, 6\), but this layer was made for \[..., rows, 5\]"):
        layer(torch.zeros(3, 8), torch.zeros(4, 6), torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"leading dimensions of q \(2, 3, 8\), k \(3, 4, 5\), v \(3, 4, 6\)"):
        layer(torch.zeros(2, 3, 8), torch.zeros(3, 4, 5), torch.zeros(3, 4, 6))
    with pytest.raises(ValueError, match="d_model=8 can't be split into heads=3"):
        Attention(8, 5, 6, heads=3)


def test_cross_attention_with_plain_projections_is_softmax_of_v_q_over_root_d_v_times_t() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(d_v=6, d_t=6)
    for parameter in layer.parameters():
        torch.nn.init.eye_(parameter)
    v, t, q = torch.randn(2, 9, 6), torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    assert_near(layer(v, t, q), formula(v, q, t, None)[0], TOLERANCE[torch.float32])
    assert_near(layer(v, t), formula(v, t, t, None)[0], TOLERANCE[torch.float32])


def test_cross_attention_is_attention_of_visual_rows_over_text() -> None:
    torch.manual_seed(0)
    layer, plain = CrossAttention(d_v=8, d_t=5, heads=4), Attention(8, 5, 5, heads=4)
    plain.load_state_dict(layer.attention.state_dict())
    v, t, q, mask = torch.randn(2, 9, 8), torch.randn(2, 4, 5), torch.randn(2, 4, 5), torch.rand(2, 9, 4) < 0.5
    mask[0, 3] = False
    found, weights = layer(v, t, q, mask, need_weights=True)
    assert torch.equal(found, plain(v, q, t, mask, need_weights=True)[0])
    assert found.shape == (2, 9, 5) and weights.shape == (2, 4, 9, 4)
    assert not found[0, 3].any()


def test_co_attention_is_attention_in_both_directions_under_one_mask() -> None:
    torch.manual_seed(0)
    layer = CoAttention(d_v=8, d_t=6, heads=2)
    v, t, mask = torch.randn(3, 9, 8), torch.randn(3, 4, 6), torch.rand(3, 4, 9) < 0.5
    mask[1, 2], mask[2, :, 5] = False, False  # a word that sees no patch, a patch that sees no word
    with torch.no_grad():
        seeing, reading = layer(v, t, mask)
        assert_near(seeing, projected(layer.text_to_image, t, v, v, mask)[0], 1e-5)
        assert_near(reading, projected(layer.image_to_text, v, t, t, mask.mT)[0], 1e-5)
        (seeing_again, words), (reading_again, patches) = layer(v, t, mask, need_weights=True)
        assert_near(words, projected(layer.text_to_image, t, v, v, mask)[1], 1e-5)
        assert_near(patches, projected(layer.image_to_text, v, t, t, mask.mT)[1], 1e-5)
    assert_near(seeing_again, seeing, 1e-5)
    assert_near(reading_again, reading, 1e-5)
    assert seeing.shape == t.shape and reading.shape == v.shape
    assert words.shape == (3, 2, 4, 9) and patches.shape == (3, 2, 9, 4)
    assert not seeing[1, 2].any() and not reading[2, 5].any()


def test_co_attention_takes_a_mask_of_patches_alone() -> None:
    torch.manual_seed(0)
    layer = CoAttention(d_v=8, d_t=6)
    v, t, real = torch.randn(3, 9, 8), torch.randn(3, 4, 6), torch.arange(9) < 7
    changed = torch.where(real[:, None], v, 100.0)
    for first, second in zip(layer(v, t, real), layer(changed, t, real), strict=True):
        visible = slice(None) if first.shape[1] == 4 else slice(0, 7)
        torch.testing.assert_close(first[:, visible], second[:, visible])


def test_layers_learn_through_every_parameter_with_blind_rows_in_the_batch() -> None:
    torch.manual_seed(0)
    layer = CoAttention(d_v=8, d_t=6, heads=2)
    mask = torch.rand(2, 4, 9) < 0.5
    mask[0], mask[1, 0] = False, False
    sum(part.square().sum() for part in layer(torch.randn(2, 9, 8), torch.randn(2, 4, 6), mask)).backward()
    for name, parameter in layer.named_parameters():
        assert gradient_of(parameter).isfinite().all() and gradient_of(parameter).any(), name
