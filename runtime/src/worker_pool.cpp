// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/worker_pool.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace krg {

struct WorkerPool::Impl {
  struct Job {
    std::function<void()> work, done;
  };
  EventLoop& loop;
  const unsigned max_threads;
  std::mutex mutex;  // guards everything below
  std::condition_variable wanted;
  std::deque<Job> queue;
  unsigned idle = 0;
  bool closing = false;
  std::vector<std::thread> threads;

  Impl(EventLoop& l, unsigned max) : loop(l), max_threads(max) {}

  void serve() {
    std::unique_lock lock(mutex);
    for (;;) {
      ++idle;
      wanted.wait(lock, [&] { return closing || !queue.empty(); });
      --idle;
      if (closing) return;
      Job job = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      job.work();
      // What the work holds may be the last of something whose end belongs to the loop, too.
      loop.post([job = std::move(job)]() mutable {
        job.work = nullptr;
        if (job.done) job.done();
      });
      lock.lock();
    }
  }
};

WorkerPool::WorkerPool(EventLoop& loop, unsigned max_threads)
    : impl_(std::make_shared<Impl>(loop, max_threads)) {}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->closing = true;
  }
  impl_->wanted.notify_all();
  for (auto& thread : impl_->threads) thread.join();
}

void WorkerPool::start_all() {
  std::lock_guard lock(impl_->mutex);
  while (impl_->threads.size() < impl_->max_threads)
    impl_->threads.emplace_back([impl = impl_.get()] { impl->serve(); });
}

void WorkerPool::submit(std::function<void()> work, std::function<void()> done) {
  std::lock_guard lock(impl_->mutex);
  impl_->queue.push_back({std::move(work), std::move(done)});
  if (impl_->idle < impl_->queue.size() && impl_->threads.size() < impl_->max_threads) {
    impl_->threads.emplace_back([impl = impl_.get()] { impl->serve(); });
  } else {
    impl_->wanted.notify_one();
  }
}

}  // namespace krg
