// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/epoll.h>
#include <unistd.h>

#include <cstring>
#include <span>

#include "home_file.h"
#include "positioned_read.h"
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
  enqueue([&workers = workers_, real = real_, work, offset = request.offset, size,
           is_shared = request.at_shared_offset](std::function<void()> next) {
    workers.submit(
        [real, work, offset, size, is_shared] {
          const size_t before = is_shared ? sizeof(int64_t) : 0;
          work->data.resize(before + size);
          char* to = work->data.data() + before;
          if (!is_shared) {
            work->got = offset == kAtPosition ? ::read(real->get(), to, size)
                                              : pread(real->get(), to, size, offset);
            work->error = errno;
            return;
          }
          if (offset != kAtPosition) lseek(real->get(), offset, SEEK_SET);
          const auto read =
              read_at_position(real->get(), std::as_writable_bytes(std::span(to, size)));
          work->got = read.got < 0 ? read.got : read.got + static_cast<ssize_t>(before);
          work->error = read.error;
          std::memcpy(work->data.data(), &read.was_at, sizeof read.was_at);
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
