// SPDX-License-Identifier: GPL-2.0-or-later
#include "our_transport.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace krg::perf {
namespace {

void require(const Status& status, const char* what) {
  if (status) return;
  std::fprintf(stderr, "%s: %s\n", what, status.error().message().c_str());
  std::exit(1);
}

}  // namespace

OurTransport::OurTransport(EventLoop& loop, Transport& transport, const Workload& work)
    : loop_(loop),
      transport_(transport),
      work_(work),
      peer_{static_cast<uint16_t>(1 - transport.self().value)},
      exposed_(work.get_bytes),
      local_(work.get_bytes),
      message_(work.message_bytes) {
  auto registered = transport.register_memory(exposed_);
  if (!registered) require(registered.error(), "register_memory");
  region_ = std::move(*registered);
  using Bytes = std::span<const std::byte>;
  transport.set_handler(kRegion, [this](NodeId, Bytes header, Bytes) {
    std::memcpy(&remote_, header.data(), sizeof remote_);
    introduced_ = true;
  });
  transport.set_handler(kPing, [this](NodeId from, Bytes, Bytes payload) {
    require(transport_.send(from, kPong, {}, payload), "send");
  });
  transport.set_handler(kPong, [this](NodeId, Bytes, Bytes) { ponged_ = true; });
  transport.set_handler(kStop, [this](NodeId, Bytes, Bytes) { stopped_ = true; });
}

void OurTransport::await(const bool& reached) {
  while (!reached) loop_.run_once(std::chrono::seconds(1));
}

void OurTransport::run(Figures& figures) {
  if (!introduced_) {
    RemoteRegion mine = region_->remote();
    require(transport_.send(peer_, kRegion, std::as_bytes(std::span(&mine, 1)), {}), "send");
    await(introduced_);
  }
  stopped_ = false;
  if (transport_.self().value == 1) return await(stopped_);
  ping_pong(figures.round_trip);
  gets(figures.get);
  require(transport_.send(peer_, kStop, {}, {}), "send");
  for (int i = 0; i < 100; ++i) loop_.run_once(std::chrono::microseconds(0));
}

void OurTransport::ping_pong(Samples& samples) {
  for (unsigned i = 0; i < work_.round_trips; ++i) {
    const auto start = Clock::now();
    ponged_ = false;
    require(transport_.send(peer_, kPing, {}, message_), "send");
    await(ponged_);
    samples.add(microseconds_since(start));
  }
}

void OurTransport::gets(Samples& samples) {
  for (unsigned i = 0; i < work_.gets; ++i) {
    const auto start = Clock::now();
    bool got = false;
    transport_.get(peer_, remote_, 0, local_, [&got](Status outcome) {
      require(outcome, "get");
      got = true;
    });
    await(got);
    samples.add(microseconds_since(start));
  }
}

}  // namespace krg::perf
