"""Small networks for images of 3x16x16, each with one thing that makes pruning hard."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """The layers of `parts`, and a forward that uses them."""

    def __init__(self, call: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def _flatten() -> nn.Module:
    return nn.Sequential(
        conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(96, 7), nn.ReLU(),
        nn.Linear(7, 4),
    )  # fmt: skip


def _residual() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        x = F.relu(x + net.c(F.relu(net.b(x))))
        return net.head(x.mean((2, 3)))

    return Net(call, a=conv(3, 8), b=conv(8, 5), c=conv(5, 8), head=nn.Linear(8, 4))


def _concatenation() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        a = F.relu(net.a(x))
        b = F.relu(net.b(a))
        c = net.norm(torch.cat([a, x, b], dim=1))
        return net.head(F.relu(net.c(c)).mean((2, 3)))

    return Net(call, a=conv(3, 4), b=conv(4, 6), norm=nn.BatchNorm2d(13), c=conv(13, 5), head=nn.Linear(5, 4))


def _depthwise_multiplier() -> nn.Module:
    return nn.Sequential(
        conv(3, 6), nn.ReLU(), conv(6, 12, groups=6), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 5, 1), nn.Flatten(),
        nn.Linear(5 * 256, 4),
    )  # fmt: skip


def _grouped() -> nn.Module:
    return nn.Sequential(
        conv(3, 12), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 8, groups=2), nn.ReLU(), conv(8, 6, groups=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def _shuffle_by_views() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        n, c, h, w = x.size()
        side = net.b(x)
        x = x.view(n, 2, c // 2, h, w)
        x = x.transpose(1, 2).contiguous()
        x = x.view(n, -1, h, w)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([net.c(left), right], dim=1)
        return net.head((x * torch.sigmoid(side)).mean((2, 3)))

    return Net(call, a=conv(3, 12), b=conv(12, 11), c=conv(6, 5), head=nn.Linear(11, 4))


def _shuffle_layer() -> nn.Module:
    return nn.Sequential(
        conv(3, 12), nn.ReLU(), nn.ChannelShuffle(3), conv(12, 6, groups=3), nn.ReLU(), nn.ChannelShuffle(3),
        conv(6, 5), nn.Flatten(), nn.Linear(5 * 256, 4),
    )  # fmt: skip


def _shuffle_channels_last() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = net.norm(F.relu(net.a(x)).permute(0, 2, 3, 1))
        x = x.reshape(x.size(0), 16, 16, 4, 3).transpose(3, 4).reshape(-1, 16, 16, 12)
        return net.head(F.relu(net.b(x)).mean((1, 2)))

    return Net(call, a=conv(3, 12), norm=nn.Hardtanh(-1, 3), b=nn.Linear(12, 7), head=nn.Linear(7, 4))


def _split_view() -> nn.Module:
    """A channel dimension that is split and stays split: heads."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x)).view(-1, 3, 4, 16, 16)
        x = x.sum(1) * x.amax(1)
        return net.head(F.relu(net.b(x)).mean((2, 3)))

    return Net(call, a=conv(3, 12), b=conv(4, 5), head=nn.Linear(5, 4))


def _squeeze_excitation() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        gate = torch.sigmoid(net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1)))))
        return net.head((x * gate).mean((2, 3)))

    return Net(call, a=conv(3, 8), down=conv(8, 3, 1), up=conv(3, 8, 1), head=nn.Linear(8, 4))


def _spatial_gate() -> nn.Module:
    """One map for all channels: a factor of each, coupled to none."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        maps = torch.cat([x.sum(1, keepdim=True), net.c(x)], dim=1)
        x = x * torch.sigmoid(net.gate(maps))
        return net.head(x.mean((2, 3)))

    return Net(call, a=conv(3, 6), c=conv(6, 1), gate=conv(2, 1), head=nn.Linear(6, 4))


def _gated_unit() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        values, gates = net.a(x).chunk(2, dim=1)
        return net.head((values * torch.sigmoid(gates)).mean((2, 3)))

    return Net(call, a=conv(3, 10), head=nn.Linear(5, 4))


def _uneven_pieces() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        first, second, third = x.split([2, 7, 3], dim=1)
        p, q, r = x.chunk(3, 1)
        y = torch.cat([net.b(second), first, p.relu(), net.c(q)], 1)
        return net.head(torch.cat([y, third, r], 1).mean((2, 3)))

    return Net(call, a=conv(3, 12), b=conv(7, 3), c=conv(4, 5), head=nn.Linear(21, 4))


def _slices() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        half = x.size(1) // 2
        low, high, odd = x[:, :half], x[:, half:, 1:, :-1], x[:, 1::2]
        y = (net.b(low).mean((2, 3)) + net.c(odd).mean((2, 3))) * x[:, 3].mean((1, 2)).unsqueeze(1)
        return net.head(torch.cat([y, high.amax((2, 3)), x[..., 0, 0]], dim=-1))

    return Net(call, a=conv(3, 12), b=conv(6, 5), c=conv(6, 5), head=nn.Linear(23, 4))


def _option_a() -> nn.Module:
    """A shortcut that adds channels of zeros (He et al. 2015)."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        x = F.relu(net.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 1)))
        x = x + F.pad(x, (0, 0, 0, 0, 1, -1)).relu()
        return net.head(F.pad(x, (1, 1, 2, 0)).mean((2, 3)))

    return Net(call, a=conv(3, 5), b=conv(5, 8, stride=2), head=nn.Linear(8, 4))


