"""The arithmetic of savings against a worked example and laws."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clprune import pipeline
from clprune.datatypes import SavingsLine
from clprune.errors import StorageError, UsageError
from clprune.export import RECORD
from clprune.manifest import Manifest, read_manifest
from clprune.prices import price_used, read_prices
from clprune.savings import asked_options, note_export, read_exports, savings
from clprune.terminal import savings_table, show


def manifest(n: int, kept: int, **changes: Any) -> Manifest:
    document: dict[str, Any] = {"n_samples": n, "n_kept": kept, "kept_bytes": 1000 * kept, "dropped_bytes": 1000 * (n - kept)}
    document["run"] = {"epochs_run": 10, "device": "cpu", "share_of_full_training": 10 / 90, "share_is_of_epochs": 90}
    document["timings"] = {"score_seconds": 100.0, "select_seconds": 1.0, "energy_kwh": 0.5, "energy_method": "meter"}
    return Manifest(Path("x"), document | changes)


def lines(record: Manifest, **prices: Any) -> dict[str, SavingsLine]:
    return {line.name: line for line in savings(record, **prices).lines}


def value(found: dict[str, SavingsLine], name: str) -> float:
    number = found[name].value
    assert number is not None
    return number


def test_imagenet_at_seventy_percent_worked_by_hand() -> None:
    n = 1_281_167
    found = lines(manifest(n, n - 384_350), label_price=0.012, labelers_per_item=3, labels_owned=False, label_fee="ground-truth")
    assert value(found, "labels avoidable") == 384_350 * 3
    assert value(found, "labelling money avoidable") == pytest.approx(13_836.6)  # 384,350 x 3 x 0.012
    assert value(found, "platform fee avoidable") == pytest.approx(
        47_623.34 - 37_872.68
    )  # 50,000 x 0.08 + 950,000 x 0.04 + 281,167 x 0.02, less 4,000 + 846,817 x 0.04
    assert value(found, "net time saved, equal epochs") == pytest.approx(0.30 - 10 / 90, abs=1e-4)  # 18.9 % of a training
    stored = lines(manifest(n, n - 384_350, dropped_bytes=43_800_000_000))
    assert value(stored, "storage money a month") == pytest.approx(1.0074)  # 43.8 GB x 0.023
    hours = lines(manifest(10, 5), training_seconds=3600, training_kwh=84.1 * 2 + 1, pue=1.0, carbon=475)
    assert value(hours, "net CO2e saved") == pytest.approx(39.95, abs=0.05)
    for carbon, kg in ((369.5, 31.1), (56.0, 4.7)):  # USA, France: 100 h x 0.532 kW x PUE 1.58 = 84.1 kWh
        grid = lines(manifest(10, 5), training_seconds=3600, training_kwh=2 * 53.2 + 1, pue=1.58, carbon=carbon)
        assert value(grid, "net energy saved") == pytest.approx(84.1, abs=0.05)
        assert value(grid, "net CO2e saved") == pytest.approx(kg, abs=0.05)


def test_keeping_all_saves_nothing_and_costs_the_scoring() -> None:
    found = lines(manifest(100, 100), training_seconds=1000, training_kwh=2, gpu_price=3.6)
    assert value(found, "labels avoidable") == value(found, "bytes of dropped samples") == value(found, "storage money a month") == 0
    assert value(found, "net time saved") == -101
    assert value(found, "net energy saved") == -0.5
    assert value(found, "net compute money") == pytest.approx(-0.101)
    assert found["trainings until it pays"].value is None


@pytest.mark.parametrize(
    ("price", "name"),
    [
        ("label_price", "labelling money avoidable"),
        ("label_price", "labelling money already paid"),
        ("storage_price", "storage money a month"),
        ("gpu_price", "net compute money"),
        ("carbon", "net CO2e saved"),
    ],
)
def test_doubling_a_price_doubles_its_line(price: str, name: str) -> None:
    given: dict[str, Any] = {"training_seconds": 1000.0, "training_kwh": 3.0, "gpu_price": 1.0, "labels_owned": "already paid" in name}
    once, twice = (lines(manifest(100, 40), **(given | {price: factor * 2.0})) for factor in (1, 2))
    assert value(twice, name) == pytest.approx(2 * value(once, name))
    assert once[name].price_source == "given by the user"


def test_what_was_not_measured_is_not_zero() -> None:
    record = manifest(100, 50)
    record.document["timings"]["energy_kwh"] = None
    found = lines(record)
    for name in ("cost of pruning: energy", "net energy saved", "net time saved"):
        assert found[name].value is None and found[name].method == "not measured"
    assert "--training-kwh" in found["net energy saved"].note
    assert lines(record, training_kwh=1.0)["net energy saved"].note == "what the pruning itself used was not measured"


def test_labels_are_either_paid_already_or_avoidable() -> None:
    owned, open_ = (lines(manifest(100, 50), labels_owned=owned, labelers_per_item=2, label_price=0.5) for owned in (True, False))
    assert (value(owned, "labels already paid for"), value(owned, "labels avoidable")) == (100, 0)
    assert (value(open_, "labels already paid for"), value(open_, "labels avoidable")) == (0, 100)
    assert (value(owned, "labelling money avoidable"), value(open_, "labelling money avoidable")) == (0, 50)


def test_savings_of_a_chain_add_up() -> None:
    options: dict[str, Any] = {"labels_owned": False, "label_fee": "50:0.5,inf:0.2", "training_seconds": 10.0}
    first, second, whole = (lines(manifest(n, kept), **options) for n, kept in ((100, 60), (60, 30), (100, 30)))
    for name in ("labels avoidable", "labelling money avoidable", "platform fee avoidable", "bytes of dropped samples", "storage money a month"):
        assert value(first, name) + value(second, name) == pytest.approx(value(whole, name)), name


@pytest.mark.parametrize("text", ["what", "10:0.1", "inf:-1", "20:1,10:2,inf:1", "a:b,inf:1", "-5:0.1,inf:0.2", "10:inf,inf:1"])
def test_broken_tiers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="label_fee is"):
        savings(manifest(100, 50), label_fee=text)


def evaluation(folder: Path, budget: str, kwh: float | None = 0.4, **took: Any) -> None:
    arms = {
        name: {"seconds_mean": seconds, "runs": [{"energy_kwh": kwh and kwh * seconds / 200, "energy_method": "meter"}] * 2}
        for name, seconds in (("full", 200.0), ("pruned", 120.0))
    }
    facts = {"budget": budget, "epochs": 3, "proxy": "small_cnn", "device": "cpu"} | took
    (folder / "evaluation.json").write_text(json.dumps({"schema_version": 1, "kind": "evaluation", "arms": arms, "facts": facts, "comparison": {}}))


def test_seconds_and_energy_of_a_training_come_from_the_evaluation(tmp_path: Path) -> None:
    record = Manifest(tmp_path, manifest(100, 50).document)
    evaluation(tmp_path, "equal-steps")
    found = lines(record, trainings=3)
    assert value(found, "one training on all data: time") == 200 and found["one training on all data: time"].method == "measured"
    assert value(found, "net time saved") == pytest.approx(3 * 200 * 0.5 - 101)
    assert value(found, "net energy saved") == pytest.approx(3 * 0.4 * 0.5 - 0.5)
    assert value(lines(record, training_seconds=1000.0), "net time saved") == pytest.approx(500 - 101)  # what the user says goes first
    evaluation(tmp_path, "equal-epochs")
    found = lines(record)
    assert value(found, "net time saved") == pytest.approx(200 - 120 - 101)  # both trainings were measured
    assert value(found, "trainings until it pays") == pytest.approx(101 / 80)
    assert value(found, "net energy saved") == pytest.approx(0.4 - 0.24 - 0.5)
    evaluation(tmp_path, "equal-steps", kwh=None)
    assert lines(record)["net energy saved"].value is None


def test_the_evaluation_is_a_cost_of_its_own_that_the_net_leaves_out(tmp_path: Path) -> None:
    record = Manifest(tmp_path, manifest(100, 50).document)
    assert "cost of evaluating: time" not in lines(record)
    evaluation(tmp_path, "equal-epochs", seconds=700.0, energy_kwh=3.0, energy_method="meter of the whole")
    found = lines(record)
    assert (value(found, "cost of evaluating: time"), value(found, "cost of evaluating: energy")) == (700, 3)
    assert found["cost of evaluating: energy"].note == "meter of the whole" and "4 trainings" in found["cost of evaluating: time"].note
    assert value(found, "net time saved") == pytest.approx(200 - 120 - 101)
    evaluation(tmp_path, "equal-epochs")  # of an earlier version, without the whole
    assert lines(record)["cost of evaluating: time"].value is None


def du(*folders: Path) -> int:
    """Bytes of the files below the folders as `du` counts them: a file with several links once."""
    done = subprocess.run(
        ["du", "--apparent-size", "--block-size=1", "--files0-from=-", "--total"],
        input="\0".join(str(f) for folder in folders for f in sorted(folder.rglob("*")) if f.is_file()),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1].split()[0])


def test_bytes_agree_with_du_on_exported_folders(image_folder: Path, tmp_path: Path) -> None:
    pipeline.score(str(image_folder), tmp_path / "run", max_epochs=1, image_size=16)
    record = pipeline.select(tmp_path / "run", tmp_path / "m", keep="0.5")
    before = {path: path.stat().st_size for path in image_folder.rglob("*.png")}
    assert record.document["kept_bytes"] + record.document["dropped_bytes"] == du(image_folder) == sum(before.values())
    told = {
        form: pipeline.export(tmp_path / "m", form, tmp_path / name)
        for name, form in (("linked", "imagefolder"), ("copied", "imagefolder(link='copy')"), ("table", "parquet"), ("rows", "indices"))
    }
    assert told["imagefolder"]["link"] == "hardlink"
    assert (
        du(image_folder, tmp_path / "linked") - du(image_folder) == told["imagefolder"]["bytes_written"]
    )  # hard links: the class map and the record only
    assert (
        du(tmp_path / "copied")
        == told["imagefolder(link='copy')"]["bytes_written"]
        == record.document["kept_bytes"] + sum((tmp_path / "copied" / name).stat().st_size for name in ("class_map.json", RECORD))
    )
    assert du(tmp_path / "table") == told["parquet"]["bytes_written"] and du(tmp_path / "rows") == told["indices"]["bytes_written"]
    found = pipeline.savings(tmp_path / "m").lines
    written = {line.note.rpartition(": ")[2]: line.value for line in found if line.name.startswith("bytes written")}
    assert written == {
        str(tmp_path / name): float(one["bytes_written"]) for name, one in zip(("linked", "copied", "table", "rows"), told.values(), strict=True)
    }
    counted = {line.note: line.value for line in found if line.name.startswith("files written")}
    assert counted == {
        str(tmp_path / name): sum(path.is_file() for path in (tmp_path / name).rglob("*")) for name in ("linked", "copied", "table", "rows")
    }
    assert counted[str(tmp_path / "linked")] == record.n_kept + 2  # and the class map, and the record of the export
    assert next(line.value for line in found if line.name == "bytes freed so far") == 0
    assert {path: path.stat().st_size for path in image_folder.rglob("*.png")} == before  # an export frees nothing


def test_prices_once_given_are_remembered_for_the_report(tmp_path: Path, shapes_run: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    assert asked_options(tmp_path / "m") == {}
    pipeline.savings(tmp_path / "m", label_price=0.25, trainings=4)
    again = savings(pipeline.read_manifest(tmp_path / "m"), **asked_options(tmp_path / "m"))
    assert again.facts["trainings"] == 4 and {line.price for line in again.lines if line.name == "labelling money already paid"} == {0.25}


def test_it_pays_after_the_trainings_that_make_up_for_the_scoring() -> None:
    found = lines(manifest(100, 50), training_seconds=101)
    assert value(found, "trainings until it pays") == pytest.approx(2)
    assert value(lines(manifest(100, 50), training_seconds=101, trainings=2), "net time saved") == pytest.approx(0)


def test_every_assumed_line_has_a_price_with_date_and_source() -> None:
    for line in savings(manifest(100, 50), training_kwh=1.0, training_seconds=1.0).lines:
        if line.method == "assumed":
            assert line.price is not None and line.price_date and line.price_source, line.name


def test_a_price_has_a_unit_wherever_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    units = {"labels": "workers per sample", "labelling": "USD per label", "platform": "USD per sample", "storage": "USD per GB and month"}
    units |= {"net compute money": "USD per hour", "net energy saved": "facility energy over machine energy", "net CO2e saved": "g CO2e per kWh"}
    table = savings(manifest(100, 50), training_kwh=1.0, training_seconds=1.0, gpu_price=2.0, label_fee="ground-truth", labels_owned=False)
    for line in table.lines:
        wanted = [unit for name, unit in units.items() if line.name.startswith(name)]
        assert wanted == [line.price_unit] * (line.price is not None) and all(unit in price_used(line) for unit in wanted), line
    show({}, False, savings_table([asdict(line) for line in table.lines]))
    shown = " ".join(capsys.readouterr().out.split())
    assert "[at 2 USD per hour, given by the user]" in shown and "[at 475 g CO2e per kWh, world average" in shown


def test_epochs_that_were_not_run_here_are_not_called_so_and_no_evaluation_of_logged_numbers_is_advised() -> None:
    run = manifest(100, 50).document["run"]
    for proxy, said in (
        ("logged", "(10 epochs that were logged elsewhere)"),
        ("own loop", "(10 epochs of a training of your own)"),
        ("small_cnn", "(10 proxy epochs on cpu)"),
    ):
        found = lines(manifest(100, 50, run=run | {"proxy": proxy}))
        assert said in found["cost of pruning: time"].note
        assert {"clprune evaluate" in found[f"net {what} saved"].note for what in ("time", "energy")} == {proxy != "logged"}


def test_negative_prices_are_refused() -> None:
    with pytest.raises(UsageError, match="label_price is -1"):
        savings(manifest(100, 50), label_price=-1)


def test_prices_of_ones_own_come_from_a_file_and_a_flag_goes_before_it(tmp_path: Path, shapes_run: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        'label_price = 0.5\ngpu_price = 2\n[storage_price]\nvalue = 0.1\ndate = "2026-11"\nsource = "our contract"\n'
    )
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")

    def lines(**given: Any) -> dict[str, Any]:
        return {line.name: line for line in pipeline.savings(tmp_path / "m", prices=tmp_path / "prices.toml", **given).lines}

    found = lines()
    storage = found["storage money a month"]
    assert (storage.price, storage.price_date, storage.price_source) == (0.1, "2026-11", "our contract")
    assert found["labelling money already paid"].value == pytest.approx(300 * 3 * 0.5)
    assert lines(label_price=0.25)["labelling money already paid"].value == pytest.approx(300 * 3 * 0.25)
    assert asked_options(tmp_path / "m")["prices"]["gpu_price"]["value"] == 2
    again = savings(read_manifest(tmp_path / "m"), **asked_options(tmp_path / "m"))
    assert {line.name: line.value for line in again.lines}["storage money a month"] == storage.value


@pytest.mark.parametrize(
    ("text", "said"), [("label_price = -1", "label_price"), ("rent = 3", "rent"), ("label_price = ", "cannot be read"), ('pue = "high"', "pue")]
)
def test_a_bad_file_of_prices_is_refused_with_its_entry(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_prices(tmp_path / "prices.toml")


def test_an_export_is_counted_once_from_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    for folder, destination in ((tmp_path, "e"), (tmp_path / "m", "../e"), (tmp_path / "m", "e")):
        monkeypatch.chdir(folder)
        note_export(tmp_path / "m", {"form": "indices", "destination": destination})
    assert [Path(export["destination"]) for export in read_exports(tmp_path / "m")] == [tmp_path / "e", tmp_path / "m" / "e"]


def test_exports_at_the_same_time_are_all_counted(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from clprune.savings import note_export\n"
    code += "for i in range(25): note_export(Path(sys.argv[1]), {'form': 'indices', 'destination': f'/d/{sys.argv[2]}-{i}'})"
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(worker)]) for worker in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert len(read_exports(tmp_path)) == 75


def test_an_export_that_was_killed_before_it_was_listed_is_listed_by_the_same_command(shapes_run: Path, tmp_path: Path) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")
    pipeline.select(shapes_run, tmp_path / "other", keep="0.4")
    told = pipeline.export(tmp_path / "m", "imagefolder", tmp_path / "e")
    listed, files = read_exports(tmp_path / "m"), sorted(tmp_path.glob("e/**/*"))
    (tmp_path / "m" / "exports.json").unlink()  # as if it had been killed just before
    for manifest, form in (("other", "imagefolder"), ("m", "indices")):  # neither of another manifest nor in another form
        with pytest.raises(UsageError, match="exists already"):
            pipeline.export(tmp_path / manifest, form, tmp_path / "e")
    again = pipeline.export(tmp_path / "m", "imagefolder", tmp_path / "e")
    assert again | {"seconds": 0} == told | {"seconds": 0} and sorted(tmp_path.glob("e/**/*")) == files
    assert [one | {"seconds": 0} for one in read_exports(tmp_path / "m")] == [one | {"seconds": 0} for one in listed]
    with pytest.raises(UsageError, match="exists already"):  # what is listed is refused as before
        pipeline.export(tmp_path / "m", "imagefolder", tmp_path / "e")


def test_an_export_from_a_manifest_that_cannot_be_written_to_stands(shapes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.select(shapes_run, tmp_path / "m", keep="0.5")

    def denied(path: Path, document: Any) -> None:
        raise StorageError(f"no permission to write {path}.")

    monkeypatch.setattr("clprune.savings.write_json", denied)
    told = pipeline.export(tmp_path / "m", "indices", tmp_path / "e")
    assert "will not count this export: no permission" in told["note"] and pipeline.verify(tmp_path / "e") == []
