// Patience: how long a node's loop looks for messages itself before it blocks, while somebody on
// this node waits whose program has said how threads are to wait (OpenMP's OMP_WAIT_POLICY). Who
// waits holds a claim for as long as that takes. The transport asks before it blocks.
//
// Threads: the loop's thread. Owned by main(); outlives all claims.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace krg {

class Patience {
 public:
  // kEndless: it looks as long as the claim stands (it still yields to who wants the core); kNone:
  // it blocks at once.
  enum class Kind : uint8_t { kUsual, kNone, kEndless };

  // Move-only; an empty one claims nothing.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept : of_(std::exchange(other.of_, nullptr)), kind_(other.kind_) {}
    Claim& operator=(Claim&& other) noexcept {
      std::swap(of_, other.of_);
      std::swap(kind_, other.kind_);
      return *this;
    }
    ~Claim() { drop(); }
    void drop() {
      if (Patience* of = std::exchange(of_, nullptr)) --of->count(kind_);
    }

   private:
    friend class Patience;
    Claim(Patience& of, Kind kind) : of_(&of), kind_(kind) { ++of.count(kind); }

    Patience* of_ = nullptr;
    Kind kind_ = Kind::kUsual;
  };

  Patience() = default;
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

  [[nodiscard]] Claim claim(Kind kind) { return {*this, kind}; }
  // Endless where anybody claims that, none where others claim nothing else.
  Kind now() const {
    for (Kind kind : {Kind::kEndless, Kind::kNone})
      if (claims_[static_cast<size_t>(kind)] > 0) return kind;
    return Kind::kUsual;
  }

 private:
  unsigned& count(Kind kind) { return claims_[static_cast<size_t>(kind)]; }

  std::array<unsigned, 3> claims_{};
};

}  // namespace krg
