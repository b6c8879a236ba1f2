// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>

#include "in_worker.h"
#include "packed_bytes.h"
#include "proc_view_messages.h"
#include "text_scan.h"

namespace krg {
namespace {

using proc_view_messages::EveryProcessRequest;
using proc_view_messages::FileOperation;
using proc_view_messages::FileRequest;
using proc_view_messages::ProcessesRequest;
template <class T>
using Done = NodeFiles::Done<T>;
using TextByPid = NodeFiles::TextByPid;

constexpr pid_t kKrgd = 1;  // init of the session

// "PID/NAME" or "PID/task/TID/NAME".
struct PidPath {
  pid_t pid = 0;
  pid_t tid = 0;
  std::string_view name;
  bool is_of_thread = false;
};
std::optional<PidPath> parse_pid_path(std::string_view path) {
  size_t slash = path.find('/');
  auto pid = to_number<pid_t>(path.substr(0, slash));
  if (slash == std::string_view::npos || !pid) return std::nullopt;
  PidPath parsed{*pid, *pid, path.substr(slash + 1)};
  if (parsed.name.substr(0, 5) != "task/") return parsed;
  parsed.name.remove_prefix(5);
  slash = parsed.name.find('/');
  auto tid = to_number<pid_t>(parsed.name.substr(0, slash));
  if (slash == std::string_view::npos || !tid) return std::nullopt;
  return PidPath{*pid, *tid, parsed.name.substr(slash + 1), true};
}

bool names_relatives(std::string_view name) {
  return name == "stat" || name == "status";
}

// Files that procfs makes at once, without waiting for anything that a program can hold: not for
// the address space, whose lock a program that waits for a page holds, perhaps a page that krgd has
// to bring.
bool never_blocks(const std::string& path) {
  constexpr std::array kOfProcesses{"stat", "status", "statm", "comm"};
  auto parsed = parse_pid_path(path);
  if (!parsed) return path == "uptime" || path == "loadavg";
  return std::find(kOfProcesses.begin(), kOfProcesses.end(), parsed->name) != kOfProcesses.end();
}

// Not a text: memory, and a word for each of its pages.
bool is_unreadable_elsewhere(std::string_view path) {
  auto parsed = parse_pid_path(path);
  return parsed && (parsed->name == "mem" || parsed->name == "pagemap");
}

// The session's processes in procfs, by number.
std::vector<pid_t> all_pids(const PlainFiles& proc) {
  std::vector<pid_t> pids;
  auto entries = proc.list({geteuid(), getegid()}, "");
  if (!entries) return pids;
  for (const FsDirEntry& entry : *entries)
    if (auto pid = to_number<pid_t>(entry.name); pid && *pid != kKrgd) pids.push_back(*pid);
  return pids;
}

std::vector<ListedProcess> list_processes(const PlainFiles& proc) {
  std::vector<ListedProcess> processes;
  for (pid_t pid : all_pids(proc)) {
    auto attributes = proc.attributes({geteuid(), getegid()}, std::to_string(pid));
    if (attributes) processes.push_back({pid, attributes->st_uid, attributes->st_gid, kNoNode, 0});
  }
  return processes;
}

TextByPid read_each(const PlainFiles& proc, FileUser user, const std::string& name) {
  TextByPid texts;
  for (pid_t pid : all_pids(proc))
    if (auto text = proc.read(user, fmt::format("{}/{}", pid, name)))
      texts.emplace(pid, std::move(*text));
  return texts;
}

template <class T>
std::string bytes_of(const T& value) {
  return PackedWriter().put(value).take();
}

Result<std::string> pack(Result<std::string> text) {
  return text;
}
template <class T>
requires std::is_trivially_copyable_v<T> Result<std::string> pack(const Result<T>& value) {
  if (!value) return value.error();
  return bytes_of(*value);
}
Result<std::string> pack(const Result<std::vector<FsDirEntry>>& entries) {
  if (!entries) return entries.error();
  PackedWriter writer;
  for (const FsDirEntry& entry : *entries) writer.put(entry.type).put_string(entry.name);
  return writer.take();
}

template <class T>
Result<T> unpack_value(const Result<std::string>& reply) {
  if (!reply) return reply.error();
  PackedReader reader(*reply);
  T value = reader.get<T>();
  if (!reader.ok()) return errno_error("answer of a node", EPROTO);
  return value;
}
Result<std::vector<FsDirEntry>> unpack_entries(const Result<std::string>& reply) {
  if (!reply) return reply.error();
  std::vector<FsDirEntry> entries;
  PackedReader reader(*reply);
  while (!reader.at_end()) {
    auto type = reader.get<mode_t>();
    entries.push_back({std::string(reader.get_string()), type});
  }
  if (!reader.ok()) return errno_error("answer of a node", EPROTO);
  return entries;
}
Result<TextByPid> unpack_texts(const Result<std::string>& reply) {
  if (!reply) return reply.error();
  TextByPid texts;
  PackedReader reader(*reply);
  while (!reader.at_end()) {
    auto pid = reader.get<pid_t>();
    texts.emplace(pid, reader.get_string());
  }
  if (!reader.ok()) return errno_error("answer of a node", EPROTO);
  return texts;
}

}  // namespace

struct NodeFiles::Impl : std::enable_shared_from_this<Impl> {
  Impl(NodeContext& n, ProcessTable& t, PidIdentities& i, PlainFiles p, int64_t epoch_ns)
      : node(n), table(t), identities(i), proc(std::move(p)), own_boot_epoch_ns(epoch_ns) {}

