"""What every proxy keeps, also those that are added later."""

import pytest
import torch

from clprune import families
from clprune.errors import UsageError
from clprune.proxies import build_proxy
from clprune.texts import N_BUCKETS
from clprune.training import FeatureTap


@pytest.mark.parametrize("name", families.names("proxies"))
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 36, 36), (1, 2, 20)])
def test_maps_inputs_to_logits_and_shows_the_features_of_its_last_layer(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    member = families.find("proxies", name)
    inputs = torch.rand(4, *shape)
    if families.facts(member)["takes"] == "text":
        shape, inputs = shape[1:2], (inputs[:, 0, 0] * N_BUCKETS).int()
    model = member(7, shape)
    tap = FeatureTap(model)
    logits = model(inputs)
    assert logits.shape == (4, 7)
    assert tap.features is not None and tap.features.shape[0] == 4


def test_a_torchvision_model_gives_logits_while_it_trains_and_says_what_size_it_cannot_take() -> None:
    assert build_proxy("torchvision:googlenet", 3, (3, 32, 32)).train()(torch.rand(2, 3, 32, 32)).shape == (2, 3)  # not those of its side branches
    with pytest.raises(UsageError, match=r"vit_b_32 cannot take images of shape \(1, 32, 32\) .*Set --image-size"):
        build_proxy("torchvision:vit_b_32", 3, (1, 32, 32))


@pytest.mark.parametrize("shape", [(1, 1, 20), (3, 20, 1), (1, 1, 1)])
def test_the_default_takes_single_rows_of_pixels(shape: tuple[int, int, int]) -> None:
    assert build_proxy("small_cnn", 3, shape)(torch.rand(4, *shape)).shape == (4, 3)
