"""The queue: bounds, cancelling, time limits, and that no accepted job is lost."""

import dataclasses
import threading
import time

import pytest
from server_cases import until

from jaxinpaint.serving import jobs
from jaxinpaint.serving.jobs import Queue
from jaxinpaint.serving.limits import Limits


@dataclasses.dataclass
class Result:
  data: bytes


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


@pytest.fixture
def gate():
  event = threading.Event()
  yield event
  event.set()


@pytest.fixture
def queues():
  made = []

  def make(work, clock=time.monotonic, **limits):
    made.append(Queue(work, Limits(**limits), clock))
    return made[-1]

  yield make
  for queue in made:
    queue.close()


def held_by(gate, ran=None):
  def work(job):
    if ran is not None:
      ran.append(job.request)
    assert gate.wait(30)
    return Result(job.request)

  return work


def test_jobs_run_in_their_order_and_results_wait(queues):
  ran = []
  queue = queues(lambda job: ran.append(job.request) or Result(b'x' * job.request))
  made = [queue.submit(n, 10) for n in range(5)]
  assert [len(job.future.result(10).data) for job in made] == list(range(5)) == ran
  assert [job.state for job in made] == [jobs.DONE] * 5
  assert queue.held == sum(range(5)), 'requests are dropped, results are held'
  queue.forget(made[4])
  assert queue.held == 6 and queue.find(made[4].id) is None


def test_the_bound_refuses_and_what_was_accepted_is_done(queues, gate):
  queue = queues(held_by(gate), waiting=3)
  first = queue.submit(b'', 0)
  until(lambda: queue.running is first)
  accepted = [queue.submit(b'%d' % n, 1) for n in range(3)]
  with pytest.raises(jobs.Full):
    queue.submit(b'', 1)
  with pytest.raises(jobs.Full):
    queue.check()
  assert [queue.position(job) for job in accepted] == [0, 1, 2] and queue.position(first) is None
  gate.set()
  assert [job.future.result(10).data for job in accepted] == [b'0', b'1', b'2']


def test_bytes_are_bounded_together(queues, gate):
  queue = queues(held_by(gate), held_bytes=100)
  queue.reserve(60)
  job = queue.submit(b'12345', 30)
  with pytest.raises(jobs.Full):
    queue.reserve(11)
  queue.reserve(10)
  queue.release(70)
  gate.set()
  job.future.result(10)
  assert queue.held == 5


def test_a_cancelled_job_that_waits_is_never_started(queues, gate):
  ran = []
  queue = queues(held_by(gate, ran))
  first = queue.submit(b'first', 1)
  until(lambda: queue.running is first)
  second, third = queue.submit(b'second', 1), queue.submit(b'third', 1)
  assert queue.cancel(second) and not queue.cancel(second)
  assert queue.waiting == 1 and second.state == jobs.CANCELLED and second.request is None
  with pytest.raises(jobs.Cancelled):
    second.future.result(0)
  gate.set()
  assert third.future.result(10).data == b'third'
  assert ran == [b'first', b'third']


def test_the_result_of_a_job_that_was_cancelled_while_it_ran_is_dropped(queues, gate):
  queue = queues(held_by(gate))
  job = queue.submit(b'big', 3)
  until(lambda: queue.running is job)
  job.enter(jobs.COMPILING, 6.0)
  assert not job.future.cancel(), 'only the queue ends a job'
  assert queue.cancel(job)
  gate.set()
  until(lambda: queue.running is None)
  assert job.state == jobs.CANCELLED and queue.held == 0
  job.enter(jobs.RUNNING)
  assert job.state == jobs.CANCELLED, 'a late state of the worker changes nothing'


def test_a_job_beyond_its_time_fails_and_the_next_one_is_done(queues, gate):
  clock = Clock()
  queue = queues(held_by(gate), clock, job_seconds=10.0)
  job, next_one = queue.submit(b'slow', 1), queue.submit(b'next', 1)
  until(lambda: queue.running is job)
  clock.now = 9.0
  queue.sweep()
  assert job.state == jobs.RUNNING
  clock.now = 11.0
  queue.sweep()
  assert job.state == jobs.FAILED and not queue.stuck
  with pytest.raises(jobs.Overdue):
    job.future.result(0)
  clock.now = 21.0
  assert queue.stuck, 'the worker is still at it'
  gate.set()
  assert next_one.future.result(10).data == b'next', 'its own time begins when it starts'


def test_results_that_nobody_fetches_are_forgotten(queues):
  clock = Clock()
  queue = queues(lambda job: Result(b'123'), clock, keep_seconds=60.0)
  job = queue.submit(None, 0)
  job.future.result(10)
  clock.now = 59.0
  queue.sweep()
  assert queue.find(job.id) is job and queue.held == 3
  clock.now = 61.0
  queue.sweep()
  assert queue.find(job.id) is None and queue.held == 0


def test_an_error_is_the_jobs_alone(queues):
  queue = queues(lambda job: 1 / job.request)
  bad, good = queue.submit(0, 0), queue.submit(4, 0)
  with pytest.raises(ZeroDivisionError):
    bad.future.result(10)
  assert bad.state == jobs.FAILED and good.future.result(10) == 0.25


def test_at_the_end_the_running_job_is_finished_and_the_others_are_told(queues, gate):
  queue = queues(held_by(gate))
  first = queue.submit(b'first', 1)
  until(lambda: queue.running is first)
  second = queue.submit(b'second', 1)
  ending = threading.Thread(target=queue.close)
  ending.start()
  with pytest.raises(jobs.Closed):
    second.future.result(10)
  with pytest.raises(jobs.Closed):
    queue.submit(b'', 0)
  gate.set()
  ending.join(10)
  assert first.future.result(0).data == b'first'


def test_a_thousand_threads_lose_no_accepted_job(queues):
  queue = queues(lambda job: Result(b'%d' % job.request), waiting=16)
  results, refused = {}, []

  def ask(number):
    try:
      job = queue.submit(number, 1)
    except jobs.Full:
      refused.append(number)
      return
    if number % 10 == 3:
      queue.cancel(job)
    try:
      results[number] = job.future.result(30).data
    except jobs.Cancelled:
      results[number] = None

  threads = [threading.Thread(target=ask, args=(n,)) for n in range(1000)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert len(results) + len(refused) == 1000
  wrong = {n: r for n, r in results.items() if r is not None and r != b'%d' % n}
  assert not wrong and all(n % 10 == 3 for n, r in results.items() if r is None)


def test_ids_cannot_be_guessed(queues):
  queue = queues(lambda job: None)
  ids = {queue.submit(None, 0).id for _ in range(20)}
  assert len(ids) == 20 and min(map(len, ids)) >= 20
