// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/semaphore_undo.h"

#include <sys/sem.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <span>

namespace krg {
namespace {

constexpr int kMost = 32767;      // of a value, and of what can be undone
constexpr size_t kTogether = 50;  // semaphores that are asked about in one call
constexpr size_t kMostOperations = 500;

struct Operations {
  std::array<sembuf, kMostOperations> all;
  size_t count = 0;
  void add(size_t number, int change, bool is_undone = false) {
    if (count == kMostOperations) return;
    all[count++] = {static_cast<unsigned short>(number), static_cast<short>(change),
                    static_cast<short>(IPC_NOWAIT | (is_undone ? SEM_UNDO : 0))};
  }
};

Result<int> carry_out(FrozenProcess& process, int id, const Operations& operations) {
  auto scratch = process.scratch();
  if (!scratch) return scratch.error();
  const std::span bytes(reinterpret_cast<const char*>(operations.all.data()),
                        operations.count * sizeof(sembuf));
  if (auto put = process.write(*scratch, bytes); !put) return put.error();
  return static_cast<int>(-process.call(
      SYS_semop, {static_cast<uint64_t>(id), scratch->value, uint64_t{operations.count}}));
}

// Goes beyond the bounds if more than `most` is to be added.
void ask_for_more(Operations& operations, size_t number, int value, int most) {
  if (value < kMost) operations.add(number, kMost - value);
  operations.add(number, most - kMost, true);
}
// Goes beyond them if more than `most` is to be taken away.
void ask_for_less(Operations& operations, size_t number, int value, int most) {
  if (value > 0) operations.add(number, -value);
  if (most > 0) return operations.add(number, kMost + 1 - most, true);
  operations.add(number, kMost, true);
  operations.add(number, -kMost);
  operations.add(number, 1, true);
}

using Ask = void (*)(Operations&, size_t number, int value, int most);

// Whether one of the semaphores from `first` to `last` goes beyond the bounds. All operations are
// taken back, since the last one cannot be done: the value is not zero, or too small.
Result<bool> is_beyond(FrozenProcess& process, int id, const std::vector<int32_t>& values,
                       size_t first, size_t last, Ask ask, int most) {
  Operations operations;
  for (size_t i = first; i < last; ++i) ask(operations, i, values[i], most);
  operations.add(last - 1, ask == ask_for_more ? -kMost : 0);
  auto error = carry_out(process, id, operations);
  if (!error) return error.error();
  if (*error == ERANGE) return true;
  // Who may not use it has not, or cannot undo it.
  if (*error == EAGAIN || *error == EACCES) return false;
  return errno_error("what semaphores have undone", *error <= 0 ? EPROTO : *error);
}

// The amount that is added, or taken away; 0: none.
Result<int32_t> amount(FrozenProcess& process, int id, const std::vector<int32_t>& values,
                       size_t number, Ask ask) {
  int low = 0, high = kMost + (ask == ask_for_more ? 0 : 1);
  while (low < high) {
    const int middle = (low + high) / 2;
    auto beyond = is_beyond(process, id, values, number, number + 1, ask, middle);
    if (!beyond) return beyond.error();
    if (*beyond)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace

Result<std::vector<int32_t>> semaphore_undo_of(FrozenProcess& process, int id,
                                               const std::vector<int32_t>& values) {
  std::vector<int32_t> adjustments;
  for (size_t first = 0; first < values.size(); first += kTogether) {
    const size_t last = std::min(values.size(), first + kTogether);
    for (const Ask ask : {ask_for_more, ask_for_less}) {
      auto any = is_beyond(process, id, values, first, last, ask, 0);
      if (!any) return any.error();
      if (!*any) continue;
      adjustments.resize(values.size());
      for (size_t i = first; i < last; ++i) {
        auto one = amount(process, id, values, i, ask);
        if (!one) return one.error();
        if (*one != 0) adjustments[i] = ask == ask_for_more ? *one : -*one;
      }
    }
  }
  return adjustments;
}

Status put_semaphore_undo(FrozenProcess& process, int id, const std::vector<int32_t>& values,
                          const std::vector<int32_t>& adjustments) {
  for (size_t i = 0; i < adjustments.size(); ++i) {
    const int change = adjustments[i], size = std::abs(change);
    if (change == 0) continue;
    Operations operations;
    const int first = values[i] + size <= kMost ? size : -size;
    // At the end comes the opposite of what is done now.
    operations.add(i, first, (first < 0) == (change > 0));
    operations.add(i, -first, (first > 0) == (change > 0));
    auto error = carry_out(process, id, operations);
    if (!error) return error.error();
    if (*error > 0) return errno_error("what semaphores have undone", *error);
  }
  return {};
}

}  // namespace krg
