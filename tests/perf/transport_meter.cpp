// SPDX-License-Identifier: GPL-2.0-or-later
#include "transport_meter.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "timing.h"

namespace krg::perf {
namespace {

constexpr unsigned kRoundTrips = 2'000;
constexpr size_t kOperationBytes = 1u << 20, kMessageBytes = 256u << 10, kPageBytes = 4096;
constexpr HandlerId kPing = 200, kPong = 201, kRegion = 202;

}  // namespace

void print_row(const char* what, double ours, double bare, const char* unit) {
  std::printf("%-44s %9.1f %9.1f %7.2f  %s\n", what, ours, bare, ours / bare, unit);
}

TransportMeter::TransportMeter(Transport& transport)
    : transport_(transport), exposed_(kOperationBytes), local_(kOperationBytes) {
  using Bytes = std::span<const std::byte>;
  transport.set_handler(kPing, [this](NodeId from, Bytes header, Bytes) {
    uint64_t bytes;
    std::memcpy(&bytes, header.data(), sizeof bytes);
    require(transport_.send(from, kPong, {}, std::span(exposed_).first(bytes)));
  });
  transport.set_handler(kPong, [this](NodeId, Bytes, Bytes) { ponged_ = true; });
  transport.set_handler(kRegion, [this](NodeId, Bytes header, Bytes) {
    std::memcpy(&remote_, header.data(), sizeof remote_);
    introduced_ = true;
  });
  region_ = require(transport.register_memory(exposed_));
}

void TransportMeter::introduce() {
  if (transport_.self().value == 0) return await(introduced_);
  const RemoteRegion mine = region_->remote();
  if (transport_.self().value == 1)
    require(transport_.send(NodeId{0}, kRegion, std::as_bytes(std::span(&mine, 1)), {}));
}

void TransportMeter::await(const bool& reached) {
  while (!reached) transport_.loop().run_once(std::chrono::seconds(1));
}

// A message that another one of so many bytes answers.
void TransportMeter::ask_for(uint64_t bytes) {
  ponged_ = false;
  require(transport_.send(NodeId{1}, kPing, std::as_bytes(std::span(&bytes, 1)), {}));
  await(ponged_);
}

double TransportMeter::round_trip_us(uint32_t pause_us) {
  Samples samples;
  for (unsigned i = 0; i < (pause_us ? kRoundTrips / 10 : kRoundTrips); ++i) {
    if (pause_us > 0) {
      bool over = false;
      auto timer =
          transport_.loop().after(std::chrono::microseconds(pause_us), [&] { over = true; });
      await(over);
    }
    const auto start = Clock::now();
    ask_for(kPageBytes);
    samples.add(microseconds_since(start));
  }
  return samples.median_us();
}

double TransportMeter::messages_us(size_t bytes) {
  const auto start = Clock::now();
  for (size_t left = bytes / kMessageBytes; left > 0; --left) ask_for(kMessageBytes);
  return microseconds_since(start);
}

double TransportMeter::gets_us(size_t bytes) {
  return one_sided_us(bytes, [this](Completion done) {
    transport_.get(NodeId{1}, remote_, 0, local_, std::move(done));
  });
}

double TransportMeter::gets_into_new_memory_us(size_t bytes) {
  const int memory = memfd_create("krg-bench", MFD_CLOEXEC);
  if (memory < 0 || ftruncate(memory, static_cast<off_t>(bytes)) != 0)
    require(errno_error("memfd"));
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (at == MAP_FAILED) require(errno_error("mmap"));
  std::span<std::byte> rest(static_cast<std::byte*>(at), bytes);
  const double us = one_sided_us(bytes, [&](Completion done) {
    transport_.get(NodeId{1}, remote_, 0, rest.first(kOperationBytes), std::move(done));
    rest = rest.subspan(kOperationBytes);
  });
  munmap(at, bytes);
  close(memory);
  return us;
}

double TransportMeter::puts_us(size_t bytes) {
  return one_sided_us(bytes, [this](Completion done) {
    transport_.put(NodeId{1}, remote_, 0, local_, std::move(done));
  });
}

double TransportMeter::one_sided_us(size_t bytes, const Start& start) {
  const auto begin = Clock::now();
  size_t left = bytes / kOperationBytes, under_way = 0;
  bool done = false;
  std::function<void()> next = [&] {
    for (; left > 0 && under_way < 2; --left, ++under_way)
      start([&](Status outcome) {
        require(outcome);
        --under_way;
        next();
      });
    done = under_way == 0;
  };
  next();
  await(done);
  return microseconds_since(begin);
}

}  // namespace krg::perf
