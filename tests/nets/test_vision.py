"""Image encoders: sizes of the published ones, and that every choice maps pictures to features and learns."""

from __future__ import annotations

import pytest
import torch

from robolearn.nets.obs import ObsEncoder
from robolearn.nets.vision import VisionEncoder


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_pooled_resnet_is_the_bare_trunk_and_with_joints_and_its_mlp_the_encoder_of_the_paper():
    assert count(VisionEncoder((76, 101), features=512, head="average")) == 11_176_512
    net = ObsEncoder({"head_image": (76, 101, 3), "joint_pos": (14,)}, features=512, head="average", width_out=256)
    assert count(net) == 11_176_512 + 401_664 and net.dim == 256


def test_the_small_one_is_small():
    assert count(VisionEncoder((64, 64), backbone="small")) < 400_000


@pytest.mark.parametrize("backbone", ["resnet18", "small"])
@pytest.mark.parametrize("head", ["spatial_softmax", "average"])
def test_every_choice_gives_its_features_and_every_parameter_learns(backbone, head):
    torch.manual_seed(0)
    net = VisionEncoder((49, 65), (45, 60), features=10, width=16, backbone=backbone, head=head)
    out = net(torch.randint(0, 256, (3, 49, 65, 3), dtype=torch.uint8))
    assert out.shape == (3, 10)
    (out * torch.randn(3, 10)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("backbone", ["resnet18", "small"])
def test_crops_are_random_in_training_and_in_the_middle_otherwise(backbone):
    torch.manual_seed(0)
    net = VisionEncoder((80, 80), (64, 64), features=8, width=16, backbone=backbone)
    picture = torch.randint(0, 256, (1, 80, 80, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert not torch.equal(net(picture), net(picture))
        net.eval()
        assert torch.equal(net(picture), net(picture))
        torch.testing.assert_close(net(picture), VisionEncoder.forward(net, picture[:, 8:72, 8:72]))


def test_features_of_a_frame_do_not_depend_on_the_frames_beside_it_and_are_normalised_by_the_mlp():
    net = ObsEncoder({"o": (5,)}, width_out=16).eval()
    obs = torch.randn(3, 4, 5)
    whole = net({"o": obs})
    assert whole.shape == (3, 4, 16) and whole.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(net({"o": obs[:, 1:2]}), whole[:, 1:2])
