// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/capability_service.h"

#include <array>
#include <cstring>
#include <utility>

namespace krg {
namespace {

constexpr uint8_t kVersion = 1;

// The four sets in the order of CapabilitySets; a bit of `named` for each that is to change, none
// to read only. The reply's payload is a SetsReply.
struct SetsRequest {
  static constexpr uint16_t kId = message_ids::kCapabilities;
  uint8_t version = kVersion;
  uint8_t named = 0;
  int32_t pid = 0;
  std::array<uint32_t, 4> bits{};
};
static_assert(sizeof(SetsRequest) == 24);
using SetsReply = std::array<uint32_t, 4>;

constexpr std::array<const char*, 4> kSetNames = {"effective", "permitted", "inheritable_effective",
                                                  "inheritable_permitted"};

std::array<std::optional<CapabilitySet>, 4> as_array(const CapabilityChange& change) {
  return {change.effective, change.permitted, change.inheritable_effective,
          change.inheritable_permitted};
}

CapabilityChange as_change(const SetsRequest& request) {
  auto set = [&request](unsigned i) {
    return request.named >> i & 1 ? std::optional(CapabilitySet{request.bits[i]}) : std::nullopt;
  };
  return {set(0), set(1), set(2), set(3)};
}

SetsRequest as_request(GlobalPid pid, const CapabilityChange& change) {
  SetsRequest request{.pid = pid.value};
  auto sets = as_array(change);
  for (unsigned i = 0; i < sets.size(); ++i) {
    if (!sets[i]) continue;
    request.named |= static_cast<uint8_t>(1u << i);
    request.bits[i] = sets[i]->bits;
  }
  return request;
}

SetsReply as_reply(const CapabilitySets& sets) {
  return {sets.effective.bits, sets.permitted.bits, sets.inheritable_effective.bits,
          sets.inheritable_permitted.bits};
}

nlohmann::json as_json(const CapabilitySets& sets) {
  nlohmann::json json;
  SetsReply bits = as_reply(sets);
  for (unsigned i = 0; i < bits.size(); ++i) json[kSetNames[i]] = bits[i];
  return json;
}

Result<SetsRequest> request_of(const nlohmann::json& arguments) {
  auto pid = arguments.find("pid");
  if (pid == arguments.end() || !pid->is_number_integer())
    return errno_error("the pid is missing", EINVAL);
  SetsRequest request{.pid = pid->get<int32_t>()};
  for (unsigned i = 0; i < kSetNames.size(); ++i) {
    auto set = arguments.find(kSetNames[i]);
    if (set == arguments.end()) continue;
    if (!set->is_number_unsigned())
      return errno_error(std::string(kSetNames[i]) + " is no set of bits", EINVAL);
    request.named |= static_cast<uint8_t>(1u << i);
    request.bits[i] = set->get<uint32_t>();
  }
  return request;
}

CapabilityService::Done answer_with_sets(ControlServer::Reply reply) {
  // std::function needs a copyable callable; a Reply only moves.
  auto shared = std::make_shared<ControlServer::Reply>(std::move(reply));
  return [shared](Result<CapabilitySets> sets) {
    if (sets) {
      shared->ok(as_json(*sets));
    } else {
      shared->fail(sets.error());
    }
  };
}

}  // namespace

CapabilityService::CapabilityService(NodeContext& node, CapabilityTable& table, Locate locate)
    : node_(node), table_(table), locate_(std::move(locate)) {
  node_.messenger.on_request<SetsRequest>(
      [this](NodeId, const SetsRequest& request, std::string_view, Messenger::Reply reply) {
        if (request.version != kVersion) return reply.fail(EPROTO);
        Result<CapabilitySets> sets = apply(request.pid, as_change(request));
        if (!sets) return reply.fail(sets.error());
        SetsReply bits = as_reply(*sets);
        reply.ok({reinterpret_cast<const char*>(&bits), sizeof bits});
      });
}

void CapabilityService::add_commands(ControlServer& server) {
  auto carry_out = [this](ControlServer::Request request, ControlServer::Reply reply) {
    Result<SetsRequest> wanted = request_of(request.arguments);
    if (!wanted) return reply.fail(wanted.error());
    set(GlobalPid{wanted->pid}, as_change(*wanted), answer_with_sets(std::move(reply)));
  };
  server.add_command(
      "capget", [carry_out](ControlServer::Request request, ControlServer::Reply reply) {
        request.arguments = {{"pid", request.arguments.value("pid", nlohmann::json())}};
        carry_out(std::move(request), std::move(reply));
      });
  server.add_command("capset", carry_out);
  server.add_command("capsupported", [](ControlServer::Request, ControlServer::Reply reply) {
    reply.ok({{"bits", kSupportedCapabilities.bits}});
  });
}

void CapabilityService::get(GlobalPid pid, Done done) {
  set(pid, {}, std::move(done));
}

void CapabilityService::set(GlobalPid pid, const CapabilityChange& change, Done done) {
  locate_(pid, [this, pid, change, done = std::move(done)](Result<NodeId> where) {
    if (!where) return done(where.error());
    if (*where == node_.self) return done(apply(pid.value, change));
    node_.messenger.request(*where, as_request(pid, change), {}, [done](Result<std::string> reply) {
      if (!reply) return done(reply.error());
      SetsReply bits{};
      if (reply->size() != sizeof bits)
        return done(errno_error("an answer of another version", EPROTO));
      std::memcpy(&bits, reply->data(), sizeof bits);
      done(CapabilitySets{{bits[0]}, {bits[1]}, {bits[2]}, {bits[3]}});
    });
  });
}

Result<CapabilitySets> CapabilityService::apply(pid_t pid, const CapabilityChange& change) {
  bool changes_any = change.effective || change.permitted || change.inheritable_effective ||
                     change.inheritable_permitted;
  if (changes_any)
    if (Status changed = table_.change(pid, change); !changed) return changed.error();
  return table_.of(pid);
}

}  // namespace krg
