"""The networks that can be trained, by name, and the graph that is exported for serving.

A network takes normalised float pictures (N, C, H, W) and returns logits (N, K). Penstock's own networks are registered with
`@architecture`; `timm/…` is a network of timm, `module:name` a user's own; every other name is looked up among torchvision's classifiers.
To add a network, write a function and decorate it:

    @architecture("linear")
    def linear(spec: ImageSpec, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), classes))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.classifier.errors import UsageError, described, did_you_mean
from components.classifier.images import ImageSpec
from components.classifier.layers import head_layers, last_that_runs, name_heads, named_heads
from components.classifier.own_networks import build_own, is_import_path, own_builder
from components.classifier.pretrained import check_pretrained, load_pretrained, models
from components.classifier.timm_networks import MIN_SIDE, PREFIX, create_timm, timm_config, timm_heads, timm_size

Builder = Callable[[ImageSpec, int], nn.Module]
Registered = TypeVar("Registered", bound=Builder)

OWN: dict[str, Builder] = {}
"""Penstock's own architectures by name."""

BATCH_NORM_MOMENTUM = 0.1

MAX_PARAMETERS = 475_000_000
"""What fits, as 32-bit floats, into one ONNX file of 2 GB with some room for the graph."""

_FIXED_SIZE = ("vit_", "maxvit_")
"""Families that take pictures of one size only: the size that torchvision's weights were trained on."""


def architecture(name: str) -> Callable[[Registered], Registered]:
    """Register an architecture: a function or class from the pictures' shape and the number of classes to a network."""

    def register(builder: Registered) -> Registered:
        OWN[name] = builder
        return builder

    return register


def architectures() -> list[str]:
    """Return the names of all networks that can be trained: Penstock's own first, then torchvision's classifiers."""
    return [*sorted(OWN), *models().list_models(module=models())]


def check_architecture(name: str) -> None:
    """Raise UsageError for an unknown name, with near matches, and for a network that is too large to be exported."""
    if name.startswith(PREFIX):
        timm_config(name)
        return
    if is_import_path(name):
        own_builder(name)
        return
    if name in OWN:
        return
    known = architectures()
    if name not in known:
        kinds = f"use {', '.join(sorted(OWN))}, a classifier of torchvision such as resnet18, timm/NAME, or package.module:name"
        hint = did_you_mean(name.lower(), known, kinds)
        raise UsageError(f"unknown architecture {name!r}; {hint}")
    check_size(name, models().get_model_weights(name).DEFAULT.meta["num_params"])


def check_changes(name: str, width: float, dropout: float | None) -> None:
    """Raise UsageError where `width` or `dropout` are set for a network that lacks them, as far as that is known without pictures."""
    _check_width(name, width)
    if dropout is None or name in OWN or is_import_path(name):
        return
    try:
        with torch.device("meta"):  # without memory for the weights
            network = create_timm(name, 2) if name.startswith(PREFIX) else _torchvision(name, 2, False)
    except (NotImplementedError, RuntimeError):  # one that computes its own sizes with tensors, as regnet: the training step tells it
        return
    _set_dropout(name, network, dropout)


def check_size(name: str, parameters: int) -> None:
    """Raise UsageError when a network with that number of parameters does not fit into one ONNX file."""
    if parameters > MAX_PARAMETERS:
        raise UsageError(
            f"architecture {name!r} has {parameters:,} parameters, more than the {MAX_PARAMETERS:,} that one ONNX file can hold; "
            "choose a smaller one"
        )


def build(
    name: str, spec: ImageSpec, classes: int, pretrained: bool = False, *, width: float = 1.0, dropout: float | None = None
) -> nn.Module:
    """Build a network: normalised float pictures of `spec` (N, C, H, W) in, logits (N, classes) out.

    Weights are random, from torch's seed; `pretrained` starts from those of torchvision or timm, with a new last layer. `width`
    multiplies the channels of Penstock's own; `dropout` replaces the probability of every dropout layer. Raises UsageError for an unknown
    name, an architecture without pretrained weights or one that cannot be changed so, or pictures that it cannot take, and
    TrainingError when pretrained weights cannot be loaded.
    """
    check_architecture(name)
    _check_width(name, width)
    if pretrained:
        check_pretrained(name)
    if is_import_path(name):
        network = _checked(build_own(name, spec, classes), name, spec, classes)
    elif name.startswith(PREFIX):
        body = create_timm(name, classes, pretrained)
        network = _checked(Adapter(body, _working_size(name, spec), spec, timm_heads(name)), name, spec, classes)
    elif name in _WITH_WIDTH and not pretrained:
        network = _WITH_WIDTH[name](spec, classes, width)
    elif name in OWN and not pretrained:
        network = OWN[name](spec, classes)
    else:
        network = Adapter(_torchvision(name, classes, pretrained), _working_size(name, spec), spec)
    if dropout is not None:
        _set_dropout(name, network, dropout)
    return network


