"""Integer-only networks of torch modules."""

import numpy as np
import pytest

import lowp
from lowp.emulation.dyadic import IntegerNetwork, Residual

torch = pytest.importorskip("torch")
nn = torch.nn


def settled(module):
    """Return a module in evaluation mode, whose statistics are not the ones it began with."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_()
            m.bias.data.normal_()
    return module.eval()


class Block(nn.Module):
    """A basic block of a residual network."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.down = None
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return nn.functional.relu(y)


def residual_net():
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Block(4, 4, 1),
            Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(6, 8), nn.BatchNorm1d(8),
            nn.ReLU(), nn.Linear(8, 3),
        )
    )  # fmt: skip


def images(count=20):
    return torch.randn(count, 1, 9, 8, generator=torch.Generator().manual_seed(1))


def test_a_residual_network():
    model, x = residual_net(), images()
    net = IntegerNetwork.of_torch(model, x)
    with torch.no_grad():
        want = model.double()(x.double()).numpy()
    assert np.allclose(net.run_float(x), want, rtol=1e-10, atol=1e-12)  # the layers are those of the module
    blocks = [layer for layer in net.layers if isinstance(layer, Residual)]
    assert [(len(b.main), len(b.shortcut)) for b in blocks] == [(3, 0), (3, 1)]
    assert net.check(x)
    assert IntegerNetwork.of_torch(model, x, weight_bits=4, activation_bits=4).check(x)
    assert np.abs(net.run_emulated(x) - want).mean() < 0.05 * np.abs(want).mean()


def test_pools_and_methods():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(1, 3, (3, 2), (2, 1)), nn.AvgPool2d(2), nn.Linear(18, 4)

        def forward(self, x):
            return self.fc(self.pool(self.conv(x).relu()).flatten(1))

    torch.manual_seed(2)
    model, x = Net().eval(), images()
    net = IntegerNetwork.of_torch(model, x)
    with torch.no_grad():
        assert np.allclose(net.run_float(x), model.double()(x.double()).numpy(), rtol=1e-10, atol=1e-12)
    assert net.check(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)),
        nn.Sequential(nn.Conv2d(2, 2, 3, dilation=2)),
        nn.Sequential(nn.Conv2d(2, 2, 3, padding="same")),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sigmoid()),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(2, ceil_mode=True)),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.AvgPool2d(3, padding=1)),
    ],
)
def test_what_there_is_no_layer_for(module):
    with pytest.raises(lowp.ArgumentError, match="no layer"):
        IntegerNetwork.of_torch(module.eval(), torch.zeros(1, 2, 8, 8))


def test_a_training_module_is_refused():
    with pytest.raises(lowp.ArgumentError, match=r"call module\.eval"):
        IntegerNetwork.of_torch(nn.Sequential(nn.Linear(2, 2)), [[0.0, 1.0]])
