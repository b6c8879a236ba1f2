// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "act_as.h"
#include "ipc/native_ipc.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr int kCopies = 040000;                  // MSG_COPY, which glibc may leave out
constexpr uint64_t kMostContents = 256u << 20;   // of segments that no member has attached
constexpr size_t kMostMessageBytes = 64u << 20;  // msgmax is 8192 where nobody has changed it
constexpr const char* kFolder = "/proc/sysvipc/";

// The arguments of semctl(2) as one word: sound for all members of semun on x86-64.
template <class T>
int sem_control(int id, int number, int command, T argument) {
  return semctl(id, number, command, argument);
}

// A line of /proc/sysvipc, its columns by their names in the heading.
class Rows {
 public:
  static Result<Rows> read(const char* kind) {
    auto text = read_whole_file(std::string(kFolder) + kind);
    if (!text) return text.error();
    Rows rows;
    std::string_view rest = *text;
    rows.names_ = words(next_line(rest));
    while (!rest.empty()) rows.lines_.push_back(words(next_line(rest)));
    return rows;
  }
  size_t size() const { return lines_.size(); }
  int64_t number(size_t row, std::string_view name, int base = 10) const {
    const auto at = std::find(names_.begin(), names_.end(), name);
    const auto column = static_cast<size_t>(at - names_.begin());
    if (column >= lines_[row].size()) return 0;
    return to_number<int64_t>(lines_[row][column], base).value_or(0);
  }
  SavedIpcObject object(size_t row, std::string_view id) const {
    SavedIpcObject object;
    object.id = static_cast<int32_t>(number(row, id));
    object.key = static_cast<int32_t>(number(row, "key"));
    object.uid = static_cast<uint32_t>(number(row, "uid"));
    object.gid = static_cast<uint32_t>(number(row, "gid"));
    object.creator_uid = static_cast<uint32_t>(number(row, "cuid"));
    object.creator_gid = static_cast<uint32_t>(number(row, "cgid"));
    object.mode = static_cast<uint32_t>(number(row, "perms", 8)) & 0777;
    return object;
  }
  pid_t pid(size_t row, std::string_view name) const {
    return static_cast<pid_t>(number(row, name));
  }

 private:
  static std::vector<std::string> words(std::string_view line) {
    const auto all = split_words(line);
    return {all.begin(), all.end()};
  }
  std::vector<std::string> names_;
  std::vector<std::vector<std::string>> lines_;
};

Status take_semaphores(const TakesIpc& takes, SavedIpc& into) {
  auto rows = Rows::read("sem");
  if (!rows) return rows.error();
  for (size_t row = 0; row < rows->size(); ++row) {
    SavedSemaphores set{.object = rows->object(row, "semid"), .values = {}, .undos = {}};
    const int id = set.object.id;
    const std::string what = fmt::format("System V semaphores {}", id);
    std::vector<unsigned short> values(static_cast<size_t>(rows->number(row, "nsems")));
    std::vector<pid_t> users;
    if (sem_control(id, 0, GETALL, values.data()) != 0) return errno_error(what);
    for (size_t i = 0; i < values.size(); ++i)
      users.push_back(semctl(id, static_cast<int>(i), GETPID));
    auto is_wanted = takes(what, users);
    if (!is_wanted) return is_wanted.error();
    if (!*is_wanted) continue;
    set.values.assign(values.begin(), values.end());
    into.semaphores.push_back(std::move(set));
  }
  return {};
}

// Errors: ENOSYS: a kernel without CONFIG_CHECKPOINT_RESTORE.
Result<std::vector<SavedMessage>> copy_messages(int id, const std::string& what) {
  std::vector<SavedMessage> messages;
  auto limit = read_whole_file("/proc/sys/kernel/msgmax");
  const size_t most = limit ? to_number<size_t>(trimmed(*limit)).value_or(8192) : 8192;
  std::vector<char> buffer(sizeof(long) + std::min(most, kMostMessageBytes));
  for (long number = 0;; ++number) {
    const ssize_t got =
        msgrcv(id, buffer.data(), buffer.size() - sizeof(long), number, IPC_NOWAIT | kCopies);
    if (got < 0 && errno == ENOMSG) return messages;
    if (got < 0) return errno_error("what is in " + what);
    long type = 0;
    std::memcpy(&type, buffer.data(), sizeof type);
    messages.push_back({type, {buffer.data() + sizeof type, static_cast<size_t>(got)}});
  }
}

