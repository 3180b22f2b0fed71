"""Against the support of the gradient, against coordinates carried as data, against published receptive fields."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mechinterp.receptive_field import following

ROUNDING = 1e-9  # steps of a third of a pixel are no floating-point numbers

LAYERS = st.one_of(
    st.tuples(st.just("conv"), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    st.tuples(st.just("pool"), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1)),
    st.tuples(st.just("residual"), st.sampled_from([1, 3, 5])),
    st.tuples(st.just("branches"), st.sampled_from([1, 3]), st.sampled_from([3, 5])),
    st.tuples(st.just("pad"), st.integers(0, 2), st.integers(0, 2)),
)


class Residual(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, kernel, padding=kernel // 2)

    def forward(self, x):
        return x + F.relu(self.conv(x), inplace=True)


class Branches(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 1, (a, 1), padding=(a // 2, 0)), nn.Conv2d(2, 1, (1, b), padding=(0, b // 2))

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], dim=1)


def layer_of(kind, *numbers):
    match kind:
        case "conv":
            kernel, stride, padding, dilation = numbers
            return nn.Conv2d(2, 2, (kernel, 3), stride=(stride, 1), padding=(padding, 1), dilation=(dilation, 1))
        case "pool":
            kernel, stride, padding = numbers
            return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2))
        case "residual":
            return Residual(*numbers)
        case "branches":
            return Branches(*numbers)
        case "pad":
            return nn.ZeroPad2d((numbers[0], numbers[1], numbers[1], numbers[0]))


def positive(module):
    """Make every weight positive, so that no path to a pixel cancels another."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_().add_(0.1)
    return module.double()


def supports(module, x, rows, columns):
    """Return what every cell of a map truly sees: the pixels that its value's gradient reaches, cell × row × column."""
    x = x.expand(rows * columns, *x.shape[1:]).clone().requires_grad_()
    y = module(x).sum(1).flatten(1)
    y.diagonal().sum().backward()
    return (x.grad != 0).any(1)


def bounding_box(seen):
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


def laid_out(module, x):
    with following(x) as fields:
        y = module(x)
        return y, fields.laid_out(y)


def check_against_gradient(module, x, exact):
    try:
        y, laid = laid_out(module, x)
    except RuntimeError:
        return  # the map became smaller than a kernel
    assert laid is not None
    assert laid.layout == "map"
    assert (laid.grid.rows, laid.grid.columns) == tuple(y.shape[2:])
    height, width = x.shape[2:]
    seen = supports(module, x, laid.grid.rows, laid.grid.columns)
    for cell, (top, left, bottom, right) in enumerate(laid.grid.boxes().tolist()):
        if not seen[cell].any():
            continue  # nothing but padding
        true = bounding_box(seen[cell])
        assert top <= true[0] + ROUNDING
        assert left <= true[1] + ROUNDING
        assert bottom >= true[2] - ROUNDING
        assert right >= true[3] - ROUNDING
        # at the edges a box may hold a pixel that no window reaches; inside it is the very support
        if exact and top >= 0 and left >= 0 and bottom <= height and right <= width:
            assert [top, left, bottom, right] == true


@settings(max_examples=25, deadline=None)
@given(layers=st.lists(LAYERS, min_size=1, max_size=4))
def test_a_cell_sees_what_its_gradient_reaches(layers):
    torch.manual_seed(0)
    module = positive(nn.Sequential(*(layer_of(*layer) for layer in layers)))
    check_against_gradient(module, torch.rand(1, 2, 11, 9, dtype=torch.float64), exact=True)


