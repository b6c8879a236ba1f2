// SPDX-License-Identifier: GPL-2.0-or-later
#include "session.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "krg/procmgr/mount_krgfs.h"
#include "krg/procmgr/session_roots.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

Status mount_at(const char* type, const std::string& target, unsigned long flags,
                const char* options = nullptr) {
  if (mount(type, target.c_str(), type, flags, options) != 0)
    return errno_error(std::string("mounting ") + type + " over " + target);
  return {};
}

bool is_directory(const char* path) {
  struct stat status {};
  return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

Status bind_view(const std::string& session_root, const Session::View& view) {
  const std::string source = session_root + "/fs/" + view.tree;
  // mount(2) would follow a symbolic link instead of binding the link itself.
  UniqueFd tree(open_tree(AT_FDCWD, source.c_str(),
                          OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  if (!tree ||
      move_mount(tree.get(), "", AT_FDCWD, view.target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return errno_error("binding " + source + " over " + view.target);
  return {};
}

}  // namespace

Result<Session> Session::create() {
  Session session;
  if (auto slave = make_mounts_slave(); !slave) return slave.error();
  if (auto mounted = session.mount_own(); !mounted) return mounted.error();
  if (auto made = session.make_mount_namespace(); !made) return made.error();
  return session;
}

Status Session::mount_own() {
  constexpr unsigned long kProcFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (auto proc = mount_at("proc", "/proc", kProcFlags); !proc) return proc;
  for (const char* candidate : kSessionRoots)
    if (root_.empty() && is_directory(candidate)) root_ = candidate;
  if (root_.empty()) return errno_error("no folder for the session root", ENOENT);
  if (auto root = mount_at("tmpfs", root_, MS_NOSUID | MS_NODEV, "mode=0755,size=1m"); !root)
    return root;
  for (const char* folder : {"/proc", "/fs"})
    if (mkdir((root_ + folder).c_str(), 0755) != 0) return errno_error(root_ + folder);
  if (auto proc = mount_at("proc", root_ + "/proc", kProcFlags); !proc) return proc;
  if (auto terminal = bind_terminal(); !terminal) return terminal;
  if (is_directory("/dev/shm"))
    if (auto shm = mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"); !shm)
      return shm;
  // The session's IPC namespace has message queues of its own; without this mount they have no
  // names only.
  if (is_directory("/dev/mqueue"))
    if (auto queues = mount_at("mqueue", "/dev/mqueue", kProcFlags); !queues)
      log_warn("session", "{}", queues.error().message());
  return {};
}

// Where the link over /dev/tty leads processes whose terminal is one of this node.
Status Session::bind_terminal() {
  const std::string name = root_ + "/tty";
  if (!UniqueFd(open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0666))) return errno_error(name);
  if (mount("/dev/tty", name.c_str(), nullptr, MS_BIND, nullptr) != 0)
    return errno_error("binding /dev/tty");
  return {};
}

Status Session::make_mount_namespace() {
  Status made;
  // unshare(2): a thread gets a mount namespace of its own together with its own file system
  // context.
  std::thread([&] {
    if (unshare(CLONE_FS | CLONE_NEWNS) != 0) {
      made = errno_error("unshare(CLONE_NEWNS)");
      return;
    }
    mount_namespace_ = UniqueFd(open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (!mount_namespace_) made = errno_error("/proc/thread-self/ns/mnt");
  }).join();
  if (!made) return made;
  namespaces_.add("mnt", UniqueFd(fcntl(mount_namespace_.get(), F_DUPFD_CLOEXEC, 0)));
  for (const char* kind : {"user", "pid", "ipc", "net"})
    if (auto added = namespaces_.add_own(kind); !added) return added;
  return {};
}

void Session::serve(SessionFs& fs) const {
  auto mounted = mount_krgfs(mount_namespace_.get(), root_ + "/fs");
  if (!mounted) {
    log_warn("session", "no cluster view in /proc: {}", mounted.error().message());
    return;
  }
  if (auto served = fs.serve(std::move(*mounted)); !served)
    log_error("session", "krgfs: {}", served.error().message());
}

void Session::bind_views(WorkerPool& workers, std::vector<View> views,
                         std::function<void(Status)> done) const {
  auto outcome = std::make_shared<Status>();
  workers.submit(
      [views = std::move(views), root = root_, space = mount_namespace_.get(), outcome] {
        *outcome = run_in_mount_namespace(space, [&]() -> Status {
          for (const View& view : views)
            if (auto bound = bind_view(root, view); !bound) return bound;
          return {};
        });
      },
      [done = std::move(done), outcome] { done(*outcome); });
}

}  // namespace krg
