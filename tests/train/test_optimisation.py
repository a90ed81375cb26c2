"""Optimizers, learning rates and the average of the weights."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from components.settings.training import TrainingSettings
from components.train.optimisation import WeightAverage, make_optimizer, relative_rate, set_rate


def test_one_cycle_is_torchs_own() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=1001, pct_start=0.2, cycle_momentum=False)
    for step in range(1000):
        assert relative_rate("one_cycle", step / 1000) == pytest.approx(schedule.get_last_lr()[0], abs=0.01)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ("one_cycle", [0.04, 0.99, 0.5, 0.0]),
        ("cosine", [1.0, 0.91, 0.35, 0.0]),
        ("step", [1.0, 1.0, 0.1, 0.01]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_follows_the_scheduler(scheduler: str, rates: list[float]) -> None:
    assert [relative_rate(scheduler, done) for done in (0.0, 0.19, 0.6, 1.2)] == pytest.approx(rates, abs=0.02)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_that_was_asked_for(name: str, kind: type) -> None:
    options = TrainingSettings(optimizer=name, momentum=0.7, weight_decay=0.2, learning_rate=0.5)
    (group,) = make_optimizer(nn.Linear(2, 2), options).param_groups
    assert type(make_optimizer(nn.Linear(2, 2), options)).__bases__ == (kind,)
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.2)
    assert group.get("momentum", group.get("betas", [None])[0]) == 0.7


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_an_optimizer_steps_as_torchs_own_does_and_goes_on_from_its_state(name: str, kind: type[torch.optim.Optimizer]) -> None:
    options, own = TrainingSettings(optimizer=name, momentum=0.7, weight_decay=0.2, learning_rate=0.05), {"betas": (0.7, 0.999)}
    torch.manual_seed(0)
    network, pictures = nn.Linear(3, 2), torch.randn(8, 3)
    other = copy.deepcopy(network)
    ours = make_optimizer(network, options)
    theirs = kind(
        other.parameters(), lr=0.05, weight_decay=0.2, fused=True, **({"momentum": 0.7, "nesterov": True} if name == "sgd" else own)
    )
    for step in range(6):
        if step == 3:
            state = ours.state_dict()
            ours = make_optimizer(network, options)
            ours.load_state_dict(state)
        for trained, optimizer in ((network, ours), (other, theirs)):
            optimizer.zero_grad()
            trained(pictures).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_training_imports_neither_torchs_compiler_nor_torchvision_nor_scikit_learn() -> None:
    program = """if True:
        import sys, torch
        import components.train.training
        from components.classifier.images import ImageSpec
        from components.classifier.network import build
        from components.settings.training import TrainingSettings
        from components.train.optimisation import make_optimizer
        network = build("small_cnn", ImageSpec(8, 8, 1), 2)
        optimizer = make_optimizer(network, TrainingSettings())
        network(torch.zeros(2, 1, 8, 8)).sum().backward()
        optimizer.step()
        optimizer.state_dict()
        print(*({"torch._dynamo", "torchvision", "sklearn", "pandas", "pyarrow"} & set(sys.modules)))
        """
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split() == []


def test_pretrained_layers_learn_ten_times_slower_at_any_time() -> None:
    optimizer = make_optimizer(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), TrainingSettings(pretrained=True, learning_rate=0.1))
    assert set_rate(optimizer, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.05])


def test_the_average_follows_weights_and_statistics_and_forgets_the_first() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = WeightAverage(network)
    average.restart(horizon=10)
    for step in range(1, 200):
        with torch.no_grad():
            network[0].weight.fill_(1.0 if step % 2 else 3.0)
            network[1].running_mean.fill_(5.0)
            network[1].num_batches_tracked.fill_(step)
        average.update(step)
    assert average.network[0].weight.item() == pytest.approx(2.0, abs=0.11)
    assert average.network[1].running_mean.item() == pytest.approx(5.0, abs=1e-3)
    assert average.network[1].num_batches_tracked.item() == 199
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
