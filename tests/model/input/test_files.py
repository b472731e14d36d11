"""Files of records that are counted once: formats, the index, and the dataset of their batches."""

import csv
import gzip
import io
import os
import sys
from itertools import chain

import numpy as np
import pyarrow
import pytest
import tensorflow as tf
from hypothesis import given, strategies
from pyarrow import parquet

from paramserve.errors import UsageError
from paramserve.model.input import file_access
from paramserve.model.input.file_access import find_files
from paramserve.model.input.file_formats import MARK_RECORDS, Csv
from paramserve.model.input.file_index import FileIndex, FileQuery, count_files, describe_changes
from paramserve.model.input.shard_plan import FilePart
from paramserve.model.input.source import Lease, WholeInput
from paramserve.model.spec import TaskContext

v1 = tf.compat.v1


class Script(WholeInput):
    """A source that deals the test's shards."""

    def __init__(self, *leases):
        super().__init__()
        self._leases, self.unread, self.reasons = leases, [], []

    def leases(self, plan):
        yield from self._leases

    def note_unread(self, number, batches, explain):
        self.unread += batches
        self.reasons.append(explain())


@pytest.fixture
def read():
    """The batches of `task.files(...)`, with their positions."""

    def read(files, *, source=None, **more):
        task = TaskContext(input=source or WholeInput())
        more = {"epochs": 1, "shuffle": False, **more}
        found = []
        with tf.Graph().as_default():
            dataset = task.files(files, **more)
            following = v1.data.make_one_shot_iterator(dataset).get_next()
            with v1.Session() as session:
                try:
                    while True:
                        found.append(session.run(following))
                except tf.errors.OutOfRangeError:
                    return found

    return read


def records(found):
    return list(chain(*(batch.tolist() for _, batch in found)))


def write_records(path, numbers, compression=""):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for number in numbers:
            writer.write(b"%d" % number)
    return path


# Formats


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\r\n  \n{"a": 3}', ['{"a": 1}', '{"a": 2}', '{"a": 3}']),
        ("a.csv", "n,s\n1,a\n2,b", ["1,a", "2,b"]),
        (
            "a.csv",
            'n,s\r\n1,"two\r\nlines"\r\n\r\n2,"a ""b""\n\n,c"\n3,5" wide\n',
            ['1,"two\r\nlines"', '2,"a ""b""\n\n,c"', '3,5" wide'],
        ),
    ],
)
def test_text_is_cut_into_records(read, tmp_path, name, text, expected, end):
    path = tmp_path / f"{name}{end}"
    path.write_bytes(gzip.compress(text.encode()) if end else text.encode())
    for batch_size in (1, 2, 5):
        found = records(read(str(path), batch_size=batch_size))
        assert [record.decode() for record in found] == expected


@given(strategies.text('a",\n\r', max_size=30))
def test_rows_end_where_python_ends_them(text):
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
        found = [row.decode() for _, row in Csv(False)._entries("a.csv", io.BytesIO(text.encode()))]
    except (UsageError, csv.Error):
        return  # A row without an end, or with an end of lines that is none.
    parsed = [next(csv.reader(io.StringIO(row, newline=""))) for row in found]
    assert parsed == [row for row in rows if row]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_any_range_of_a_file_can_be_read(read, tmp_path, end):
    """Behind marks and between them; a compressed file is one range."""
    count = 3 * MARK_RECORDS + 10
    path = write_records(tmp_path / f"a.tfrecord{end}", range(count), "GZIP" if end else "")
    rows = tmp_path / f"a.csv{end}"
    text = "n\n" + "".join(f"{n}\n" for n in range(count))
    rows.write_bytes(gzip.compress(text.encode()) if end else text.encode())
    lease, first = (Lease(0, 0, 0, (1, 3)), 10) if end else (Lease(0, 61, 0, (1, 3)), 3060)
    expected = [n for n in (*range(first, first + 10), *range(first + 20, first + 30)) if n < count]
    for name in (path, rows):
        found = read(name, batch_size=10, shard_records=50, source=Script(lease))
        assert [int(record) for record in records(found)] == expected
    everything = read(str(path), batch_size=64, epochs=2, shuffle=True)
    numbers = sorted(int(record) for record in records(everything))
    assert numbers == sorted([*range(count)] * 2)