  void read(FileUser user, const std::string& path, Done<std::string> done);
  void put_relatives_right(const std::string& path, std::string text, Done<std::string> done);
  void complete(const std::string& path, Result<std::string> text, Done<std::string> done);
  void complete_all(const std::string& name, std::shared_ptr<TextByPid> all,
                    TextByPid::iterator next, Done<TextByPid> done);
  std::string rewritten(const PidPath& path, std::string_view text,
                        const PidIdentity& identity) const;
  void read_of_every_process(FileUser user, const std::string& name, Done<TextByPid> done);
  void put_all_relatives_right(const std::string& name, TextByPid texts, Done<TextByPid> done);
  void processes(Done<std::vector<ListedProcess>> done);

  // Runs `work` on this node's procfs in a worker.
  template <class Work, class T>
  void on_proc(Work work, Done<T> done) {
    in_worker(
        node.workers, [proc = proc, work = std::move(work)] { return work(proc); },
        std::move(done));
  }
  void ask(NodeId to, FileOperation operation, FileUser user, const std::string& path,
           std::string_view data, Done<std::string> done) {
    FileRequest request{
        .version = 1, .operation = operation, .padding = 0, .uid = user.uid, .gid = user.gid};
    node.messenger.request(to, request, PackedWriter().put_string(path).put_string(data).take(),
                           std::move(done));
  }
  void answer(const FileRequest& request, std::string_view payload, Messenger::Reply reply);
  void serve();

