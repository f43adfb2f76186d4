"""What only a GPU can show; skipped where there is none."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_shapes

from clprune import pipeline
from clprune.errors import GuardError
from clprune.manifest import read_manifest
from clprune.proxies import build_proxy
from clprune.run import read_run
from clprune.sources import open_source
from clprune.training import Recipe, new_state, predict, seed_everything, to_device, train
from clprune.trajectory import record_trajectory

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_an_exact_run_learns_what_one_on_the_processor_learns(shapes_npz: Path) -> None:
    source = open_source(str(shapes_npz))
    assert source.images is not None
    gpu, again, cpu = (record_trajectory(source, source.images, max_epochs=2, exact=True, device=device) for device in ("cuda", "cuda", "cpu"))
    assert gpu is not None and again is not None and cpu is not None
    np.testing.assert_allclose(gpu.trajectory.signals["p_label"][0], cpu.trajectory.signals["p_label"][0], atol=0.02)
    for name, values in gpu.trajectory.signals.items():
        np.testing.assert_allclose(values, again.trajectory.signals[name], atol=1e-4, err_msg=name)


def test_scores_of_the_fast_way_rank_the_samples_as_the_processor_does(shapes_npz: Path) -> None:
    source = open_source(str(shapes_npz))
    assert source.images is not None
    ranks = []
    for device in ("cuda", "cpu"):
        run = record_trajectory(source, source.images, max_epochs=4, device=device)
        assert run is not None
        ranks.append((1 - run.trajectory.signals["p_label"].astype(np.float64)).mean(axis=0).argsort().argsort())
    assert np.corrcoef(ranks)[0, 1] > 0.9


def test_data_in_the_hosts_memory_are_learned_from_as_those_on_the_gpu() -> None:
    images, labels = draw_shapes(256, 0)
    told = []
    for resident in (True, False):
        data, recipe = to_device(images, labels, torch.device("cuda"), resident=resident), Recipe(exact=True)
        seed_everything(0)
        state = new_state(build_proxy("small_cnn", 4, data.input_shape), data.device, recipe)
        train(state, data, recipe, n_epochs=2, seed=0)
        told.append(predict(state.model, data, exact=True)[0])
    np.testing.assert_allclose(*told, atol=1e-3)


def test_the_whole_path_runs_and_goes_on_after_an_interruption(shapes_npz: Path, tmp_path: Path) -> None:
    def stop(event: dict[str, object]) -> None:
        if event["stage"] == "train" and event["done"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=3, whole_network=True, on_progress=stop)
    run = pipeline.score(str(shapes_npz), tmp_path / "run", max_epochs=3, whole_network=True)
    assert run["device"] == "cuda" and run["number_format"] == "bfloat16" and run["epochs_run"] == 3
    for strategy in ("blend", "auto"):
        pipeline.select(tmp_path / "run", tmp_path / strategy, keep="0.5", strategy=strategy)
        assert len(read_manifest(tmp_path / strategy).indices(open_source(str(shapes_npz)))) == 300
    with contextlib.suppress(GuardError):  # two epochs decide nothing
        pipeline.evaluate(tmp_path / "blend", seeds=2, epochs=2)
    assert (tmp_path / "blend" / "evaluation.json").exists()


def test_a_pool_is_looked_at_on_the_gpu(tmp_path: Path) -> None:
    images, labels = draw_shapes(400, 0)
    for name, n_known in (("some", 100), ("none", 0)):
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=np.where(np.arange(400) < n_known, labels, -1))
        pipeline.score(str(tmp_path / f"{name}.npz"), tmp_path / name, max_epochs=3)
        pipeline.select(tmp_path / name, tmp_path / f"m-{name}", label_budget=40)
        assert read_run(tmp_path / name).document["pool"] is not None or n_known == 0