Status take_queues(const TakesIpc& takes, SavedIpc& into) {
  auto rows = Rows::read("msg");
  if (!rows) return rows.error();
  for (size_t row = 0; row < rows->size(); ++row) {
    SavedMessageQueue queue{.object = rows->object(row, "msqid"), .messages = {}};
    const int id = queue.object.id;
    const std::string what = fmt::format("System V message queue {}", id);
    auto is_wanted = takes(what, {rows->pid(row, "lspid"), rows->pid(row, "lrpid")});
    if (!is_wanted) return is_wanted.error();
    if (!*is_wanted) continue;
    msqid_ds state{};
    if (msgctl(id, IPC_STAT, &state) != 0) return errno_error(what);
    queue.most_bytes = state.msg_qbytes;
    auto messages = copy_messages(id, what);
    if (!messages) return messages.error();
    queue.messages = std::move(*messages);
    into.message_queues.push_back(std::move(queue));
  }
  return {};
}

// Attached by krgd.
class Attached {
 public:
  Attached(int id, int flags) : at_(shmat(id, nullptr, flags)) {}
  ~Attached() {
    if (*this) shmdt(at_);
  }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;
  explicit operator bool() const { return at_ != reinterpret_cast<void*>(-1); }
  char* bytes() const { return static_cast<char*>(at_); }

 private:
  void* at_;
};

Status take_segments(const TakesIpc& takes, const std::function<bool(int)>& is_attached,
                     SavedIpc& into) {
  auto rows = Rows::read("shm");
  if (!rows) return rows.error();
  uint64_t total = 0;
  for (size_t row = 0; row < rows->size(); ++row) {
    SavedSegment segment{.object = rows->object(row, "shmid"), .contents = {}};
    const int id = segment.object.id;
    const std::string what = fmt::format("System V segment {}", id);
    segment.bytes = static_cast<uint64_t>(rows->number(row, "size"));
    segment.is_removed = (rows->number(row, "perms", 8) & SHM_DEST) != 0;
    segment.is_attached = is_attached(id);
    if (!segment.is_attached) {
      auto is_wanted = takes(what, {rows->pid(row, "cpid"), rows->pid(row, "lpid")});
      if (!is_wanted) return is_wanted.error();
      if (!*is_wanted) continue;
      if ((total += segment.bytes) > kMostContents)
        return errno_error(what + ": more than 256 MiB that no member writes to", ENOTSUP);
      const Attached memory(id, SHM_RDONLY);
      if (!memory) return errno_error(what);
      segment.contents.assign(memory.bytes(), segment.bytes);
      if (segment.contents.find_first_not_of('\0') == std::string::npos) segment.contents.clear();
    }
    into.segments.push_back(std::move(segment));
  }
  return {};
}

// The next object of that kind gets this identifier.
Status choose_id(const char* kind, int id) {
  const std::string path = fmt::format("/proc/sys/kernel/{}_next_id", kind);
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(id);
  if (!file || write(file.get(), text.data(), text.size()) < 0)
    return errno_error("choosing identifiers (" + path + ")");
  return {};
}

// Made by `make` as its creator was, under its identifier.
template <class Make, class Remove>
Result<int> make_object(const char* kind, const char* what, const SavedIpcObject& object, Make make,
                        Remove remove) {
  if (auto chosen = choose_id(kind, object.id); !chosen) return chosen.error();
  const ActAs creator({object.creator_uid, object.creator_gid});
  const int id = make(object.key, IPC_CREAT | IPC_EXCL | static_cast<int>(object.mode));
  if (id < 0) return errno_error(fmt::format("{} {}", what, object.id));
  if (id == object.id) return id;
  remove(id);
  return errno_error(fmt::format("{} {}: another one has this identifier", what, object.id),
                     EEXIST);
}

