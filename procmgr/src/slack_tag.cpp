// SPDX-License-Identifier: GPL-2.0-or-later
#include "slack_tag.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <charconv>
#include <memory>
#include <string>

#include "krg/runtime/check.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A thread that starts while the others are tagged may have missed the tag: the list is read again
// until it shows nothing new.
constexpr int kMaxPasses = 16;

std::string slack_path(pid_t tid) {
  return fmt::format("/proc/{}/timerslack_ns", tid);
}

Error gone_or(std::string context, int number) {
  if (number == ENOENT || number == ESRCH) return errno_error("it has ended", ESRCH);
  return errno_error(std::move(context), number);
}

// True when the thread had another tag before.
Result<bool> tag_thread(pid_t tid, unsigned tag) {
  Result<unsigned> before = read_slack_tag(tid);
  if (!before) return before.error();
  if (*before == tag) return false;
  std::string path = slack_path(tid);
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return gone_or(path, errno);
  std::string text = fmt::format("{}", slack_ns_of(tag));
  if (write(fd.get(), text.data(), text.size()) < 0) return gone_or(path, errno);
  Result<unsigned> after = read_slack_tag(tid);
  if (after && *after != tag)
    return errno_error(fmt::format("thread {} keeps no timer slack (real-time?)", tid), ENOTSUP);
  return true;
}

// Errors: as tag_thread(), for a thread that still exists.
Result<bool> tag_threads_once(pid_t pid, unsigned tag) {
  std::string path = fmt::format("/proc/{}/task", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> tasks(opendir(path.c_str()), closedir);
  if (!tasks) return gone_or(path, errno);
  bool any_new = false;
  while (const dirent* entry = readdir(tasks.get())) {
    pid_t tid = atoi(entry->d_name);
    if (tid <= 0) continue;
    Result<bool> is_new = tag_thread(tid, tag);
    if (!is_new && is_new.error().errno_or(0) == ESRCH && tid != pid) continue;
    if (!is_new) return is_new.error();
    any_new = any_new || *is_new;
  }
  return any_new;
}

}  // namespace

Result<unsigned> read_slack_tag(pid_t tid) {
  std::string path = slack_path(tid);
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return gone_or(path, errno);
  char text[32];
  ssize_t length = read(fd.get(), text, sizeof text);
  if (length < 0) return gone_or(path, errno);
  uint64_t slack_ns = 0;
  std::from_chars(text, text + length, slack_ns);
  bool is_tagged = slack_ns > kDefaultSlackNs && slack_ns <= kDefaultSlackNs + kMaxSlackTag;
  return is_tagged ? static_cast<unsigned>(slack_ns - kDefaultSlackNs) : 0;
}

Status write_slack_tag_of_still(pid_t pid, unsigned tag) {
  check(tag <= kMaxSlackTag, "the tag is small");
  Result<bool> tagged = tag_threads_once(pid, tag);
  return tagged ? Status{} : tagged.error();
}

Status write_slack_tag(pid_t pid, unsigned tag) {
  check(tag <= kMaxSlackTag, "the tag is small");
  for (int pass = 0; pass < kMaxPasses; ++pass) {
    Result<bool> any_new = tag_threads_once(pid, tag);
    if (!any_new) return any_new.error();
    if (!*any_new) return {};
  }
  return errno_error(fmt::format("process {} starts threads too fast to be marked", pid), EAGAIN);
}

}  // namespace krg
