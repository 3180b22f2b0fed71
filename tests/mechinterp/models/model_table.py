"""Every source × family, what is checked of it, and the table of it in docs/models.md.

``python tests/mechinterp/models/model_table.py`` runs every row and writes the table anew; ``test_model_table.py`` runs each row and
compares it with what is written there.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mechinterp.capturing import run_with_cache
from mechinterp.interventions import add, intervene
from mechinterp.models import load_model
from mechinterp.models.vision_model import VisionModel
from mechinterp.sites import Site

DOCS = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEADER = "| source | family | model | sites, named | deepest grid | grids checked on |\n|---|---|---|---|---|---|"
TOLERANCE = 1e-5
SMALL = "num_hidden_layers=2&hidden_size=48&num_attention_heads=4&intermediate_size=96&input_size=64"
SMALL_DINO = "num_hidden_layers=2&hidden_size=48&num_attention_heads=4&input_size=64&patch_size=16"
SMALL_MONAI = "hidden_size=48&num_heads=4&num_layers=2&mlp_dim=96&patch_size=8"
SMALL_SWIN = "input_size=64&embed_dim=24&depths=1,1,2&num_heads=2,4,4&window_size=4"


@dataclass(frozen=True)
class Entry:
    """One row: a family as one source has it. `quick` ones run in the default suite."""

    family: str
    spec: str
    quick: bool = False
    write: Callable[[Path], str] | None = None

    @property
    def source(self) -> str:
        return self.spec.partition(":")[0]

    def load(self, folder: Path) -> VisionModel:
        model = load_model(self.spec, "random") if self.write is None else load_model(self.write(folder))
        generator = torch.Generator().manual_seed(1)
        for parameter in model.module.parameters():  # a branch or head that begins as zero would agree with anything
            if not parameter.any():
                parameter.data.normal_(std=0.5, generator=generator)
        return model


def own_cnn(folder):
    return _own(
        folder,
        "nn.Sequential(nn.Conv2d(1, 4, 5, 2, 2), nn.GELU(), nn.Conv2d(4, 8, 3, 2, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), "
        "nn.Flatten(), nn.Linear(8, 3))",
        "(1, 48, 72)",
    )


def own_volumes(folder):
    return _own(
        folder,
        "nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv3d(4, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), "
        "nn.Flatten(), nn.Linear(8, 2))",
        "(1, 16, 24, 32)",
    )


def _own(folder, expression, size):
    file = folder / "net.py"
    file.write_text(f"from torch import nn\ndef build():\n    return {expression}\nbuild.input_size = {size}\n")
    return f"py:{file}:build"


def onnx_cnn(folder):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, 2, 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, 1, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 96, 3),
    )
    return _exported(folder, net, (3, 32, 48))


def onnx_vit(folder):
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=3, reg_tokens=2)
    for block in net.blocks:
        block.attn.fused_attn = False
    return _exported(folder, net, (3, 32, 32))


def _exported(folder, net, size):
    import warnings

    file = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (torch.rand(2, *size),), file, dynamo=False, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}}, opset_version=17,
        )  # fmt: skip
    return f"onnx:{file}"


ENTRIES = (
    Entry("ViT", "timm:vit_tiny_patch16_224?depth=2&input_size=48,96", quick=True),
    Entry("DeiT, distilled", "timm:deit_tiny_distilled_patch16_224?depth=2&input_size=64"),
    Entry("DINOv2, registers", "timm:vit_small_patch14_reg4_dinov2?depth=2&input_size=56"),
    Entry("EVA-02", "timm:eva02_tiny_patch14_224?depth=2&input_size=56"),
    Entry("BEiT", "timm:beit_base_patch16_224?depth=2&input_size=64"),
    Entry("CaiT", "timm:cait_xxs24_224?depth=2&input_size=64"),
    Entry("Swin", "timm:swin_tiny_patch4_window7_224?depths=1,1,2,1&input_size=112"),
    Entry("ConvNeXt", "timm:convnext_atto?input_size=64", quick=True),
    Entry("ResNet", "timm:resnet10t?input_size=64"),
    Entry("EfficientNet", "timm:efficientnet_b0?input_size=64"),
    Entry("RegNet", "timm:regnetx_002?input_size=64"),
    Entry("MambaOut", "timm:mambaout_femto?input_size=64"),
    Entry("Hiera", "timm:hiera_tiny_224?embed_dim=24&num_heads=1"),
    Entry("ViT", f"hf:vit?{SMALL}"),
    Entry("DeiT", f"hf:deit?{SMALL}"),
    Entry("DINOv2", f"hf:dinov2?{SMALL_DINO}"),
    Entry("DINOv2, registers", f"hf:dinov2_with_registers?{SMALL_DINO}", quick=True),
    Entry("DINOv3", f"hf:dinov3_vit?{SMALL}&num_register_tokens=4"),
    Entry("DINOv3, ConvNeXt", "hf:dinov3_convnext?input_size=64&depths=1,1,1,1"),
    Entry("CLIP vision", f"hf:clip_vision_model?{SMALL}"),
    Entry("SigLIP", f"hf:siglip_vision_model?{SMALL}"),
    Entry("BEiT", f"hf:beit?{SMALL}"),
    Entry("Swin", f"hf:swin?{SMALL_SWIN}", quick=True),
    Entry("Swin v2", f"hf:swinv2?{SMALL_SWIN}"),
    Entry("ConvNeXt", "hf:convnext?input_size=64&depths=1,1,1,1&hidden_sizes=8,16,24,32"),
    Entry("ResNet", "hf:resnet?input_size=64&depths=1,1,1,1"),
    Entry("SegFormer", "hf:segformer?input_size=64"),
    Entry("ViT", "torchvision:vit_b_32?input_size=96"),
    Entry("ResNet", "torchvision:resnet18?input_size=64,96", quick=True),
    Entry("Swin", "torchvision:swin_t?input_size=64"),
    Entry("Swin v2", "torchvision:swin_v2_t?input_size=64"),
    Entry("ConvNeXt", "torchvision:convnext_tiny?input_size=64"),
    Entry("DenseNet", "torchvision:densenet121?input_size=64"),
    Entry("EfficientNet", "torchvision:efficientnet_b0?input_size=64"),
    Entry("VGG", "torchvision:vgg11?input_size=64"),
    Entry("Inception", "torchvision:googlenet?input_size=64"),
    Entry("MobileNet", "torchvision:mobilenet_v3_small?input_size=64"),
    Entry("Swin, 3-D", "torchvision:swin3d_t?input_size=8,64,64"),
    Entry("DenseNet", "xrv:densenet121-res224-all?block_config=2,2,2,2&input_size=64", quick=True),
    Entry("ResNet", "xrv:resnet50-res512-all?input_size=64"),
    Entry("ViT", f"monai:ViT?img_size=48,64&classification=true&{SMALL_MONAI}"),
    Entry("ViT, 3-D", f"monai:ViT?img_size=16,24,32&classification=true&{SMALL_MONAI}", quick=True),
    Entry("UNETR encoder, 3-D", "monai:UNETR.vit?img_size=32,32,48&hidden_size=48&num_heads=4&mlp_dim=96"),
    Entry("DenseNet", "monai:DenseNet121?spatial_dims=2&block_config=2,2,2,2&input_size=64", quick=True),
    Entry("DenseNet, 3-D", "monai:DenseNet121?input_size=32,32,48"),
    Entry("ResNet, 3-D", "monai:resnet18?input_size=16,24,32"),
    Entry("SE-ResNet", "monai:SEResNet50?spatial_dims=2&in_channels=3&input_size=64"),
    Entry("CLIP", "open-clip:ViT-B-32?layers=2&width=64&head_width=32&input_size=96", quick=True),
    Entry("CLIP, ResNet", "open-clip:RN50?input_size=64"),
    Entry("ConvNeXt", "open-clip:convnext_base?timm_model_name=convnext_atto&input_size=64"),
    Entry("SigLIP", "open-clip:ViT-B-16-SigLIP?timm_model_name=vit_tiny_patch16_224"),
    Entry("a CNN", "onnx:net.onnx", quick=True, write=onnx_cnn),
    Entry("a ViT, registers", "onnx:vit.onnx", write=onnx_vit),
    Entry("a CNN", "py:net.py:build", quick=True, write=own_cnn),
    Entry("a CNN, 3-D", "py:volumes.py:build", write=own_volumes),
)  # fmt: skip


def row(entry: Entry, folder: Path) -> str:
    """Check one model and return its line of the table.

    Raises
    ------
    AssertionError
        If any of its promises does not hold.

    """
    model = entry.load(folder)
    x = torch.rand(2, model.contract.channels, *model.contract.size, generator=torch.Generator().manual_seed(1))
    ordinary = {
        n: s for n, s in model.sites.items() if s.take in {"output", "input"} and not s.weight and s.call is None
    }
    captured = check_capture(model, x, ordinary)
    site = deepest(model, ordinary)
    intervened, differentiated = check_intervention(model, x, site), check_gradients(model, x, site)
    how = check_grids(model, ordinary)
    cells = [entry.source, entry.family, f"`{entry.spec}`", captured, intervened, differentiated, grid_of(site), how]
    return f"| {' | '.join(cells)} |"


def deepest(model: VisionModel, sites: dict[str, Site]) -> Site:
    """Return the last of a ViT's blocks' or a CNN's stages' sites, or the last place with several tokens."""
    order = [s for name, s in sites.items() if re.fullmatch(r"blocks\.\d+\.hook_resid_post|stages\.\d+", name)]
    several = order or [s for s in sites.values() if s.grid is not None and s.grid.cells > 1]
    return max(several or sites.values(), key=lambda s: (s.grid is not None, s.name.count("."), s.name))


def check_capture(model: VisionModel, x: Tensor, sites: dict[str, Site]) -> str:
    """What is captured is what a plain hook sees, at every site, and the logits are the same bits with and without."""
    with torch.no_grad():
        bare = model.logits(x)
        ours = run_with_cache(model, x, list(sites), logits=True)
    assert ours.pop("logits")[:, 0].equal(bare)
    theirs = hooked_plainly(model, x, sites)
    for name, acts in ours.items():
        assert acts.shape == (len(x), sites[name].tokens, sites[name].width), name
        expected = as_tokens(theirs[name], sites[name])
        assert (acts - expected).abs().max() <= TOLERANCE * expected.abs().max(), name
    return "✓"


def check_intervention(model: VisionModel, x: Tensor, site: Site) -> str:
    """Nothing put in changes nothing; a direction added does what a plain hook that adds it does, and no hook stays."""
    direction = torch.randn(site.width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        bare = model.logits(x)
        with intervene(model, {site.name: lambda acts: acts}):
            assert model.logits(x).equal(bare)
        with intervene(model, {site.name: add(direction)}):
            ours = model.logits(x)
        with plainly(model, site, lambda raw: raw + spread(direction, site, raw)):
            theirs = model.logits(x)
        assert model.logits(x).equal(bare)
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    assert not ours.equal(bare)
    return "✓"


def check_gradients(model: VisionModel, x: Tensor, site: Site) -> str:
    """The gradient of a logit at a site is the one a plain hook gets."""
    seen: list[Tensor] = []

    def keep(raw):
        seen.append(raw)
        return raw.clone()  # what comes next may work in place

    with plainly(model, site, keep):
        theirs = torch.autograd.grad(model.logits(x).flatten(1)[:, 0].sum(), seen[0], allow_unused=False)[0]
    zero = torch.zeros(len(x), site.tokens, site.width, requires_grad=True)
    with intervene(model, {site.name: lambda acts: acts + zero}):
        ours = torch.autograd.grad(model.logits(x).flatten(1)[:, 0].sum(), zero)[0]
    expected = as_tokens(theirs, site)
    assert expected.abs().max() > 0
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()  # other kernels may run backwards
    return "✓"


def check_grids(model: VisionModel, sites: dict[str, Site]) -> str:
    """A cell's gradient stays in its box: of a map as it is, of tokens where attention mixes nothing into them."""
    placed = [s for s in sites.values() if s.grid is not None and s.grid.cells > 1]
    if deepest(model, sites).grid is None:
        assert any(note.startswith("no grid") for note in model.notes)
    maps, tokens = ([s for s in placed if (s.layout == "tokens") == flat] for flat in (False, True))
    for site in spread_out(maps):
        check_boxes(model, site)
    with attention_off(model):
        for site in spread_out(tokens):
            check_boxes(model, site)
    return " and ".join(text for found, text in ((maps, "maps"), (tokens, "tokens, attention off")) if found)