RESAMPLING = {
    "nearest": nn.Upsample(scale_factor=2),
    "nearest to a size": nn.Upsample(size=(13, 9)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear, corners": nn.Upsample(size=(13, 11), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "shrunk by nearest": nn.Upsample(size=(5, 4)),
    "adaptive mean, divisible": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive mean, not divisible": nn.AdaptiveAvgPool2d((5, 3)),
    "transposed convolution": nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1),
    "transposed convolution with output padding": nn.ConvTranspose2d(2, 2, 4, stride=3, padding=1, output_padding=1),
    "reflection": nn.ReflectionPad2d(2),
    "replication": nn.ReplicationPad2d((1, 2, 0, 3)),
    "pixel unshuffle": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 1)),
    "pixel shuffle": nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2)),
    "larger and smaller again": nn.Sequential(nn.Upsample(scale_factor=3), nn.Conv2d(2, 2, 3), nn.AvgPool2d(3)),
}


@pytest.mark.parametrize("name", RESAMPLING)
def test_a_box_holds_all_that_a_resampled_cell_sees(name):
    torch.manual_seed(0)
    module = positive(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), RESAMPLING[name], nn.Conv2d(2, 2, 3, padding=1)))
    check_against_gradient(module, torch.rand(1, 2, 8, 8, dtype=torch.float64), exact=False)


def test_antialiased_shrinking_is_covered_too():
    class Shrink(nn.Module):
        def forward(self, x):
            return F.interpolate(x, size=(4, 5), mode="bilinear", antialias=True)

    check_against_gradient(Shrink(), torch.rand(1, 2, 20, 15, dtype=torch.float64), exact=False)


def test_max_pooling_sees_its_window():
    _, laid = laid_out(nn.MaxPool2d(3, 2, 1, ceil_mode=True), torch.rand(1, 2, 10, 10))
    assert laid.grid.extent == (3, 3)
    assert laid.grid.stride == (2, 2)
    assert laid.grid.first_centre == (0.5, 0.5)


def mobilenet():
    import timm

    return timm.create_model("mobilenetv1_100", num_classes=0, global_pool="")


def torchvision_features(name):
    import torchvision

    return (
        getattr(torchvision.models, name)(init_weights=False).features
        if name != "alexnet"
        else torchvision.models.alexnet().features
    )


@pytest.mark.parametrize(
    ("build", "extent"),
    [(lambda: torchvision_features("alexnet"), 195), (lambda: torchvision_features("vgg16"), 212), (mobilenet, 315)],
    ids=["alexnet", "vgg16", "mobilenet"],
)
def test_published_receptive_fields_are_found(build, extent):
    # Araujo, Norris, Sim, Computing Receptive Fields of Convolutional Neural Networks, table of models
    _, laid = laid_out(build().eval(), torch.rand(1, 3, 96, 128))
    assert laid.grid.extent == (extent, extent)
    assert laid.grid.stride == (32, 32)


# --- volumes ----------------------------------------------------------------------------------------------------

LAYERS_3D = st.one_of(
    st.tuples(st.just(nn.Conv3d), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1)),
    st.tuples(st.just(nn.AvgPool3d), st.integers(1, 3), st.integers(1, 2), st.just(0)),
    st.tuples(st.just(nn.ZeroPad3d), st.integers(0, 1), st.integers(0, 2), st.integers(0, 1)),
)


def layer_3d(kind, a, b, c):
    if kind is nn.Conv3d:  # another stride along each axis
        return nn.Conv3d(2, 2, (a, 3, 2), stride=(b, 1, 2), padding=(min(c, a - 1), 1, 0))
    return nn.AvgPool3d((a, 1, 2), (b, 1, 1)) if kind is nn.AvgPool3d else nn.ZeroPad3d((a, b, c, 0, 0, a))


def check_volume_against_gradient(module, x, exact):
    try:
        y, laid = laid_out(module, x)
    except RuntimeError:
        return  # the map became smaller than a kernel
    assert laid is not None
    assert (laid.layout, laid.grid.shape) == ("map", tuple(y.shape[2:]))
    x = x.expand(laid.grid.cells, *x.shape[1:]).clone().requires_grad_()
    module(x).sum(1).flatten(1).diagonal().sum().backward()
    for seen, box in zip((x.grad != 0).any(1), laid.grid.boxes(), strict=True):
        at = seen.nonzero().numpy()
        if not len(at):
            continue  # nothing but padding
        assert (box[:3] <= at.min(0) + ROUNDING).all()
        assert (box[3:] >= at.max(0) + 1 - ROUNDING).all()
        if exact and (box[:3] >= 0).all() and (box[3:] <= x.shape[2:]).all():
            assert box.tolist() == [*at.min(0), *(at.max(0) + 1)]