def test_rows_of_parquet_files_are_columns(read, tmp_path):
    for part in range(2):
        numbers = np.arange(100) + 100 * part
        table = {"n": numbers, "x": numbers / 2, "s": [f"s{n}" for n in numbers]}
        parquet.write_table(pyarrow.table(table), tmp_path / f"{part}.parquet", row_group_size=30)
    found = read(str(tmp_path / "*.parquet"), batch_size=8, shard_records=16, shuffle=True)
    batches = [batch for _, batch in found]
    numbers = np.concatenate([batch["n"] for batch in batches])
    assert sorted(numbers) == list(range(200))
    assert (np.concatenate([batch["x"] for batch in batches]) == numbers / 2).all()
    assert [s for b in batches for s in b["s"]] == [b"s%d" % n for n in numbers]
    found = read(str(tmp_path / "0.parquet"), batch_size=8, columns=["x"])
    assert set(found[0][1]) == {"x"}
    with pytest.raises(UsageError, match=r"0\.parquet' has no column 'y': it has n, x, s"):
        read(str(tmp_path / "0.parquet"), batch_size=8, columns=["y"])


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "paramserve.model.input.parquet", raising=False)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError, match=r"needs PyArrow, .*pip install 'paramserve\[parquet\]'"):
        count_files(FileQuery((str(tmp_path / "a.parquet"),)))


def test_files_of_other_file_systems_are_read(read, tmp_path, monkeypatch):
    """`local://` stands for a file system that TensorFlow has no reader for."""
    monkeypatch.setattr(file_access, "_is_tensorflow", lambda name: False)
    write_records(tmp_path / "a.tfrecord", range(100))
    write_records(tmp_path / "b.tfrecord.gz", range(100, 130), "GZIP")
    (tmp_path / "c.jsonl").write_text("1\n2\n")
    found = read(f"local://{tmp_path}/*.tfrecord*", batch_size=7)
    assert [int(record) for record in records(found)] == list(range(130))
    assert records(read(f"local://{tmp_path}/c.jsonl", batch_size=7)) == [b"1", b"2"]


# Faulty files