def check_boxes(model: VisionModel, site: Site) -> None:
    """The first, the middle and the last cell see no pixel outside their boxes, and some inside."""
    size, grid = torch.tensor(model.contract.size), site.grid
    cells = sorted({0, grid.cells // 2, grid.cells - 1})
    x = torch.rand(1, model.contract.channels, *size, generator=torch.Generator().manual_seed(3))
    x = x.expand(len(cells), *x.shape[1:]).clone().requires_grad_()
    acts = run_with_cache(model, x, [site.name])[site.name]
    weights = torch.rand(site.width, generator=torch.Generator().manual_seed(4)) + 0.5
    picked = sum((acts[i, site.prefix_tokens + cell] * weights).sum() for i, cell in enumerate(cells))
    seen = (torch.autograd.grad(picked, x)[0] != 0).any(1)
    rank = len(size)
    for i, cell in enumerate(cells):
        points = seen[i].nonzero()
        assert len(points), f"{site.name} cell {cell} sees nothing"
        box = torch.as_tensor(grid.boxes()[cell])
        low, high = points.amin(0), points.amax(0) + 1
        assert (box[:rank] <= low + 1e-6).all(), f"{site.name} cell {cell}: {box.tolist()} but sees from {low.tolist()}"
        assert (box[rank:] >= high - 1e-6).all(), f"{site.name} cell {cell}: {box.tolist()} but sees to {high.tolist()}"
        if grid.extent == grid.stride:  # a patch is seen from edge to edge
            assert torch.equal(torch.cat([low, high]).double(), box.clamp(min=0).double()), f"{site.name} cell {cell}"


def spread_out(sites: list[Site], limit: int = 4) -> list[Site]:
    """Return a few sites, each of another grid, the first and the last of the model among them."""
    by_grid = {s.grid: s for s in sites}  # the last of each grid
    chosen = [*sites[:1], *by_grid.values()]
    return chosen if len(chosen) <= limit else [*chosen[: limit - 1], chosen[-1]]


class attention_off(ExitStack):  # noqa: N801
    """Every attention gives zero, so that tokens go their own way."""

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        for path, module in model.module.named_modules():
            kind = type(module).__name__
            attends = re.search("Attention|Attn", kind) and not re.search("Block|Layer|Pool", kind)
            if (
                attends or kind == "SABlock" or re.search("attn/proj/Add", path)
            ):  # the last: what an ONNX graph keeps of it
                self.callback(module.register_forward_hook(_zero).remove)


def _zero(_module, _args, output):
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    return (torch.zeros_like(output[0]), *output[1:])


def hooked_plainly(model: VisionModel, x: Tensor, sites: dict[str, Site]) -> dict[str, Tensor]:
    """Capture by forward hooks as everybody writes them."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as undo, torch.no_grad():
        for name, site in sites.items():
            undo.enter_context(plainly(model, site, lambda raw, name=name: seen.update({name: raw.clone()})))
        model.run(x)
    return seen


class plainly(ExitStack):  # noqa: N801
    """A forward hook, or a forward pre-hook, on a site's module; what `change` returns takes the tensor's place."""

    def __init__(self, model: VisionModel, site: Site, change) -> None:
        super().__init__()
        module = model.module.get_submodule(site.module)

        def after(_module, _args, output):
            new = change(_main(output))
            return None if new is None else _with(output, new)

        def before(_module, args, kwargs):
            key = None if args else next(iter(kwargs))
            new = change(_main(args[0] if args else kwargs[key]))
            if new is None:
                return None
            return (
                ((_with(args[0], new), *args[1:]), kwargs) if args else (args, {**kwargs, key: _with(kwargs[key], new)})
            )

        handle = (
            module.register_forward_hook(after)
            if site.take == "output"
            else module.register_forward_pre_hook(before, with_kwargs=True)
        )
        self.callback(handle.remove)


def _main(value):
    if isinstance(value, Tensor):
        return value
    return value[0] if isinstance(value, (tuple, list)) else getattr(value, "logits", None) or value.last_hidden_state


def _with(value, new):
    if isinstance(value, Tensor):
        return new
    if isinstance(value, (tuple, list)):
        return type(value)([new, *value[1:]])
    field = "logits" if "logits" in value else "last_hidden_state"
    value[field] = new
    return value


def as_tokens(raw: Tensor, site: Site) -> Tensor:
    """Return (batch, token, width) of a raw tensor, written out apart from the library's own."""
    tokens = {
        "tokens": lambda: raw,
        "vector": lambda: raw[:, None],
        "map": lambda: raw.reshape(*raw.shape[:2], -1).permute(0, 2, 1),
        "channels_last": lambda: raw.reshape(len(raw), -1, raw.shape[-1]),
    }[site.layout]()
    return tokens if site.columns is None else tokens[..., slice(*site.columns)]


def spread(direction: Tensor, site: Site, raw: Tensor) -> Tensor:
    """Return a direction of the width along the axis on which a raw tensor has its width."""
    return direction.reshape(-1, *(1,) * (raw.dim() - 2)) if site.layout == "map" else direction


def grid_of(site: Site) -> str:
    if site.grid is None:
        return "none: the order of its tokens could not be followed"
    cells = "×".join(str(n) for n in site.grid.shape)
    steps = " × ".join(f"{s:g}" for s in dict.fromkeys(site.grid.stride))
    prefix = f", {site.prefix_tokens} prefix" if site.prefix_tokens else ""
    return f"{cells}, every {steps} px{prefix}"


def written_rows() -> dict[str, str]:
    """Return the lines of the table in the docs, by spec."""
    text = DOCS.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    return {line.split("`")[1]: line for line in table.splitlines() if "`" in line}


def main() -> None:
    """Run every row and write the table into the docs."""
    torch.set_num_threads(1)
    lines = []
    for entry in ENTRIES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(entry, Path(folder)))
        sys.stderr.write(f"{lines[-1]}\n")
    text = DOCS.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text("\n".join([text[:begin], "", HEADER, *lines, "", text[end:]]))


if __name__ == "__main__":
    main()
