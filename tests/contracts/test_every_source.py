"""What every source keeps, also those that are added later."""

import pytest

from clprune import families


@pytest.mark.parametrize("name", families.names("sources"))
def test_claims_are_quick_and_do_not_raise_on_foreign_locators(name: str) -> None:
    claims = families.facts(families.find("sources", name))["claims"]
    for locator in ("", "nowhere", "a/b.txt", "x:y:z", "~", "..", "fashion-mnist-sampl"):
        assert claims(locator) in (True, False)


def test_no_locator_is_claimed_twice(tmp_path: object) -> None:
    members = families.members("sources")
    for locator in ("fashion-mnist-sample", str(tmp_path), "a.npz?labels=y", "b.parquet", "hf:x:train", "torchvision:CIFAR10", "module:function"):
        assert sum(families.facts(member)["claims"](locator) for member in members.values()) == 1, locator
