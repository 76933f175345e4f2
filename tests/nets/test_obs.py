"""The observation encoder: layout, crops, spatial softmax."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.errors import ConfigError
from robolearn.nets import vision
from robolearn.nets.obs import ObsEncoder


def images(n: int, n_obs: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, n_obs, size, size, 3), dtype=torch.uint8)


def test_low_dim_keys_stand_flat_and_unchanged_in_the_order_of_the_keys() -> None:
    encoder = ObsEncoder({"a": (2,), "b": (3, 2)}, keys=("b", "a"))
    obs = {"a": torch.randn(4, 2, 2), "b": torch.randn(4, 2, 3, 2)}
    assert encoder.dim == 8
    torch.testing.assert_close(encoder(obs), torch.cat((obs["b"].flatten(2), obs["a"]), dim=-1), rtol=0, atol=0)


def test_each_camera_adds_sixty_four_features_behind_the_low_dim_ones() -> None:
    encoder = ObsEncoder({"left": (48, 48, 3), "pos": (3,), "right": (48, 48, 3)}, width=16)
    obs = {"left": images(2, 2, 48), "right": images(2, 2, 48), "pos": torch.randn(2, 2, 3)}
    y = encoder(obs)
    assert y.shape == (2, 2, encoder.dim) and encoder.dim == 3 + 2 * 64
    assert torch.equal(y[..., :3], obs["pos"])


def test_shared_cameras_have_one_set_of_weights() -> None:
    shapes = {"left": (48, 48, 3), "right": (48, 48, 3)}
    apart, shared = ObsEncoder(shapes, width=16), ObsEncoder(shapes, width=16, shared=True)
    sizes = [sum(p.numel() for p in e.parameters()) for e in (apart, shared)]
    assert sizes[0] == 2 * sizes[1]


def test_a_frame_is_encoded_alike_wherever_it_stands_in_the_history() -> None:
    torch.manual_seed(0)
    encoder = ObsEncoder({"img": (48, 48, 3)}, width=16).eval()
    frame = images(1, 1, 48)
    y = encoder({"img": torch.cat((frame, images(1, 1, 48), frame), dim=1)})
    torch.testing.assert_close(y[:, 0], y[:, 2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(y[:, 0], y[:, 1])


def test_uint8_and_float_images_are_the_same_image() -> None:
    torch.manual_seed(0)
    net = vision.VisionEncoder((48, 48), width=16).eval()
    x = images(1, 2, 48)[0]
    torch.testing.assert_close(net(x), net(x.float() / 255), rtol=1e-4, atol=1e-5)


def test_crops_are_random_in_training_and_central_in_evaluation() -> None:
    net = vision.VisionEncoder((20, 20), crop=(12, 14), width=16)
    seen: list[torch.Tensor] = []
    net.trunk.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    place = torch.arange(400, dtype=torch.float32).view(1, 20, 20, 1).expand(64, -1, -1, 3) / 400
    net.eval()(place)
    net.train()(place)
    corners = [((x[:, 0, 0, 0] + 1) / 2 * 400).round().int() for x in seen]
    assert seen[0].shape[2:] == (12, 14)
    assert (corners[0] == 4 * 20 + 3).all()
    rows, columns = corners[1] // 20, corners[1] % 20
    assert rows.min() >= 0 and rows.max() <= 8 and columns.max() <= 6
    assert len(rows.unique()) > 5 and len(columns.unique()) > 4
    step = (seen[1][:, 0, 1:, 0] - seen[1][:, 0, :-1, 0]) * 200
    torch.testing.assert_close(step, torch.full_like(step, 20), rtol=1e-3, atol=1e-3)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than the image"):
        vision.VisionEncoder((48, 48), crop=(64, 64))


def test_spatial_softmax_says_where_the_peak_is() -> None:
    pool = vision.SpatialSoftmax(1, points=1)
    nn.init.constant_(pool.maps.weight, 1.0)
    nn.init.zeros_(pool.maps.bias)
    h = torch.zeros(1, 1, 5, 9)
    h[0, 0, 1, 8] = 100
    torch.testing.assert_close(pool(h), torch.tensor([[1.0, -0.5]]))


def test_there_is_no_batch_norm_and_sixteen_channels_make_a_group() -> None:
    net = vision.ResNet18()
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20 and all(m.num_channels == 16 * m.num_groups for m in norms)
    assert 11.1e6 < sum(p.numel() for p in net.parameters()) < 11.2e6


def test_one_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    net = vision.VisionEncoder((48, 48), width=16).eval()
    x = images(1, 3, 48)[0]
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-4, atol=1e-5)
