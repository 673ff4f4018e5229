"""Open a scored output: its files, and the metadata that records how they were made.

Every output file has the key ``batchmax`` in its metadata, JSON written by ``sinks.metadata``: options, computed
columns, inputs. A folder also has a manifest. Raises for anything that can't be read as a scored output; doesn't check
the numbers.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from batchmax.columns.arrow import is_list, plain_type
from batchmax.columns.logits_column import OutputLayout
from batchmax.columns.sequences import row_fields
from batchmax.errors import DataError, UsageError
from batchmax.options.parsing import check_type
from batchmax.options.score_options import FloatName, ScoreOptions
from batchmax.outputs import CLASS_OUTPUTS, OUTPUTS, column_name, top_k_outputs
from batchmax.sinks.commit.existing_output import SUCCESS, files_in
from batchmax.sinks.commit.remote_output import StoredFolder, stored_folder
from batchmax.sinks.parquet_sink import SUMMARY_KEY
from batchmax.sources.parquet_file import InputFile, arrow_schema, open_file
from batchmax.storage.file_names import composed, name_order
from batchmax.storage.input_files import find_files
from batchmax.storage.json_fields import JsonError, json_list, json_object, json_objects, parse_json
from batchmax.storage.manifest import JOB_KEY, MANIFEST, PART, find_manifest, old_manifest_of, read_old_manifest
from batchmax.storage.object_store import store_of
from batchmax.storage.paths import is_uri, local_path

REJECTED = ("row", "status")
"""The last columns of a file of rejected rows."""
AGAIN = "score it again: --if-exists overwrite"
"""The remedy if an output was changed or damaged."""

TAKEN_OVER = (
    "beta",
    "input",
    "logits_dtype",
    "ignore_index",
    "label_smoothing",
    "limit",
    "on_bad_row",
    "top_k",
    "prefix",
)
"""Options that the metadata stores unchanged."""

METADATA = {
    "logits": list | str,
    "label": str | None,
    "classes": list | None,
    "n_classes": int,
    "outputs": list,
    "class_weights": list | None,
    "layout": str,
    "dtype": str,
    "options": dict,
    "inputs": list,
}
"""The members of the metadata, and their types."""

Said = Mapping[str, Any]


class Told(NamedTuple):
    """Size, footer digest and sample digest of one input file, or the total size and one digest of ``files`` files.

    Earlier versions wrote no sample digest.
    """

    size: int
    digest: str
    sample: str | None = None
    files: int = 1


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The metadata of an output: how it was made.

    Attributes
    ----------
    options
        The options of the job, except ``logits``, which is None with one column per class.
    logits
        The name of the logits column, or a text that describes the columns.
    outputs
        The names of the outputs in column order, those of ``top_k`` included.
    inputs
        One entry per input file, or a single entry for a large number of files.
    nested
        Whether the rows are sequences.
    """

    options: ScoreOptions
    logits: str
    n_classes: int
    outputs: tuple[str, ...]
    layout: OutputLayout
    dtype: FloatName
    inputs: tuple[Told, ...]
    nested: bool = False

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        """The type of columns with one float per row."""
        return np.dtype(np.promote_types(self.dtype, np.float32))

    def width(self, output: str) -> int:
        """Return the number of columns of an output."""
        is_wide = self.layout == "wide" and output in OUTPUTS and OUTPUTS[output].kind == "matrix"
        return self.n_classes if is_wide else 1


@dataclass(frozen=True, eq=False)
class Scored:
    """A scored output: one file, or the parts of a folder in order.

    Attributes
    ----------
    columns
        The column names of each output.
    summary
        The summary of the job: from the manifest of a folder, or the footer of a file; None if there is none.
    """

    path: str
    files: list[InputFile]
    is_folder: bool
    schema: pa.Schema
    claims: Claims
    columns: dict[str, tuple[str, ...]]
    summary: Said | None

    @property
    def n_rows(self) -> int:
        """The number of rows in all files, from their footers."""
        return sum(file.metadata.num_rows for file in self.files)

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum(file.size for file in self.files)


