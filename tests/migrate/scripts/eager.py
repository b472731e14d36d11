"""Written for TensorFlow 2, with one foot in TensorFlow 1."""
import tensorflow as tf


@tf.function
def square(x):
    return x * x


def old_graph():
    with tf.Graph().as_default():
        tf.compat.v1.train.get_or_create_global_step()
        return tf.compat.v1.train.AdamOptimizer(0.1)


print(square(tf.constant(3.0)), tf.train.Checkpoint(), tf.keras.optimizers.Adam)