template <class Permissions>
void set_permissions(Permissions& to, const SavedIpcObject& object) {
  to.uid = object.uid;
  to.gid = object.gid;
  to.mode = static_cast<decltype(to.mode)>(object.mode);
}

}  // namespace

Result<SavedIpc> read_native_system_v(const TakesIpc& takes,
                                      const std::function<bool(int segment)>& is_attached) {
  SavedIpc ipc;
  if (auto taken = take_semaphores(takes, ipc); !taken) return taken.error();
  if (auto taken = take_queues(takes, ipc); !taken) return taken.error();
  if (auto taken = take_segments(takes, is_attached, ipc); !taken) return taken.error();
  return ipc;
}

// ---- made again ----

Status MadeIpc::add(const SavedSemaphores& set) {
  const auto remove = [](int id) { return semctl(id, 0, IPC_RMID); };
  semid_ds old{};
  if (sem_control(set.object.id, 0, IPC_STAT, &old) == 0 && old.sem_perm.__key == set.object.key)
    remove(set.object.id);
  auto id = make_object(
      "sem", "System V semaphores", set.object,
      [&](key_t key, int flags) { return semget(key, static_cast<int>(set.values.size()), flags); },
      remove);
  if (!id) return id.error();
  semaphores_.push_back(*id);
  std::vector<unsigned short> values(set.values.begin(), set.values.end());
  semid_ds state{};
  if (sem_control(*id, 0, SETALL, values.data()) != 0 || sem_control(*id, 0, IPC_STAT, &state) != 0)
    return errno_error("System V semaphores");
  set_permissions(state.sem_perm, set.object);
  if (sem_control(*id, 0, IPC_SET, &state) != 0) return errno_error("System V semaphores");
  return {};
}

Status MadeIpc::add(const SavedMessageQueue& queue) {
  const auto remove = [](int id) { return msgctl(id, IPC_RMID, nullptr); };
  msqid_ds old{};
  if (msgctl(queue.object.id, IPC_STAT, &old) == 0 && old.msg_perm.__key == queue.object.key)
    remove(queue.object.id);
  auto id = make_object("msg", "System V message queue", queue.object, msgget, remove);
  if (!id) return id.error();
  message_queues_.push_back(*id);
  msqid_ds state{};
  if (msgctl(*id, IPC_STAT, &state) != 0) return errno_error("System V message queue");
  state.msg_qbytes = queue.most_bytes;
  set_permissions(state.msg_perm, queue.object);
  if (msgctl(*id, IPC_SET, &state) != 0) return errno_error("System V message queue");
  std::vector<char> buffer;
  for (const SavedMessage& message : queue.messages) {
    buffer.resize(sizeof(long) + message.text.size());
    const long type = message.type;
    std::memcpy(buffer.data(), &type, sizeof type);
    std::copy(message.text.begin(), message.text.end(), buffer.begin() + sizeof type);
    if (msgsnd(*id, buffer.data(), message.text.size(), IPC_NOWAIT) != 0)
      return errno_error("what is in a System V message queue");
  }
  return {};
}

Status MadeIpc::add(const SavedSegment& segment) {
  const auto remove = [](int id) { return shmctl(id, IPC_RMID, nullptr); };
  shmid_ds old{};
  if (shmctl(segment.object.id, IPC_STAT, &old) == 0 && old.shm_perm.__key == segment.object.key)
    remove(segment.object.id);
  auto id = make_object(
      "shm", "System V segment", segment.object,
      [&](key_t key, int flags) { return shmget(key, segment.bytes, flags); }, remove);
  if (!id) return id.error();
  segments_.push_back(*id);
  if (segment.is_removed) removed_.push_back(*id);
  shmid_ds state{};
  if (shmctl(*id, IPC_STAT, &state) != 0) return errno_error("System V segment");
  set_permissions(state.shm_perm, segment.object);
  if (shmctl(*id, IPC_SET, &state) != 0) return errno_error("System V segment");
  if (segment.contents.empty()) return {};
  const Attached memory(*id, 0);
  if (!memory) return errno_error("System V segment");
  std::memcpy(memory.bytes(), segment.contents.data(),
              std::min<uint64_t>(segment.contents.size(), segment.bytes));
  return {};
}

}  // namespace krg
