"""`jobs/make_manifest.py`: every kind of source becomes a manifest that plans without a failed row; bad ones do not."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.make_manifest import main
from manifests.config import RunConfig
from manifests.errors import ManifestError, UsageError
from manifests.planning.plan import plan
from manifests.requests.schema import REQUEST_FIELDS
from workers.stages.pixels import decode

Maker = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Makes a manifest in the test's folder, sees that all of it can be planned, and returns its rows."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> list[dict[str, Any]]:
        assert main([*options, "--output", "m.parquet"]) == 0
        table = pq.read_table("m.parquet")
        kinds = {field.name: field.type for field in REQUEST_FIELDS}
        assert {name: table.schema.field(name).type for name in table.column_names if name in kinds} == {
            name: kind for name, kind in kinds.items() if name in table.column_names
        }
        planned = plan(RunConfig(manifest=(str(tmp_path / "m.parquet"),), output=str(tmp_path / "out")))
        assert (planned.requests, planned.rejected) == (table.num_rows, 0)
        return table.to_pylist()

    return run


def picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), "white").save(path)
    return path


def test_csv_columns_are_mapped_typed_and_filled(make: Maker) -> None:
    Path("c.csv").write_text('caption,h,note\n"a cat, ""big""\nand grey",512,x\na dog,,\n"",768,y\n')
    rows = make(
        "--csv", "c.csv", "--map", "caption=prompt", "h=height", "--set", "width=640", "seed=18446744073709551615"
    )
    assert [row["prompt"] for row in rows] == ['a cat, "big"\nand grey', "a dog", ""]
    assert [row["height"] for row in rows] == [512, None, 768]
    assert {row["width"] for row in rows} == {640}
    assert {row["seed"] for row in rows} == {2**64 - 1}
    assert [row["note"] for row in rows] == ["x", None, "y"]
    assert {row["task"] for row in rows} == {"text2img"}


def test_packed_tsv_files_of_a_glob(make: Maker) -> None:
    for name in ("b", "a"):
        Path(f"{name}.tsv.gz").write_bytes(gzip.compress(f"prompt\tdrop me\n{name}, 1\tx\n".encode()))
    assert [row["prompt"] for row in make("--tsv", "*.tsv.gz", "--drop", "drop me")] == ["a, 1", "b, 1"]


def test_jsonl_tells_tasks_from_what_rows_have(make: Maker) -> None:
    picture(Path("in/a.png"))
    rows = [
        {"prompt": "a", "height": "512"},
        {"prompt": "b", "image": "in/a.png", "height": 512},
        {"prompt": "c", "image": "in/a.png", "mask": "in/a.png"},
        {"conditions": [{"text": "d", "weight": 0.5}, {"image": {"path": "in/a.png"}, "weight": 0.5}]},
        {"task": "text2img", "prompt": "e", "image": "in/a.png"},
    ]
    Path("j.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    made = make("--jsonl", "j.jsonl", "--set", "strength=0.5")
    assert [row["task"] for row in made] == ["text2img", "img2img", "inpaint", "interpolate", "text2img"]
    assert made[1]["image"] == {"bytes": None, "path": "in/a.png"}
    assert made[3]["conditions"][1]["image"]["path"] == "in/a.png"
    assert [row["height"] for row in made[:2]] == [512, 512]


def test_locations_are_as_seen_from_the_manifest_or_absolute(
    make: Maker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    far = tmp_path_factory.mktemp("far")
    row = {"prompt": "a", "image": "a.png", "mask": "s3://masks/a.png", "conditions": [{"image": {"path": "../b.png"}}]}
    for folder in (far, Path("near")):
        folder.mkdir(exist_ok=True)
        (folder / "j.jsonl").write_text(json.dumps({**row, "task": "inpaint"}))
    paths = []
    for source in (f"{far}/j.jsonl", "near/j.jsonl"):
        (found,) = make("--jsonl", source)
        paths.append([found["image"]["path"], found["mask"]["path"], found["conditions"][0]["image"]["path"]])
    assert paths == [
        [f"{far}/a.png", "s3://masks/a.png", f"{far.parent}/b.png"],
        ["near/a.png", "s3://masks/a.png", "b.png"],
    ]


def test_columns_and_types_may_come_late(make: Maker) -> None:
    late = [{"prompt": "b", "seed": 2**64 - 1, "x": 0.5, "y": "text", "z": {"deep": [1]}}, {"prompt": "c", "y": True}]
    rows = [*[{"prompt": "a", "x": 1, "y": 2, "w": None}] * 10_000, *late]
    Path("f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = make("--jsonl", "f.jsonl")
    assert made[0] == {"task": "text2img", "prompt": "a", "seed": None, "x": 1.0, "y": "2", "w": None, "z": None}
    assert made[10_000] == {**made[0], "prompt": "b", "seed": 2**64 - 1, "x": 0.5, "y": "text", "z": {"deep": [1]}}
    assert made[10_001]["y"] == "true"


def test_objects_that_are_always_empty_become_text(make: Maker) -> None:
    Path("f.jsonl").write_text('{"prompt": "a", "x": {}, "y": [{}]}\n{"prompt": "b", "y": []}\n')
    assert [(row["x"], row["y"]) for row in make("--jsonl", "f.jsonl")] == [("{}", "[{}]"), (None, "[]")]


def test_files_may_have_different_columns(make: Maker) -> None:
    Path("a.csv").write_text("prompt,tag\na,1\n")
    Path("b.csv").write_text("seed,prompt,other\n2,b,3\n")
    made = make("--csv", "a.csv", "b.csv")
    assert made == [
        {"task": "text2img", "prompt": "a", "seed": None, "tag": "1", "other": None},
        {"task": "text2img", "prompt": "b", "seed": 2, "tag": None, "other": "3"},
    ]
    pq.write_table(pa.table({"prompt": ["a"], "height": ["64"], "n": [1]}), "a.parquet")
    pq.write_table(pa.table({"prompt": ["b"], "width": [64.0], "n": [0.5]}), "b.parquet")
    made = make("--parquet", "a.parquet", "b.parquet")
    assert [(row["height"], row["width"], row["n"]) for row in made] == [(64, None, 1.0), (None, 64, 0.5)]


def test_options_may_be_repeated(make: Maker) -> None:
    Path("c.csv").write_text("a,b,c,d\n1,2,3,4\n")
    (row,) = make("--csv", "c.csv", "--map", "a=prompt", "--map", "b=id", "--drop", "c", "--drop", "d")
    assert row == {"id": "2", "task": "text2img", "prompt": "1"}


def test_conditions_in_a_csv_are_json(make: Maker) -> None:
    Path("c.csv").write_text('conditions\n"[{""text"": ""a""}, {""text"": ""b""}]"\n')
    (row,) = make("--csv", "c.csv")
    assert (row["task"], [c["text"] for c in row["conditions"]]) == ("interpolate", ["a", "b"])


def test_parquet_keeps_inline_images_and_other_columns(make: Maker) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (64, 64)).save(sink, "PNG")
    inline = {"bytes": sink.getvalue(), "path": "x.png"}
    pq.write_table(pa.table({"text": ["a"], "img": [inline], "tags": [["x", "y"]]}), "p.parquet")
    (row,) = make("--parquet", "p.parquet", "--map", "text=prompt", "img=image")
    assert row == {"task": "img2img", "prompt": "a", "image": inline, "tags": ["x", "y"]}


def test_a_text_file_on_another_storage(make: Maker) -> None:
    with fsspec.open("memory://texts/t.txt", "wb") as file:
        file.write("\ufeffa cat\n\n  a dog \n".encode())
    assert [row["prompt"] for row in make("--text", "memory://texts/t.txt")] == ["a cat", "a dog"]


def test_many_rows_are_written_in_row_groups(make: Maker, tmp_path: Path) -> None:
    Path("t.txt").write_text("".join(f"prompt {i}\n" for i in range(25_001)))
    assert [row["prompt"] for row in make("--text", "t.txt")] == [f"prompt {i}" for i in range(25_001)]
    footer = pq.ParquetFile("m.parquet").metadata
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [10_000, 10_000, 5_001]
    assert footer.row_group(0).column(0).compression == "ZSTD"


def test_a_folder_of_images_with_captions(make: Maker) -> None:
    picture(Path("photos/b.jpg"))
    picture(Path("photos/deep/a.png"))
    Path("photos/b.txt").write_text("a bee\n")
    rows = make("--images", "photos", "--set", "prompt=oil painting", "strength=0.5")
    assert [(row["id"], row["prompt"], row["task"]) for row in rows] == [
        ("b", "a bee", "img2img"),
        ("deep/a", "oil painting", "img2img"),
    ]


def test_masks_of_the_same_name_or_beside_or_in_the_alpha_channel(make: Maker) -> None:
    for name in ("photos/a.png", "masks/a.png", "pairs/a.png", "pairs/a_mask.png"):
        picture(Path(name))
    prompt = ("--set", "prompt=a hat")
    (row,) = make("--images", "photos", "--masks", "masks", *prompt)
    assert (row["task"], row["mask"]["path"]) == ("inpaint", "masks/a.png")
    (row,) = make("--images", "pairs", "--masks", "beside", *prompt)
    assert row["mask"]["path"] == "pairs/a_mask.png"

    half = np.full((64, 64, 4), 255, np.uint8)
    half[:, :32, 3] = 0
    Path("cut").mkdir()
    Image.fromarray(half).save("cut/a.png")
    (row,) = make("--images", "cut", "--masks", "alpha", *prompt)
    mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
    assert (mask[:, :32] == 255).all()
    assert (mask[:, 32:] == 0).all()


def test_a_folder_spells_endings_as_it_likes(make: Maker) -> None:
    for name in ("a.JPG", "b.Png", "c.avif", "d_mask.PNG", "d.jpeg"):
        picture(Path("photos") / name)
    Path("photos/a.TXT").write_bytes("\ufeffa café\n".encode())
    rows = make("--images", "photos", "--set", "prompt=a hat")
    assert [(row["id"], row["prompt"]) for row in rows] == [
        ("a", "a café"),
        *((name, "a hat") for name in ("b", "c", "d", "d_mask")),
    ]


def test_a_mask_from_the_alpha_channel_is_turned_as_the_job_turns_the_image(make: Maker) -> None:
    wide = np.full((32, 64, 4), 255, np.uint8)
    wide[:, :16, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    Path("cut").mkdir()
    Image.fromarray(wide).save("cut/a.png", exif=exif)
    (row,) = make("--images", "cut", "--masks", "alpha", "--set", "prompt=a hat")
    mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
    upright = np.asarray(decode(Path("cut/a.png").read_bytes()))
    assert mask.shape == (64, 32)
    assert ((mask == 255) == (upright[..., 3] == 0)).all()


def coco(images: int) -> str:
    captions = [{"image_id": i, "id": 10 * i + k, "caption": f" {i}/{k}\n"} for i in range(images) for k in range(5)]
    return json.dumps({"images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(images)], "annotations": captions})


def test_coco_captions_and_a_sample_of_them(make: Maker) -> None:
    Path("coco.json").write_text(coco(20))
    whole = make("--coco", "coco.json")
    assert len(whole) == 100
    assert whole[7] == {
        "id": "coco-12",
        "task": "text2img",
        "prompt": "1/2",
        "image_id": 1,
        "caption_id": 12,
        "file_name": "1.jpg",
    }
    sample = ("--coco", "coco.json", "--sample", "8")
    drawn = make(*sample, "--seed", "0")
    assert len({row["image_id"] for row in drawn}) == 8
    assert make(*sample) == drawn
    assert make(*sample, "--seed", "1") != drawn


def test_a_product_has_every_combination(make: Maker) -> None:
    Path("p.txt").write_text("a cat\na dog\n")
    Path("s.txt").write_text("oil\npixel art\n")
    rows = make("--product", "p.txt", "x", "s.txt", "x", "seeds", "0..2")
    assert len(rows) == 12
    assert [(row["prompt"], row["seed"]) for row in rows[2:5]] == [
        ("a cat, oil", 2),
        ("a cat, pixel art", 0),
        ("a cat, pixel art", 1),
    ]
    assert len(make("--product", "p.txt")) == 2


def test_a_product_of_styles_with_a_place_for_the_prompt_and_of_any_numbers(make: Maker) -> None:
    Path("prompt.txt").write_text("a cat\na dog\n")
    Path("styles.txt").write_text("{prompt}\nink drawing of {prompt}, 1920\noil\n")
    rows = make("--product", "guidance_scale", "2,4.5", "x", "prompt.txt", "x", "styles.txt", "x", "heights", "64,128")
    assert len(rows) == 24
    assert [row["prompt"] for row in rows[:12:2]] == [
        *("a cat", "ink drawing of a cat, 1920", "a cat, oil"),
        *("a dog", "ink drawing of a dog, 1920", "a dog, oil"),
    ]
    assert rows[-1] == {
        "task": "text2img",
        "prompt": "a dog, oil",
        "height": 128,
        "guidance_scale": 4.5,
        "text_1": "a dog",
        "styles": "oil",
    }


def test_rows_that_no_run_can_make_are_told_with_their_place_in_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("prompt,height,task\na,512,\nb,500,\nc,,txt2img\n")
    Path("b.csv").write_text("prompt,height\n" + ",512\n" * 10)
    assert main(["--csv", "a.csv", "b.csv", "--output", "m.parquet"]) == 0
    shown = capsys.readouterr().out
    assert "13 rows (12 text2img, 1 of an unknown task)" in shown
    assert "a.csv: row 1: height: 500 is not a multiple of 64; use 448 or 512" in shown
    assert "a.csv: row 2: task: 'txt2img' is not a task" in shown
    assert "b.csv: row 7: prompt: null is missing" in shown
    assert "b.csv: row 8" not in shown
    assert "12 of 13 rows cannot be made, 2 more than these; a run has them in its index as failed" in shown
    planned = plan(RunConfig(manifest=("m.parquet",), output="out"))
    assert (planned.requests, planned.rejected) == (13, 12)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("prompt,height\na,512\nb,tall\n", (), r"f.csv: row 1: height: 'tall' cannot be int32"),
        ("prompt,height\na,512\nb,3000000000\n", (), r"f.csv: row 1: height: 3000000000 is too large"),
        ("prompt,seed\na,-1\n", (), r"f.csv: row 0: seed: '-1' cannot be uint64"),
        ("prompt,height\na\n", (), r"f.csv: .*Expected 2 columns, got 1"),
        ("prompt,conditions\na,[\n", (), r"f.csv: row 0: conditions: '\[' is not JSON"),
        ("", (), r"f.csv: .*needs a header line"),
        ("prompt\n", (), r"no rows"),
        ("caption\na\n", (), r"no column 'prompt' but caption; .*--map caption=prompt"),
        ("caption\na\n", ("--map", "captoin=prompt"), r"no column 'captoin'"),
        ("caption,prompt\na,b\n", ("--map", "caption=prompt"), r"two columns would be 'prompt'"),
        ("prompt\na\n", ("--set", "hieght=64"), r"'hieght' is no column of a request"),
        ("prompt\na\n", ("--set", "height"), r"give NAME=VALUE"),
        ("prompt\na\n", ("--set", "height=tall"), r"--set: height: 'tall' is not a multiple of 64"),
        ("prompt\na\n", ("--set", "height=500"), r"--set: height: '500' .* use 448 or 512"),
        ("prompt,prompt\na,b\n", (), r"column 'prompt' appears twice"),
        ("prompt,x\na,b\n\nc,d\ne,f,g\n", (), r"f.csv: .*row 2: Expected 2 columns, got 3.*quotes"),
        ('prompt\n"never closed' + "\na" * 200, (), r"f.csv: .*never closed"),
        ("prompt\na\n", ("--sample", "3"), r"--sample: goes with --coco only"),
        ("prompt\na\n", ("--masks", "alpha"), r"--masks: goes with --images only"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(
    content: str, options: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.csv").write_text(content)
    with pytest.raises(UsageError, match=words):
        main(["--csv", "f.csv", "--output", "m.parquet", *options])
    assert not Path("m.parquet").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a"}\n[1]\n', "row 1 is list, not an object"),
        ('{"prompt": "a"}\n{"prompt\n', "row 1 is not JSON"),
        ('{"prompt": "a", "x": 1}\n{"prompt": "b", "x": [1]}\n', "column 'x' holds values of types .* --drop x"),
        (
            '{"prompt": "a", "x": 1}\n' * 10_000 + '{"prompt": "b", "x": [1]}\n',
            "rows 10000 to 10000 .* it is int64; .*--drop x",
        ),
        ('{"prompt": "a"}\n\n{"prompt": "\\ud800"}\n', "row 1 has half a character"),
    ],
)
def test_objects_that_do_not_go_together(
    content: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text(content)
    with pytest.raises(ManifestError, match=words):
        main(["--jsonl", "f.jsonl", "--output", "m.parquet"])
    assert os.listdir() == ["f.jsonl"]


def test_other_sources_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(Path("photos/a.png"))
    picture(Path("twice/a.png"))
    picture(Path("twice/a.jpg"))
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("a")
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no image")
    picture(Path("latin/a.png"))
    Path("latin/a.txt").write_bytes(b"caf\xe9")
    Path("coco.json").write_text(coco(3))
    Path("p.txt").write_text("a\n")
    Path("l.csv").write_bytes(b"prompt,note\na,b\nc,caf\xe9\n")
    Path("l.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n')
    Path("f.parquet").write_text("no Parquet")
    prompt = ("--set", "prompt=a")
    cases: dict[str, tuple[str, ...]] = {
        "none.txt: nothing there": ("--text", "none.txt"),
        "empty: nothing there": ("--images", "empty", *prompt),
        "no images there": ("--images", "texts", *prompt),
        "would have one id": ("--images", "twice", *prompt),
        "no mask of the same name": ("--images", "photos", "--masks", "twice/a.png", *prompt),
        "no mask named NAME_mask": ("--images", "photos", "--masks", "beside", *prompt),
        "no alpha channel": ("--images", "photos", "--masks", "alpha", *prompt),
        "a.txt: the caption is not UTF-8": ("--images", "latin"),
        "not a readable image": ("--images", "broken", "--masks", "alpha", *prompt),
        "not COCO captions": ("--coco", "p.txt"),
        "captions of 3 images, so --sample 4": ("--coco", "coco.json", "--sample", "4"),
        "--sample: give a number": ("--coco", "coco.json", "--sample", "0"),
        "l.jsonl: row 1 is not UTF-8": ("--jsonl", "l.jsonl"),
        "l.csv: In column 'note': row 1: ": ("--csv", "l.csv"),
        "steps: '0' is not a whole number from 1": ("--product", "p.txt", "x", "steps", "0..2"),
        "is not `seeds A..B`": ("--product", "p.txt", "x", "seeds", "3..1"),
        "put an x between": ("--product", "p.txt", "p.txt"),
        "at least one file of texts": ("--product", "seeds", "0..1"),
        "not a readable Parquet": ("--parquet", "f.parquet"),
        "does not end in .parquet": ("--text", "p.txt", "--output", "m"),
    }
    for words, options in cases.items():
        with pytest.raises(UsageError) as caught:
            main(["--output", "m.parquet", *options])
        assert words in str(caught.value), options
    assert not Path("m.parquet").exists()


# ---- whose the output is


def test_making_a_manifest_into_its_own_source_folder_again_makes_the_same(
    make: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data").mkdir()
    pq.write_table(pa.table({"prompt": ["a"]}), "data/a.parquet")
    for _ in range(3):
        assert main(["--parquet", "data", "--output", "data/requests.parquet"]) == 0
        assert pq.read_table("data/requests.parquet").column("prompt").to_pylist() == ["a"]
    assert "left out: " in capsys.readouterr().out
    Path("link").symlink_to("data")
    assert main(["--parquet", "link/*.parquet", "--output", "data/requests.parquet"]) == 0
    assert pq.read_table("data/requests.parquet").num_rows == 1


def test_a_manifest_is_not_its_own_only_source(make: Maker) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), "a.parquet")
    before = Path("a.parquet").read_bytes()
    with pytest.raises(UsageError, match="is also the source"):
        main(["--parquet", "a.parquet", "--output", "a.parquet", "--overwrite"])
    assert Path("a.parquet").read_bytes() == before


@pytest.mark.parametrize("foreign", [b"precious", None])
def test_another_file_is_replaced_only_when_told_to(make: Maker, foreign: bytes | None) -> None:
    Path("c.txt").write_text("a cat")
    output = Path("other.parquet")
    if foreign is None:
        pq.write_table(pa.table({"task": ["text2img"], "prompt": ["mine"]}), output)
    else:
        output.write_bytes(foreign)
    before = output.read_bytes()
    with pytest.raises(UsageError, match=r"other.parquet is there already.*--overwrite"):
        main(["--text", "c.txt", "--output", str(output)])
    assert output.read_bytes() == before
    assert main(["--text", "c.txt", "--output", str(output), "--overwrite"]) == 0
    assert main(["--text", "c.txt", "--set", "width=768", "--output", str(output)]) == 0
    assert pq.read_table(output).column("width").to_pylist() == [768]


def test_manifests_made_before_there_was_a_mark_are_known_by_their_columns(make: Maker) -> None:
    Path("c.txt").write_text("a cat")
    make("--text", "c.txt")
    pq.write_table(pq.read_table("m.parquet").replace_schema_metadata(), "m.parquet")
    make("--text", "c.txt")


def test_a_coco_caption_that_is_null_is_no_prompt_and_is_never_drawn(make: Maker) -> None:
    annotations = [
        {"image_id": 1, "id": 11, "caption": None},
        {"image_id": 1, "id": 10, "caption": "a cat\n "},
        {"image_id": 2, "id": 12, "caption": None},
    ]
    Path("coco.json").write_text(json.dumps({"images": [], "annotations": annotations}))
    assert main(["--coco", "coco.json", "--output", "m.parquet"]) == 0
    prompts = {row["id"]: row["prompt"] for row in pq.read_table("m.parquet").to_pylist()}
    assert prompts == {"coco-10": "a cat", "coco-11": None, "coco-12": None}
    assert [row["prompt"] for row in make("--coco", "coco.json", "--sample", "1")] == ["a cat"]
    with pytest.raises(ManifestError, match="captions of 1 images"):
        main(["--coco", "coco.json", "--sample", "2", "--output", "m.parquet"])


def test_ids_that_pandas_made_floats_are_whole_numbers_again(make: Maker) -> None:
    pq.write_table(pa.table({"id": [1e15, 12.0, 2.5, 123456789012345.0], "prompt": list("abcd")}), "f.parquet")
    assert [row["id"] for row in make("--parquet", "f.parquet")] == ["1000000000000000", "12", "2.5", "123456789012345"]


def test_sources_may_be_named_as_uris_of_pathlib(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "my data [1]").mkdir()
    (tmp_path / "my data [1]" / "100% a.csv").write_text("prompt\na cat\n")
    for location in (tmp_path / "my data [1]" / "100% a.csv", tmp_path / "my data [1]"):
        assert [row["prompt"] for row in make("--csv", location.as_uri())] == ["a cat"]
    assert [row["prompt"] for row in make("--csv", "my data [1]/*.csv")] == ["a cat"]
