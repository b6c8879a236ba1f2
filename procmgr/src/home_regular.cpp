// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/epoll.h>
#include <unistd.h>

#include "home_file.h"
#include "stream_messages.h"

namespace krg {

void HomeRegular::Queue::run_next(const std::shared_ptr<Queue>& queue) {
  if (queue->busy || queue->waiting.empty()) return;
  auto operation = std::move(queue->waiting.front());
  queue->waiting.pop_front();
  queue->busy = true;
  operation([queue] {
    queue->busy = false;
    run_next(queue);
  });
}

void HomeRegular::enqueue(std::function<void(std::function<void()> next)> operation) {
  queue_->waiting.push_back(std::move(operation));
  Queue::run_next(queue_);
}

void HomeRegular::read(const StreamRequest& request, size_t size, Messenger::Reply reply) {
  struct Work {
    std::string data;
    ssize_t got = 0;
    int error = 0;
    Messenger::Reply reply;
  };
  auto work = std::make_shared<Work>(Work{{}, 0, 0, std::move(reply)});
  enqueue([&workers = workers_, real = real_, work, offset = request.offset,
           size](std::function<void()> next) {
    workers.submit(
        [real, work, offset, size] {
          work->data.resize(size);
          work->got = offset == kAtPosition ? ::read(real->get(), work->data.data(), size)
                                            : pread(real->get(), work->data.data(), size, offset);
          work->error = errno;
        },
        [work, next] {
          if (work->got < 0) {
            work->reply.fail(work->error);
          } else {
            work->reply.ok(std::string_view(work->data).substr(0, static_cast<size_t>(work->got)));
          }
          next();
        });
  });
}

void HomeRegular::write(const StreamRequest& request, std::string_view data,
                        Messenger::Reply reply) {
  struct Work {
    std::string data;
    ssize_t put = 0;
    int error = 0;
    Messenger::Reply reply;
  };
  auto work = std::make_shared<Work>(Work{std::string(data), 0, 0, std::move(reply)});
  enqueue([&workers = workers_, real = real_, work,
           offset = request.offset](std::function<void()> next) {
    workers.submit(
        [real, work, offset] {
          work->put = offset == kAtPosition
                          ? ::write(real->get(), work->data.data(), work->data.size())
                          : pwrite(real->get(), work->data.data(), work->data.size(), offset);
          work->error = errno;
        },
        [work, next] {
          const auto written = static_cast<uint64_t>(work->put);
          if (work->put < 0) {
            work->reply.fail(work->error);
          } else {
            work->reply.ok({reinterpret_cast<const char*>(&written), sizeof written});
          }
          next();
        });
  });
}

uint32_t HomeRegular::poll(StreamOperation, std::function<void()>) {
  return EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM;
}

}  // namespace krg
