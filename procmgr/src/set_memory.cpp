// SPDX-License-Identifier: GPL-2.0-or-later
#include "set_memory.h"

#include "image/known_mappings.h"
#include "process_status.h"
#include "touch.h"

namespace krg {
namespace {

// As the program itself might do it.
bool may_use(pid_t pid, RemoteAddr at, bool write) {
  const auto mappings = MappingTexts::read_maps(pid);
  if (!mappings) return false;
  for (const MappingText& mapping : mappings->all())
    if (mapping.start <= at.value && at.value < mapping.end)
      return write ? mapping.permissions[1] == 'w' : mapping.permissions[0] == 'r';
  return false;
}

Result<PlaceInSet> place_of(const FindInSet& find, pid_t tid, RemoteAddr at, bool write) {
  const auto status = read_process_status(tid);
  auto place = status ? find(status->pid, at) : std::nullopt;
  if (!place || !may_use(status->pid, at, write)) return errno_error("memory", EFAULT);
  return *place;
}

}  // namespace

MemorySource memory_of_sets(std::function<bool()> any, FindInSet find) {
  MemorySource source;
  source.waits = [any = std::move(any), find](pid_t tid, RemoteAddr at, size_t bytes, bool write) {
    return any() && touch_would_fault(tid, at, bytes, write, [&find](pid_t pid, RemoteAddr page) {
             return find(pid, page).has_value();
           });
  };
  source.read = [find](pid_t tid, RemoteAddr at, size_t bytes, auto done) {
    const auto place = place_of(find, tid, at, false);
    if (!place) return done(place.error());
    place->pages->read(place->offset, bytes,
                       [keeper = place->keeper, done = std::move(done)](Result<std::string> read) {
                         done(std::move(read));
                       });
  };
  source.write = [find](pid_t tid, RemoteAddr at, const std::string& bytes, auto done) {
    const auto place = place_of(find, tid, at, true);
    if (!place) return done(place.error());
    place->pages->write(place->offset, bytes,
                        [keeper = place->keeper, done = std::move(done)](Status written) {
                          done(std::move(written));
                        });
  };
  return source;
}

}  // namespace krg
