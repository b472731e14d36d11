"""Between-graph replication: one parameter server, workers, synchronous updates.

python replicas.py --job_name=ps --ps_hosts=localhost:2222 --worker_hosts=localhost:2223
python replicas.py --job_name=worker --ps_hosts=localhost:2222 --worker_hosts=localhost:2223
"""
import argparse

import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument('--job_name', choices=['ps', 'worker'])
parser.add_argument('--task_index', type=int, default=0)
parser.add_argument('--ps_hosts')
parser.add_argument('--worker_hosts')
parser.add_argument('--logdir', default='/tmp/replicas')
parser.add_argument('--steps', type=int, default=50)


def main():
    args = parser.parse_args()
    workers = args.worker_hosts.split(',')
    cluster = tf.train.ClusterSpec({'ps': args.ps_hosts.split(','), 'worker': workers})
    server = tf.train.Server(cluster, job_name=args.job_name, task_index=args.task_index)
    if args.job_name == 'ps':
        server.join()
        return
    is_chief = args.task_index == 0
    with tf.device(tf.train.replica_device_setter(
            worker_device='/job:worker/task:%d' % args.task_index, cluster=cluster)):
        global_step = tf.train.get_or_create_global_step()
        weight = tf.get_variable('weight', initializer=5.0)
        loss = tf.square(weight - 2.0)
        optimizer = tf.train.SyncReplicasOptimizer(
            tf.train.GradientDescentOptimizer(0.2),
            replicas_to_aggregate=len(workers), total_num_replicas=len(workers))
        train_op = optimizer.minimize(loss, global_step=global_step)
    chief_queue_runner = optimizer.get_chief_queue_runner()
    init_tokens_op = optimizer.get_init_tokens_op()
    sv = tf.train.Supervisor(
        is_chief=is_chief, logdir=args.logdir, global_step=global_step, recovery_wait_secs=1,
        local_init_op=optimizer.chief_init_op if is_chief else optimizer.local_step_init_op,
        ready_for_local_init_op=optimizer.ready_for_local_init_op)
    config = tf.ConfigProto(
        allow_soft_placement=True,
        device_filters=['/job:ps', '/job:worker/task:%d' % args.task_index])
    sess = sv.prepare_or_wait_for_session(server.target, config=config)
    if is_chief:
        sess.run(init_tokens_op)
        sv.start_queue_runners(sess, [chief_queue_runner])
    while True:
        _, step = sess.run([train_op, global_step])
        if step >= args.steps:
            break
    sv.saver.save(sess, sv.save_path, global_step=step)
    print('step %d, weight %.3f' % (step, sess.run(weight)))


if __name__ == '__main__':
    main()