class Adapter(nn.Module):
    """Makes a network of torchvision or timm take pictures of any size: grey is repeated to RGB, small pictures are enlarged.

    `heads` names the layers within the body that classify, where they are known.
    """

    def __init__(self, body: nn.Module, size: tuple[int, int], spec: ImageSpec, heads: tuple[str, ...] = ()) -> None:
        super().__init__()
        raise_batch_norm_momentum(body)
        self.body = body
        name_heads(self, *(f"body.{name}" for name, _ in body.named_modules() if name in heads))
        self.size = size
        self.resized = size != (spec.height, spec.width)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify normalised pictures (N, 1 or 3, H, W)."""
        if pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        if self.resized:
            pictures = F.interpolate(pictures, size=self.size, mode="bilinear", align_corners=False)
        logits: Tensor = self.body(pictures)
        return logits


class ServingGraph(nn.Module):
    """The graph of model.onnx: uint8 pictures (N, H, W, C) in, calibrated probabilities float32 (N, K) out.

    `mean` and `std` are per channel, of pixels / 255. `familiarity` runs the network on normalised pictures and returns logits and a second
    output float32 (N,); without it there is only one output.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, mean: list[float], std: list[float], temperature: float, familiarity: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.familiarity = familiarity
        self.temperature = temperature
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Normalise, classify and calibrate."""
        pictures = image.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        if self.familiarity is None:
            return torch.softmax(self.network(pictures) / self.temperature, dim=1)
        logits, familiarity = self.familiarity(self.network, pictures)
        return torch.softmax(logits / self.temperature, dim=1), familiarity


@architecture("small_cnn")
class SmallCNN(nn.Module):
    """A small residual network for pictures of about 8x8 to 64x64 pixels; it takes any size, but is not made for large ones.

    The picture is halved until its shorter side is at most 7 pixels, then averaged; see `_stages`.
    """

    def __init__(self, spec: ImageSpec, classes: int, relative_width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = spec.channels
        for stage in _stages(spec, relative_width):
            layers += [_convolution(width, stage.width, stage.stride), *(Residual(stage.width) for _ in range(stage.blocks))]
            width = stage.width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify normalised pictures (N, C, H, W)."""
        pooled = self.features(pictures).mean(dim=(2, 3))  # unlike adaptive pooling, a mean exports as one operator
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions whose output is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the convolutions' output, both (N, width, H, W)."""
        return F.relu(x + self.second(self.first(x)))


@dataclass(frozen=True)
class _Stage:
    width: int
    stride: int
    blocks: int


def _stages(spec: ImageSpec, relative_width: float) -> list[_Stage]:
    # Layers at full size cost the most time and help least, so most blocks run after the picture was halved. Grey pictures above 16
    # pixels, and colour ones above 32, are halved by the first convolution. MNIST: 0.993 after two epochs of 30 CPU seconds each.
    side = min(spec.height, spec.width)
    halvings = max(1, math.ceil(math.log2(side / 7)))
    halved_at_once = side > (32 if spec.channels == 3 else 16)
    count = halvings if halved_at_once else halvings + 1
    strides = [2 if halved_at_once else 1, *[2] * (count - 1)]
    blocks = [*[0] * (count - 2), 1, 2][-count:]
    widths = [max(8, round(min(32 * 2**k, 128) * relative_width)) for k in range(count)]
    return [_Stage(widths[k], strides[k], blocks[k] if k else 0) for k in range(count)]


@architecture("compact_cnn")
class CompactCNN(nn.Module):
    """A network for pictures of about 8x8 to 64x64 pixels that takes a fifth of small_cnn's arithmetic.

    The first convolution already halves the picture, and others do until its shorter side is at most 4 pixels. One convolution over
    all that is left, at most 7x7, then sees where in the picture things are; what it leaves of longer pictures is averaged.
    """

    def __init__(self, spec: ImageSpec, classes: int, relative_width: float = 1.0) -> None:
        super().__init__()
        side = min(spec.height, spec.width)
        halvings = max(1, math.ceil(math.log2(side / 4)))
        strides = [2] * halvings if side > 8 else [1, 2]
        layers: list[nn.Module] = []
        inputs, height, width = spec.channels, spec.height, spec.width
        for k, stride in enumerate(strides):
            outputs = max(8, round(min(16 * 2**k, 64) * relative_width))
            layers.append(_convolution(inputs, outputs, stride, size=3 if k else 5))
            inputs, height, width = outputs, math.ceil(height / stride), math.ceil(width / stride)
        features = max(16, round(128 * relative_width))
        whole = WholePicture(inputs, features, (min(height, 7), min(width, 7)), bias=False)
        layers.append(nn.Sequential(whole, nn.BatchNorm2d(features), nn.ReLU(inplace=True)))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(features, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Classify normalised pictures (N, C, H, W)."""
        logits: Tensor = self.head(self.dropout(self.features(pictures).mean(dim=(2, 3))))
        return logits


class WholePicture(nn.Conv2d):
    """A convolution; where it covers the whole picture it is one matrix product, which a CPU does in a third of the time."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (N, features, 1, 1), or what a convolution gives where the picture is larger than the kernel."""
        if pictures.shape[2:] != self.weight.shape[2:]:
            return super().forward(pictures)
        # channels last, as both lie in memory in a training: so nothing is copied
        rows, weight = pictures.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight, self.bias)[:, :, None, None]


