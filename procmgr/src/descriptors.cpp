// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/descriptors.h"

#include "fd_exporter.h"
#include "fd_importer.h"
#include "home_listener.h"
#include "home_record_locks.h"
#include "home_socket.h"
#include "inotify_calls.h"
#include "lock_queries.h"
#include "loopback_listeners.h"
#include "pidfd_calls.h"
#include "stream_stat_calls.h"

namespace krg {

struct Descriptors::Impl {
  Impl(NodeContext& node, SessionFs& fs, SyscallBroker& broker)
      : session_files(fs),
        record_locks(node),
        home(node, record_locks),
        tree(node, fs, record_locks),
        terminals(node, home),
        mirrors(node),
        relays(node, home),
        listeners(node, home, relays),
        loopback(node, broker, home, relays, listeners),
        exporter(node, fs, home, tree, terminals, mirrors, relays, listeners),
        importer(node, fs, home, tree, mirrors, relays, listeners, record_locks),
        stat_calls(broker, fs, tree),
        lock_queries(node, broker, fs, tree, record_locks),
        inotify_calls(node, broker, tree, home, watched_paths),
        pidfd_calls(node, broker, fs, tree, home) {
    fs.add_tree(StreamTree::kName, tree);
    tree.set_settling([this] { importer.settle_offsets(); });
    relays.set_settling([this] { importer.settle_offsets(); });
    pass_descriptors();
  }

  void pass_descriptors() {
    relays.passing() = {
        .pack = [this](std::vector<UniqueFd> fds) -> Result<std::string> {
          auto exported = exporter.export_passed(std::move(fds));
          if (!exported) return exported.error();
          return encode_passed(*exported);
        },
        .unpack =
            [this](pid_t pid, std::string_view bytes, FdPassing::Unpacked done) {
              auto fds = decode_passed(bytes);
              if (!fds) return done(fds.error());
              importer.import_passed(
                  pid, *fds, [done = std::move(done)](Result<std::vector<ImportedFd>> imported) {
                    if (!imported) return done(imported.error());
                    std::vector<UniqueFd> made;
                    for (ImportedFd& fd : *imported) made.push_back(std::move(fd.fd));
                    done(std::move(made));
                  });
            },
        .cancel =
            [this](std::string_view bytes) {
              if (auto fds = decode_passed(bytes)) exporter.cancel(*fds);
            },
    };
  }

  // Of a process that stands to be moved.
  void export_leaving(pid_t pid, std::function<void(Result<std::vector<ExportedFd>>)> done) {
    const auto own = exporter.own_relays(pid);
    if (own.empty()) return done(exporter.export_all(pid, WhichFds::kAll));
    relays.pause(own, [this, pid, own, done = std::move(done)] {
      auto exported = exporter.export_all(pid, WhichFds::kAll);
      if (!exported)
        for (const uint64_t number : own) relays.resume(number);
      done(std::move(exported));
    });
  }