@settings(max_examples=12, deadline=None)
@given(layers=st.lists(LAYERS_3D, min_size=1, max_size=3))
def test_a_cell_of_a_volume_sees_what_its_gradient_reaches(layers):
    torch.manual_seed(0)
    module = positive(nn.Sequential(*(layer_3d(*layer) for layer in layers)))
    check_volume_against_gradient(module, torch.rand(1, 2, 6, 5, 8, dtype=torch.float64), exact=True)


@pytest.mark.parametrize(
    "module",
    [
        nn.Upsample(scale_factor=2), nn.Upsample(size=(5, 7, 6), mode="trilinear"), nn.AdaptiveAvgPool3d((2, 3, 4)),
        nn.MaxPool3d(2, 2), nn.ConvTranspose3d(2, 2, 2, stride=2), nn.ReflectionPad3d(1), nn.ReplicationPad3d((1, 0, 2, 0, 0, 1)),
        nn.AdaptiveMaxPool3d(2),
    ],
    ids=repr,
)  # fmt: skip
def test_resampling_of_a_volume_never_claims_too_little(module):
    torch.manual_seed(0)
    check_volume_against_gradient(module.double(), torch.rand(1, 2, 4, 6, 6, dtype=torch.float64), exact=False)


def test_tokens_of_a_volume_lie_slice_by_slice():
    x = torch.rand(2, 1, 8, 12, 4)
    with following(x) as fields:
        patches = nn.Conv3d(1, 6, 4, stride=4)(x).flatten(2).transpose(1, 2)
        laid = fields.laid_out(torch.cat([torch.zeros(2, 1, 6), patches], dim=1))
        assert (laid.layout, laid.prefix, laid.grid.shape) == ("tokens", 1, (2, 3, 1))
        assert fields.laid_out(x.movedim(1, -1)).layout == "channels_last"
        assert fields.laid_out(x.mean(2)) is None  # a picture of a volume has no depth to lie along


@pytest.mark.parametrize("cells", [(1, 3), (3, 1), (1, 1), (1, 1, 3), (2, 1, 3), (2, 3, 1), (1, 3, 1), (3, 1, 1)])
def test_a_grid_of_one_cell_along_an_axis_is_a_grid(cells):
    image = torch.rand(2, 1, *(4 * n for n in cells))
    conv = nn.Conv2d if len(cells) == 2 else nn.Conv3d
    with following(image) as fields:
        tokens = conv(1, 6, 4, stride=4)(image).flatten(2).transpose(1, 2)
        cls = torch.zeros(2, 1, 6)
        for found, prefix in (
            (tokens, 0),
            (torch.cat([cls, tokens], dim=1), 1),
            (torch.cat([cls, tokens], 1)[:, 1:], 0),
        ):
            laid = fields.laid_out(found)
            if cells == (1, 1):
                assert laid is None or laid.grid.cells == 1
                continue
            assert (laid.layout, laid.prefix, laid.grid.shape) == ("tokens", prefix, cells)
            assert laid.grid.first_centre == (2,) * len(cells)
        back = fields.laid_out(tokens.transpose(1, 2).reshape(2, 6, *cells))
        assert back is None or (back.layout, back.grid.shape) == ("map", cells)
        pooled = conv(1, 6, 4, stride=4)(image).mean(tuple(range(2, 2 + len(cells)))).flatten(1)
        assert not fields.misplaced(pooled)


# --- where cells lie, whatever order their axes have ------------------------------------------------------------


def coordinates(rows, columns):
    """Return an image whose values are 100 times the row plus the column, so that every entry says where it is from."""
    return (100.0 * torch.arange(rows)[:, None] + torch.arange(columns)).expand(2, 1, rows, columns).clone()