_WITH_WIDTH = {"compact_cnn": CompactCNN, "small_cnn": SmallCNN}
"""The networks whose channels the setting `width` multiplies."""


def _convolution(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Module:
    """A convolution keeps the size of what it sees, but for its stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _checked(network: object, name: str, spec: ImageSpec, classes: int) -> nn.Module:
    """Run a network that is not ours once, on two empty pictures, so that one that does not fit is refused before it is trained."""
    if not isinstance(network, nn.Module):
        raise UsageError(f"architecture {name!r} gives a {type(network).__name__}; let it give a torch.nn.Module")
    pictures = torch.zeros(2, spec.channels, spec.height, spec.width)
    try:
        with torch.no_grad():  # not inference mode: what a network makes at its first call, it trains with
            last, _, logits = last_that_runs(network.eval(), pictures)
    except Exception as error:  # whatever a user's network raises
        raise UsageError(
            f"architecture {name!r} cannot take pictures of {spec.height}x{spec.width}x{spec.channels} ({described(error)}); "
            "set another ingest.image_size, or choose another architecture"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"architecture {name!r} gives {shape} for two pictures; let it give logits of shape (2, {classes})")
    if last and not named_heads(network):
        name_heads(network, last)
    return network.train()


def _working_size(name: str, spec: ImageSpec) -> tuple[int, int]:
    (height, width), fixed = _smallest(name)
    if fixed:
        if spec.height > height or spec.width > width:
            raise UsageError(
                f"architecture {name!r} takes pictures of up to {height}x{width}, these are {spec.height}x{spec.width}; "
                f"set image_size={height}"
            )
        return height, width
    factor = max(1, math.ceil(height / min(spec.height, spec.width)))
    return spec.height * factor, spec.width * factor


def _smallest(name: str) -> tuple[tuple[int, int], bool]:
    """The least height and width that a network takes, and whether it takes no others."""
    if name.startswith(PREFIX):
        return timm_size(name)
    smallest = int(max(models().get_model_weights(name).DEFAULT.meta["min_size"]))
    if name.startswith("swin_"):
        smallest = MIN_SIDE  # min_size is the size of its training pictures; the network pads any size
    side = max(MIN_SIDE, smallest)
    return (side, side), name.startswith(_FIXED_SIZE)


def _torchvision(name: str, classes: int, pretrained: bool) -> nn.Module:
    options: dict[str, object] = {}
    if name in {"googlenet", "inception_v3"}:
        options["aux_logits"] = False  # the auxiliary classifiers would change what forward returns
        if not pretrained:
            options["init_weights"] = True
    if not pretrained:
        network: nn.Module = models().get_model(name, weights=None, num_classes=classes, **options)
        return network
    return _with_head(load_pretrained(name, options), classes)


def _check_width(name: str, width: float) -> None:
    if width != 1 and name not in _WITH_WIDTH:
        raise UsageError(f"width changes {' and '.join(_WITH_WIDTH)} only; leave it at 1 for architecture {name!r}, or choose a wider one")


def _set_dropout(name: str, network: nn.Module, probability: float) -> None:
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise UsageError(f"architecture {name!r} has no dropout layer; leave dropout empty, or choose another architecture")
    for layer in layers:
        layer.p = probability


def raise_batch_norm_momentum(network: nn.Module) -> None:
    """Raise the momentum of all batch normalisation layers to at least 0.1, so that their statistics settle in a short training.

    mobilenet, mnasnet and others average over thousands of steps (momentum 0.01 to 0.0003), which suits weeks on ImageNet: after the
    few hundred steps of a small dataset their statistics would still be the initial ones, and accuracy that of chance.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = max(module.momentum or 0.0, BATCH_NORM_MOMENTUM)


def _with_head(network: nn.Module, classes: int) -> nn.Module:
    (path,) = head_layers(network)
    head = network.get_submodule(path)
    parent = network.get_submodule(path.rpartition(".")[0])
    # squeezenet classifies by a 1x1 convolution, all others by a linear layer
    fresh: nn.Module
    if isinstance(head, nn.Conv2d):
        fresh = nn.Conv2d(head.in_channels, classes, 1)
    else:
        assert isinstance(head, nn.Linear)
        fresh = nn.Linear(head.in_features, classes)
    setattr(parent, path.rpartition(".")[2], fresh)
    return network
