// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/image_installer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "event_fds.h"
#include "image/call_batch.h"
#include "image/exec_hold.h"
#include "image/homecoming.h"
#include "image/install_parts.h"
#include "in_worker.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/runtime/log.h"
#include "krg/shmem/page_set.h"
#include "process_spec.h"
#include "shadow.h"
#include "userfault_source.h"

namespace krg {
namespace {

// The image's files, each the one that the process had. Blocks.
Result<std::vector<UniqueFd>> open_files(const std::vector<ImageFile>& files) {
  std::vector<UniqueFd> opened;
  for (const ImageFile& file : files) {
    UniqueFd fd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return errno_error(file.path);
    struct stat found {};
    if (fstat(fd.get(), &found) != 0) return errno_error(file.path);
    if (!S_ISREG(found.st_mode) || static_cast<uint64_t>(found.st_size) != file.bytes ||
        found.st_mtim.tv_sec * 1'000'000'000 + found.st_mtim.tv_nsec != file.modified_ns)
      return errno_error(file.path + " is another file here", ESTALE);
    opened.push_back(std::move(fd));
  }
  return opened;
}

}  // namespace

// One install, until its end.
class Installation : public std::enable_shared_from_this<Installation> {
 public:
  Installation(NodeContext& node, BodySpawner& spawner, ImageInstaller::Request request,
               ImageInstaller::Installed done)
      : node_(node), spawner_(spawner), request_(std::move(request)), done_(std::move(done)) {}

  // What other nodes share stays while the process is on its way here.
  void begin() {
    const auto uses = shared_memories(image());
    if (shared_held_.size() == uses.size()) return open_image_files();
    if (!request_.shared) return end(errno_error("shared memory is each node's own here", ENOTSUP));
    request_.shared->hold(uses[shared_held_.size()].file,
                          [self = shared_from_this()](Result<std::shared_ptr<void>> held) {
                            if (!held) return self->end(held.error());
                            self->shared_held_.push_back(std::move(*held));
                            self->begin();
                          });
  }

 private:
  void open_image_files() {
    in_worker(
        node_.workers, [self = shared_from_this()] { return open_files(self->image().files); },
        [self = shared_from_this()](Result<std::vector<UniqueFd>> files) {
          if (!files) return self->end(files.error());
          self->spawn(std::move(*files));
        });
  }

  const ProcessImage& image() const { return request_.image; }

  void spawn(std::vector<UniqueFd> files) {
    log_trace("image", "body {}: {} files opened", image().threads.front().tid, files.size());
    for (const ImportedFd& fd : request_.fds) {
      first_own_ = std::max(first_own_, fd.number + 1);
      if (fd.close_on_exec) close_on_exec_.push_back(fd.number);
      if (!request_.home) continue;  // a body adds what it watches when it starts
      for (const PolledFd& polled : polled_by(fd.polled)) {
        if (is_krgfs(polled.number))
          return end(cannot_move(
              "an epoll instance that watches a descriptor of another node, at its home"));
        polled_.emplace_back(fd.number, polled);
      }
    }
    last_own_ = first_own_ - 1;
    std::vector<ImportedFd> fds = std::move(request_.fds);
    for (UniqueFd& file : files) fds.push_back({++last_own_, std::move(file)});
    const auto uses = shared_memories(image());
    first_shared_ = last_own_ + 1;
    for (const SharedUse& use : uses) {
      auto memory = request_.shared->memory(use.file, use.writes);
      if (!memory) return end(memory.error());
      fds.push_back({++last_own_, std::move(*memory)});
    }
    int device_here = request_.late_pages ? request_.late_pages->device() : -1;
    if (!uses.empty()) device_here = request_.shared->userfaultfd_device();
    if (device_here >= 0) {
      UniqueFd device(fcntl(device_here, F_DUPFD_CLOEXEC, 0));
      if (!device) return end(errno_error("userfaultfd"));
      device_ = ++last_own_;
      fds.push_back({device_, std::move(device)});
    }
    request_.home ? come_home(std::move(fds)) : spawn_body(std::move(fds));
  }

