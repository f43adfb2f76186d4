"""Features of the proxy and of the user: blocks have no influence, what is wrong is named, what was given is what is stored."""

import numpy as np
import pytest
import torch
from numpy.dtypes import StringDType

from clprune import embeddings, pipeline
from clprune.embeddings import embed, given
from clprune.errors import DataError, UsageError
from clprune.proxies import build_proxy
from clprune.run import read_run
from clprune.training import predict, to_device

IDS = np.array([f"{row:02d}" for row in range(40)], dtype=StringDType())


def data_of(n: int = 40):  # type: ignore[no-untyped-def]
    images = np.random.default_rng(0).integers(0, 255, (n, 16, 16, 1)).astype(np.uint8)
    torch.manual_seed(0)
    data = to_device(images, np.arange(n) % 2, torch.device("cpu"))
    return build_proxy("small_cnn", 2, data.input_shape), data


def test_features_are_those_of_one_prediction_whatever_the_blocks_and_wherever_they_are_kept(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model, data = data_of()
    order = np.random.default_rng(1).permutation(40)
    features = predict(model, data, rows=order, exact=True)[1]
    plain = np.empty(features.shape, dtype=np.float16)
    plain[order] = features
    monkeypatch.setattr(embeddings, "BLOCK", 16)
    here, there = embed(model, data, order, exact=True), embed(model, data, order, exact=True, file=tmp_path / "e.npy")
    np.testing.assert_allclose(here.vectors.astype(float), plain.astype(float), rtol=2e-3, atol=1e-4)
    assert isinstance(there.vectors, np.memmap) and there.vectors.tobytes() == here.vectors.tobytes()


def test_another_layer_is_averaged_over_its_places_and_one_that_is_not_there_is_refused() -> None:
    model, data = data_of()
    name = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d))
    width = dict(model.named_modules())[name].out_channels
    assert embed(model, data, np.arange(40), layer=name).vectors.shape == (40, width)
    with pytest.raises(UsageError, match=r"no layer 'nowhere'.* It has: "):
        embed(model, data, np.arange(40), layer="nowhere")


def test_what_is_wrong_with_given_features_is_named() -> None:
    good = np.random.default_rng(0).normal(size=(40, 3))
    broken = good.copy()
    broken[7, 1], broken[9, 0] = np.nan, np.inf
    for bad, said in (
        (good[:39], "39 rows, but there are 40"),
        (good[:, 0], "shape"),
        (good.astype(int), "int64"),
        (broken, r"row 7 \(07\), row 9 \(09\)"),
    ):
        with pytest.raises(DataError, match=said):
            given(bad, IDS)


def test_an_archive_of_arrays_is_no_file_of_features(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "v.npz", first=np.zeros((40, 3)), second=np.zeros(2))
    with pytest.raises(DataError, match=r"archive of arrays \(first, second\); a .npy file"):
        given(tmp_path / "v.npz", IDS)


def test_given_features_are_halved_where_that_holds_them_and_told_apart_by_their_digest(tmp_path) -> None:  # type: ignore[no-untyped-def]
    good = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "v.npy", good)
    (small, a), (mapped, b), (large, c) = given(good, IDS), given(tmp_path / "v.npy", IDS), given(good * 1e6, IDS)
    assert small.vectors.dtype == mapped.vectors.dtype == np.float16 and large.vectors.dtype == np.float32 and a == b != c
    assert (small.vectors == mapped.vectors).all() and np.allclose(large.vectors, good * 1e6)


def test_a_run_holds_the_features_that_were_given_and_is_another_run_without_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x_train=rng.integers(0, 255, (40, 16, 16)).astype(np.uint8), y_train=np.arange(40) % 2)
    vectors = rng.normal(size=(40, 5)).astype(np.float16)
    pipeline.score(str(tmp_path / "d.npz"), tmp_path / "run", max_epochs=1, embeddings=vectors)
    assert (read_run(tmp_path / "run").vectors == vectors).all() and pipeline.verify(tmp_path / "run") == []
    again = pipeline.score(str(tmp_path / "d.npz"), tmp_path / "run", max_epochs=1, embeddings=vectors)
    assert again["asked"]["embeddings"]
    with pytest.raises(DataError, match="other options"):
        pipeline.score(str(tmp_path / "d.npz"), tmp_path / "run", max_epochs=1)
