// SpreadProcess: system calls that krgd answers (call_arguments.h). krgd cannot wait for a page of
// its own set, and one that is here may be taken by another node at any moment: so what such a call
// reads is copied to memory that is here only, the thread makes it with that, and what it has
// written goes to the program's pages as any node's writes do, wherever they are.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/mman.h>

#include <cstring>

#include "process_memory.h"
#include "spread/spread_process.h"

namespace krg {

struct SpreadProcess::Returning {
  struct Piece {
    RemoteAddr to;
    std::string bytes;
  };
  std::vector<Piece> pieces;  // none crosses a page
  std::function<void()> done;

  void add(RemoteAddr to, std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t length = std::min<size_t>(bytes.size(), kPageBytes - to.value % kPageBytes);
      pieces.push_back({to, std::string(bytes.substr(0, length))});
      bytes.remove_prefix(length);
      to = to + length;
    }
  }
};

// How much of it the program may use so, from its beginning on.
uint64_t SpreadProcess::usable(RemoteAddr start, uint64_t bytes, uint32_t protection) const {
  RemoteAddr end = start;
  for (const SpreadRange& range : parts_.memory.in(start, bytes)) {
    if (range.start != end || !(range.protection & protection)) break;
    end = range.end();
  }
  return end.value - start.value;
}

void SpreadProcess::begin_loans(const ThreadPtr& thread) {
  auto wanted = arguments_for_krgd(thread->entry);
  if (wanted.empty()) return resume(thread);
  lend_next(thread, std::make_shared<std::vector<CallArgument>>(std::move(wanted)));
}

void SpreadProcess::lend_next(const ThreadPtr& thread,
                              const std::shared_ptr<std::vector<CallArgument>>& wanted) {
  while (!wanted->empty()) {
    const CallArgument one = wanted->back();
    wanted->pop_back();
    const RemoteAddr from{argument(thread->entry, one.index)};
    const bool is_up_to = one.use == CallArgument::Use::kReadUpTo;
    const uint64_t bytes = usable(from, one.bytes, one.is_written() ? PROT_WRITE : PROT_READ);
    if (bytes == 0 || (bytes < one.bytes && !is_up_to)) continue;  // the call itself says what is
    auto loan = parts_.scratch.lend(bytes + is_up_to);
    if (!loan) continue;
    auto shared = std::make_shared<CallMemory::Loan>(std::move(*loan));
    return read_memory(from, bytes,
                       [this, thread, wanted, one, from, shared,
                        alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
                         if (alive.expired() || thread->is_gone) return;
                         if (read && read->size() <= shared->bytes().size()) {
                           std::memset(shared->bytes().data(), 0, shared->bytes().size());
                           std::memcpy(shared->bytes().data(), read->data(), read->size());
                           thread->loans.push_back({one, from, std::move(*shared)});
                         }
                         lend_next(thread, wanted);
                       });
  }
  if (thread->loans.empty()) return resume(thread);
  user_regs_struct call = thread->entry;
  for (const LentArgument& loan : thread->loans)
    set_argument(call, loan.argument.index, loan.memory.address().value);
  change_call(thread, call);
}

// Stands behind the call: it has its own arguments again, also where it is to make it once more.
void SpreadProcess::end_loans(const ThreadPtr& thread) {
  auto registers = thread->traced->registers();
  if (!registers) return;  // its end is told
  for (const LentArgument& loan : thread->loans)
    set_argument(*registers, loan.argument.index, loan.from.value);
  static_cast<void>(thread->traced->set_registers(*registers));
  thread->has_changed_arguments = false;
  auto returning =
      std::make_shared<Returning>(Returning{{}, [this, thread, alive = std::weak_ptr(alive_)] {
                                              if (!alive.expired() && !thread->is_gone)
                                                on_exit(thread);
                                            }});
  const auto result = static_cast<int64_t>(registers->rax);
  for (const LentArgument& loan : thread->loans) {
    if (result < 0) break;
    const std::span<const char> all = loan.memory.bytes();
    const std::string_view bytes(all.data(), all.size());
    returning->add(loan.from, bytes.substr(0, bytes_written(loan.argument, registers->rax, bytes)));
  }
  thread->loans.clear();
  return_next(returning);
}

void SpreadProcess::write_memory(RemoteAddr to, std::string_view bytes,
                                 std::function<void()> done) {
  auto returning = std::make_shared<Returning>(Returning{{}, std::move(done)});
  returning->add(to, bytes);
  return_next(returning);
}

void SpreadProcess::return_next(const std::shared_ptr<Returning>& returning) {
  if (returning->pieces.empty()) return returning->done();
  const auto piece = std::move(returning->pieces.back());
  returning->pieces.pop_back();
  const auto offset = parts_.memory.offset_of(piece.to, piece.bytes.size());
  if (!offset) {  // at home only, or unmapped meanwhile
    static_cast<void>(write_process_memory(parts_.pid, piece.to, piece.bytes));
    return return_next(returning);
  }
  parts_.pages->write(*offset, piece.bytes,
                      [this, returning, alive = std::weak_ptr(alive_)](const Status&) {
                        if (!alive.expired()) return_next(returning);
                      });
}

}  // namespace krg
