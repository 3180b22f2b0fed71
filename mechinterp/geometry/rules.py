"""What every operator does to the places of its input's cells: which rule is for which ATen operator.

An operator without a rule is taken to mix everything, so that a wrong place is never claimed.
"""

from __future__ import annotations

import torch

from mechinterp.geometry import mixing, rearranging, windows
from mechinterp.geometry.call import Call, Rule
from mechinterp.geometry.spans import Geometry, size_of

_FAMILIES: tuple[tuple[Rule, str], ...] = (
    (mixing.elementwise, "clone _to_copy detach alias lift_fresh native_dropout hardswish _prelu_kernel tril triu"),
    (mixing.overwritten, "copy"),
    (
        mixing.independent,
        "zeros_like ones_like full_like empty_like rand_like randn_like new_empty new_zeros new_ones new_full fill zero",
    ),
    (mixing.batch_norm, "native_batch_norm _native_batch_norm_legit cudnn_batch_norm _batch_norm_with_update"),
    (mixing.elementwise, "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    (mixing.layer_norm, "native_layer_norm _fused_rms_norm"),
    (mixing.group_norm, "native_group_norm"),
    (
        mixing.mixing_along_dim,
        "_softmax _log_softmax cumsum cumprod logcumsumexp cummax cummin _safe_softmax",
    ),
    (mixing.rolled, "roll"),
    (
        mixing.reduced,
        "mean sum amax amin max min var std var_mean std_mean prod any all logsumexp linalg_vector_norm norm argmax argmin",
    ),
    (mixing.contraction, "mm bmm addmm baddbmm"),
    (mixing.attention, "_scaled_dot_product_attention_math"),
    (mixing.multi_head_attention, "_native_multi_head_attention _transformer_encoder_layer_fwd"),
    (windows.convolution, "convolution mkldnn_convolution cudnn_convolution"),
    (
        windows.pooling,
        "max_pool2d_with_indices max_pool3d_with_indices max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
        "mkldnn_max_pool2d mkldnn_max_pool3d",
    ),
    (
        windows.adaptive_pooling,
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d",
    ),
    (
        windows.nearest,
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_nearest_exact3d",
    ),
    (
        windows.interpolated,
        "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa",
    ),
    (
        windows.padded,
        "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
        "replication_pad3d",
    ),
    (rearranging.reshaped, "view _unsafe_view reshape _reshape_copy _reshape_alias view_copy unsqueeze squeeze"),
    (rearranging.restrided, "as_strided"),
    (rearranging.expanded, "expand"),
    (rearranging.repeated, "repeat"),
    (rearranging.permuted, "permute transpose t"),
    (rearranging.slicing, "slice"),
    (rearranging.selecting, "select unbind"),
    (rearranging.splitting, "split split_with_sizes unsafe_split unsafe_chunk"),
    (rearranging.concatenated, "cat"),
    (rearranging.stacked, "stack"),
    (rearranging.shuffled, "pixel_shuffle pixel_unshuffle"),
)


RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES for name in names.split()}


def geometry_after(call: Call, pointwise: bool) -> list[Geometry]:
    """Return the geometry of every output of a call with at least one argument that depends on the image."""
    rule = RULES.get(call.name)
    if rule is None and "scaled_dot_product" in call.name:
        rule = mixing.attention
    if rule is None and pointwise:
        rule = mixing.elementwise
    try:
        found = (rule or mixing.unknown)(call)
    except (KeyError, IndexError, TypeError, ValueError):
        found = mixing.unknown(call)  # an overload with other arguments than the rule was written for
    if isinstance(found, Geometry):
        # further outputs are statistics, indices or states of random numbers
        found = [found] + [found.lost(t.shape) for t in call.outputs[1:]]
    shapes = [tuple(size_of(dim) for dim in g.dims) for g in found]
    return found if shapes == [tuple(t.shape) for t in call.outputs] else mixing.unknown(call)


def is_pointwise(operator: torch._ops.OpOverload) -> bool:
    """Whether PyTorch itself marks an operator as working entry by entry."""
    return torch.Tag.pointwise in operator.tags