def test_a_damaged_record_costs_its_own_batch_alone(read, tmp_path):
    """The batches behind it begin where the index says."""
    path = write_records(tmp_path / "a.tfrecord", range(10, 40))
    data = bytearray(path.read_bytes())
    data[18 * 12 + 12] ^= 0xFF  # The content of record 12, of 18 bytes as all of them.
    path.write_bytes(data)
    source = Script(Lease(0, 0, 0, (0, 1, 2, 3, 4, 5)), Lease(1, 0, 0, (3, 4, 5)))
    found = read(str(path), batch_size=5, shard_records=30, source=source)
    assert [position[0] for position, _ in found] == [0, 1, 3, 4, 5]
    assert source.unread == [2, 3, 4, 5]
    assert source.reasons[0].startswith("corrupted record at 228")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tfrecord", b"\x05\0\0\0\0\0\0\0", "is damaged, cut off or no TFRecord file"),
        ("a.tfrecord", b"n,s\n1,a\n" * 9, "is damaged, cut off or no TFRecord file"),
        ("a.csv", b'n,s\n1,"a\n2,b\n', "record at byte 4: the file ends within quotes"),
        ("a.csv", b"1,a\n2,b\n", r"begins with '1,a', which looks like a record"),
        ("a.csv", b"n,s\n", "have no records"),
        ("a.csv", b"", "have no records"),
        ("a.parquet", b"n,s\n1,a\n", "is damaged or no Parquet file"),
        ("a.jsonl.gz", b"{}\n", r"a\.jsonl\.gz' cannot be read: Not a gzipped file"),
        ("a.txt", b"x\n", "give format=, one of tfrecord, csv, jsonl, parquet"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        count_files(FileQuery((str(tmp_path / name),)))


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", range(10, 20))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"a\.tfrecord' .* no whole record at byte 162"):
        count_files(FileQuery((str(path),)))


def test_csv_files_without_a_header_lose_no_record(read, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\nz,w\n")
    (tmp_path / "b.csv").write_text("u,v\nq,r\n")
    pattern = str(tmp_path / "*.csv")
    with pytest.raises(UsageError, match=r"begin with other lines, .*give header=False"):
        count_files(FileQuery((pattern,)))
    found = records(read(pattern, batch_size=2, header=False))
    assert found == [b"x,y", b"z,w", b"u,v", b"q,r"]


def test_a_pattern_without_files_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"no file matches 'x/\*.csv' on .* in {tmp_path}"):
        find_files(["x/*.csv"])
    with pytest.raises(UsageError, match="is a folder: give a pattern"):
        find_files([str(tmp_path)])
    with pytest.raises(UsageError, match="Protocol not known: nosuch"):
        find_files(["nosuch://a/b"])


def test_a_file_that_changes_while_it_is_read_is_named(read, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n3\n")

    class Change(WholeInput):
        def find_files(self, query):
            index = super().find_files(query)
            path.write_text("1\n2\n3\n4\n")
            return index

    with pytest.raises(tf.errors.OpError, match=r"a\.jsonl' has 8 bytes on .*, but 6 when"):
        read(str(path), batch_size=2, source=Change())


# The index


def test_names_that_match_come_once_and_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "sub/c.csv", "d[1].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    (tmp_path / "folder.csv").mkdir()
    names = [str(tmp_path / name) for name in ("a.csv", "b.csv", "d[1].csv", "sub/c.csv")]
    patterns = [str(tmp_path / "**/*.csv"), str(tmp_path / "a.*"), str(tmp_path / "d[1].csv")]
    assert find_files(patterns) == names


def test_only_what_has_changed_is_counted_again(tmp_path, monkeypatch):
    query = FileQuery((str(tmp_path / "*.jsonl"),))
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text("1\n2\n")
    before = count_files(query)
    assert FileIndex.from_bytes(before.to_bytes()) == before
    assert FileQuery.from_json(query.to_json()) == query
    os.utime(tmp_path / "a.jsonl", (1, 1))
    (tmp_path / "b.jsonl").write_text("1\n")
    (tmp_path / "c.jsonl").unlink()
    (tmp_path / "d.jsonl").write_text("")
    said = []
    after = count_files(query, before, say=said.append)
    assert said[-1] == "3 files have 3 records; 3 were counted now"
    changes = describe_changes(before, after)
    assert "b.jsonl (2 then, 1 now)" in changes
    assert "c.jsonl (2 then, gone now)" in changes
    assert "a.jsonl" not in changes
    count_files(query, after, say=said.append)
    assert said[-1] == "3 files have 3 records; 0 were counted now"


def test_files_are_cut_into_parts_that_can_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n" * 25)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"1\n" * 25))
    (tmp_path / "c.jsonl").write_text("")
    index = count_files(FileQuery((str(tmp_path / "*"),), "jsonl"))
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")
    expected = (FilePart(a, 10), FilePart(a, 10, 10), FilePart(a, 5, 20), FilePart(b, 25))
    assert index.cut(10) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "xml"}, "format='xml': expected one of tfrecord, csv, jsonl, parquet"),
        ({"format": "jsonl", "header": True}, "only CSV"),
        ({"format": "csv", "columns": ("a",)}, "only Parquet files have columns"),
    ],
)
def test_what_a_format_does_not_have_is_refused(tmp_path, values, message):
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match=message):
        count_files(FileQuery((str(tmp_path / "a.csv"),), **values))
