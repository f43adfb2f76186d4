"""What every proxy keeps, also those that are added later."""

import pytest
import torch

from clprune import families
from clprune.texts import N_BUCKETS
from clprune.training import FeatureTap


@pytest.mark.parametrize("name", families.names("proxies"))
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 36, 36)])
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