  NodeContext& node;
  ProcessTable& table;
  PidIdentities& identities;
  const PlainFiles proc;
  const int64_t own_boot_epoch_ns;
  ProcTexts texts;
};

void NodeFiles::Impl::read(FileUser user, const std::string& path, Done<std::string> done) {
  if (is_unreadable_elsewhere(path))
    return done(errno_error("memory of a process on another node", EOPNOTSUPP));
  auto finish = [weak = weak_from_this(), path, done = std::move(done)](Result<std::string> text) {
    auto self = weak.lock();
    if (!self) return done(std::move(text));
    const auto complete = [weak, path, done](Result<std::string> known) {
      auto alive = weak.lock();
      alive ? alive->complete(path, std::move(known), done) : done(std::move(known));
    };
    if (!text) return complete(std::move(text));
    self->put_relatives_right(path, std::move(*text), complete);
  };
  if (never_blocks(path) && user.uid == geteuid()) return finish(proc.read(user, path));
  on_proc([user, path](const PlainFiles& files) { return files.read(user, path); },
          Done<std::string>(finish));
}

void NodeFiles::Impl::complete(const std::string& path, Result<std::string> text,
                               Done<std::string> done) {
  auto parsed = parse_pid_path(path);
  if (!parsed || !texts.concern(parsed->pid)) return done(std::move(text));
  texts.complete({parsed->pid, parsed->is_of_thread ? parsed->tid : 0, std::string(parsed->name),
                  std::move(text)},
                 std::move(done));
}

// Those that are to be completed, one after the other: there are few.
void NodeFiles::Impl::complete_all(const std::string& name, std::shared_ptr<TextByPid> all,
                                   TextByPid::iterator next, Done<TextByPid> done) {
  while (next != all->end() && !texts.concern(next->first)) ++next;
  if (next == all->end()) return done(std::move(*all));
  texts.complete(
      {next->first, 0, name, std::move(next->second)},
      [weak = weak_from_this(), name, all, next, done = std::move(done)](Result<std::string> text) {
        next->second = text ? std::move(*text) : std::string();
        auto self = weak.lock();
        if (!self) return done(std::move(*all));
        self->complete_all(name, all, std::next(next), done);
      });
}

void NodeFiles::Impl::put_relatives_right(const std::string& path, std::string text,
                                          Done<std::string> done) {
  auto parsed = parse_pid_path(path);
  if (!parsed || !names_relatives(parsed->name) || !identities.differs_from_kernel(parsed->pid))
    return done(std::move(text));
  identities.resolve({parsed->pid}, [weak = weak_from_this(), path, text = std::move(text),
                                     done = std::move(done)](PidIdentities::Identities known) {
    auto self = weak.lock();
    if (!self || known.empty()) return done(text);
    done(self->rewritten(*parse_pid_path(path), text, known.begin()->second));
  });
}

std::string NodeFiles::Impl::rewritten(const PidPath& path, std::string_view text,
                                       const PidIdentity& identity) const {
  if (path.name == "status") return rewrite_pid_status(text, identity);
  std::optional<uint64_t> start_ticks;
  if (path.tid == path.pid)  // the other threads began when their kernel says
    start_ticks =
        ticks_since_boot(identity.start_epoch_ns, own_boot_epoch_ns, sysconf(_SC_CLK_TCK));
  return rewrite_pid_stat(text, identity, start_ticks);
}

void NodeFiles::Impl::read_of_every_process(FileUser user, const std::string& name,
                                            Done<TextByPid> done) {
  auto finish = [weak = weak_from_this(), name, done = std::move(done)](Result<TextByPid> texts) {
    auto self = weak.lock();
    if (!self || !texts) return done(std::move(texts));
    for (pid_t shadow : self->table.shadows()) texts->erase(shadow);
    self->put_all_relatives_right(name, std::move(*texts),
                                  [weak, name, done](Result<TextByPid> known) {
                                    auto alive = weak.lock();
                                    if (!alive || !known) return done(std::move(known));
                                    auto all = std::make_shared<TextByPid>(std::move(*known));
                                    alive->complete_all(name, all, all->begin(), done);
                                  });
  };
  on_proc([user, name](
              const PlainFiles& files) { return Result<TextByPid>(read_each(files, user, name)); },
          Done<TextByPid>(finish));
}

void NodeFiles::Impl::put_all_relatives_right(const std::string& name, TextByPid texts,
                                              Done<TextByPid> done) {
  std::vector<pid_t> pids;
  if (names_relatives(name))
    for (const auto& [pid, text] : texts)
      if (identities.differs_from_kernel(pid)) pids.push_back(pid);
  if (pids.empty()) return done(std::move(texts));
  auto shared = std::make_shared<TextByPid>(std::move(texts));
  identities.resolve(pids, [weak = weak_from_this(), name, shared,
                            done = std::move(done)](PidIdentities::Identities known) {
    auto self = weak.lock();
    for (const auto& [pid, identity] : known) {
      auto text = shared->find(pid);
      if (self && text != shared->end())
        text->second = self->rewritten({pid, pid, name}, text->second, identity);
    }
    done(std::move(*shared));
  });
}

void NodeFiles::Impl::processes(Done<std::vector<ListedProcess>> done) {
  auto finish = [weak = weak_from_this(),
                 done = std::move(done)](Result<std::vector<ListedProcess>> listed) {
    auto self = weak.lock();
    if (!self || !listed) return done(std::move(listed));
    std::erase_if(*listed, [&](const auto& process) { return self->table.is_hidden(process.pid); });
    for (ListedProcess& process : *listed) {
      const ProcessTable::Shadow* shadow = self->table.find_shadow(process.pid);
      process.runs_on = shadow ? shadow->body_node : self->node.self;
    }
    done(std::move(listed));
  };
  on_proc(
      [](const PlainFiles& files) {
        return Result<std::vector<ListedProcess>>(list_processes(files));
      },
      Done<std::vector<ListedProcess>>(finish));
}

void NodeFiles::Impl::answer(const FileRequest& request, std::string_view payload,
                             Messenger::Reply reply) {
  auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
  auto finish = [answer](const auto& result) {
    Result<std::string> packed = pack(result);
    packed ? answer->ok(*packed) : answer->fail(packed.error());
  };
  PackedReader reader(payload);
  std::string path(reader.get_string()), data(reader.get_string());
  FileUser user{request.uid, request.gid};
  switch (request.operation) {
    case FileOperation::kRead:
      return read(user, path, finish);
    case FileOperation::kWrite:
      return on_proc(
          [user, path, data](const PlainFiles& files) { return files.write(user, path, data); },
          Done<size_t>(finish));
    case FileOperation::kAttributes:
      if (auto pid = to_number<pid_t>(path); pid && table.find_shadow(*pid))
        return answer->fail(EREMOTE);
      return on_proc([user, path](const PlainFiles& files) { return files.attributes(user, path); },
                     Done<struct stat>(finish));
    case FileOperation::kLinkTarget:
      return on_proc(
          [user, path](const PlainFiles& files) { return files.link_target(user, path); },
          Done<std::string>(finish));
    case FileOperation::kList:
      return on_proc([user, path](const PlainFiles& files) { return files.list(user, path); },
                     Done<std::vector<FsDirEntry>>(finish));
  }
  answer->fail(EPROTO);
}

void NodeFiles::Impl::serve() {
  std::weak_ptr<Impl> weak = weak_from_this();
  node.messenger.on_request<FileRequest>(
      [weak](NodeId, const FileRequest& request, std::string_view payload, Messenger::Reply reply) {
        if (auto self = weak.lock()) self->answer(request, payload, std::move(reply));
      });
  node.messenger.on_request<EveryProcessRequest>([weak](NodeId, const EveryProcessRequest& request,
                                                        std::string_view name,
                                                        Messenger::Reply reply) {
    auto self = weak.lock();
    if (!self) return;
    auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
    self->read_of_every_process({request.uid, request.gid}, std::string(name),
                                [answer](Result<TextByPid> texts) {
                                  if (!texts) return answer->fail(texts.error());
                                  PackedWriter payload;
                                  for (const auto& [pid, text] : *texts)
                                    payload.put(pid).put_string(text);
                                  answer->ok(payload.bytes());
                                });
  });
  node.messenger.on_request<ProcessesRequest>(
      [weak](NodeId, const ProcessesRequest&, std::string_view, Messenger::Reply reply) {
        auto self = weak.lock();
        if (!self) return;
        auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
        self->processes([answer](Result<std::vector<ListedProcess>> processes) {
          PackedWriter payload;
          if (processes)
            for (const ListedProcess& process : *processes) payload.put(process);
          answer->ok(payload.bytes());
        });
      });
}

NodeFiles::NodeFiles(NodeContext& node, ProcessTable& table, PidIdentities& identities,
                     PlainFiles proc, int64_t own_boot_epoch_ns)
    : impl_(std::make_shared<Impl>(node, table, identities, std::move(proc), own_boot_epoch_ns)) {
  impl_->serve();
}
NodeFiles::~NodeFiles() = default;

void NodeFiles::set_texts(ProcTexts texts) {
  impl_->texts = std::move(texts);
}

bool NodeFiles::are_completed(pid_t pid) const {
  return impl_->texts.concern(pid);
}

void NodeFiles::read(NodeId node, FileUser user, std::string path, Done<std::string> done) {
  if (node == impl_->node.self) return impl_->read(user, path, std::move(done));
  impl_->ask(node, FileOperation::kRead, user, path, {}, std::move(done));
}

void NodeFiles::write(NodeId node, FileUser user, std::string path, std::string_view data,
                      Done<size_t> done) {
  impl_->ask(
      node, FileOperation::kWrite, user, path, data,
      [done = std::move(done)](Result<std::string> reply) { done(unpack_value<size_t>(reply)); });
}

void NodeFiles::attributes(NodeId node, FileUser user, std::string path, Done<struct stat> done) {
  impl_->ask(node, FileOperation::kAttributes, user, path, {},
             [done = std::move(done)](Result<std::string> reply) {
               done(unpack_value<struct stat>(reply));
             });
}

void NodeFiles::link_target(NodeId node, FileUser user, std::string path, Done<std::string> done) {
  impl_->ask(node, FileOperation::kLinkTarget, user, path, {}, std::move(done));
}

void NodeFiles::list(NodeId node, FileUser user, std::string path,
                     Done<std::vector<FsDirEntry>> done) {
  impl_->ask(node, FileOperation::kList, user, path, {},
             [done = std::move(done)](Result<std::string> reply) { done(unpack_entries(reply)); });
}

void NodeFiles::read_of_every_process(NodeId node, FileUser user, std::string name,
                                      Done<TextByPid> done) {
  if (node == impl_->node.self) return impl_->read_of_every_process(user, name, std::move(done));
  EveryProcessRequest request{.version = 1, .padding = {}, .uid = user.uid, .gid = user.gid};
  impl_->node.messenger.request(
      node, request, name,
      [done = std::move(done)](Result<std::string> reply) { done(unpack_texts(reply)); });
}

void NodeFiles::processes(NodeId node, Done<std::vector<ListedProcess>> done) {
  if (node == impl_->node.self) return impl_->processes(std::move(done));
  impl_->node.messenger.request(node, ProcessesRequest{}, {},
                                [done = std::move(done)](Result<std::string> reply) {
                                  if (!reply) return done(reply.error());
                                  std::vector<ListedProcess> processes;
                                  PackedReader reader(*reply);
                                  while (!reader.at_end())
                                    processes.push_back(reader.get<ListedProcess>());
                                  done(std::move(processes));
                                });
}

}  // namespace krg
