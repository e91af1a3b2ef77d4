import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.backbones import BACKBONES, Backbone, Classifier, hara_state_dict, load_backbone, r2plus1d18, r3d18_small

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "options", "num_parameters", "num_backbone", "gmacs"),
    [
        ("r3d18", {}, 33_409_104, 33_203_904, 8.308),
        ("r3d18", {"shortcut": "A"}, 33_235_280, 33_030_080, 8.296),
        ("r3d18", {"max_pool": False}, 33_409_104, 33_203_904, 42.585),
        ("r2plus1d18", {}, 33_421_164, 33_215_964, 8.477),
    ],
)
def test_size_and_cost_are_those_of_hara(name, options, num_parameters, num_backbone, gmacs):
    with torch.device("meta"):
        classifier = Classifier(BACKBONES[name](**options), 400).eval()
        with FlopCounterMode(display=False) as counter:
            logits = classifier(torch.empty(1, 3, 16, 112, 112))
    assert logits.shape == (1, 400)
    assert sum(p.numel() for p in classifier.parameters()) == num_parameters
    assert sum(p.numel() for p in classifier.backbone.parameters()) == num_backbone
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=6e-4)


def test_state_dict_has_hara_names():
    with torch.device("meta"):
        names = set(hara_state_dict(Classifier(BACKBONES["r3d18"](), 4)))
        factorised = set(r2plus1d18().state_dict())
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = {f"{n}.{part}" for n in ("bn1", "bn2") for part in parts} | {"conv1.weight", "conv2.weight"}
    expected = {"conv1.weight", "fc.weight", "fc.bias"} | {f"bn1.{part}" for part in parts}
    expected |= {f"layer{layer}.{number}.{name}" for layer in range(1, 5) for number in range(2) for name in block}
    for layer in range(2, 5):
        expected |= {f"layer{layer}.0.downsample.0.weight"}
        expected |= {f"layer{layer}.0.downsample.1.{part}" for part in parts}
    assert names == expected
    assert {"conv1_s.weight", "bn1_t.bias", "layer2.0.conv2_s.weight", "layer4.1.bn2_s.running_var"} <= factorised
    assert "layer2.0.downsample.1.weight" in factorised
    assert "layer1.0.downsample.0.weight" not in factorised


def test_factorised_middle_channels():
    with torch.device("meta"):
        state = r2plus1d18().state_dict()
    middles = [state[f"{n}.weight"].shape[0] for n in ("conv1_s", "layer1.0.conv1_s", "layer2.0.conv1_s")]
    middles += [state[f"layer{n}.0.conv2_s.weight"].shape[0] for n in (2, 3, 4)]
    assert middles == [110, 144, 230, 288, 576, 1152]


@pytest.mark.parametrize("shape", [(16, 112, 112), (8, 56, 56), (4, 33, 47)])
def test_features_of_any_clip_size(shape):
    backbone = r3d18_small().eval()
    with torch.no_grad():
        assert backbone.features(torch.randn(2, 3, *shape)).shape == (2, 128)


def test_features_equal_hara_pooling_at_full_size():
    """At 16x112x112 the last stage is 1x4x4, which Hara averages with a fixed 1x4x4 window."""
    backbone = Backbone(width=8).eval()
    last = {}
    backbone.layer4.register_forward_hook(lambda module, args, out: last.update(out=out))
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 16, 112, 112))
    pooled = torch.nn.functional.avg_pool3d(last["out"], (1, 4, 4)).flatten(1)
    torch.testing.assert_close(features, pooled)


def test_shortcut_a_passes_through_every_other_position_and_zeros():
    backbone = r3d18_small(shortcut="A")
    x = torch.randn(1, 16, 4, 6, 6)
    out = backbone.layer2[0].downsample(x)
    torch.testing.assert_close(out[:, :16], x[:, :, ::2, ::2, ::2])
    assert out.shape == (1, 32, 2, 3, 3)
    assert not out[:, 16:].any()


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "base_network."])
def test_pretrained_weights_load_under_any_known_prefix(prefix):
    source, target = r3d18_small(), r3d18_small()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    loaded = load_backbone(
        target, state | {"fc.weight": torch.zeros(3, 128), "module.head.linear.bias": torch.zeros(5)}
    )
    assert loaded.left_out == ("fc.weight", "module.head.linear.bias")
    assert set(loaded.loaded) == set(source.state_dict())
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_pretrained_weights_that_do_not_fit_are_refused():
    backbone = r3d18_small()
    with pytest.raises(ValueError, match=r"none of the 1 pretrained names \(such as '0.0.weight'\)"):
        load_backbone(backbone, {"0.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"cover 1 of the backbone's 120 tensors, 'bn1.weight' is missing"):
        load_backbone(backbone, {"conv1.weight": backbone.state_dict()["conv1.weight"]})
    with pytest.raises(ValueError, match=r"'conv1.weight' has shape \(8, 3, 7, 7, 7\), the backbone needs \(16,"):
        load_backbone(backbone, Backbone(width=8).state_dict())
