// HomeFile: a description that stays on this node while processes of other nodes use it: their
// reads, writes and polls are carried out here, on demand: nothing is read ahead of a reader.
//
// HomePipe: pipes, FIFOs and terminals, and what tells of events. I/O goes through a description of
// its own that is O_NONBLOCK (the shared one's flags are never touched), or, where another user's
// pipe cannot be opened anew, through the shared one, each operation told not to wait; what cannot
// be done at once waits here in order. HomeRegular: regular files; I/O on the shared description
// (its offset is everybody's), one operation at a time, in a worker.
//
// Owner: RemoteHome. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// Which read or write of which node; for cancelling.
struct StreamOperation {
  NodeId node;
  uint64_t number = 0;
  auto operator<=>(const StreamOperation&) const = default;
};

// What is asked of a read or write.
struct StreamRequest {
  StreamOperation operation;
  int64_t offset = -1;  // kAtPosition: where the description stands
  bool nonblocking = false;
  bool at_shared_offset = false;  // see StreamRead
};

class HomeFile {
 public:
  explicit HomeFile(UniqueFd real) : real_(std::make_shared<UniqueFd>(std::move(real))) {}
  virtual ~HomeFile() = default;
  HomeFile(const HomeFile&) = delete;
  HomeFile& operator=(const HomeFile&) = delete;

  // The shared description itself.
  int real() const { return real_->get(); }
  const std::shared_ptr<UniqueFd>& shared_real() const { return real_; }

  virtual void read(const StreamRequest& request, size_t size, Messenger::Reply reply) = 0;
  // `data` is valid during the call.
  virtual void write(const StreamRequest& request, std::string_view data,
                     Messenger::Reply reply) = 0;
  // The events of now; `wake` (may be empty) runs once when they may have changed. A later wake of
  // the same poller takes an earlier one's place.
  virtual uint32_t poll(StreamOperation poller, std::function<void()> wake) = 0;
  // Answers the operation with EINTR, or with what it has done so far, if it still waits.
  virtual void cancel(StreamOperation operation) = 0;
  // Drops what waits for a node that is dead: it must not take data from the living.
  virtual void forget_node(NodeId node) = 0;

 protected:
  std::shared_ptr<UniqueFd> real_;  // shared with work that is under way in a worker
};

// A socket, which is not read and written as a krgfs file: its node relays what comes and goes.
class RelayedHomeFile : public HomeFile {
 public:
  using HomeFile::HomeFile;

  void read(const StreamRequest&, size_t, Messenger::Reply reply) override { reply.fail(EINVAL); }
  void write(const StreamRequest&, std::string_view, Messenger::Reply reply) override {
    reply.fail(EINVAL);
  }
  uint32_t poll(StreamOperation, std::function<void()>) override { return 0; }
  void cancel(StreamOperation) override {}
  void forget_node(NodeId) override {}
};

class HomePipe : public HomeFile {
 public:
  // Errors: the pipe cannot be opened anew (it belongs to another user), and the kernel cannot do
  // without.
  static Result<std::unique_ptr<HomePipe>> create(EventLoop& loop, UniqueFd real, int flags);
  // What can only be read and polled, and by nobody else meanwhile: a pidfd, an inotify instance.
  // Nothing opens that anew, so it is asked before each read whether that would wait.
  static std::unique_ptr<HomePipe> create_of_events(EventLoop& loop, UniqueFd real);
  // The master of a pseudo-terminal, which nobody else has.
  static std::unique_ptr<HomePipe> create_of_master(EventLoop& loop, UniqueFd real);
  // An eventfd that others use, too. REQUIRES: can_read_eventfds_at_once().
  static std::unique_ptr<HomePipe> create_of_counter(EventLoop& loop, UniqueFd real);

  void read(const StreamRequest& request, size_t size, Messenger::Reply reply) override;
  void write(const StreamRequest& request, std::string_view data, Messenger::Reply reply) override;
  uint32_t poll(StreamOperation poller, std::function<void()> wake) override;
  void cancel(StreamOperation operation) override;
  void forget_node(NodeId node) override;

 private:
  struct WaitingRead {
    StreamOperation operation;
    size_t size;
    Messenger::Reply reply;
  };
  struct WaitingWrite {
    StreamOperation operation;
    std::string data;
    size_t written;
    Messenger::Reply reply;
  };

  enum class What { kPipe, kEvents, kCounter, kMaster };
  HomePipe(EventLoop& loop, UniqueFd real, UniqueFd io, int flags, What what = What::kPipe);
  int io_descriptor() const { return io_ ? io_.get() : real(); }
  int io_flags() const {
    return io_ || what_ == What::kEvents || what_ == What::kMaster ? 0 : RWF_NOWAIT;
  }
  // False when it must wait; else it is answered.
  bool try_read(size_t size, bool nonblocking, Messenger::Reply& reply);
  bool try_write(std::string_view data, size_t& written, bool nonblocking, Messenger::Reply& reply);
  ssize_t put(std::string_view data) const;
  ssize_t add_to_counter(std::string_view value) const;
  uint32_t ready_events() const;
  void on_events(uint32_t events);
  void update_watch();

  EventLoop& loop_;
  UniqueFd io_;  // the same pipe, O_NONBLOCK; none when it cannot be opened anew
  uint32_t possible_events_;
  const What what_;
  std::deque<WaitingRead> reads_;
  std::deque<WaitingWrite> writes_;
  std::map<StreamOperation, std::function<void()>> wakes_;
  uint32_t awaited_by_wakes_ = 0;
  EventLoop::Watch watch_;
  std::string buffer_;
};

class HomeRegular : public HomeFile {
 public:
  HomeRegular(WorkerPool& workers, UniqueFd real) : HomeFile(std::move(real)), workers_(workers) {}

  void read(const StreamRequest& request, size_t size, Messenger::Reply reply) override;
  void write(const StreamRequest& request, std::string_view data, Messenger::Reply reply) override;
  uint32_t poll(StreamOperation, std::function<void()>) override;  // always ready
  // A regular file's I/O ends soon.
  void cancel(StreamOperation) override {}
  void forget_node(NodeId) override {}

 private:
  // Operations of one file in order: shared with the worker's completion, which may outlive us.
  struct Queue {
    std::deque<std::function<void(std::function<void()> next)>> waiting;
    bool busy = false;
    static void run_next(const std::shared_ptr<Queue>& queue);
  };
  void enqueue(std::function<void(std::function<void()> next)> operation);

  WorkerPool& workers_;
  std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();
};

}  // namespace krg