@pytest.mark.parametrize(
    ("rearrange", "layout"),
    [
        (lambda x: x.permute(0, 2, 3, 1), "channels_last"),
        (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 1).view(2, 12, 8, 1), "channels_last"),
        (lambda x: x.flatten(2).transpose(1, 2), "tokens"),
        (lambda x: x.flatten(2).transpose(1, 2).reshape(2, 12, 8, 1).permute(0, 3, 1, 2), "map"),
        (lambda x: x[:, :, 2:10, 1::2], "map"),
        (lambda x: torch.stack([x, x], dim=1).flatten(1, 2), "map"),
        (lambda x: torch.cat([t * 1 for t in x.chunk(1, dim=1)], dim=1), "map"),
        (lambda x: x.squeeze(1).unsqueeze(-1).expand(2, 12, 8, 5), "channels_last"),
        (lambda x: x.repeat(1, 3, 1, 1), "map"),
        (lambda x: x.unbind(1)[0].unflatten(2, (4, 2)).flatten(2).unsqueeze(1), "map"),
        (lambda x: torch.zeros_like(x).copy_(x), "map"),
        (lambda x: x.view(2, 3, 4, 4, 2).transpose(2, 3).transpose(2, 3).reshape(2, 1, 12, 8), "map"),
        (lambda x: x.split([1], dim=1)[0].contiguous(memory_format=torch.channels_last), "map"),
    ],
)
def test_rearranged_cells_keep_their_places(rearrange, layout):
    x = coordinates(12, 8)
    with following(x) as fields:
        y = rearrange(x)
        laid = fields.laid_out(y)
    assert laid.layout == layout
    values = {"map": lambda t: t[0, 0], "channels_last": lambda t: t[0, :, :, 0], "tokens": lambda t: t[0, :, 0]}
    places = torch.stack([values[layout](y).flatten() // 100, values[layout](y).flatten() % 100], dim=1).double()
    boxes = torch.from_numpy(laid.grid.boxes())
    assert (boxes[:, :2] <= places).all()
    assert (places + 1 <= boxes[:, 2:]).all()
    if layout == "tokens" or y.numel() == x.numel():
        assert torch.from_numpy(laid.grid.centres()).equal(places + 0.5)


def test_patches_by_reshape_are_patches():
    x = coordinates(12, 8)
    with following(x) as fields:
        patches = x.view(2, 1, 3, 4, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 12, 8)
        laid = fields.laid_out(patches)
    assert laid.layout == "tokens"
    assert (laid.grid.rows, laid.grid.columns, laid.grid.stride, laid.grid.extent) == (3, 4, (4, 2), (4, 2))
    assert laid.grid.first_centre == (2, 1)


def test_windows_are_misplaced_until_they_are_put_back():
    x = torch.rand(2, 3, 8, 12)
    with following(x) as fields:
        windows = x.permute(0, 2, 3, 1).view(2, 2, 4, 3, 4, 3).permute(0, 1, 3, 2, 4, 5).reshape(12, 16, 3)
        assert fields.laid_out(windows) is None
        assert fields.misplaced(windows)
        mixed = windows @ torch.rand(3, 5)
        back = mixed.view(2, 2, 3, 4, 4, 5).permute(0, 1, 3, 2, 4, 5).reshape(2, 8, 12, 5)
        laid = fields.laid_out(back)
    # the order inside a window is not followed: a cell may be anywhere in it, and its box says so
    assert (laid.layout, laid.grid.rows, laid.grid.columns, laid.grid.stride) == ("channels_last", 8, 12, (1, 1))
    boxes = laid.grid.boxes()
    for cell in range(96):
        row, column = divmod(cell, 12)
        top, left = row // 4 * 4, column // 4 * 4
        assert boxes[cell, 0] <= top
        assert boxes[cell, 1] <= left
        assert boxes[cell, 2] >= top + 4
        assert boxes[cell, 3] >= left + 4


def test_tokens_in_front_of_the_patches_are_a_prefix():
    x = torch.rand(2, 3, 32, 48)
    embed = nn.Conv2d(3, 6, 16, stride=16)
    with following(x) as fields:
        patches = embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros(2, 1, 6), torch.zeros(2, 4, 6), patches], dim=1)
        laid = fields.laid_out(tokens)
        assert (laid.prefix, laid.grid.rows, laid.grid.columns) == (5, 2, 3)
        assert fields.laid_out(tokens[:, 1:]).prefix == 4
        assert fields.laid_out(tokens[:, 5:]).prefix == 0
        assert fields.laid_out(tokens[:, 6:]) is None  # patches are cut off: no rectangle is left
        assert fields.laid_out(tokens[:, :5]) is None
        again = torch.cat([tokens[:, :5], torch.sin(tokens[:, 5:])], dim=1)
        assert fields.laid_out(again).prefix == 5
        assert fields.laid_out(torch.cat([patches, torch.zeros(2, 1, 6)], dim=1)) is None
        assert fields.laid_out(nn.LayerNorm(6)(tokens)).prefix == 5


