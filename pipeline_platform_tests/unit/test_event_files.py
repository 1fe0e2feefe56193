"""Files as people have them: what is wrong with all of one is a sentence before its first row, the rest is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline_platform.cli.files.csv_rows import Dialect
from pipeline_platform.cli.files.encodings import require_encoding
from pipeline_platform.cli.files.event_files import EventFile, Format, OpenedFile
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.core.streams import load_specs, parse_spec
from pipeline_platform.errors import PermanentError, SettingError

TELEMETRY = load_specs()["telemetry"]
LAX = parse_spec(
    "name: lax\ndimensions: {source: {default: x}}\nmeasures: {value: {required: false}, other: {required: false}}", "x"
)
PLAIN = "source,metric,value\nö,m,1\na,m,2.5\n"
SEMICOLONS = PLAIN.replace(",", ";")
LINES = b'{"source": "a", "metric": "m", "value": 1}\n{"source": "b", "metric": "m", "value": 2}\n'


def rows_of(path: Path, form: Format | None = None, spec: Any = TELEMETRY, **options: Any) -> list[Row]:
    """Everything that is read of the file."""
    encoding = require_encoding(options.pop("encoding")) if "encoding" in options else ""
    dialect = Dialect.of(options.pop("delimiter", ""), decimal_comma=options.pop("decimal_comma", False))
    opened = OpenedFile(EventFile.of(str(path), form, dialect, encoding), spec)
    try:
        return list(opened.rows())
    finally:
        opened.close()


def values_of(path: Path, **options: Any) -> list[Any]:
    rows = rows_of(path, **options)
    assert [row.problem for row in rows] == [""] * len(rows)
    return [orjson.loads(row.data)["value"] for row in rows]


def refusal(path: Path, **options: Any) -> str:
    """Why the file is refused; not a row of it is handed on before."""
    with pytest.raises(PermanentError) as refused:
        rows_of(path, **options)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (SEMICOLONS, "its columns are separated by ';' and not by ','; pass --delimiter ';'"),
        (SEMICOLONS.replace("2.5", "2,5"), "pass --delimiter ';'"),
        ("source;metric;value;remark,long\na;m;1;x,y\n", "pass --delimiter ';'"),
        ('"source";"metric";"value"\r\n"a";"m";1\r\n', "pass --delimiter ';'"),
        (PLAIN.replace(",", "\t"), r"pass --delimiter '\t'"),
        (PLAIN.replace(",", "|"), "pass --delimiter '|'"),
        (PLAIN.replace(",", ":"), "pass --delimiter ':'"),
        ("\n ; ;\n" + SEMICOLONS, "pass --delimiter ';'"),
        ("sep=;\n" + SEMICOLONS, "line 1 says sep=;; pass --delimiter ';'"),
        ('"SEP=\t"\r\n' + PLAIN.replace(",", "\t"), r"pass --delimiter '\t'"),
        ("a,m,1\nb,m,2\n", "has no header: its first line is 'a,m,1'"),
        ("a;m;1,5\nb;m;2,5\n", "has no header"),
        ("2026-11-27T10:00:00Z,a,m\n", "has no header"),
        ("device,what,reading\na,m,1\n", "has no column of the stream telemetry: it has 'device', 'what', 'reading'"),
        ("Source,Metric,Value\na,m,1\n", "has no column of the stream"),
        ("source,metric\na,m\n", "lacks what every event of telemetry has to have: value"),
        ("ts,event_id,Value\n,,1\n", "has to have: source, metric, value (there is 'Value')"),
        ("source,metric,,value\na,m,x,1\n", "column 3 has no name; give it one, or take it out"),
        (
            ",source,metric,value\n0,a,m,1\n",
            "column 1 has no name (perhaps pandas' index: write the file with index=False)",
        ),
        ("Unnamed: 0,source,metric,value\n0,a,m,1\n", "has 'Unnamed: 0' (perhaps pandas' index"),
        (
            PLAIN.replace("value", "value,comment").replace("1", "1,x"),
            "has 'comment', which telemetry does not declare",
        ),
        ("source,metric,value,b,c\na,m,1,,\n", "has 'b', 'c', which telemetry does not declare and so refuses; leave"),
        ("Export of 2026-11-27\n\n" + PLAIN, "its header seems to be line 3, and 'Export of 2026-11-27' stands before"),
        ("\nMeters;2026;1\n" + SEMICOLONS, "its header seems to be line 3, and 'Meters;2026;1' stands before it"),
        ("1,2,3\n" + PLAIN, "its header seems to be line 2, and '1,2,3' stands before it; take out the lines before"),
        ("source, metric, value\na, m, 1\nb, k, 2\n", "every metric begins with a blank, such as ' m', which would"),
        ("source,metric,value\na ,m,1\nb ,k,2\n", "every source ends with a blank, such as 'a '"),
        (PLAIN.replace(",", "\t, "), "every source ends with a blank"),
        ("source,metric,value,value\na,m,1,2\n", "the header names a column twice ('value')"),
        ('source,metric,value\na,m,"1,5"\nb,m,"2,5"\n', "decimal commas, such as '1,5'; pass --decimal-comma"),
        ('source,metric,value\na,m,"1.234,56"\nb,m,7\n', "decimal commas, such as '1.234,56'"),
        ('source,metric,value\na,m,"1,234"\nb,m,"1,5"\n', "decimal commas, such as '1,5'; pass --decimal-comma"),
        ('source,metric,value\na,m,"1,234"\nb,m,7\n', "have commas, such as '1,234'; write them without, or pass"),
        ('source,metric,value\na,m,"1,234,567.5"\n', "have commas, such as '1,234,567.5'; write them without"),
        ("[1]\n", "is JSON and not CSV; pass --format ndjson"),
        (LINES.decode(), "is JSON and not CSV"),
        ('source,"metric\na,m,1\n', "has no column of the stream"),
    ],
)
def test_what_a_csv_says_before_its_rows_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "x.csv").write_text(content, newline="")
    assert sentence in refusal(tmp_path / "x.csv")


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN, {}),
        (SEMICOLONS, {"delimiter": ";"}),
        (PLAIN.replace(",", "\t"), {"delimiter": "\\t"}),
        (PLAIN.replace(",", "\t"), {"delimiter": "tab"}),
        (PLAIN.replace(",m,", "|m| ").replace(",", "|"), {"delimiter": "|"}),
        (PLAIN.replace(",", ", ").replace(", m", ",m"), {}),
        (PLAIN.replace("\n", ",,\n"), {}),
        (PLAIN.replace("\n", ", \n").replace("value, ", "value,"), {}),
        ("source,metric,value\n a,m,1\na,m ,2.5\n", {}),
        (SEMICOLONS.replace("2.5", "2,5"), {"delimiter": ";", "decimal_comma": True}),
        ("sep=,\r\n" + PLAIN, {}),
        ("sep=;\n" + SEMICOLONS, {"delimiter": ";"}),
        ("\n,,\n" + PLAIN + ",,\n", {}),
        (PLAIN.replace("\n", "\r"), {}),
    ],
)
def test_a_csv_is_read_as_its_owner_says(tmp_path: Path, content: str, options: dict[str, Any], bom: str) -> None:
    (tmp_path / "x.csv").write_bytes((bom + content).encode())
    assert values_of(tmp_path / "x.csv", **options) == [1, 2.5]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("1", 1), ("-1,5", -1.5), ("1.234,5", 1234.5), ("1.234.567,0", 1234567.0), ("1,5e3", 1500.0), ("", None),
        ("1.234", "problem"), ("1.5", "problem"), ("1,5,5", "problem"), ("12.34,5", "problem"), ("x", "problem"),
    ],
)  # fmt: skip
def test_decimal_commas(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "x.csv").write_text(f"source;value;other\na;{field};1\n\na;1,5;1\n")
    first, second = rows_of(tmp_path / "x.csv", spec=LAX, delimiter=";", decimal_comma=True)
    assert orjson.loads(second.data)["value"] == 1.5
    if value == "problem":
        assert first.problem == f"value: {field!r} is no number with a decimal comma"
        assert first.data == f"a;{field};1".encode()
    else:
        assert orjson.loads(first.data).get("value") == value


@pytest.mark.parametrize("delimiter", [";;", "a", '"', "\n", "1", "\\x"])
def test_a_delimiter_is_one_sign(delimiter: str) -> None:
    with pytest.raises(SettingError, match="--delimiter is one sign"):
        Dialect.of(delimiter, decimal_comma=False)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("windows-1252", "windows-1252"),
        ("iso-8859-15", "windows-1252"),
        ("cp437", "iso-8859-1"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.ndjson"])
def test_another_encoding_is_detected_said_and_read(tmp_path: Path, name: str, encoding: str, said: str) -> None:
    lines = [{"source": source, "metric": "m", "value": n} for n, source in enumerate(["Zürich", "Köln", "Genève"])]
    table = "source,metric,value\n" + "".join(f"{line['source']},m,{line['value']}\n" for line in lines)
    text = table if name.endswith("csv") else "".join(str(line).replace("'", '"') + "\n" for line in lines)
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert f"--encoding {said}." in refusal(tmp_path / name)
    assert [orjson.loads(row.data) for row in rows_of(tmp_path / name, encoding=encoding)] == lines


@pytest.mark.parametrize("line", [b"K\xf6ln", b"\xc3", b"\xed\xa0\x80"])
def test_a_single_line_that_is_not_utf_8_is_that_lines_fault(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(PLAIN.encode() + line + b",m,3\nb,m,4\n")
    rows = rows_of(tmp_path / "x.csv")
    assert [(row.number, row.problem) for row in rows if row.problem] == [(4, "source: not valid UTF-8")]
    assert len(rows) == 4


def test_what_an_encoding_does_not_have_is_its_rows_fault(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"source,metric,value\n\x81,m,1\na,m,2\n")
    assert [row.problem for row in rows_of(tmp_path / "x.csv", encoding="windows-1252")] == [
        "source: not valid UTF-8",
        "",
    ]
    (tmp_path / "y.csv").write_bytes("source,metric,value\na,m,2\n\udc00,m,1".encode("utf-16", "surrogatepass") + b"x")
    assert [row.problem for row in rows_of(tmp_path / "y.csv", encoding="utf-16")] == ["", "source: not valid UTF-8"]


@pytest.mark.parametrize("encoding", ["zip", "rot13", "no-such", "undefined", "idna", "punycode", "base64", "utf\0"])
def test_an_encoding_is_one_of_text(encoding: str) -> None:
    with pytest.raises(SettingError, match="There is no encoding"):
        require_encoding(encoding)


@pytest.mark.parametrize("content", [PLAIN.encode("utf-16-le"), PLAIN.encode("utf-16-be"), PLAIN.encode()])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_what_is_not_in_the_encoding_that_was_said(tmp_path: Path, encoding: str, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert f"is not {encoding}" in refusal(tmp_path / "x.csv", encoding=encoding)


SKIPPABLE = struct.pack("<II", 0x184D2A53, 6) + b"length"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.ndjson.zst", SKIPPABLE + zstandard.compress(LINES)),
        ("x.ndjson.zst", zstandard.compress(LINES[:43]) + SKIPPABLE * 3 + zstandard.compress(LINES[43:]) + SKIPPABLE),
        ("x.ndjson.zst", b"".join(zstandard.compress(b"%c" % byte) for byte in LINES)),
        ("x.ndjson.zst", zstandard.compress(b"") + struct.pack("<II", 0x184D2A5F, 300_000) + bytes(300_000) +
         zstandard.compress(LINES)),
        ("x.ndjson.zstd", zstandard.compress(LINES)),
        ("x.ndjson.gz", b"".join(gzip.compress(b"%c" % byte, mtime=0) for byte in LINES)),
        ("x.ndjson.gz", gzip.compress(LINES, mtime=0) + bytes(512)),
        ("x.ndjson.gz", LINES),  # unpacked by a browser on the way
        ("x.ndjson", gzip.compress(LINES, mtime=0)),
    ],
    ids=lambda each: each if isinstance(each, str) else f"{len(each)} bytes",
)  # fmt: skip
def test_frames_and_members_as_compressors_write_them(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert values_of(tmp_path / name) == [1, 2]


def zipped(name: str) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr(name, LINES)
    return into.getvalue()


def tarred() -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz") as archive:
        info = tarfile.TarInfo("x.ndjson")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return into.getvalue()


@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        (
            ".bz2",
            bz2.compress(LINES),
            "compressed with bzip2, and what is read is gzip and zstd; go through `bzip2 -dc",
        ),
        (".xz", lzma.compress(LINES), "compressed with xz"),
        (".zip", zipped("x.ndjson"), "go through `unzip -p"),
        (".lz4", b"\x04\x22\x4d\x18rest", "go through `lz4 -dc"),
        (".7z", b"7z\xbc\xaf\x27\x1crest", "compressed with 7-Zip"),
        (".tar.gz", tarred(), "is an archive; unpack it with `tar -xf FILE`"),
        (".xlsx", zipped("[Content_Types].xml"), "is a workbook of a spreadsheet; save its sheet as CSV"),
        (".parquet", b"PAR1rest", "is Parquet and not ndjson; pass --format parquet"),
        (".csv", PLAIN.encode(), "is CSV and not JSON; pass --format csv"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(
    tmp_path: Path, suffix: str, content: bytes, sentence: str
) -> None:
    # By its first bytes, whatever it is called; and by its name, before it is opened.
    (tmp_path / "x").write_bytes(content)
    assert sentence in refusal(tmp_path / "x", form=Format.NDJSON)
    if suffix not in (".parquet", ".csv"):
        (tmp_path / f"x.ndjson{suffix}").write_bytes(content)
        assert sentence in refusal(tmp_path / f"x.ndjson{suffix}")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"device": ["a"], "reading": [1.0]}, "has no column of the stream telemetry"),
        ({"source": ["a"], "metric": ["m"]}, "lacks what every event of telemetry has to have: value"),
        ({"source": ["a"], "metric": ["m"], "VALUE": [1.0]}, "value (there is 'VALUE')"),
        ({}, "has no column of the stream telemetry: it has none"),
        (
            {"source": ["a"], "metric": ["m"], "value": [1.0], "__index_level_0__": [1]},
            "has '__index_level_0__' (pandas' index: write the file with index=False), which telemetry does not",
        ),
        ({"source": ["a"], "metric": ["m"], "value": [1.0], "x": [1]}, "has 'x', which telemetry does not declare"),
        ({"source": ["a"], "metric": ["m"], "value": [1.0], "": [1]}, "column 4 has no name"),
    ],
)
def test_what_a_schema_says_before_its_rows_is_one_sentence(
    tmp_path: Path, columns: dict[str, list[Any]], sentence: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert sentence in refusal(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "options"),
    [("x.ndjson", {"delimiter": ";"}), ("x.parquet", {"decimal_comma": True}), ("x.parquet", {"encoding": "utf-16"})],
)
def test_an_option_of_another_format_is_refused(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    (tmp_path / name).write_bytes(LINES)
    refusal(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (PLAIN.encode(), "is CSV and not Parquet; pass --format csv."),
        (("\ufeff" + SEMICOLONS).encode(), "is CSV and not Parquet; pass --format csv."),
        (LINES, "is JSON and not Parquet; pass --format ndjson."),
        (b" [1]", "is JSON and not Parquet; pass --format ndjson."),
        (b"ARROW1\0\0rest", "is Feather (Arrow) and not Parquet; write it as Parquet."),
        (b"", "is not a Parquet file that can be read: Parquet file size is 0 bytes."),
        (b"PAR1rest", "is not a Parquet file that can be read: "),
        (b"anything else", "is not a Parquet file that can be read: "),
    ],
)
def test_what_is_called_parquet_and_is_not(tmp_path: Path, content: bytes, sentence: str) -> None:
    for name, data in (("x.parquet", content), ("x.parquet.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        said = refusal(tmp_path / name)
        assert sentence in said
        assert not said.endswith("..")


@pytest.mark.parametrize(("name", "options"), [("x.tsv", {}), ("x.TSV", {}), ("x.tsv", {"delimiter": ";"})])
def test_tsv_has_tabs_unless_its_owner_says_otherwise(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    (tmp_path / name).write_text(PLAIN.replace(",", options.get("delimiter", "\t")))
    assert values_of(tmp_path / name, **options) == [1, 2.5]


@pytest.mark.parametrize("name", ["", " "])
def test_a_name_that_is_empty(name: str) -> None:
    with pytest.raises(SettingError, match="The name of the file is empty"):
        EventFile.of(name, None)
