// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/ipc.h"

#include <set>

#include "futex_calls.h"
#include "futex_home.h"
#include "ipc_home.h"
#include "ipc_messages.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "posix_queue_calls.h"
#include "system_v_calls.h"

namespace krg {

struct Ipc::Impl {
  Impl(NodeContext& n, SyscallBroker& broker, SessionFs& fs, SharedWords words)
      : node(n),
        exits(n.loop, [this](pid_t pid) { on_exit(pid); }),
        waits(n.loop, exits),
        home(n),
        calls(n, broker, waits, exits),
        posix_queues(n, broker, fs, calls, exits),
        futex_home(n),
        futexes(n, broker, waits, exits, std::move(words)),
        files(fs) {
    n.messenger.on<ipc_messages::WatchEnd>([this](NodeId, const ipc_messages::WatchEnd& message,
                                                  std::string_view) { exits.add(message.pid); });
  }

  void on_exit(pid_t pid) {
    calls.tell_process_ended(pid);
    waits.process_ended(pid);
    posix_queues.process_ended(pid);
    futexes.process_ended(pid);
  }

  NodeContext& node;
  ExitWatch exits;
  WaitingCalls waits;
  IpcHome home;
  SystemVCalls calls;
  PosixQueueCalls posix_queues;
  FutexHome futex_home;
  FutexCalls futexes;
  SessionFs& files;
};

namespace {

using namespace ipc_messages;

class RestoredObjects : public RestoredIpc {
 public:
  RestoredObjects(NodeContext& node, SystemVCalls& calls, int root, const SavedIpc& saved,
                  std::string_view numbers)
      : node_(node), calls_(calls), root_(root), saved_(saved) {
    for (PackedReader in(numbers); !in.at_end();) queues_.push_back(in.get<int64_t>());
    if (!in_order()) queues_.clear();
  }
  ~RestoredObjects() override {
    let_queues_go();
    if (is_kept_) return;
    RestoreObjects drop;
    drop.drops = 1;
    node_.messenger.request(ipc_home(node_.messenger), drop, saved_.serialize(),
                            [](const Result<std::string>&) {});
  }

  Result<UniqueFd> open_posix_queue(size_t index, int flags) const override {
    if (index >= queues_.size()) return errno_error("a POSIX message queue", EBADMSG);
    return PosixQueueCalls::open_file(root_, queues_[index], flags);
  }

  // Where it has its place, too: nobody is told of its end before.
  void keep(const std::function<NodeId(pid_t)>& node_of) override {
    is_kept_ = true;
    for (const SavedSemaphores& set : saved_.semaphores)
      for (const SavedSemaphores::Undo& undo : set.undos) {
        WatchEnd watch;
        watch.pid = undo.pid;
        for (NodeId to : std::set<NodeId>{node_.self, node_of(undo.pid)})
          if (!node_.messenger.send(to, watch)) log_debug("ipc", "node {} has failed", to.value);
      }
  }

 private:
  bool in_order() const { return queues_.size() == saved_.posix_queues.size(); }
  void let_queues_go() {
    for (int64_t queue : queues_) {
      IpcShape shape;
      shape.number = static_cast<int>(PosixQueueOp::kDrop);
      shape.args[0] = queue;
      calls_.ask(IpcCaller{}, shape, [](const Result<std::string>&) {});
    }
  }

  NodeContext& node_;
  SystemVCalls& calls_;
  const int root_;
  const SavedIpc saved_;
  std::vector<int64_t> queues_;
  bool is_kept_ = false;
};

template <class Numbers>
void put_all(PackedWriter& out, const Numbers& numbers) {
  out.put(static_cast<uint32_t>(numbers.size()));
  for (const auto& number : numbers) out.put(number);
}

}  // namespace

Ipc::Ipc(NodeContext& node, SyscallBroker& broker, SessionFs& fs, SharedWords words) {
  if (node.node_count > 1) impl_ = std::make_unique<Impl>(node, broker, fs, std::move(words));
}
Ipc::~Ipc() = default;

void Ipc::process_ended(pid_t pid) {
  if (!impl_) return;
  impl_->exits.drain();
  impl_->waits.process_ended(pid);
}

bool Ipc::read_text(std::string_view name, std::function<void(Result<std::string>)> done) {
  if (!impl_ || (name != "sem" && name != "msg" && name != "mqueue")) return false;
  ipc_messages::TellObjects message;
  message.of_queues = name == "sem" ? 0 : name == "msg" ? 1 : 2;
  impl_->node.messenger.request(ipc_home(impl_->node.messenger), message, {}, std::move(done));
  return true;
}

void Ipc::end_waits_if(std::function<bool(pid_t)> has_to_stop) {
  if (impl_) impl_->waits.end_if(std::move(has_to_stop));
}

int64_t Ipc::posix_queue_of(const struct stat& file) const {
  if (!impl_ || !impl_->files.is_serving() || file.st_dev != impl_->files.device()) return 0;
  const FileId queue = impl_->files.file_of(PosixQueueTree::kName, file.st_ino);
  return queue == kTreeRoot ? 0 : static_cast<int64_t>(queue);
}

void Ipc::save(const Whose& whose, std::function<void(Result<Saved>)> done) {
  if (!impl_) return done(Saved{});
  PackedWriter payload;
  put_all(payload, whose.members);
  put_all(payload, whose.others);
  put_all(payload, whose.held);
  impl_->node.messenger.request(
      ipc_home(impl_->node.messenger), SaveObjects(), payload.bytes(),
      [done = std::move(done)](const Result<std::string>& answer) {
        if (!answer) return done(answer.error());
        PackedReader in(*answer);
        auto ipc = SavedIpc::parse(in.get_string());
        if (!ipc) return done(ipc.error());
        Saved saved{std::move(*ipc), {}};
        while (!in.at_end()) saved.queues.push_back(in.get<int64_t>());
        if (saved.queues.size() != saved.ipc.posix_queues.size())
          return done(errno_error("saved semaphores and queues", EBADMSG));
        done(std::move(saved));
      });
}

void Ipc::restore(const SavedIpc& saved, std::function<void(Result<Restored>)> done) {
  if (!impl_ || (!saved.posix_queues.empty() && !impl_->files.is_serving()))
    return done(errno_error(
        "the application has POSIX message queues, which nodes cannot share here (kradm check: "
        "fuse_device): it restarts on one node only (-N 1)",
        ENOTSUP));
  impl_->node.messenger.request(
      ipc_home(impl_->node.messenger), RestoreObjects(), saved.serialize(),
      [impl = impl_.get(), saved, done = std::move(done)](const Result<std::string>& numbers) {
        if (!numbers) return done(numbers.error());
        done(Restored(std::make_unique<RestoredObjects>(impl->node, impl->calls, impl->files.root(),
                                                        saved, *numbers)));
      });
}

size_t Ipc::waiting_count() const {
  return impl_ ? impl_->waits.size() : 0;
}

}  // namespace krg