def test_channels_last_input_is_read_as_it_is_fed():
    x = torch.rand(1, 20, 30, 3)
    with following(x, "NHWC") as fields:
        y = nn.Conv2d(3, 4, 3)(x.permute(0, 3, 1, 2))
        assert fields.laid_out(y).grid.extent == (3, 3)
        assert (fields.laid_out(y).grid.rows, fields.laid_out(y).grid.columns) == (18, 28)


# --- what mixes over the whole image ----------------------------------------------------------------------------


class Gated(nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Attentive(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        scores = (tokens @ tokens.transpose(1, 2)).softmax(-1)
        return (x.flatten(2).transpose(1, 2) + scores @ tokens).transpose(1, 2).reshape(x.shape)


class Fused(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).squeeze(1).transpose(1, 2).reshape(x.shape)


class Rolled(nn.Module):
    def forward(self, x):
        return x.roll((1, 2), dims=(2, 3))


class Accumulated(nn.Module):
    def forward(self, x):
        return x.cumsum(2).cumsum(3)


@pytest.mark.parametrize(
    "module",
    [Gated(), Attentive(), Fused(), Rolled(), Accumulated(), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2)],
    ids=repr,
)
def test_a_cell_that_saw_the_whole_image_says_so_and_keeps_its_place(module):
    x = torch.rand(2, 2, 10, 12)
    _, laid = laid_out(nn.Sequential(nn.AvgPool2d(2), module), x)
    assert laid.grid.stride == (2, 2)
    assert laid.grid.first_centre == (1, 1)
    boxes = laid.grid.boxes()
    assert (boxes[:, :2] <= 0).all()
    assert (boxes[:, 2:] >= [10, 12]).all()


def test_norms_over_channels_do_not_widen():
    class ChannelNorm(nn.Module):
        def forward(self, x):
            return F.layer_norm(x.permute(0, 2, 3, 1), (2,)).permute(0, 3, 1, 2)

    for module in (nn.BatchNorm2d(2).eval(), ChannelNorm(), nn.Dropout(0.5).eval(), nn.Softmax(1)):
        assert laid_out(module, torch.rand(1, 2, 6, 6))[1].grid.extent == (1, 1)


def test_batch_norm_in_training_sees_everything():
    assert laid_out(nn.BatchNorm2d(2).train(), torch.rand(2, 2, 6, 6))[1].grid.extent == (12, 12)


def test_tokens_keep_the_place_of_their_patch_through_attention():
    x = torch.rand(1, 3, 16, 16)
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    with following(x) as fields:
        tokens = nn.Conv2d(3, 4, 4, stride=4)(x).flatten(2).transpose(1, 2)
        mixed = attention(tokens, tokens, tokens, need_weights=False)[0]
        for t in (mixed, tokens + mixed):
            assert fields.laid_out(t).grid.extent == (4, 4)
            assert fields.geometry(t).everywhere == {0, 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.fft.rfft2(x).real,
        lambda x: x.sort(dim=2)[0],
        lambda x: x.flip(2),
        lambda x: x[:, :, torch.tensor([3, 1, 0])],
        lambda x: x.flatten(2) @ torch.rand(64, 64),
        lambda x: F.linear(x, torch.rand(5, 8)),
        lambda x: F.unfold(x, 3),
    ],
)
def test_what_is_not_understood_is_claimed_to_have_no_place(function):
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        y = function(x)
        assert fields.laid_out(y) is None
        assert fields.geometry(y).axes == {0, 1} or fields.geometry(y).axes == {1} | fields.geometry(y).axes