def _layer_scale() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        x = x + net.scale * net.b(F.leaky_relu(x)) + net.table.expand(-1, -1, 16, -1)
        return net.head(net.slope(x).mean((2, 3)))

    scale, table = nn.Parameter(torch.rand(8, 1, 1)), nn.Parameter(torch.rand(1, 8, 1, 16))
    return Net(
        call, a=conv(3, 8), b=conv(8, 8), scale=scale, table=table, slope=nn.PReLU(8), head=nn.Linear(8, 4)
    )


def _norms() -> nn.Module:
    """Norms over channels: what is left is normalised anew, so only shapes are promised."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.group(net.a(x)))
        x = net.instance(net.b(x)) + net.each(net.b(x))
        x = net.local(net.over(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = net.plane(x)
        x = F.layer_norm(x.mean((2, 3)), (10,), net.weight)
        return net.head(F.normalize(x, dim=1))

    return Net(
        call, a=conv(3, 12), group=nn.GroupNorm(3, 12), b=conv(12, 10), instance=nn.InstanceNorm2d(10),
        each=nn.GroupNorm(10, 10), over=nn.LayerNorm(10), local=nn.LocalResponseNorm(3),
        plane=nn.LayerNorm([10, 16, 16], elementwise_affine=False), weight=nn.Parameter(torch.rand(10)),
        head=nn.Linear(10, 4),
    )  # fmt: skip


def _transformer() -> nn.Module:
    """The hidden layer of a block can go; what attention reads stays."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([net.token.expand(x.size(0), -1, -1), x], dim=1) + net.table
        y = net.norm(x)
        x = x + net.attention(y, y, y, need_weights=False)[0]
        x = x + net.down(F.gelu(net.up(x)))
        return net.head(x[:, 0])

    return Net(
        call, patches=nn.Conv2d(3, 8, 8, 8), token=nn.Parameter(torch.rand(1, 1, 8)),
        table=nn.Parameter(torch.rand(1, 5, 8)), norm=nn.LayerNorm(8), up=nn.Linear(8, 12), down=nn.Linear(12, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True), head=nn.Linear(8, 4),
    )  # fmt: skip


def _own_attention() -> nn.Module:
    """Attention written with matmul: heads, a scale computed from a size, a softmax."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x)).flatten(2).transpose(1, 2)
        q, k, v = net.qkv(x).reshape(x.size(0), x.size(1), 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return net.head((weights @ v).transpose(1, 2).reshape(x.size(0), -1, 8).mean(1))

    return Net(call, a=conv(3, 6), qkv=nn.Linear(6, 24), head=nn.Linear(8, 4))


def _token_mixing() -> nn.Module:
    """Linear layers over positions (MLP-Mixer) leave the channels where they are."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = net.a(x).flatten(2)
        x = x + net.down(F.relu(net.up(x)))
        return net.head(x.mean(2))

    return Net(
        call,
        a=conv(3, 6),
        up=nn.Linear(256, 9, bias=False),
        down=nn.Linear(9, 256, bias=False),
        head=nn.Linear(6, 4),
    )


def _called_twice() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        x = F.relu(net.norm(net.b(x)))
        return net.head(F.relu(net.norm(net.b(x))).mean((2, 3)))

    return Net(call, a=conv(3, 6), b=conv(6, 6), norm=nn.BatchNorm2d(6), head=nn.Linear(6, 4))


def _computed_numbers() -> nn.Module:
    """A mean and a variance by hand: the count is that of the network as it was."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x))
        mean = x.sum((1, 2, 3)) / (x.size(1) * x.size(2) * x.shape[3])
        y = x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
        y = (y / y.size(1)).view(y.shape).sum(-1)
        return net.head(y) * mean.view(-1, 1)

    return Net(call, a=conv(3, 6), head=nn.Linear(6, 4))


def _stacked() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        a, b = net.a(x), net.b(x)
        stacked = torch.stack([a, b], dim=1)  # as selective kernels do
        weights = F.softmax(torch.stack([net.c(a.mean((2, 3))), net.d(b.mean((2, 3)))], dim=1), dim=1)
        return net.head((stacked * weights.unsqueeze(-1).unsqueeze(-1)).sum(1).mean((2, 3)))

    return Net(call, a=conv(3, 6), b=conv(3, 6), c=nn.Linear(6, 6), d=nn.Linear(6, 6), head=nn.Linear(6, 4))


def _outer_products() -> nn.Module:
    """Channels of two layers against each other: as they stand, and spread out before."""

    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.stem(x)).mean((2, 3))
        a, b = net.a(x).unsqueeze(2), net.b(x).unsqueeze(1)
        return net.head((a * b + a * b.expand(-1, 6, -1)).flatten(1))

    return Net(call, stem=conv(3, 9), a=nn.Linear(9, 6), b=nn.Linear(9, 7), head=nn.Linear(42, 4))


def _space_to_depth() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x)).view(-1, 6, 8, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 24, 8, 8)
        return net.head(F.relu(net.b(x)).mean((2, 3)))

    return Net(call, a=conv(3, 6), b=conv(24, 5), head=nn.Linear(5, 4))


def _depth_to_space() -> nn.Module:
    def call(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.a(x)).reshape(-1, 3, 2, 2, 16, 16).permute(0, 1, 4, 2, 5, 3).reshape(-1, 3, 32, 32)
        return net.head(F.relu(net.b(x)).mean((2, 3)))

    return Net(call, a=conv(3, 12), b=conv(3, 5), head=nn.Linear(5, 4))


NETS: dict[str, Callable[[], nn.Module]] = {
    name.strip("_"): make
    for name, make in list(globals().items())
    if name.startswith("_") and callable(make) and getattr(make, "__module__", "") == __name__
}
# A norm over channels, a mean or a maximum of them sees how many there are, or what others are left.
NOT_EXACT = {"norms"}
