// FdExporter: descriptors that tell of events. SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include <algorithm>

#include "fd_exporter.h"
#include "socket_users.h"

namespace krg {
namespace {

// A socket that was closed is watched on while krgd has a copy of it: without that the kernel would
// have forgotten it.
bool is_ours_alone(const PolledFd& polled, const std::vector<StolenFd>& all,
                   OthersDescriptors& others) {
  return polled.is_socket &&
         std::none_of(all.begin(), all.end(),
                      [&](const StolenFd& own) { return own.attributes.st_ino == polled.inode; }) &&
         !others.have_link(link_of_socket(polled.inode));
}

}  // namespace

// One that only the process has is made anew. An eventfd that others have, too, stays, and is
// counted where it is; a signalfd tells whoever reads it of his own signals. Of others, somebody
// would wait for events in vain.
Result<std::string> FdExporter::export_event(StolenFd fd, pid_t pid, WhichFds which,
                                             const std::vector<StolenFd>& all,
                                             OthersDescriptors& others) {
  const EventKind kind = *event_kind_of(fd);
  const bool is_alone = which != WhichFds::kForked &&
                        home_.of_description(fd.copy.get()).value == 0 && !others.have(fd);
  if (!is_alone && kind == EventKind::kEvent) return export_counter(std::move(fd));
  if (!is_alone && kind != EventKind::kSignal)
    return not_taken_along(fd, "which other processes have, too");
  auto description = describe_event_fd(pid, fd.number, kind);
  if (!description) return description.error();
  for (const PolledFd& polled : polled_by(*description)) {
    if (std::any_of(all.begin(), all.end(), [&](const StolenFd& other) {
          return other.number == polled.number && other.attributes.st_ino == polled.inode;
        }))
      continue;
    if (!is_ours_alone(polled, all, others))
      return not_taken_along(
          fd, fmt::format("which watches descriptor {}, which was closed", polled.number));
    description = without_polled(*description, polled);
  }
  FdRecipe recipe = recipe_for(FdKind::kEvent, fd);
  recipe.detail = static_cast<uint32_t>(kind);
  return encode_recipe(recipe, *description);
}

// All who have it count in one.
Result<std::string> FdExporter::export_counter(StolenFd fd) {
  if (!can_read_eventfds_at_once()) return not_taken_along(fd, "which other processes have, too");
  FdRecipe recipe = recipe_for(FdKind::kStream, fd);
  recipe.id = home_.of_description(fd.copy.get());
  if (recipe.id.value != 0)
    recipe.guard = home_.add_guard(std::move(fd.copy), recipe.id);
  else
    recipe.id = recipe.guard =
        home_.add(HomePipe::create_of_counter(node_.loop, std::move(fd.copy)));
  return encode_recipe(recipe, {});
}

// Its watches are of files as that node has them, and so are the events that nobody has read.
Result<std::string> FdExporter::export_inotify(StolenFd fd, WhichFds which,
                                               OthersDescriptors& others) {
  return export_unshared(std::move(fd), FdKind::kInotify, HomePipe::create_of_events, which,
                         others);
}

// What the terminal's processes write waits there until it is read.
Result<std::string> FdExporter::export_master(StolenFd fd, WhichFds which,
                                              OthersDescriptors& others) {
  return export_unshared(std::move(fd), FdKind::kMaster, HomePipe::create_of_master, which, others);
}

Result<std::string> FdExporter::export_unshared(StolenFd fd, FdKind kind, const MakeHome& make,
                                                WhichFds which, OthersDescriptors& others) {
  if (which != WhichFds::kAll) return not_taken_along(fd);
  if (others.have(fd)) return not_taken_along(fd, "which other processes have, too");
  FdRecipe recipe = recipe_for(kind, fd);
  recipe.id = recipe.guard = home_.add(make(node_.loop, std::move(fd.copy)));
  return encode_recipe(recipe, {});
}

// What it says of the process is true there, wherever that goes, whoever asks.
Result<std::string> FdExporter::export_pidfd(StolenFd fd, pid_t pid) {
  auto process = process_of_pidfd(fd);
  if (!process) return process.error();
  if (*process == pid) return not_taken_along(fd, "of the process itself");
  FdRecipe recipe = recipe_for(FdKind::kPidfd, fd);
  recipe.detail = static_cast<uint32_t>(std::max(*process, 0));
  recipe.id = recipe.guard = home_.add(HomePipe::create_of_events(node_.loop, std::move(fd.copy)));
  return encode_recipe(recipe, {});
}

}  // namespace krg