def test_reduced_axes_are_seen_everywhere():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        for y in (x.mean(), x.amax((2, 3)), x.max(dim=3)[0], x.var(dim=(2, 3)), x.flatten(1).norm(dim=1)):
            assert fields.laid_out(y) is None
        assert fields.geometry(x.sum(3)).everywhere == {1}


# --- writes in place --------------------------------------------------------------------------------------------


def test_a_tensor_filled_by_parts_claims_no_place():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        canvas = torch.zeros(1, 2, 8, 8)
        canvas[:, :, :, 4:] = x[:, :, :, :4]
        assert fields.seen(canvas) is not None
        assert fields.laid_out(canvas) is None
        assert fields.laid_out(canvas + 1) is None


def test_activations_in_place_change_no_place():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        y = nn.Conv2d(2, 2, 3)(x)
        before = fields.laid_out(y)
        z = F.relu(y, inplace=True)
        assert z is y
        assert fields.laid_out(z) == before
        y += F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 5, 1)
        assert fields.laid_out(y).grid.extent == (5, 5)


def test_a_view_written_through_another_claims_no_place():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        y = x * 1
        flat = y.view(-1)
        flat += x.sum()
        assert fields.laid_out(y) is None
        assert fields.seen(y).geometry.axes == {0, 1}


def test_what_does_not_depend_on_the_image_is_not_followed():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        assert fields.seen(torch.rand(3) + 1) is None
        assert fields.geometry(torch.zeros(2)) is None
        assert not fields.misplaced(torch.zeros(1, 2, 3, 4))
        assert fields.laid_out(torch.zeros(1, 2, 3, 4)) is None
        assert fields.geometry(torch.zeros_like(x)).axes == frozenset()


# --- what everything flows through ------------------------------------------------------------------------------


def test_a_mark_is_carried_only_by_what_cannot_go_around_it():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        a = x * 2
        fields.mark(a, 0)
        branch = a.relu()
        fields.mark(branch, 1)
        joined = a + branch
        fields.mark(joined, 2)
        after = joined.mean((2, 3))
        assert fields.seen(after).passed == 0b101
        assert fields.seen(branch).passed == 0b011
        fields.mark(torch.zeros(1), 5)  # nothing to mark: it does not depend on the image


def test_the_last_operator_that_computes_is_known_through_views():
    x = torch.rand(1, 2, 8, 8)
    with following(x) as fields:
        assert fields.seen(x.flatten(1).softmax(-1).view(1, 2, 64)).maker == "_softmax"
        assert fields.seen(x.sigmoid().detach()).maker == "sigmoid"


def test_arguments_in_unusual_places_claim_no_place():
    x = torch.rand(2, 3, 8, 8)
    with following(x) as fields:
        assert fields.laid_out(torch.maximum(x, x * 2)).grid.cells == 64
        assert fields.geometry(torch.addmm(x[0, 0], x[0, 1], x[0, 2])).axes == {0, 1}
        assert fields.laid_out(x.mT) is None  # columns before rows are no grid
        assert fields.laid_out(F.conv2d(torch.ones(1, 3, 9, 9), x[:1, :, :3, :3])) is None  # the image as the kernel
        assert fields.laid_out(x.repeat(1, 1, 2, 1)) is None
        assert fields.laid_out(x.repeat(3, 1, 1, 1, 1)[0]) is None
        assert fields.laid_out(x.view(torch.int32).view(torch.float32)).grid.cells == 64
        assert fields.geometry(x.view(torch.float16)).axes == {0, 1}
