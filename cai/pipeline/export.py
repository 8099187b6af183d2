"""Write one export of a run: parquet or JSONL for each split, and a card; `datasets.load_dataset` takes it as it is.

The folder appears whole or not at all. Rows stream through, so memory does not grow with their number, and the same
run gives the same bytes. A run without rows gives an empty `train` file that still has its columns, and a card that
says why; `datasets` can stream that and refuses to load it.

Left out on purpose: what a row looks like, which a Format says, and uploading.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from cai.core import plugins
from cai.core.errors import Mistake
from cai.core.plugin_types import Column, Export, Format
from cai.data.splits import Split, consistent_split
from cai.report.cards.dataset import Lengths, dataset_card
from cai.runs.files import atomic, replaced_folder, write_text
from cai.runs.folder import Run

Row = dict[str, object]
Put = Callable[[Row], object]

TAGS = ["cai-export", "constitutional-ai", "synthetic"]
"""Of the card; the first marks a folder as ours to replace."""
BATCH = 256
"""Rows of one parquet row group, and so of memory."""


def write_export(run: Run, format_name: str, *, split: Split, folder: Path | None = None) -> dict[str, int]:
    """Write one format of a run (under its `export/` unless `folder` is given); rows by split. Raises Mistake.

    Hold the run's lock meanwhile. An earlier export in the folder is replaced, anything else there is refused.
    """
    shape = plugins.find_plugin("export", format_name, Format)
    manifest, lengths = run.manifest, Lengths()
    prompts = chain((trace.prompt for trace in run.traces()), (pair.prompt for pair in run.pairs()))
    export = Export(run.traces, run.pairs, consistent_split(split, prompts), manifest.constitution.digest)
    target = folder or run.path / "export" / format_name.replace(":", ".")
    with replaced_folder(target, _refuse_foreign) as beside:
        counts = _fill(beside, shape, _measured(shape.rows(export), lengths))
        page = dataset_card(manifest, format_name, shape, counts, lengths)
        write_text(beside / "README.md", f"---\n{_header(shape, counts)}---\n\n{page}")
        for file, text in shape.beside(list(counts)).items() if shape.beside else ():
            write_text(beside / file, text)
    return counts


def _measured(rows: Iterable[tuple[str, Row]], lengths: Lengths) -> Iterator[tuple[str, Row]]:
    for name, row in rows:
        lengths.add(row)
        yield name, row


def _fill(folder: Path, shape: Format, rows: Iterable[tuple[str, Row]]) -> dict[str, int]:
    """Write each row to the file of its split; `train` where there are no rows at all. Returns rows by split."""
    counts, files = Counter[str](), dict[str, Put]()
    with ExitStack() as stack:

        def begin(name: str) -> Put:
            file = stack.enter_context(atomic(folder / f"{name}.{shape.file}"))
            return stack.enter_context(_WRITERS[shape.file](file, shape.columns))

        for name, row in rows:
            if row.keys() != shape.columns.keys():
                raise Mistake(shape.about, f"a row has the columns {', '.join(row)}", "give it those of its Format")
            if name not in files:
                files[name] = begin(name)
            files[name](row)
            counts[name] += 1
        if not files:
            begin("train")
    names = sorted(counts, key=lambda name: (name != "train", name))
    return {name: counts[name] for name in names} or {"train": 0}


@contextmanager
def _parquet(file: IO[bytes], columns: Mapping[str, Column]) -> Iterator[Put]:
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    schema = _features(columns).arrow_schema
    batch: list[Row] = []

    def flush() -> None:
        writer.write_table(Table.from_pylist(batch, schema=schema))
        batch.clear()

    def put(row: Row) -> None:
        batch.append(row)
        if len(batch) == BATCH:
            flush()

    with ParquetWriter(file, schema) as writer:
        yield put
        if batch:
            flush()


@contextmanager
def _jsonl(file: IO[bytes], columns: Mapping[str, Column]) -> Iterator[Put]:
    yield lambda row: file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


_WRITERS: Mapping[str, Callable[[IO[bytes], Mapping[str, Column]], AbstractContextManager[Put]]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
}


def _features(columns: Mapping[str, Column]) -> Any:
    from datasets import Features, List, Value

    message = {"role": Value("string"), "content": Value("string")}
    kinds = {
        "messages": List(message),
        "message": message,
        "text": Value("string"),
        "texts": List(Value("string")),
        "bool": Value("bool"),
        "int": Value("int64"),
        "float": Value("float64"),
    }
    return Features({name: kinds[kind] for name, kind in columns.items()})


def _header(shape: Format, counts: Mapping[str, int]) -> str:
    """The card's YAML: which file is which split, and the columns, so that JSONL loads with the declared types."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    files = [{"split": name, "path": f"{name}.{shape.file}"} for name in counts]
    header = DatasetCardData(tags=TAGS, configs=[{"config_name": "default", "data_files": files}])
    DatasetInfosDict({"default": DatasetInfo(features=_features(shape.columns))}).to_dataset_card_data(header)
    return str(header.to_yaml()) + "\n"


def _refuse_foreign(folder: Path) -> None:
    """An export replaces only an export: other files are never deleted."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    page = folder / "README.md"
    if not page.is_file() or f"- {TAGS[0]}\n" not in page.read_text("utf-8", errors="replace"):
        raise Mistake(str(folder), "holds something that is not an export of cai", "choose an empty or a new folder")