def open_scored(path: str, storage: Sequence[str] = ()) -> Scored:
    """Open a file or folder that ``score`` wrote, and check that its files agree.

    Parameters
    ----------
    path
        A file, a folder, a URI, or a glob over the files of one output.
    storage
        Storage options for URIs.

    Raises
    ------
    DataError
        The path doesn't exist, ``score`` didn't write it, or it is incomplete.
    UsageError
        The path is a stream.
    """
    path = local_path(path)
    manifest, parts = _opened(path, storage)
    is_folder = manifest is not None
    files = [open_file(name, storage) for name in parts]
    first = files[0]
    said = [_own_metadata(file) for file in files]
    claims = _claims(first.path, said[0])
    schema = arrow_schema(first)
    for file, theirs in zip(files, said, strict=True):
        if theirs != said[0] or not arrow_schema(file).equals(schema):
            what = f"is from another job than {first.path}: their metadata or columns differ"
            raise DataError(what, where=file.path, remedy=AGAIN)
    for file, size in zip(files, parts.values(), strict=True):
        if size is not None and file.size != size:
            what = f"has {file.size:,} bytes, but the manifest says {size:,}"
            raise DataError(what, where=file.path, remedy=AGAIN)
    summaries = [_summary(file) for file in files]
    for file, summary in zip(files, summaries, strict=True):
        _check_rows(file.path, file.metadata.num_rows, summary, "the summary in its footer", claims)
    scored = Scored(
        path,
        files,
        is_folder,
        schema,
        claims,
        _new_columns(first.path, schema, claims),
        manifest if is_folder or len(files) > 1 else summaries[0],
    )
    _check_rows(path, scored.n_rows, manifest, "the manifest", claims)
    return scored


def _check_rows(path: str, rows: int, summary: Said | None, who: str, claims: Claims) -> None:
    """Compare a number of rows with the one in a summary."""
    if summary is None:
        return
    read, bad = summary.get("n_rows"), summary.get("bad_rows")
    if not isinstance(read, int) or not isinstance(bad, int):
        raise DataError(f"{who} does not say how many rows there are", where=path, remedy=AGAIN)
    left = read - bad if claims.options.on_bad_row == "drop" else read
    if left != rows:
        raise DataError(f"{rows:,} rows are there, but {who} says {left:,}", where=path, remedy=AGAIN)


def _opened(path: str, storage: Sequence[str]) -> tuple[Said | None, dict[str, int | None]]:
    """Return the summary in a folder's manifest, the paths of the files, and their sizes if the manifest has them."""
    if is_uri(path):
        store = store_of(path, storage)
        folder = None if store.info() is not None and not path.endswith("/") else stored_folder(store)
        if folder is not None and folder.is_finished:
            return _stored_folder(store.uri, folder)
    elif Path(path).is_dir():
        return _folder(Path(path))
    return None, dict.fromkeys(find_files([path], storage))


def _stored_folder(uri: str, folder: StoredFolder) -> tuple[Said, dict[str, int | None]]:
    """Return the same for a folder in an object store, without the objects of uncommitted runs."""
    if SUCCESS not in folder.objects:
        raise DataError(f"there is no {SUCCESS} in it, so it is not whole", where=uri, remedy=AGAIN)
    if folder.manifest is None:
        if folder.old is None:
            remedy = "name a folder that score wrote, or one of the files"
            raise DataError(f"there is no manifest that batchmax wrote: {MANIFEST}", where=uri, remedy=remedy)
        parts = sorted(name for name in folder.objects if PART.fullmatch(name.rpartition("/")[2]))
        return folder.old, {f"{uri}/{name}": None for name in parts}
    missing = next((name for name in folder.manifest.parts if name not in folder.objects), None)
    if missing is not None:
        raise DataError(f"{missing} is missing", where=uri, remedy=AGAIN)
    # A folder that was copied here has parts without a run id.
    if foreign := [name for name in folder.foreign() if name not in folder.manifest.parts]:
        what = "the manifest does not list this file"
        raise DataError(what, where=f"{uri}/{foreign[0]}", remedy="move it to another folder")
    return dict(folder.manifest.summary), {f"{uri}/{name}": size for name, size in folder.manifest.parts.items()}


