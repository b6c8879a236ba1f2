// SPDX-License-Identifier: GPL-2.0-or-later
#include "socket_turns.h"

#include <sys/stat.h>

#include <utility>
#include <vector>

namespace krg {

uint64_t SocketTurn::join(std::function<void()> wake) {
  members_.emplace(next_, std::move(wake));
  return next_++;
}

void SocketTurn::leave(uint64_t member) {
  members_.erase(member);
  if (holder_ == member) pass_on(member);
}

bool SocketTurn::take(uint64_t member) {
  if (holder_ != 0 && holder_ != member) return false;
  holder_ = member;
  return true;
}

void SocketTurn::release(uint64_t member) {
  if (holder_ == member) holder_ = 0;
}

void SocketTurn::pass_on(uint64_t member) {
  release(member);
  std::vector<uint64_t> order;
  for (auto next = members_.upper_bound(member); next != members_.end(); ++next)
    order.push_back(next->first);
  for (auto next = members_.begin(); next != members_.upper_bound(member); ++next)
    order.push_back(next->first);
  for (uint64_t each : order) {
    const auto found = members_.find(each);
    if (holder_ != 0) return;
    if (found == members_.end()) continue;
    const auto wake = found->second;  // it may leave meanwhile
    wake();
  }
}

std::shared_ptr<SocketTurn> SocketTurns::of(int socket) {
  struct stat attributes {};
  if (fstat(socket, &attributes) != 0) return std::make_shared<SocketTurn>();
  std::erase_if(turns_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<SocketTurn>& known = turns_[attributes.st_ino];
  auto turn = known.lock();
  if (!turn) known = turn = std::make_shared<SocketTurn>();
  return turn;
}

}  // namespace krg
