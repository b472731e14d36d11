"""Workers get the index of the files from their chief, or count them where the chief has none."""

import threading

import pytest

from paramserve.chief.input.file_counts import FileCounts
from paramserve.cluster.chief_client import JobStopping
from paramserve.cluster.logdir.interface import open_logdir
from paramserve.errors import UsageError, WaitTimeout
from paramserve.model.input import file_index
from paramserve.model.input.file_index import FileQuery, count_files


@pytest.fixture
def query(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\n")
    return FileQuery((str(tmp_path / "*.jsonl"),))


@pytest.fixture
def blind(monkeypatch):
    """Hides all files from the chief, whose calls come from the test's own thread."""
    find = file_index.find_files

    def find_elsewhere(patterns):
        here = threading.current_thread().name == "chief"
        return find(["nothing/here/*"] if here else patterns)

    monkeypatch.setattr(file_index, "find_files", find_elsewhere)


def in_chief(call):
    """Calls in the chief's thread; returns a function that gives the result or raises the error."""
    found = []

    def run():
        try:
            found.append((call(), None))
        except Exception as error:
            found.append((None, error))

    thread = threading.Thread(target=run, name="chief", daemon=True)
    thread.start()

    def result():
        thread.join(60)
        ((value, error),) = found
        if error is not None:
            raise error
        return value

    return result


def test_what_the_chief_has_counted_is_not_counted_again(serve_shards, join, query, tmp_path):
    chief = serve_shards()
    index = chief.files.find(query)
    (tmp_path / "a.jsonl").unlink()
    assert join(chief, "a").find_files(query) == index
    assert index.records == 2
    kept = list((tmp_path / "logdir").glob("input_index-*.json"))
    assert len(kept) == 1


def test_a_worker_counts_for_a_chief_that_has_none_of_the_files(
    serve_shards, join, query, background, blind
):
    chief = serve_shards()
    workers = [join(chief, life) for life in "ab"]
    asked = [background(lambda w=w: w.find_files(query)) for w in workers]
    index = in_chief(lambda: chief.files.find(query))
    assert [each.result() for each in asked] == [index()] * 2
    assert index().records == 2


def test_a_worker_that_is_told_to_stop_waits_no_longer(serve_shards, join, query, background):
    told = threading.Event()
    waiting = background(lambda: join(serve_shards(), "a", cancelled=told.is_set).find_files(query))
    told.set()
    with pytest.raises(JobStopping):
        waiting.result()


def counts_of(chief, tmp_path, **more):
    options = {"is_resumed": False, "max_wait_secs": 0.2, "is_interrupted": lambda: False, **more}
    storage = open_logdir(str(tmp_path / "logdir"))
    return FileCounts(storage, chief.membership, say=lambda _: None, **options)


def test_a_chief_without_files_waits_for_a_worker_and_not_for_ever(
    serve_shards, query, blind, tmp_path
):
    chief = serve_shards()
    waiting = in_chief(lambda: counts_of(chief, tmp_path).find(query))
    with pytest.raises(WaitTimeout, match=r"no file matches '.* no worker has counted"):
        waiting()
    ended = counts_of(chief, tmp_path, max_wait_secs=60.0, is_interrupted=lambda: True)
    with pytest.raises(UsageError, match="no file matches"):
        in_chief(lambda: ended.find(query))()


def test_a_job_that_goes_on_from_a_checkpoint_refuses_other_records(serve_shards, query, tmp_path):
    chief = serve_shards()
    counts_of(chief, tmp_path).find(query)
    (tmp_path / "a.jsonl").write_text("3\n4\n")  # As many: a record that was mended.
    assert counts_of(chief, tmp_path, is_resumed=True).find(query) == count_files(query)
    (tmp_path / "a.jsonl").write_text("3\n")
    with pytest.raises(UsageError, match=r"changed since: .*a\.jsonl \(2 then, 1 now\)"):
        counts_of(chief, tmp_path, is_resumed=True).find(query)
    assert counts_of(chief, tmp_path).find(query).records == 1


def test_an_index_that_cannot_be_read_is_made_again(serve_shards, query, tmp_path):
    chief = serve_shards()
    counts_of(chief, tmp_path).find(query)
    (kept,) = (tmp_path / "logdir").glob("input_index-*.json")
    kept.write_text("{")
    assert counts_of(chief, tmp_path, is_resumed=True).find(query).records == 2
