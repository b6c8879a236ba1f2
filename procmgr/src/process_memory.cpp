// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_memory.h"

#include <sys/uio.h>

namespace krg {

Status read_process_memory(pid_t tid, RemoteAddr from, std::span<char> to) {
  const iovec local{to.data(), to.size()};
  const iovec remote{reinterpret_cast<void*>(from.value), to.size()};
  const ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
  if (got < 0) return errno_error("process_vm_readv");
  if (static_cast<size_t>(got) != to.size()) return errno_error("process_vm_readv", EFAULT);
  return {};
}

Status write_process_memory(pid_t tid, RemoteAddr to, std::string_view bytes) {
  const iovec local{const_cast<char*>(bytes.data()), bytes.size()};
  const iovec remote{reinterpret_cast<void*>(to.value), bytes.size()};
  const ssize_t put = process_vm_writev(tid, &local, 1, &remote, 1, 0);
  if (put < 0) return errno_error("process_vm_writev");
  if (static_cast<size_t>(put) != bytes.size()) return errno_error("process_vm_writev", EFAULT);
  return {};
}

}  // namespace krg
