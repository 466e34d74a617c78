"""A device that is pretended, so that a machine without a GPU finds what a GPU would refuse.

Its tensors hold their values on the CPU and say that they are elsewhere. An operation that is given some of them beside
tensors of the CPU raises what CUDA raises; values come back by ``.cpu()``, ``.item()`` and ``.tolist()`` alone.
Importing this module makes the device known to PyTorch, by the name ``pretended``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
_ON_CPU = {"device": torch.device("cpu"), "pin_memory": False}
_MAY_MIX = {
    aten._to_copy.default,
    aten.copy_.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""Operations that take tensors of two devices on a GPU as well: copies, and those that index by positions."""


class Pretended(Tensor):
    """A tensor of the pretended device.

    Args:
        inner: its values, on the CPU.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="pretended:0",
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert pretended:0 device type tensor to numpy; use Tensor.cpu() first")

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        return tensor(data, **{"dtype": self.dtype, "device": self.device, **options})


def _compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [one for one in tensors if isinstance(one, Pretended)]
    here = [one for one in tensors if not isinstance(one, Pretended) and one.ndim]
    if there and here and func not in _MAY_MIX:
        shapes = ", ".join(str(tuple(one.shape)) for one in here)
        raise RuntimeError(f"Expected all tensors to be on the same device; {func} was given some on cpu: {shapes}")
    if func is aten._fused_sdp_choice.default:
        return 0  # plain attention: what a CPU fuses, no other device has
    device = torch.device(kwargs.get("device") or (there[0].device if there else "cpu"))
    kwargs = {**kwargs, **{name: value for name, value in _ON_CPU.items() if name in kwargs}}
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if device.type == "cpu":
        return found
    known = {id(one.inner): one for one in there}

    def outer(one: Any) -> Any:
        """What was written to in place is the tensor that was given."""
        return known.get(id(one), Pretended(one)) if isinstance(one, Tensor) else one

    return tree_map(outer, found)


def _inner(one: Any) -> Any:
    return one.inner if isinstance(one, Pretended) else one


_tensor = torch.tensor


def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    """``torch.tensor``, which by itself can't make one of a device that is written in Python."""
    made = _tensor(data, **options)
    return made if device is None else made.to(device)


class _Backend(_DummyBackendModule):
    """What PyTorch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretended", _Backend())
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda func, *args, **kwargs: _compute(func, args, kwargs), "PrivateUse1")
torch.tensor = tensor  # type: ignore[assignment]
torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc]  # tensors of this kind are none for inference
torch.__future__.set_overwrite_module_params_on_conversion(True)  # a tensor's data can't be exchanged from outside
