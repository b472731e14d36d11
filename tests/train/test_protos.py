"""Records of examples and clusters: made, serialized, read, parsed by the graph."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


def example(numbers, words, weights):
    return train.Example(
        features=train.Features(
            feature={
                "numbers": train.Feature(int64_list=train.Int64List(value=numbers)),
                "words": train.Feature(bytes_list=train.BytesList(value=words)),
                "weights": train.Feature(float_list=train.FloatList(value=weights)),
            }
        )
    )


@pytest.mark.original_api(
    "tf.train.Example",
    "tf.train.Features",
    "tf.train.Feature",
    "tf.train.Int64List",
    "tf.train.BytesList",
    "tf.train.FloatList",
)
def test_examples_go_through_a_file_into_the_graph(tmp_path):
    path = str(tmp_path / "examples.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(example([1, 2], [b"one"], [0.5]).SerializeToString())
        writer.write(example([3, 4], [b"two"], [1.5]).SerializeToString())
    assert [
        train.Example.FromString(record).features.feature["words"].bytes_list.value[0]
        for record in v1.io.tf_record_iterator(path)
    ] == [b"one", b"two"]
    batch = v1.data.make_one_shot_iterator(tf.data.TFRecordDataset(path).batch(2)).get_next()
    parsed = tf.io.parse_example(
        batch,
        {
            "numbers": tf.io.FixedLenFeature([2], tf.int64),
            "words": tf.io.FixedLenFeature([], tf.string),
            "weights": tf.io.FixedLenFeature([], tf.float32),
        },
    )
    with v1.Session() as session:
        values = session.run(parsed)
    assert values["numbers"].tolist() == [[1, 2], [3, 4]]
    assert values["words"].tolist() == [b"one", b"two"]
    assert values["weights"].tolist() == [0.5, 1.5]


@pytest.mark.original_api(
    "tf.train.SequenceExample", "tf.train.FeatureLists", "tf.train.FeatureList"
)
def test_sequences_have_a_context_and_steps():
    steps = train.FeatureList(
        feature=[train.Feature(int64_list=train.Int64List(value=[n])) for n in (4, 5, 6)]
    )
    record = train.SequenceExample(
        context=train.Features(
            feature={"label": train.Feature(float_list=train.FloatList(value=[2.5]))}
        ),
        feature_lists=train.FeatureLists(feature_list={"tokens": steps}),
    )
    context, sequence = tf.io.parse_single_sequence_example(
        record.SerializeToString(),
        {"label": tf.io.FixedLenFeature([], tf.float32)},
        {"tokens": tf.io.FixedLenSequenceFeature([], tf.int64)},
    )
    with v1.Session() as session:
        label, tokens = session.run([context["label"], sequence["tokens"]])
    assert label == 2.5
    np.testing.assert_array_equal(tokens, [4, 5, 6])


@pytest.mark.original_api("tf.train.ClusterDef", "tf.train.JobDef", "tf.train.ClusterSpec")
def test_a_cluster_is_jobs_with_addresses():
    definition = train.ClusterDef(
        job=[
            train.JobDef(name="ps", tasks={0: "a:1"}),
            train.JobDef(name="worker", tasks={0: "b:1", 2: "c:1"}),
        ]
    )
    spec = train.ClusterSpec(definition)
    assert spec.jobs == ["ps", "worker"]
    assert spec.num_tasks("worker") == 2
    assert spec.task_indices("worker") == [0, 2]
    assert spec.task_address("worker", 2) == "c:1"
    assert spec.job_tasks("ps") == ["a:1"]
    assert spec.as_cluster_def() == definition
    assert spec == train.ClusterSpec({"ps": ["a:1"], "worker": {0: "b:1", 2: "c:1"}})
    assert spec.as_dict() == {"ps": ["a:1"], "worker": {0: "b:1", 2: "c:1"}}


@pytest.mark.original_api("tf.train.ServerDef")
def test_a_server_definition_survives_serialization():
    definition = train.ServerDef(
        cluster=train.ClusterSpec({"worker": ["b:1", "c:1"]}).as_cluster_def(),
        job_name="worker",
        task_index=1,
        protocol="grpc",
    )
    again = train.ServerDef.FromString(definition.SerializeToString())
    assert again.cluster.job[0].tasks[again.task_index] == "c:1"


@pytest.mark.original_api("tf.train.SaverDef", "tf.train.Saver")
def test_a_saver_is_rebuilt_from_its_definition(tmp_path):
    weight = v1.get_variable("weight", initializer=3.0)
    definition = train.Saver(max_to_keep=7).as_saver_def()
    assert isinstance(definition, train.SaverDef)
    assert definition.max_to_keep == 7
    saver = train.Saver(saver_def=train.SaverDef.FromString(definition.SerializeToString()))
    with v1.Session() as session:
        session.run(weight.initializer)
        path = saver.save(session, str(tmp_path / "model"))
    assert train.load_variable(path, "weight") == 3.0
