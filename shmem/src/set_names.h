// SetNames: the sets that programs make by name. The lowest living node orders all changes, one at
// a time; every node knows every name, so that another can take over. A set is open on all nodes
// before anybody hears of it, and used on none any more before any node closes it.
//
// Ids are random: a set that is made anew under an old name is another set.
//
// Threads: the loop's thread. Owned by KddmService. Messages: runtime/README.md.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "krg/runtime/messenger.h"
#include "krg/shmem/kddm.h"

namespace krg {

inline constexpr size_t kMaxSetNameBytes = 255;

struct NamedSet {
  SetId id;
  uint64_t object_bytes = 0;
};

class SetNames {
 public:
  enum class Verb : uint8_t { kCreate, kOpen, kOpenOrCreate, kDestroy };
  using Done = std::function<void(Result<NamedSet>)>;
  // Has to end every use of the set on this node, and to tell when there is none.
  using Stop = std::function<void(SetId, std::function<void()> stopped)>;

  SetNames(Messenger& messenger, Kddm& kddm, Stop stop);
  ~SetNames();
  SetNames(const SetNames&) = delete;
  SetNames& operator=(const SetNames&) = delete;

  // `object_bytes` is for kCreate and kOpenOrCreate; for kDestroy it is the set's id. Errors:
  // EEXIST (kCreate), ENOENT (kOpen), EIDRM (kDestroy), EINVAL (a size or name out of bounds; an
  // existing set of another size), EHOSTDOWN.
  void ask(Verb verb, std::string_view name, uint64_t object_bytes, Done done);
  // Nothing once it is destroyed.
  std::optional<NamedSet> find(SetId id) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
