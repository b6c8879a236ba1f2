// SPDX-License-Identifier: GPL-2.0-or-later
#include "segment_calls.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstring>

#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "process_status.h"
#include "remote_syscalls.h"
#include "shared_segments.h"

namespace krg {
namespace {

constexpr int kCalls[] = {SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl};
constexpr int kModern = 0x100;  // IPC_64, which x86-64 always means
constexpr uint64_t kLargest = ~uint64_t{0} - (uint64_t{1} << 24);  // SHMMAX's and SHMALL's default

bool has_ipc_namespace_of_its_own(pid_t tid) {
  struct stat own {
  }, its{};
  return stat("/proc/self/ns/ipc", &own) != 0 ||
         stat(fmt::format("/proc/{}/ns/ipc", tid).c_str(), &its) != 0 || own.st_ino != its.st_ino;
}

template <class T>
T value_of(const std::string& bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

struct shmid_ds kernel_state(const SegmentState& from) {
  struct shmid_ds to {};
  to.shm_perm.__key = from.key;
  to.shm_perm.uid = from.uid;
  to.shm_perm.gid = from.gid;
  to.shm_perm.cuid = from.creator_uid;
  to.shm_perm.cgid = from.creator_gid;
  to.shm_perm.mode = static_cast<mode_t>(from.mode);
  to.shm_perm.__seq = static_cast<unsigned short>(from.id / 32768);
  to.shm_segsz = from.size;
  to.shm_atime = from.attached_s;
  to.shm_dtime = from.detached_s;
  to.shm_ctime = from.changed_s;
  to.shm_cpid = from.creator_pid;
  to.shm_lpid = from.last_pid;
  to.shm_nattch = from.attached;
  return to;
}

void give(SyscallBroker::Call& call, std::string_view bytes, int64_t result) {
  if (!call.is_valid()) return;
  if (!call.write_memory(RemoteAddr{call.arg(2)}, bytes)) return call.fail(EFAULT);
  call.succeed(result);
}

// Where shmat(2) wants the segment; 0: anywhere.
Result<uint64_t> wanted_address(uint64_t address, int flags) {
  if (address == 0) return flags & SHM_REMAP ? errno_error({}, EINVAL) : Result<uint64_t>(0);
  if (address % kPageBytes != 0 && !(flags & SHM_RND)) return errno_error({}, EINVAL);
  return address / kPageBytes * kPageBytes;
}

SharedMappings::Request map_request(const SegmentState& segment, uint64_t address, int flags) {
  uint64_t protection = PROT_READ;
  if (!(flags & SHM_RDONLY)) protection |= PROT_WRITE;
  if (flags & SHM_EXEC) protection |= PROT_EXEC;
  uint64_t map_flags = MAP_SHARED;
  if (address != 0) map_flags |= flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  return {address, segment.size, protection, map_flags, 0};
}

}  // namespace

SegmentCalls::SegmentCalls(NodeContext& node, SyscallBroker& broker, SharedFiles& files,
                           SharedMappings& mappings)
    : node_(node), files_(files), mappings_(mappings) {
  for (int number : kCalls)
    broker.set_handler(number, [this](Call call) { on_call(std::move(call)); });
  node.messenger.on_request<SegmentCount>(
      [this](NodeId, const SegmentCount& message, std::string_view, Messenger::Reply reply) {
        auto file = files_.find(message.file);
        PackedWriter count;
        count.put(uint64_t{file ? file->pages->mapping_count() : 0});
        reply.ok(count.bytes());
      });
}

void SegmentCalls::on_call(Call call) {
  auto status = read_process_status(call.tid());
  auto who = read_credentials(call.tid());
  if (!status || !who || has_ipc_namespace_of_its_own(call.tid())) return call.go_on();
  SegmentRequest request;
  request.pid = status->pid;
  request.uid = who->effective_uid;
  request.gid = who->effective_gid;
  const int number = call.number();
  auto shared = std::make_shared<Call>(std::move(call));
  if (number == SYS_shmdt) return detach(std::move(shared), request);
  if (number == SYS_shmget) return get(std::move(shared), request);
  request.id = static_cast<int32_t>(shared->arg(0));
  if (number == SYS_shmat) return attach(std::move(shared), request);
  control(std::move(shared), request);
}

void SegmentCalls::ask(const CallPtr& call, const SegmentRequest& request,
                       std::function<void(std::string)> answered) {
  PackedWriter groups;
  if (auto its = read_supplementary_groups(call->tid()))
    for (gid_t group : *its) groups.put(group);
  node_.messenger.request(kSharedHome, request, groups.bytes(),
                          [call, answered = std::move(answered)](Result<std::string> answer) {
                            if (!answer) return call->fail(answer.error().errno_or(EINVAL));
                            answered(std::move(*answer));
                          });
}

void SegmentCalls::get(CallPtr call, SegmentRequest request) {
  request.key = static_cast<int32_t>(call->arg(0));
  request.size = call->arg(1);
  request.flags = static_cast<int32_t>(call->arg(2));
  ask(call, request,
      [call](const std::string& answer) { call->succeed(value_of<SegmentState>(answer).id); });
}

// The home counts this node among the users until the mapping does so itself.
void SegmentCalls::attach(CallPtr call, SegmentRequest request) {
  request.op = SegmentOp::kAttach;
  request.flags = static_cast<int32_t>(call->arg(2));
  auto address = wanted_address(call->arg(1), request.flags);
  if (!address) return call->fail(address.error().errno_or(EINVAL));
  ask(call, request, [this, call, request, address = *address](const std::string& answer) {
    const auto segment = value_of<SegmentState>(answer);
    segments_.insert(segment.file);
    auto use = files_.counted_use(segment.file);
    mappings_.map(std::move(*call), segment.file, map_request(segment, address, request.flags),
                  request.flags & SHM_RDONLY ? O_RDONLY : O_RDWR, std::move(use));
  });
}

// A process may have come here with what it has attached elsewhere: then the home knows what it is.
void SegmentCalls::detach(CallPtr call, SegmentRequest request) {
  std::erase_if(segments_, [&](FileId id) { return !files_.find(id); });
  auto file = files_.beginning_at(request.pid, RemoteAddr{call->arg(0)});
  if (!file) return call->fail(EINVAL);
  if (segments_.contains(file->id)) return unmap(*call, request, *file);
  SegmentRequest question = request;
  question.op = SegmentOp::kIsSegment;
  question.size = file->id;
  ask(call, question, [this, call, request, file](const std::string&) {
    segments_.insert(file->id);
    unmap(*call, request, *file);
  });
}

void SegmentCalls::unmap(Call& call, SegmentRequest request, const SharedFile& file) {
  const RemoteAddr address{call.arg(0)};
  request.op = SegmentOp::kDetached;
  request.size = file.id;
  const uint64_t bytes = file.pages->pages() * kPageBytes;
  auto borrowed = [this, request, address, bytes](Result<std::shared_ptr<RemoteSyscalls>> thread) {
    if (!thread) return;
    auto calls = std::move(*thread);
    auto unmapped = [this, calls, request](int64_t result) {
      calls->set_result(result);
      node_.messenger.request(kSharedHome, request, {}, [](const Result<std::string>&) {});
    };
    calls->run(SYS_munmap, {address.value, bytes}, unmapped);
  };
  if (!mappings_.borrow(call, borrowed)) call.fail(EINVAL);
}

void SegmentCalls::control(CallPtr call, SegmentRequest request) {
  switch (static_cast<int>(call->arg(1)) & ~kModern) {
    case IPC_STAT:
      return state(std::move(call), request, false);
    case SHM_STAT:
      return state(std::move(call), request, true);
    case SHM_STAT_ANY:
      request.op = SegmentOp::kStatAny;
      return state(std::move(call), request, true);
    case IPC_SET: {
      auto wanted = call->read_memory(RemoteAddr{call->arg(2)}, sizeof(struct shmid_ds));
      if (!wanted) return call->fail(EFAULT);
      const auto perm = value_of<struct shmid_ds>(*wanted).shm_perm;
      request.op = SegmentOp::kSet;
      request.new_mode = perm.mode;
      request.new_uid = perm.uid;
      request.new_gid = perm.gid;
      return ask(call, request, [call](const std::string&) { call->succeed(0); });
    }
    case IPC_RMID:
      request.op = SegmentOp::kRemove;
      return ask(call, request, [call](const std::string&) { call->succeed(0); });
    case IPC_INFO:
    case SHM_INFO:
      return information(std::move(call), request);
    case SHM_LOCK:
    case SHM_UNLOCK:
      return call->succeed(0);
    default:
      return call->fail(EINVAL);
  }
}

void SegmentCalls::state(CallPtr call, SegmentRequest request, bool by_index) {
  if (request.op != SegmentOp::kStatAny) request.op = SegmentOp::kStat;
  request.by_index = by_index;
  ask(call, request, [call, by_index](const std::string& answer) {
    const auto segment = value_of<SegmentState>(answer);
    give(*call, object_bytes(kernel_state(segment)), by_index ? segment.id : 0);
  });
}

void SegmentCalls::information(CallPtr call, SegmentRequest request) {
  request.op = SegmentOp::kInfo;
  ask(call, request, [call](const std::string& answer) {
    const auto totals = value_of<SegmentTotals>(answer);
    if ((static_cast<int>(call->arg(1)) & ~kModern) == IPC_INFO) {
      struct shminfo limits {};
      limits.shmmax = limits.shmall = kLargest;
      limits.shmmin = 1;
      limits.shmmni = limits.shmseg = kMaxSegments;
      return give(*call, object_bytes(limits), totals.highest_index);
    }
    struct shm_info info {};
    info.used_ids = totals.segments;
    info.shm_tot = info.shm_rss = totals.pages;
    give(*call, object_bytes(info), totals.highest_index);
  });
}

void SegmentCalls::text(std::function<void(Result<std::string>)> done) {
  SegmentRequest request;
  request.op = SegmentOp::kText;
  node_.messenger.request(kSharedHome, request, {}, std::move(done));
}

}  // namespace krg
