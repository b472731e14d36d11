"""Losses and moves: counted once, when steps are made again."""

from paramserve.chief.progress import Interruptions


def test_a_loss_lasts_from_the_first_word_of_it_to_the_next_step(clock):
    job = Interruptions(clock)
    assert not job.end_recovery(5)
    job.begin_recovery()
    clock.now += 2.0
    job.begin_recovery()  # Another server is lost before a step was made.
    clock.now += 1.0
    assert job.is_awaiting_step
    assert job.end_recovery(40)
    assert (job.recoveries, job.recovery_secs, job.recovered_step) == (1, 3.0, 40)
    assert not job.is_awaiting_step
    assert not job.end_recovery(41)


def test_a_move_counts_from_when_steps_were_held(clock):
    job = Interruptions(clock)
    assert not job.end_move()
    began = clock()
    clock.now += 0.5
    job.begin_move(began)
    clock.now += 1.0
    assert job.is_awaiting_step
    assert job.end_move()
    assert (job.resizes, job.resize_secs, job.recoveries) == (1, 1.5, 0)
    assert not job.is_awaiting_step