  // Its poll would have krgd wait for itself.
  bool is_krgfs(int number) const {
    return std::any_of(request_.fds.begin(), request_.fds.end(),
                       [&](const ImportedFd& fd) { return fd.number == number && fd.is_krgfs; });
  }

  void spawn_body(std::vector<ImportedFd> fds) {
    BodySpawner::Request body;
    body.fds = std::move(fds);
    body.pid = image().threads.front().tid;
    body.spec = image().spec;
    body.uts_ns = request_.uts_ns;
    body.has_children = request_.has_children;
    body.own_session = request_.own_session;
    body.chooses_thread_ids = image().threads.size() > 1;
    body.on_created = [self = shared_from_this(), pid = body.pid] { self->on_created(pid); };
    body.waits = true;  // to be held at its exec
    spawner_.spawn(std::move(body), [self = shared_from_this()](Result<int> started) {
      self->on_started(std::move(started));
    });
  }

  void come_home(std::vector<ImportedFd> fds) {
    auto wanted = std::make_shared<std::vector<ImportedFd>>(std::move(fds));
    request_.home->lend(image().threads.front().tid, [self = shared_from_this(),
                                                      wanted](Result<LentShadow> shadow) {
      if (!shadow) return self->end(shadow.error());
      const auto process = shadow->process;
      self->settle_stop(*process);
      exec_in_shadow(std::move(*shadow), self->image().spec, std::move(*wanted),
                     [self, process](Result<std::shared_ptr<FrozenProcess>> execed) {
                       if (execed) return self->on_home(std::move(*execed));
                       self->request_.home->take_back(*process);
                       self->end(execed.error());
                     });
    });
  }

  // A shadow that is stopped stays so on its way to the process that is, or that was about to stop
  // anew after its last move: its parent knows of that, and threads that are made in it are stopped
  // without notice. Else it goes on, and the one who has it exec takes that signal.
  void settle_stop(FrozenProcess& shadow) const {
    const bool is_about_to =
        std::any_of(image().pending.begin(), image().pending.end(),
                    [](const ImageSignal& signal) { return signal.number() == SIGSTOP; });
    const bool stays_stopped = image().stop_signal != 0 || is_about_to;
    if (shadow.main().stop_signal() != 0 && !stays_stopped) resume_shadow(shadow.pid());
  }

  void on_home(std::shared_ptr<FrozenProcess> execed) {
    process_ = std::move(execed);
    has_started_ = true;
    install_when_ready();
  }

  void on_created(pid_t pid) {
    request_.on_created();
    auto holding = hold_at_exec(
        *node_.children, pid,
        [self = shared_from_this()](Result<FrozenThread> held) { self->on_held(std::move(held)); });
    if (holding) return;
    failure_ = holding.error();
    kill(pid, SIGKILL);
  }

  void on_started(Result<int> started) {
    if (!started) return end(started.error());
    if (*started != 0) return end(errno_error(image().spec.path, *started));
    has_started_ = true;
    install_when_ready();
  }

  void on_held(Result<FrozenThread> held) {
    if (held)
      process_ = FrozenProcess::adopt(*node_.children, std::move(*held));
    else if (!failure_)
      failure_ = held.error();
    install_when_ready();
  }

  // Both have been told: that it has execed, and that it stands.
  void install_when_ready() {
    if (!has_started_ || (!process_ && !failure_)) return;
    if (failure_) return end(*failure_);
    log_trace("image", "body {}: stands at its exec", image().threads.front().tid);
    std::unique_ptr<InstalledProcess> installed(
        new InstalledProcess(process_, std::move(request_.image), request_.home));
    installed->origin_keeps_signals_ = request_.origin_keeps_signals;
    if (auto done = install(*installed); !done) return end(done.error());
    log_trace("image", "body {}: installed", process_->pid());
    end(std::move(installed));
  }

  Status install(InstalledProcess& installed) {
    FrozenProcess& process = *process_;
    const ProcessImage& image = installed.image_;
    if (request_.late_pages)
      if (auto held = installed.hold_huge_pages_back(); !held) return held;
    if (auto done = install_memory(process, image, first_own_); !done) return done;
    log_trace("image", "body {}: memory installed", process.pid());
    if (request_.shared)
      if (auto done = install_shared_memory(process, image, *request_.shared,
                                            shared_memories(image), first_shared_, device_);
          !done)
        return done;
    if (auto done = install_settings(process, image); !done) return done;
    if (auto done = install_threads(process, image); !done) return done;
    if (auto done = install_capabilities(process, image); !done) return done;
    if (auto done = install_timers(process, image); !done) return done;
    if (auto done = install_userfaultfd(installed); !done) return done;
    return install_descriptors(process);
  }