def _folder(folder: Path) -> tuple[Said, dict[str, int | None]]:
    """Return the summary in a folder's manifest, the paths of its parts, and their sizes if the manifest has them."""
    found = find_manifest(folder)
    if found is None:
        summary = read_old_manifest(old_manifest_of(folder))
        if summary is None:
            raise DataError(
                f"there is no manifest that batchmax wrote: {MANIFEST}",
                where=str(folder),
                remedy=f"name a folder that score wrote, or one of the files: ls {shlex.quote(str(folder))}",
            )
        return summary, dict.fromkeys(_parts(folder))
    path, manifest = found
    if not (folder / SUCCESS).exists():
        raise DataError(f"there is no {SUCCESS} in it, so it is not whole", where=str(folder), remedy=AGAIN)
    there = {composed(str(one.relative_to(folder))): one for one in files_in(folder)}
    parts: dict[str, int | None] = {}
    for name, size in manifest.parts.items():
        part = there.pop(composed(name), None)
        if part is None:
            raise DataError(f"{name} is missing", where=str(folder), remedy=AGAIN)
        parts[str(part)] = size
    others = sorted(there.keys() - {composed(str(path.relative_to(folder))), SUCCESS})
    if others:
        what = "the manifest does not list this file"
        raise DataError(what, where=str(folder / others[0]), remedy="move it to another folder")
    return dict(manifest.summary), parts


def _parts(folder: Path) -> list[str]:
    """Return the parts of a folder; raise if a part is missing or another file is there.

    In a folder that mirrors the input's folders, each subfolder numbers its parts from 0.
    """
    if not (folder / SUCCESS).exists():
        raise DataError(f"there is no {SUCCESS} in it, so it is not whole", where=str(folder), remedy=AGAIN)
    found = [path for path in files_in(folder) if path != folder / SUCCESS]
    found.sort(key=lambda path: (name_order(f"{path.parent}/"), f"{path.name:>40}"))
    numbers: Counter[Path] = Counter()
    for path in found:
        match = PART.fullmatch(path.name)
        if match is None:
            raise DataError("batchmax did not write this file", where=str(path), remedy="move it to another folder")
        if int(match[1]) != numbers[path.parent]:
            missing = f"part-{numbers[path.parent]:05d}.parquet"
            raise DataError(f"{missing} is missing", where=str(path.parent), remedy=AGAIN)
        numbers[path.parent] += 1
    if not found:
        raise DataError("part-00000.parquet is missing", where=str(folder), remedy=AGAIN)
    return [str(path) for path in found]


def _own_metadata(file: InputFile) -> bytes:
    said = (file.metadata.metadata or {}).get(JOB_KEY.encode())
    if said is None:
        raise DataError(
            "batchmax score did not write this file, or its footer has lost the key 'batchmax'",
            where=file.path,
            remedy=f"to see what is in it: batchmax inspect {shlex.quote(file.path)}",
        )
    return bytes(said)


def _summary(file: InputFile) -> Said | None:
    said = (file.metadata.metadata or {}).get(SUMMARY_KEY.encode())
    if said is None:
        return None
    try:
        return json_object(parse_json(said), {})
    except JsonError as error:
        raise DataError("the summary in its footer cannot be read", where=file.path, remedy=AGAIN) from error


def _claims(path: str, raw: bytes) -> Claims:
    """Parse the metadata of an output and check every value."""
    try:
        said = json_object(parse_json(raw), {})
        if said.get("command", "score") != "score":
            what = f"batchmax {said['command']} wrote this, which computes nothing to verify"
            raise DataError(what, where=path, remedy="name what score wrote")
        json_object(said, METADATA)
        classes, weights = said["classes"], said["class_weights"]
        options_types = dict.fromkeys(TAKEN_OVER, object) | {"columns": list | None, "exclude": list}
        given = json_object(said["options"], options_types)
        scale, bias = (
            tuple(json_object(given, {name: list})[name]) if name in given else None for name in ("scale", "bias")
        )
        column = _only_name(said["logits"])
        options = ScoreOptions(
            logits=column,
            label=said["label"] or "none",
            classes=None if classes is None else tuple(classes),
            n_classes=said["n_classes"],
            outputs=tuple(said["outputs"]),
            class_weights=None if weights is None else tuple(weights),
            layout=None if said["layout"] == "large_list" else said["layout"],
            dtype=said["dtype"],
            seed=given.get("seed", 0),
            columns=None if given["columns"] is None else tuple(given["columns"]),
            exclude=tuple(given["exclude"]),
            **{name: given[name] for name in TAKEN_OVER},
            activation=given.get("activation", "softmax"),
            loss=given.get("loss"),
            scale=scale,
            bias=bias,
            shift=given.get("shift", False),
        )
        files = json_objects(said["inputs"], {"size": int, "footer_sha256": str})
        inputs = tuple(
            Told(file["size"], file["footer_sha256"], file.get("sample_sha256"), file.get("files", 1)) for file in files
        )
        outputs = tuple(said["outputs"])
        for name, value, hint in (
            ("n_classes", said["n_classes"], int),
            ("dtype", said["dtype"], FloatName),
            ("layout", said["layout"], OutputLayout),
        ):
            check_type(name, value, hint)
        return Claims(
            options=options,
            logits=said["logits"] if column is None else column,
            n_classes=said["n_classes"],
            outputs=(*outputs, *top_k_outputs(options.top_k, nested="shift" in given)),
            nested="shift" in given,
            layout=said["layout"],
            dtype=said["dtype"],
            inputs=inputs,
        )
    except (JsonError, UsageError) as error:
        raise DataError("its metadata 'batchmax' make no sense", where=path, remedy=AGAIN) from error


