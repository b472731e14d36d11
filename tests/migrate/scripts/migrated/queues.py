"""Reads records through queues; builds on the default graph, at module level."""
import os, sys
import paramserve.train
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

directory = sys.argv[1]
EPOCHS = 2; BATCH = 4

for shard in range(2):
    writer = tf.python_io.TFRecordWriter(os.path.join(directory, "part-%d.records" % shard))
    for i in range(6):
        feature = paramserve.train.Feature(float_list=paramserve.train.FloatList(value=[i + 6.0 * shard]))
        example = paramserve.train.Example(features=paramserve.train.Features(feature={"value": feature}))
        writer.write(example.SerializeToString())
    writer.close()

files = paramserve.train.string_input_producer(
    paramserve.train.match_filenames_once(os.path.join(directory, "*.records")), num_epochs=EPOCHS)
reader = tf.TFRecordReader()
_, serialized = reader.read(files)
parsed = tf.parse_single_example(serialized, {"value": tf.FixedLenFeature([], tf.float32)})
values = paramserve.train.shuffle_batch([parsed["value"]], BATCH, capacity=30, min_after_dequeue=10,
                                allow_smaller_final_batch=True)
mean = tf.Variable(0.0)
saver = paramserve.train.Saver([mean])
batches, total = 0, 0.0
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(tf.local_variables_initializer())
    coord = paramserve.train.Coordinator()
    threads = paramserve.train.start_queue_runners(sess=sess, coord=coord)
    try:
        while not coord.should_stop():
            total += sess.run(tf.reduce_sum(values))
            batches += 1
    except tf.errors.OutOfRangeError:
        pass
    finally:
        coord.request_stop()
    coord.join(threads)
    mean.load(total / (12 * EPOCHS), sess)
    saver.save(sess, os.path.join(directory, "mean"))
print("batches", batches, "mean", total / (12 * EPOCHS))
