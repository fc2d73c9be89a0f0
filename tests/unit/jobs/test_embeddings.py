"""`jobs/embeddings.py`: what a store holds, out of it and into another one, and into a manifest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.embeddings import main
from manifests.embeddings.keys import Origin
from manifests.embeddings.store import EmbeddingStore
from manifests.errors import UsageError
from tests.unit.jobs.started import Start
from tests.unit.manifests.embedding_rows import ORIGIN, embeds, keys, rows

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    store = EmbeddingStore(str(tmp_path / "store"))
    store.add(rows(range(30)))
    store.add(rows(range(30, 50)))
    return store


def test_list_says_what_a_store_holds(store: EmbeddingStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(rows(range(5), Origin("b" * 32, "float32", 12)))
    (Path(store.url) / "parts" / f"{'d' * 32}.parquet").write_bytes(b"")
    main(["list", store.url])
    told = capsys.readouterr().out
    (line,) = (line for line in told.splitlines() if ORIGIN.checkpoint in line)
    assert line.split("│")[2:6] == [" float16 ", " 24    ", " 50         ", " 2     "]
    assert "55 embeddings in 4 parts" in told
    assert "1 parts cannot be read" in told


def test_what_is_exported_can_be_read_by_others_and_imported_into_another_store(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manifests.embeddings.clip_retrieval.FILE_ROWS", 25)
    folder, copy = tmp_path / "out", str(tmp_path / "copy")
    main(["export", store.url, str(folder)])
    matrices = [np.load(path) for path in sorted((folder / "img_emb").glob("img_emb_*.npy"))]
    assert sum(len(matrix) for matrix in matrices) == 50
    metadata = pq.read_table(folder / "metadata" / "metadata_0.parquet")
    number = int(metadata.column("caption")[3].as_py().split()[1])
    assert np.array_equal(matrices[0][3], embeds(number)[0])
    main(["import", str(folder), "--store", copy])
    assert "50 embeddings added" in capsys.readouterr().out
    known = EmbeddingStore(copy).get(keys(range(50)), ORIGIN)
    assert known.found.all()
    assert np.array_equal(known.negative_image_embeds[7], embeds(7)[1])
    assert known.prompt_truncated[7]


def test_embeddings_from_elsewhere_become_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "clip"
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number in (0, 1):
        matrix = np.random.default_rng(number).standard_normal((4, 6)).astype(np.float16)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", matrix)
        table = pa.table({"image_path": [f"{number}-{i}.jpg" for i in range(4)], "caption": ["a", None, "b", "c"]})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    with pytest.raises(UsageError, match="make a manifest of it with --manifest"):
        main(["import", str(folder), "--store", str(tmp_path / "store")])
    main(["import", str(folder), "--manifest", str(tmp_path / "m.parquet")])
    manifest = pq.read_table(tmp_path / "m.parquet")
    assert manifest.column("prompt").to_pylist() == ["a", "", "b", "c"] * 2
    assert manifest.column("task").unique().to_pylist() == ["text2img"]
    assert manifest.column("image_path")[5].as_py() == "1-1.jpg"
    assert len(manifest.column("image_embeds")[0].as_py()) == 6


def test_folders_and_stores_that_cannot_be_used_are_refused_with_the_reason(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    nothing = str(tmp_path / "nothing")
    for words in (["list", nothing], ["export", nothing, str(tmp_path / "out")], ["prune", nothing]):
        with pytest.raises(UsageError, match=f"{nothing} holds no"):
            main(words)
    with pytest.raises(UsageError, match="clip-retrieval's layout"):
        main(["import", str(tmp_path), "--store", store.url])
    store.add(rows(range(5), Origin("b" * 32, "float32", 12)))
    with pytest.raises(UsageError, match="choose embeddings of one dtype and width with --checkpoint"):
        main(["export", store.url, str(tmp_path / "out")])
    main(["export", store.url, str(tmp_path / "out"), "--checkpoint", "b" * 32])
    np.save(tmp_path / "out" / "img_emb" / "img_emb_0.npy", np.zeros((4, 12), np.float32))
    with pytest.raises(UsageError, match="file 0 has 4 embeddings, but 5 rows of metadata"):
        main(["import", str(tmp_path / "out"), "--store", store.url])


def test_prune_as_a_person_starts_it(store: EmbeddingStore, start: Start) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "embeddings.py"), "prune"]
    done = subprocess.run([*command, store.url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 parts became 1; 50 embeddings kept, dropped: none" in done.stdout
    assert start(main, "prune", "/nowhere").returncode == 2


def test_an_export_replaces_other_embeddings_only_when_told_to_and_then_all_of_them(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.embeddings.clip_retrieval.FILE_ROWS", 10)
    folder = tmp_path / "out"
    main(["export", store.url, str(folder)])
    assert len(list(folder.rglob("*_1.*"))) == 3
    foreign = folder / "img_emb" / "img_emb_0.npy"
    foreign.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"img_emb_0.npy is there already; .* --overwrite"):
        main(["export", store.url, str(folder)])
    assert foreign.read_bytes() == b"precious"
    monkeypatch.setattr("manifests.embeddings.clip_retrieval.FILE_ROWS", 100)
    main(["export", store.url, str(folder), "--overwrite"])
    assert len(np.load(foreign)) == 50
    assert not list(folder.rglob("*_1.*"))


def test_embeddings_do_not_become_a_manifest_over_another_file(store: EmbeddingStore, tmp_path: Path) -> None:
    folder, manifest = tmp_path / "out", tmp_path / "m.parquet"
    main(["export", store.url, str(folder)])
    manifest.write_bytes(b"precious")
    with pytest.raises(UsageError, match="is there already"):
        main(["import", str(folder), "--manifest", str(manifest)])
    assert manifest.read_bytes() == b"precious"
    main(["import", str(folder), "--manifest", str(manifest), "--overwrite"])
    main(["import", str(folder), "--manifest", str(manifest)])
    assert pq.read_table(manifest).num_rows == 50


def test_a_store_is_not_begun_in_a_folder_of_somebody_else(store: EmbeddingStore, tmp_path: Path) -> None:
    main(["export", store.url, str(tmp_path / "out")])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    command = ["import", str(tmp_path / "out"), "--store", str(tmp_path / "other")]
    with pytest.raises(UsageError, match=r"it holds notes.txt"):
        main(command)
    main([*command, "--into-existing"])
    main(command)


def test_pruning_leaves_alone_what_only_looks_like_a_part(store: EmbeddingStore) -> None:
    foreign = Path(store.url) / "parts" / f"{'e' * 32}.parquet"
    pq.write_table(pa.table({"customer": [1, 2]}), foreign)
    before = foreign.read_bytes()
    main(["prune", store.url])
    assert foreign.read_bytes() == before
    assert EmbeddingStore(store.url).get(keys(range(50)), ORIGIN).found.all()