def _only_name(logits: Any) -> str | None:
    """Return the name of the logits column; None if a text describes several columns."""
    if isinstance(logits, str):
        return None
    if len(json_list(logits, str)) != 1:
        raise JsonError("logits are not one column")
    name: str = logits[0]
    return name


def _new_columns(path: str, schema: pa.Schema, claims: Claims) -> dict[str, tuple[str, ...]]:
    """Return the columns of each output. They are the last columns, in the order of ``outputs``."""
    widths = {name: claims.width(name) for name in claims.outputs}
    scalars = [claims.options.prefix + field.name for field in row_fields(claims.outputs)] if claims.nested else []
    first = len(schema) - sum(widths.values()) - len(scalars)
    if scalars and schema.names[first + sum(widths.values()) :] != scalars:
        what = f"the last columns are not {', '.join(scalars)}, as the metadata say"
        raise DataError(what, where=path, remedy=f"name the output itself, or {AGAIN}")
    columns: dict[str, tuple[str, ...]] = {}
    for output, width in widths.items():
        wanted = claims.options.prefix + column_name(output, nested=claims.nested)
        for at in range(first, first + width):
            name = schema.names[at] if at >= 0 else None
            if name is None or not _is_called(name, output, wanted, claims) or not _is_kind(schema, at, output, claims):
                what = f"column {wanted!r} is not where the metadata say, or of another type"
                if schema.names[-1].endswith(REJECTED[-1]) and schema.names[-2].endswith(REJECTED[-2]):
                    what = "this file holds rejected rows, no scores"
                raise DataError(what, where=path, remedy=f"name the output itself, or {AGAIN}")
        columns[output] = tuple(schema.names[first : first + width])
        first += width
    return columns


def _is_called(name: str, output: str, wanted: str, claims: Claims) -> bool:
    if claims.layout == "wide" and output in OUTPUTS and OUTPUTS[output].kind == "matrix":
        return bool(name.startswith(f"{wanted.removesuffix('s')}_"))
    return bool(name == wanted)


def _is_kind(schema: pa.Schema, at: int, output: str, claims: Claims) -> bool:
    """Return whether a column has the type of an output."""
    kind = schema.field(at).type
    if claims.nested:
        if not is_list(kind):
            return False
        kind = kind.value_type
    number, label = pa.from_numpy_dtype(np.dtype(claims.dtype)), pa.string() if claims.options.classes else pa.int32()
    if output == "tail_mass":
        return bool(kind == number)
    if output.startswith("top_k"):
        return bool(pa.types.is_list(kind)) and bool(
            kind.value_type == (label if output == "top_k_classes" else number)
        )
    if OUTPUTS[output].kind == "matrix":
        if claims.layout == "wide":
            return bool(kind == number)
        is_kind = {
            "list": pa.types.is_list,
            "large_list": pa.types.is_large_list,
            "fixed": pa.types.is_fixed_size_list,
        }[claims.layout]
        return bool(is_kind(kind)) and bool(kind.value_type == number)
    types = {
        "float": pa.from_numpy_dtype(claims.loss_dtype),
        "int32": label if output in CLASS_OUTPUTS else pa.int32(),
        "bool": pa.bool_(),
        "status": pa.string(),
    }
    return bool(plain_type(kind) == types[OUTPUTS[output].kind])
