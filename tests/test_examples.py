"""The example programs, in a short form."""

import json
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_loop_of_ones_own_records_and_selects(capsys) -> None:  # type: ignore[no-untyped-def]
    right = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"](max_epochs=1, n_samples=600)
    assert 0 <= right <= 1 and "kept 300 of 600" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lightning_loop", "transformers_trainer"])
def test_the_loops_of_other_libraries_record_and_select(name: str, capsys) -> None:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries themselves
        assert runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](max_epochs=1, n_samples=600) == 0.5
    assert "kept 300 of 600" in capsys.readouterr().out


def test_a_detector_in_its_own_loop_is_recorded_and_half_is_chosen(capsys) -> None:  # type: ignore[no-untyped-def]
    found = runpy.run_path(str(EXAMPLES / "object_detection.py"))["main"](n=120, n_steps=3, max_epochs=7, n_test=20)
    assert found["n_kept"] == 60 and found["epochs"] == 2 and 0 <= found["auc"] <= 1 and "mAP of the kept half" in capsys.readouterr().out


def test_the_losses_of_each_image_are_those_that_the_detector_itself_means() -> None:
    program = runpy.run_path(str(EXAMPLES / "object_detection.py"))
    pictures, targets, _ = program["shapes"](24, 3, wrong=0.5)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    targets[0] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}  # nothing is to be found there
    model = program["Detector"]()
    torch.nn.init.zeros_(model.head.classification_head.cls_logits.bias)  # else it is so sure of nothing that no anchor costs anything
    for view, judge in ((images, targets), (images.flip(3), program["mirrored"](targets))):
        losses = model.losses(view, *model.assigned(judge))
        assert losses.shape == (24,)
        assert losses.mean().item() == pytest.approx(sum(model(list(view), judge).values()).item(), rel=1e-4)


class Oracle:
    """Says what it is told, in the form of a torchvision detector."""

    def __init__(self, said: list[dict[str, torch.Tensor]]) -> None:
        self.said = said

    def __call__(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return self.said[: len(images)]


def test_the_mean_average_precision_is_that_of_a_case_counted_by_hand() -> None:
    judge = runpy.run_path(str(EXAMPLES / "object_detection.py"))["mean_average_precision"]
    boxes, labels = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50], [0, 40, 20, 60]]), torch.arange(3)
    truth, image = [{"boxes": boxes, "labels": labels}], torch.zeros(1, 3, 64, 64)
    right = {"boxes": boxes, "labels": labels, "scores": torch.ones(3)}
    assert judge(Oracle([right]), image, truth) == pytest.approx(1)
    assert judge(Oracle([right | {"labels": (labels + 1) % 3}]), image, truth) == 0
    doubled = {name: torch.cat([value, value[:1]]) for name, value in right.items()} | {"scores": torch.tensor([0.5, 1, 1, 0.9])}
    assert judge(Oracle([doubled]), image, truth) == pytest.approx(1)  # the second finding of a box comes after it in recall
    false_first = {"boxes": torch.cat([boxes, boxes[1:2]]), "labels": torch.tensor([0, 1, 2, 0]), "scores": torch.tensor([0.5, 1, 1, 0.9])}
    assert judge(Oracle([false_first]), image, truth) == pytest.approx((0.5 + 1 + 1) / 3)
    near = right | {"boxes": boxes + torch.tensor([0.0, 0, 5, 0])}  # an overlap of 0.8 passes 0.50 to 0.80: 7 of 10
    assert judge(Oracle([near]), image, truth) == pytest.approx(0.7)


def test_the_report_of_an_invented_run_is_measured() -> None:
    result = runpy.run_path(str(EXAMPLES / "benchmarks" / "report_scale.py"))["measured"](2000)
    assert result["pictures"] > 24 and 0 < result["page_bytes"] < 3_000_000 and result["peak_bytes"] < 2e9


def test_all_that_a_gpu_should_show_runs_on_what_there_is() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "benchmarks" / "gpu_suite.py", "--short"], capture_output=True, text=True, check=True)
    parts = {name: json.loads(told) for name, told in re.findall(r"s  ([^:]+): (.*)", done.stdout)}
    assert len(parts) == 13 and not [told for told in parts.values() if isinstance(told, str)], parts  # a part that failed is told as a sentence
    agree = parts["agree"]
    assert (
        agree["exact_again"] == 0
        and agree["from_the_hosts_memory"] <= 0.02
        and agree["exact_to_processor"] <= 0.02
        and agree["fast_rank_correlation"] > 0.9
    )
    assert parts["captured small_cnn"]["largest_difference"] == 0
    assert parts["score cifar-10"]["epochs_run"] == 2 and parts["wide"][1]["images_per_second"] > 0


def test_the_table_at_full_scale_runs_on_what_there_is_and_goes_on_inside_a_training() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "benchmarks" / "full_scale.py", "--short"], capture_output=True, text=True, check=True)
    steps = dict(re.findall(r"^(\w+) .*'steps': (\d+)", done.stdout, flags=re.M))
    assert steps == dict.fromkeys(("random", "blend", "own_blend", "dual", "rs2"), "2"), done.stdout
    assert "put down after 1 of 2 steps" in done.stdout, done.stdout