  SessionFs& session_files;
  HomeRecordLocks record_locks;
  RemoteHome home;
  StreamTree tree;
  HomeTerminals terminals;
  TerminalMirrors mirrors;
  SocketRelays relays;
  ListenerRelays listeners;
  LoopbackListeners loopback;
  FdExporter exporter;
  FdImporter importer;
  StreamStatCalls stat_calls;
  LockQueries lock_queries;
  WatchedPaths watched_paths;
  InotifyCalls inotify_calls;
  PidfdCalls pidfd_calls;
};

Descriptors::Descriptors(NodeContext& node, SessionFs& fs, SyscallBroker& broker)
    : impl_(std::make_unique<Impl>(node, fs, broker)) {}
Descriptors::~Descriptors() = default;

void Descriptors::set_lock_holders(LockHolders& holders) {
  impl_->record_locks.set_holders(holders);
}

void Descriptors::export_fds(pid_t pid, WhichFds which,
                             std::function<void(Result<std::vector<ExportedFd>>)> done) {
  if (which != WhichFds::kAll) return done(impl_->exporter.export_all(pid, which));
  impl_->mirrors.settle(pid, [impl = impl_.get(), pid, done = std::move(done)](const Status& how) {
    if (!how) return done(how.error());
    impl->export_leaving(pid, done);
  });
}

void Descriptors::resume_sockets(const std::vector<ExportedFd>& fds) {
  impl_->exporter.resume_sockets(fds);
}

void Descriptors::cancel_export(const std::vector<ExportedFd>& fds) {
  impl_->exporter.cancel(fds);
}

void Descriptors::import_fds(pid_t pid, std::vector<ExportedFd> fds,
                             std::function<void(Result<std::vector<ImportedFd>>)> done) {
  impl_->importer.import_all(pid, fds, std::move(done));
}

void Descriptors::body_ended(pid_t pid, std::function<void()> done) {
  impl_->mirrors.drain(pid, [impl = impl_.get(), pid, done = std::move(done)]() mutable {
    impl->relays.drain(pid, [impl, pid, done = std::move(done)]() mutable {
      impl->listeners.body_ended();
      impl->importer.body_ended(pid, std::move(done));
    });
  });
}

std::optional<Descriptors::Home> Descriptors::home_of(const struct stat& attributes) const {
  if (!impl_->session_files.is_serving() || attributes.st_dev != impl_->session_files.device())
    return std::nullopt;
  const auto source = impl_->tree.source_of(attributes.st_ino);
  if (!source) return std::nullopt;
  return Home{source->home, source->id.value, source->seekable && !source->shared_offset};
}

std::optional<pid_t> Descriptors::process_of_pidfd(pid_t tid, int number) const {
  const auto source = impl_->tree.source_of(tid, number);
  return source ? source->process : std::nullopt;
}

WatchedPaths& Descriptors::watched_paths() const {
  return impl_->watched_paths;
}

bool Descriptors::has_locks_from_elsewhere(pid_t pid) const {
  return !impl_->record_locks.executes_here(pid) && impl_->record_locks.has_locks(pid);
}

Result<UniqueFd> Descriptors::description(uint64_t id) const {
  return impl_->home.native_copy(HomeId{id});
}

Result<std::optional<Descriptors::RelayedSocket>> Descriptors::relayed_socket(int socket) const {
  struct stat attributes {};
  if (fstat(socket, &attributes) != 0) return errno_error("a socket");
  if (auto listener = impl_->listeners.source_of(attributes.st_ino)) {
    RelayedSocket relayed;
    relayed.home = {listener->home, listener->id.value};
    return std::optional(relayed);
  }
  auto found = impl_->relays.describe(socket);
  if (!found) return found.error();
  if (!*found) return std::optional<RelayedSocket>();
  RelayedSocket relayed;
  relayed.home = {(*found)->home, (*found)->id.value};
  relayed.arrived = (*found)->arrived;
  relayed.unread = std::move((*found)->unread);
  relayed.unsent = std::move((*found)->unsent);
  return std::optional(std::move(relayed));
}

Result<Descriptors::HomeOfSocket> Descriptors::socket_at_home(uint64_t id) const {
  HomeOfSocket known;
  HomeFile* file = impl_->home.find(HomeId{id});
  if (auto* socket = dynamic_cast<HomeSocket*>(file)) {
    known.consumed = socket->consumed();
    known.came = socket->came();
    known.unwritten = socket->unwritten();
  } else if (auto* listener = dynamic_cast<HomeListener*>(file)) {
    known.has_waiting = listener->has_waiting();
  } else {
    return errno_error("a socket of another node", ESTALE);
  }
  return known;
}

std::shared_ptr<void> Descriptors::hold_sockets() {
  return impl_->relays.hold();
}

TerminalMirrors& Descriptors::terminals() {
  return impl_->mirrors;
}

size_t Descriptors::descriptions_kept() const {
  return impl_->home.size();
}
size_t Descriptors::streams_open() const {
  return impl_->tree.open_files() + impl_->mirrors.size() + impl_->relays.size() +
         impl_->listeners.size();
}

}  // namespace krg
