// SPDX-License-Identifier: GPL-2.0-or-later
#include "inotify_calls.h"

#include <fmt/core.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/syscall.h>

#include <memory>

#include "act_as.h"
#include "alive.h"
#include "in_worker.h"
#include "krg/procmgr/mount_krgfs.h"
#include "process_spec.h"
#include "process_status.h"
#include "stream_replies.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

// Request to the home of an inotify instance: a watch of the payload, a path of the session, or the
// end of one. Reply: what the call returns, as int64_t.
struct InotifyChange {
  static constexpr uint16_t kId = message_ids::kDescriptors + 23;
  uint8_t version = 1;
  uint8_t removes = 0;
  uint16_t unused = 0;
  uint32_t mask = 0;
  int32_t watch = 0;
  uint32_t uid = 0, gid = 0;
  uint32_t unused_too = 0;
  HomeId home;
};
static_assert(sizeof(InotifyChange) == 32);

Result<int64_t> change(const InotifyChange& asked, const std::string& path, int instance,
                       int mount_ns) {
  int64_t made = -1;
  Status changed = run_in_mount_namespace(mount_ns, [&]() -> Status {
    const ActAs user({asked.uid, asked.gid});
    if (auto may = user.status(); !may) return may;
    made = asked.removes ? inotify_rm_watch(instance, asked.watch)
                         : inotify_add_watch(instance, path.c_str(), asked.mask);
    return made < 0 ? Status(errno_error("inotify")) : Status();
  });
  if (!changed) return changed.error();
  return made;
}

// As the session's processes of any node would name it.
Result<std::string> path_of(const Call& call) {
  auto path = call.read_string(RemoteAddr{call.arg(1)}, PATH_MAX);
  if (!path || path->empty()) return path ? errno_error("path", ENOENT) : path.error();
  if (path->front() == '/') return path;
  auto folder = read_link(fmt::format("/proc/{}/cwd", call.tid()));
  if (!folder) return errno_error("no such process", ESRCH);
  return *folder + "/" + *path;
}

}  // namespace

InotifyCalls::InotifyCalls(NodeContext& node, SyscallBroker& broker, StreamTree& tree,
                           RemoteHome& home, WatchedPaths& paths)
    : node_(node), tree_(tree), paths_(paths) {
  node_.messenger.on_request<InotifyChange>(
      [&node, &home, &paths](NodeId, const InotifyChange& asked, std::string_view path,
                             Messenger::Reply reply) {
        if (!asked.removes) paths.add(0, std::string(path));
        HomeFile* file = home.find(asked.home);
        if (file == nullptr) return reply.fail(EBADF, "the description is gone");
        auto later = shared(std::move(reply));
        in_worker(
            node.workers,
            [asked, path = std::string(path), instance = file->shared_real(),
             mount_ns = node.session_mount_ns] {
              return change(asked, path, instance->get(), mount_ns);
            },
            [later](Result<int64_t> made) {
              if (!made) return later->fail(made.error());
              later->ok({reinterpret_cast<const char*>(&*made), sizeof *made});
            });
      });
  for (int number : {SYS_inotify_add_watch, SYS_inotify_rm_watch})
    broker.set_handler(number, [this](Call call) { handle(std::move(call)); });
}

void InotifyCalls::goes_on(Call call) {
  if (call.number() == SYS_inotify_add_watch)
    if (auto path = path_of(call)) paths_.add(call.tid(), std::move(*path));
  call.go_on();
}

void InotifyCalls::handle(Call call) {
  const auto source = tree_.source_of(call.tid(), static_cast<int>(call.arg(0)));
  if (!source || !source->is_inotify) return goes_on(std::move(call));
  const auto user = read_credentials(call.tid());
  if (!user) return call.fail(ESRCH);
  InotifyChange asked;
  asked.home = source->id;
  asked.uid = user->effective_uid;
  asked.gid = user->effective_gid;
  asked.removes = call.number() == SYS_inotify_rm_watch;
  asked.watch = static_cast<int32_t>(call.arg(1));
  asked.mask = static_cast<uint32_t>(call.arg(2));
  std::string path;
  if (!asked.removes) {
    auto named = path_of(call);
    if (!named) return call.fail(named.error().errno_or(EFAULT));
    path = std::move(*named);
  }
  auto waiting = std::make_shared<Call>(std::move(call));
  node_.messenger.request(source->home, asked, path, [waiting](Result<std::string> reply) {
    auto made = value_of<int64_t>(reply);
    made ? waiting->succeed(*made) : waiting->fail(as_io_error(made.error()).errno_or(EIO));
  });
}

}  // namespace krg