  Status install_userfaultfd(InstalledProcess& installed) {
    if (!request_.late_pages) return {};
    auto taken = open_userfaultfd(*process_, device_);
    if (!taken) return taken.error();
    installed.userfaultfd_ = std::move(*taken);
    return {};
  }

  // Closes krgd's, and what the program's next exec is to close is told so; epoll instances are
  // told what they watch.
  Status install_descriptors(FrozenProcess& process) {
    CallBatch batch(process);
    batch.add(SYS_close_range,
              {static_cast<uint64_t>(first_own_), static_cast<uint64_t>(last_own_), 0});
    for (int number : close_on_exec_)
      batch.add(SYS_fcntl, {static_cast<uint64_t>(number), F_SETFD, FD_CLOEXEC});
    for (const auto& [number, polled] : polled_) {
      epoll_event event{};
      event.events = polled.events;
      event.data.u64 = polled.data;
      batch.add(SYS_epoll_ctl, {static_cast<uint64_t>(number), EPOLL_CTL_ADD,
                                static_cast<uint64_t>(polled.number), batch.put(event).value});
    }
    if (auto run = batch.run(); !run) return run;
    for (size_t i = 0; i < batch.size(); ++i)
      if (auto set = done_by_call("descriptors", batch.result(i)); !set) return set;
    return {};
  }

  void end(Result<std::unique_ptr<InstalledProcess>> outcome) {
    process_.reset();
    if (auto done = std::exchange(done_, nullptr)) done(std::move(outcome));
  }

  NodeContext& node_;
  BodySpawner& spawner_;
  ImageInstaller::Request request_;
  ImageInstaller::Installed done_;
  int first_own_ = 3, last_own_ = 2;  // krgd's descriptors in the process
  int device_ = -1, first_shared_ = -1;
  std::vector<std::shared_ptr<void>> shared_held_;
  std::vector<int> close_on_exec_;
  std::vector<std::pair<int, PolledFd>> polled_;  // by which epoll instance
  std::shared_ptr<FrozenProcess> process_;
  std::optional<Error> failure_;
  bool has_started_ = false;
};

void ImageInstaller::install(Request request, Installed done) {
  std::make_shared<Installation>(node_, spawner_, std::move(request), std::move(done))->begin();
}

Result<std::unique_ptr<InstalledProcess>> ImageInstaller::install_into(
    std::shared_ptr<FrozenProcess> process, ProcessImage image, int first_file, int program,
    bool has_late_pages, const MapsMore& maps_more) {
  std::unique_ptr<InstalledProcess> installed(
      new InstalledProcess(std::move(process), std::move(image), nullptr));
  FrozenProcess& held = *installed->process_;
  const ProcessImage& what = installed->image_;
  if (has_late_pages)
    if (auto small = installed->hold_huge_pages_back(); !small) return small.error();
  if (auto done = install_memory(held, what, first_file); !done) return done.error();
  if (maps_more)
    if (auto done = maps_more(held, what); !done) return done.error();
  if (has_late_pages) {
    const int device = open_userfaultfd_device(held);
    auto userfaultfd = open_userfaultfd(held, device);
    if (device >= 0) held.call(SYS_close, {static_cast<uint64_t>(device)});
    if (!userfaultfd) return userfaultfd.error();
    if (auto touched = installed->touch_first_pages(); !touched) return touched.error();
    installed->userfaultfd_ = std::move(*userfaultfd);
  }
  if (auto done = install_settings(held, what, program); !done) return done.error();
  if (auto done = install_threads(held, what); !done) return done.error();
  if (auto done = install_attributes(held, what); !done) return done.error();
  if (auto done = install_capabilities(held, what); !done) return done.error();
  if (auto done = install_timers(held, what); !done) return done.error();
  return installed;
}

}  // namespace krg
